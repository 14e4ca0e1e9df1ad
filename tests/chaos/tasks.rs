//! Many tasks under one kind of fault: none may be lost.

use std::time::Instant;

use celeriac::Client;
use tokio::task::block_in_place;
use xtask::PrivateNode;

use crate::dice::Dice;
use crate::fault::Fault;
use crate::fleet::Fleet;
use crate::load::Load;
use crate::marks::Marks;
use crate::table::Row;
use crate::{setting, worker};

/// For each of so many tasks the fault strikes once, up to its own bound.
const TASKS_EACH: u64 = 500;

/// Sends tasks, lets the fault strike at moments that `seed` decides, and counts.
pub(crate) async fn run(fault: Fault, seed: u64) -> Row {
    let tasks = setting("CELERIAC_TEST_CHAOS_TASKS").unwrap_or(500);
    let times = fault.times().min(tasks / TASKS_EACH).max(1);
    println!("{}: {tasks} tasks, {times} times", fault.name());
    let mut node = block_in_place(PrivateNode::start).unwrap();
    let marks = Marks::new(fault.name());
    let mut fleet = block_in_place(|| Fleet::start(node.url(), &marks, fault.processes()));
    let client = Client::connect(worker::config(node.url())).await.unwrap();
    let mut dice = Dice::new(seed);
    let mut load = Load::start(client.clone(), tasks);
    let (started, mut strikes, mut ends) = (Instant::now(), Vec::new(), Vec::new());
    let share = tasks / times;
    for turn in 0..times {
        if fault.strikes_an_idle_fleet() {
            // Early, so that there is something left to send.
            load.done(share * turn + dice.below(share / 4)).await;
            load.pause().await;
        } else {
            load.done(share * turn + share / 4 + dice.below(share / 2)).await;
        }
        strikes.push(Instant::now());
        block_in_place(|| fault.strike(&mut fleet, &mut node, &mut dice));
        load.go_on();
        fault.relent(&client, &node).await;
        ends.push(Instant::now());
    }
    let tally = load.end().await;
    let took = started.elapsed();
    client.close().await;
    block_in_place(|| fleet.stop());
    let runs = marks.read();
    marks.remove();
    let lost: Vec<u64> = (0..tasks).filter(|number| !runs.contains_key(number)).collect();
    assert!(lost.is_empty(), "{} tasks did not run: {lost:?}", lost.len());
    let duplicates = runs.values().filter(|times| **times > 1).count();
    if !fault.repeats() {
        assert!(duplicates <= tally.sent_again, "{duplicates} ran twice, and none should");
    }
    let (pauses, recoveries) = (tally.pauses(&strikes), tally.recoveries(&ends));
    let sent_again = tally.sent_again;
    Row { fault, times, tasks, sent_again, duplicates, pauses, recoveries, took }
}
