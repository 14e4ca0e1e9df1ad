//! Measures celeriac against a bare lapin loop and against its Python peers, on one broker in one
//! run. Started by `cargo xtask bench`, which makes sure of the broker and of Python.
//!
//! Every case runs in a process of its own, so that CPU time and memory are its alone; the cases
//! of a comparison take turns, and the median of the rounds is reported. A case that did not see
//! every task exactly once fails the run, and so does a worker whose tasks asleep take too much
//! memory.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod bare;
mod cases;
mod load;
mod measure;
mod memory;
mod peers;
mod table;

use std::process::ExitCode;

use table::Table;

/// The allocator of the binaries; the bare loop has it as well.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Rounds of every comparison; the median counts.
const ROUNDS: usize = 3;
/// Tasks of one throughput round.
const TASKS: usize = 50_000;
/// Calls of one latency round.
const CALLS: usize = 2_000;
/// Tasks of one round of a Python peer, which are an order of magnitude slower.
const PEER_TASKS: usize = 5_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().position(|it| it == "--case") {
        Some(at) => cases::run_child(&arguments[at + 1..]),
        None => compare(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all comparisons and prints the table.
fn compare() -> Result<(), anyhow::Error> {
    let broker = load::Broker::find()?;
    println!("broker {} {}", broker.product()?, broker.url());
    let mut table = Table::default();
    for case in ["enqueue", "drain", "drain-results"] {
        table.section(case, TASKS);
        let (mut plain, mut bare, mut ours) = (Vec::new(), Vec::new(), Vec::new());
        let mut with_events = Vec::new();
        for _ in 0..ROUNDS {
            plain.push(broker.measure("plain", case, TASKS)?);
            bare.push(broker.measure("bare", case, TASKS)?);
            ours.push(broker.measure("celeriac", case, TASKS)?);
            if case != "enqueue" {
                with_events.push(broker.measure("events", case, TASKS)?);
            }
        }
        let bare = measure::median(bare);
        table.row("bare lapin loop", &bare, &bare);
        table.row("the same, 120 bytes without headers", &measure::median(plain), &bare);
        table.row("celeriac", &measure::median(ours), &bare);
        if !with_events.is_empty() {
            table.row("celeriac, events on", &measure::median(with_events), &bare);
        }
        for peer in peers::ALL {
            match peers::measure(&broker, peer, case, PEER_TASKS) {
                Ok(Some(figures)) => table.row(peer.name(), &figures, &bare),
                Ok(None) => {}
                Err(error) => table.note(&format!("{}: not measured: {error:#}", peer.name())),
            }
        }
    }
    table.section("round trip, one call at a time", CALLS);
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(broker.measure("bare", "latency", CALLS)?);
        ours.push(broker.measure("celeriac", "latency", CALLS)?);
    }
    let bare = measure::median(bare);
    table.latency("bare lapin loop", &bare, &bare);
    table.latency("celeriac", &measure::median(ours), &bare);
    match peers::measure(&broker, peers::Peer::Celery, "latency", CALLS) {
        Ok(Some(figures)) => table.latency("celery 5.7", &figures, &bare),
        Ok(None) => {}
        Err(error) => table.note(&format!("celery 5.7: not measured: {error:#}")),
    }
    table.print();
    let memory = memory::measure(&broker)?;
    table.memory(&memory);
    table.print();
    memory.check()
}
