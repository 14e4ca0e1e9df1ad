//! `cargo xtask bench`: broker, Python and release programs, then `benches/throughput`
//! and `benches/chords`.

use xtask::{Broker, Python, python};

/// What is passed on to the benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Options of `benches/throughput` itself, after `--`; then nothing else is measured.
    #[arg(last = true)]
    options: Vec<String>,
}

/// Measures.
pub(crate) fn run(args: &Args) -> xtask::Result<bool> {
    // Before anything is measured: installing takes a while.
    Python::with(&[python::BENCH_REQUIREMENTS])?;
    let programs = ["build", "--release", "-p", "celeriac-worker", "-p", "celeriac-producer"];
    if !super::cargo(&programs).status()?.success() {
        return Ok(false);
    }
    let broker = super::provision()?;
    let measured = measure("throughput", &args.options, &broker);
    let measured = match measured {
        Ok(true) if args.options.is_empty() => measure("chords", &[], &broker),
        measured => measured,
    };
    broker.stop()?;
    measured
}

fn measure(bench: &str, options: &[String], broker: &Broker) -> xtask::Result<bool> {
    let mut command = super::cargo(&["bench", "-p", "celeriac", "--bench", bench, "--"]);
    Ok(command.args(options).envs(broker.environment()).status()?.success())
}
