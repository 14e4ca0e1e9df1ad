//! `cargo xtask`: what developers and newcomers start.
//!
//! Only the command line is here; one file of `command` is one subcommand.

#![expect(clippy::print_stdout, reason = "a command line tool talks on standard output")]

mod command;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::build_tools;

/// Celeriac's development tasks. They start what they need, and stop what they started.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show two workers and a producer at work.
    Demo,
    /// Run every check: format, clippy, documentation, and all tests with broker and Python.
    Test(command::test::Args),
    /// Measure the speed against a bare client, Celery and Dramatiq.
    Bench(command::bench::Args),
    /// Kill workers and the broker while chords are joined.
    Chaos(command::chaos::Args),
    /// Feed the decoders with random bytes.
    Fuzz(command::fuzz::Args),
    /// The private RabbitMQ node of this checkout, by hand.
    Broker(command::broker::Args),
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> xtask::Result<bool> {
    if !matches!(command, Command::Broker(_)) {
        build_tools::find_or_install()?;
    }
    match command {
        Command::Demo => command::demo::run(),
        Command::Test(args) => command::test::run(args),
        Command::Bench(args) => command::bench::run(args),
        Command::Chaos(args) => command::chaos::run(args),
        Command::Fuzz(args) => command::fuzz::run(args),
        Command::Broker(args) => command::broker::run(args),
    }
}
