//! Many tasks under one kind of fault: none may be lost, and every one that runs again has its
//! explanation.

use std::collections::HashSet;
use std::time::Instant;

use celeriac::Client;
use tokio::task::block_in_place;
use xtask::PrivateNode;

use crate::dice::Dice;
use crate::fault::Fault;
use crate::fleet::Fleet;
use crate::load::{Load, patience};
use crate::marks::{Marks, Trail};
use crate::strike::{Strike, explain};
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
    let mut trail = Trail::of(&marks);
    let mut fleet = block_in_place(|| Fleet::start(node.url(), &marks, fault.processes()));
    let client = Client::connect(worker::config(node.url())).await.unwrap();
    let mut dice = Dice::new(seed);
    let mut load = Load::start(client.clone(), tasks);
    let (started, mut strikes) = (Instant::now(), Vec::new());
    let share = tasks / times;
    for turn in 0..times {
        if fault.strikes_an_idle_fleet(turn) {
            // Early, so that there is something left to send.
            load.done(share * turn + dice.below(share / 4)).await;
            load.pause().await;
        } else {
            load.done(share * turn + share / 4 + dice.below(share / 2)).await;
        }
        let struck = (&mut fleet, &mut node);
        let strike = fault.strike(struck, (&client, &load), (turn, &mut dice)).await;
        // Tasks are sent for as long as it takes, so that there is work for everybody.
        block_in_place(|| works_again(&strike, &mut trail));
        strikes.push(strike);
    }
    let tally = load.end().await;
    let took = started.elapsed();
    client.close().await;
    block_in_place(|| fleet.stop());
    let runs = trail.follow();
    marks.remove();
    let ran: HashSet<u64> = runs.iter().filter(|it| !it.begins).map(|it| it.number).collect();
    let lost: Vec<u64> = (0..tally.tasks).filter(|number| !ran.contains(number)).collect();
    assert!(lost.is_empty(), "{} tasks did not run: {lost:?}", lost.len());
    let sent_twice = tally.sent_twice(&strikes, fault.takes_the_broker());
    let reruns = explain(runs, &strikes, &sent_twice);
    if !fault.repeats() {
        assert_eq!(reruns.by_strikes(), 0, "none should run again: {reruns:?}");
    }
    Row {
        fault,
        times,
        tasks: tally.tasks,
        sent_again: tally.sent_again,
        reruns,
        pauses: tally.pauses(&strikes),
        recoveries: strikes.iter().filter_map(|strike| strike.recovery(runs)).collect(),
        took,
    }
}

fn works_again(strike: &Strike, trail: &mut Trail) {
    let works_again = || strike.recovered(trail.follow());
    let waited = xtask::wait_until("all work again", patience(), works_again);
    assert!(waited.is_ok(), "somebody does not work again after {strike:?}");
}
