//! Tasks and chords while workers, connections and the broker are killed, cut, stalled and
//! stopped, at moments that a printed seed decides.
//!
//! Every task leaves a mark when it runs, and its result comes back to the caller: so a task that
//! is lost, and one that runs twice, is found out. Every part of a chord returns its position and
//! a value that is new in each run of it: so a body that gets a list which is incomplete, out of
//! order, or another one the second time, is found out too; and a body takes its effect once, in a
//! file of its own.
//!
//! A test program without a harness, because it runs itself as the workers that it kills. Few
//! tasks and chords as a test; `cargo xtask chaos` takes many, and chooses the faults.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "tells what it did, as test programs do")]

mod chords;
mod dice;
mod effects;
mod fault;
mod fleet;
mod load;
mod marks;
mod producer;
mod strike;
mod table;
mod tasks;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use celeriac::amqp::{Connection, ConnectionOptions};

use fault::Fault;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    if let Some(url) = worker::url() {
        return worker::run(&url);
    }
    if let Some(url) = producer::url() {
        return producer::run(&url);
    }
    let Some(names) = wanted(std::env::args().skip(1)) else {
        println!("running 0 tests\n");
        return ExitCode::SUCCESS;
    };
    if names.is_empty() {
        println!("running 0 tests: no fault has such a name\n");
        return ExitCode::SUCCESS;
    }
    println!("running {} tests", names.len());
    let seed = setting("CELERIAC_TEST_CHAOS_SEED").unwrap_or_else(dice::seed);
    println!("chaos: seed {seed}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rows = Vec::new();
    for name in &names {
        match Fault::named(name) {
            Some(fault) => rows.push(runtime.block_on(tasks::run(fault, seed))),
            None => runtime.block_on(chords::run(seed)),
        }
        println!("test {name} ... ok");
    }
    table::print(&rows);
    println!(
        "\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        names.len()
    );
    ExitCode::SUCCESS
}

/// The names of the tests that the arguments of a test program ask for; `None` if they ask for
/// something else.
fn wanted(arguments: impl Iterator<Item = String>) -> Option<Vec<&'static str>> {
    let mut filters = Vec::new();
    for argument in arguments {
        if argument == "--list" || argument == "--ignored" {
            return None;
        }
        if !argument.starts_with('-') {
            filters.push(argument);
        }
    }
    let all = Fault::ALL.iter().map(|fault| fault.name()).chain(["chords"]);
    let wanted = |name: &&str| filters.is_empty() || filters.iter().any(|it| name.contains(&**it));
    Some(all.filter(wanted).collect())
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// How the test itself connects: without giving up, and soon again.
async fn connect(url: &str) -> Connection {
    let mut options = ConnectionOptions { urls: vec![url.parse().unwrap()], ..Default::default() };
    options.retry.backoff.cap = Duration::from_secs(1);
    Connection::open(options).await.unwrap()
}
