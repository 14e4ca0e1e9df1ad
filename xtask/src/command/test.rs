//! `cargo xtask test`: every check that a change must pass, the same here and in CI.
//!
//! Invariant: a check that failed does not hide another one; all of them run.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use xtask::{Broker, Python};

/// What to test.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// After `--`: run only the tests whose names contain this. The other checks run all the same.
    #[arg(last = true)]
    filter: Vec<String>,
}

/// One line of the table at the end.
struct Verdict {
    check: &'static str,
    passed: bool,
    note: String,
    seconds: f64,
}

/// How many tests ended how.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
}

/// Runs all checks and prints a table.
pub(crate) fn run(args: &Args) -> xtask::Result<bool> {
    let mut verdicts = Vec::new();
    let mut counts = Counts::default();
    let mut broker = None;
    check(&mut verdicts, "broker", || {
        broker = Some(super::provision()?);
        Ok(true)
    });
    check(&mut verdicts, "python with Celery", || Python::ensure().map(|_| true));
    check(&mut verdicts, "format", || status(&mut super::cargo(&["fmt", "--all", "--check"])));
    check(&mut verdicts, "clippy", || {
        let all = ["clippy", "--workspace", "--all-targets", "--all-features"];
        status(super::cargo(&all).args(["--", "-D", "warnings"]))
    });
    check(&mut verdicts, "documentation", || {
        let all = ["doc", "--workspace", "--no-deps", "--all-features"];
        status(super::cargo(&all).env("RUSTDOCFLAGS", "-Dwarnings"))
    });
    check(&mut verdicts, "programs", || {
        status(&mut super::cargo(&["build", "--workspace", "--all-features"]))
    });
    check(&mut verdicts, "tests", || tests(args, broker.as_ref(), &mut counts));
    if let Some(verdict) = verdicts.last_mut() {
        verdict.note = format!("{} passed, {} failed", counts.passed, counts.failed);
    }
    if let Some(broker) = broker {
        check(&mut verdicts, "stop the broker", || broker.stop().map(|()| true));
    }
    Ok(summarise(&verdicts, &counts))
}

fn check(
    verdicts: &mut Vec<Verdict>,
    name: &'static str,
    run: impl FnOnce() -> xtask::Result<bool>,
) {
    println!("\n== {name}");
    let started = Instant::now();
    let (passed, note) = match run() {
        Ok(passed) => (passed, String::new()),
        Err(error) => {
            println!("error: {error}");
            (false, "see above".to_owned())
        }
    };
    verdicts.push(Verdict { check: name, passed, note, seconds: started.elapsed().as_secs_f64() });
}

fn status(command: &mut Command) -> xtask::Result<bool> {
    Ok(command.stdin(Stdio::null()).status()?.success())
}

/// Runs the tests, shows what they print, and counts them.
fn tests(args: &Args, broker: Option<&Broker>, counts: &mut Counts) -> xtask::Result<bool> {
    let mut command = super::cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
    // Tests with a broker mostly wait, so there are more of them at once than cores.
    command.args(["--", "--test-threads=8"]).args(&args.filter);
    if let Some(broker) = broker {
        command.envs(broker.environment());
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    for line in child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines()) {
        let line = line?;
        println!("{line}");
        counts.add(&line);
    }
    let succeeded = child.wait()?.success();
    if counts.passed + counts.failed == 0 {
        println!("error: no test ran");
    }
    Ok(succeeded && counts.passed > 0)
}

impl Counts {
    /// Reads `test result: ok. 13 passed; 0 failed; …`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number = |what: &str| {
            let words: Vec<&str> = result.split([' ', ';']).collect();
            let at = words.iter().position(|word| *word == what)?;
            words.get(at.checked_sub(1)?)?.parse::<u64>().ok()
        };
        self.passed += number("passed").unwrap_or(0);
        self.failed += number("failed").unwrap_or(0);
    }
}

fn summarise(verdicts: &[Verdict], counts: &Counts) -> bool {
    println!("\n{:<20} {:<8} {:>8}", "check", "result", "seconds");
    for Verdict { check, passed, note, seconds } in verdicts {
        let result = if *passed { "ok" } else { "FAILED" };
        println!("{}", format!("{check:<20} {result:<8} {seconds:>8.1}  {note}").trim_end());
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.passed).count();
    match failed {
        0 => println!("\nall checks passed"),
        1 => println!("\n1 check failed"),
        _ => println!("\n{failed} checks failed"),
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_test_programs_are_added_up() {
        let mut counts = Counts::default();
        counts.add("running 3 tests");
        counts.add("test result: ok. 13 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        counts.add("test result: FAILED. 2 passed; 1 failed; 0 ignored; finished in 0.16s");
        assert_eq!((counts.passed, counts.failed), (15, 1));
    }
}
