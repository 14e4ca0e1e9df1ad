//! `cargo xtask bench`: broker, Python and programs as they are handed out, then
//! `benches/throughput` and `benches/chords`.

use xtask::{Broker, Python, python};

/// What is passed on to the benchmark.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leaves out the chords of Celery with Redis, for which Debian's Redis is installed.
    #[arg(long)]
    no_redis: bool,
    /// Options of `benches/throughput` itself, after `--`; then nothing else is measured.
    #[arg(last = true)]
    options: Vec<String>,
}

/// Measures.
pub(crate) fn run(args: &Args) -> xtask::Result<bool> {
    // Before anything is measured: installing takes a while.
    Python::with(&[python::BENCH_REQUIREMENTS])?;
    let programs =
        ["build", "--profile", "dist", "-p", "celeriac-worker", "-p", "celeriac-producer"];
    if !super::cargo(&programs).status()?.success() {
        return Ok(false);
    }
    let broker = super::provision()?;
    let measured = measure("throughput", &args.options, &broker);
    let measured = match measured {
        Ok(true) if args.options.is_empty() => {
            let mut options = vec!["--memory".to_owned()];
            options.extend((!args.no_redis).then(|| "--redis".to_owned()));
            measure("chords", &options, &broker)
        }
        measured => measured,
    };
    broker.stop()?;
    measured
}

fn measure(bench: &str, options: &[String], broker: &Broker) -> xtask::Result<bool> {
    let mut command =
        super::cargo(&["bench", "--profile", "dist", "-p", "celeriac", "--bench", bench, "--"]);
    Ok(command.args(options).envs(broker.environment()).status()?.success())
}
