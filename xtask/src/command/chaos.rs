//! `cargo xtask chaos`: tasks and chords in great number while workers, connections and the
//! broker are killed, cut and stalled.

/// The names of the faults, those of `tests/chaos`.
const FAULTS: [&str; 11] = [
    "worker-killed",
    "child-killed",
    "rolling-restart",
    "connections-cut",
    "connections-silent",
    "memory-alarm",
    "queue-deleted",
    "broker-restarted",
    "broker-killed",
    "broker-stopped",
    "chords",
];

/// How much chaos.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What happens. [default: all]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(FAULTS))]
    faults: Vec<String>,
    /// Tasks that are sent under each fault.
    #[arg(long, default_value_t = 10_000)]
    tasks: u32,
    /// Chords to begin; between every dozen of them something is killed.
    #[arg(long, default_value_t = 2000)]
    chords: u32,
    /// How long the broker of broker-stopped stays down, in seconds.
    #[arg(long, default_value_t = 60)]
    outage: u32,
    /// Whom it befalls, and when, as in the run that printed this number.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs `tests/chaos` on nodes of its own.
pub(crate) fn run(args: &Args) -> xtask::Result<bool> {
    let test = ["test", "--release", "-p", "celeriac", "--features", "cli", "--test", "chaos"];
    let mut command = super::cargo(&test);
    command.arg("--").args(&args.faults);
    command.env("CELERIAC_TEST_CHAOS_TASKS", args.tasks.to_string());
    command.env("CELERIAC_TEST_CHAOS_CHORDS", args.chords.to_string());
    command.env("CELERIAC_TEST_CHAOS_OUTAGE_S", args.outage.to_string());
    if let Some(seed) = args.seed {
        command.env("CELERIAC_TEST_CHAOS_SEED", seed.to_string());
    }
    Ok(command.status()?.success())
}
