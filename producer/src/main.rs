//! The command line of producers and operators: enqueue tasks, wait for results, ask the broker.
//!
//! Only wiring: what a call means is the library's business. **Invariant:** whatever goes wrong is
//! one sentence on standard error and an exit code of the list in `--help`.

mod apply;
mod args;
mod batch;
mod call;
mod chord;
mod completions;
mod connect;
mod control;
mod control_args;
mod dlq;
mod events;
mod exit;
mod graph;
mod headers;
mod input;
mod lines;
mod output;
mod ping;
mod progress;
mod states;
mod unique;
mod workflow;

use std::process::ExitCode;

use celeriac::cli;
use clap::Parser;

use args::{Cli, Command};
use exit::{Exit, Failure};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            cli::complain(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    if let Command::Completions { shell } = cli.command {
        completions::write(shell);
        return Ok(Exit::Success);
    }
    if let Command::Graph(args) = &cli.command {
        return graph::run(args);
    }
    let level = match cli.common.verbose {
        0 => cli::LogLevel::Error,
        1 => cli::LogLevel::Warning,
        2 => cli::LogLevel::Info,
        _ => cli::LogLevel::Debug,
    };
    let explicit = (cli.common.verbose > 0).then_some(level);
    cli::start_logging(explicit, level, cli::LogFormat::Human)
        .map_err(|error| Failure::new(Exit::Usage, &error))?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unreachable, &error))?;
    let outcome = runtime.block_on(async {
        match &cli.command {
            Command::Call(args) if args.from.is_some() => batch::run(&cli.common, args).await,
            Command::Call(args) => call::run(&cli.common, args).await,
            Command::Chain(args) => apply::chain(&cli.common, args).await,
            Command::Group(args) => apply::group(&cli.common, args).await,
            Command::Chord(args) => apply::chord(&cli.common, args).await,
            Command::Run(args) => apply::file(&cli.common, args).await,
            Command::Progress(args) => chord::run(&cli.common, args).await,
            Command::Dlq { command } => dlq::run(&cli.common, command).await,
            Command::Events(args) => events::run(&cli.common, args).await,
            Command::Ping => ping::run(&cli.common).await,
            Command::Control(args) => control::control(&cli.common, args).await,
            Command::Inspect(args) => control::inspect(&cli.common, args).await,
            Command::Revoke(args) => control::revoke(&cli.common, args).await,
            Command::Graph(_) | Command::Completions { .. } => Ok(Exit::Success),
        }
    });
    // A thread that still reads standard input must not keep the process alive.
    runtime.shutdown_background();
    outcome
}
