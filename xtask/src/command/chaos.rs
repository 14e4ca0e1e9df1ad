//! `cargo xtask chaos`: chords in great number while workers and the broker are killed.

/// How much chaos.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Chords to begin; between every dozen of them something is killed.
    #[arg(long, default_value_t = 2000)]
    chords: u32,
    /// Whom to kill, and when, as in the run that printed this number.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs `tests/chaos` on a node of its own.
pub(crate) fn run(args: &Args) -> xtask::Result<bool> {
    let mut command = super::cargo(&["test", "--release", "-p", "celeriac", "--test", "chaos"]);
    command.env("CELERIAC_TEST_CHAOS_CHORDS", args.chords.to_string());
    if let Some(seed) = args.seed {
        command.env("CELERIAC_TEST_CHAOS_SEED", seed.to_string());
    }
    Ok(command.status()?.success())
}
