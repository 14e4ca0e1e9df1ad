//! `cargo xtask bench`: broker, Python and release programs, then `benches/throughput`.

use xtask::{Python, python};

/// What is passed on to the benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Options of the benchmark itself, after `--`.
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
    let status = super::cargo(&["bench", "-p", "celeriac", "--bench", "throughput", "--"])
        .args(&args.options)
        .envs(broker.environment())
        .status();
    broker.stop()?;
    Ok(status?.success())
}
