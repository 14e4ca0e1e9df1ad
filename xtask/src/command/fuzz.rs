//! `cargo xtask fuzz`: random bytes for the decoders, with cargo-fuzz.

use std::process::{Command, Stdio};

use xtask::{Error, paths};

/// What to feed, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One target of `fuzz/fuzz_targets`; all of them one after another without it.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs the targets; the first that finds something ends it.
pub(crate) fn run(args: &Args) -> xtask::Result<bool> {
    let quiet = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    };
    if !quiet(super::cargo(&["fuzz", "--version"]).stdin(Stdio::null())) {
        return Err(Error::new("cargo-fuzz is not installed: run `cargo install cargo-fuzz`"));
    }
    let targets = match &args.target {
        Some(target) => vec![target.clone()],
        None => targets()?,
    };
    // The sanitizers need unstable options; a stable compiler takes them with this variable.
    let limit = format!("-max_total_time={}", args.seconds);
    for target in targets {
        println!("== {target}, {} s", args.seconds);
        let mut command = super::cargo(&["fuzz", "run", &target, "--", &limit]);
        if !command.env("RUSTC_BOOTSTRAP", "1").status()?.success() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn targets() -> xtask::Result<Vec<String>> {
    let directory = paths::root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&directory)
        .map_err(|error| Error::while_doing(format!("reading {}", directory.display()), error))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_suffix(".rs").map(str::to_owned)
        })
        .collect();
    names.sort();
    Ok(names)
}
