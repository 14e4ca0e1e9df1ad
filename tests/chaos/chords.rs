//! Chords while workers, joiners, producers and the broker are killed with -9 at random moments.

use std::time::{Duration, Instant};

use celeriac::amqp::topology;
use tokio::task::block_in_place;
use xtask::{PrivateNode, Spawned};

use crate::dice::Dice;
use crate::effects::{self, Effects, Ledger};
use crate::marks::now;
use crate::producer::{PARTS, Producer};
use crate::worker::Role;
use crate::{PATIENCE, setting, worker};

/// Who works at any time.
const ROLES: [Role; 5] = [Role::Joins, Role::Joins, Role::Works, Role::Works, Role::Both];
/// Chords that are begun between two kills.
const CHORDS_EACH: usize = 12;
/// Every so many kills, the broker's turn comes.
const BROKER_TURN: usize = 9;
/// The first of them, in which chords park their results. RabbitMQ 3.10 that is killed while it
/// makes a queue, or half a second later, has a queue of that name for ever which confirms nothing
/// (one of fifteen, as was tried); and each such chord makes one.
const PARKING_TURNS: usize = 5;

/// How often somebody was killed.
#[derive(Debug, Default)]
struct Killed {
    broker: usize,
    producers: usize,
    joiners: usize,
    workers: usize,
}

/// Begins chords and kills whatever works on them.
pub(crate) async fn run(seed: u64) {
    let chords = setting("CELERIAC_TEST_CHAOS_CHORDS").unwrap_or(100) as usize;
    println!("chords: {chords} of {PARTS} parts");
    let started = Instant::now();
    let mut dice = Dice::new(seed);
    let mut node = block_in_place(PrivateNode::start).unwrap();
    let ledger = Ledger::new();
    let spawn = |url: &str, role| worker::spawn(url, role, ledger.path());
    let mut workers: Vec<Spawned> = ROLES.map(|role| spawn(node.url(), role)).into();
    let mut producer = Producer::start(node.url(), ledger.path());
    let effects = Effects::listen(node.url()).await;
    let (mut killed, mut strikes) = (Killed::default(), Vec::new());
    while producer.begun().confirmed.len() < chords {
        let parks = strikes.len() % BROKER_TURN < PARKING_TURNS;
        producer.order(CHORDS_EACH.min(chords - producer.begun().confirmed.len()), parks);
        // Random moments are the point.
        tokio::time::sleep(Duration::from_millis(50 + dice.below(950))).await;
        let is_broker = strikes.len() % BROKER_TURN == BROKER_TURN - 2;
        let begun = now();
        let victim = dice.below(ROLES.len() as u64 + 1) as usize;
        if is_broker {
            killed.broker += 1;
            block_in_place(|| node.kill_9().and_then(|()| node.start_again())).unwrap();
        } else if let Some(role) = ROLES.get(victim).copied() {
            match role {
                Role::Joins => killed.joiners += 1,
                Role::Works | Role::Both => killed.workers += 1,
            }
            // A child that is dropped is killed.
            workers[victim] = spawn(node.url(), role);
        } else {
            killed.producers += 1;
            block_in_place(|| producer.kill());
        }
        strikes.push((begun, now()));
        block_in_place(|| producer.wait());
    }
    let begun = producer.begun();
    effects.of_all(&begun.confirmed, PATIENCE).await;
    block_in_place(|| nothing_is_left(&node));
    let otherwise = effects::check(&begun, &effects.now(), PARTS);
    let again = ledger.check(&begun, &strikes, PARTS);
    let Killed { broker, producers, joiners, workers: killed } = killed;
    println!(
        "chords: {} of {PARTS} parts in {:.1} s; killed: {killed} workers, {joiners} joiners \
         alone, {producers} producers, {broker} times the broker; each body took effect once, \
         with its complete list; of the bodies that ran again {} were delivered again and {} \
         called again, by the next joiner; of {} chords at which a producer died or failed, \
         {otherwise} ended with an error and {} with their body; nothing left",
        begun.confirmed.len(),
        started.elapsed().as_secs_f64(),
        again.delivered,
        again.called,
        begun.uncertain.len(),
        again.uncertain,
    );
    drop(workers);
    ledger.remove();
}

/// Waits until the queues are empty but for the marks of the joiners.
fn nothing_is_left(node: &PrivateNode) {
    let queues = ["queues", "/"];
    let mut seen = String::new();
    let empty = || {
        let list = node.management().get(&queues).ok()??;
        let holds = |queue: &serde_json::Value| {
            let number = |key: &str| queue[key].as_u64().unwrap_or(0);
            let name = queue["name"].as_str().unwrap_or_default().to_owned();
            let marks = u64::from(name.starts_with("celeriac.join."));
            let (ready, unacked) = (number("messages_ready"), number("messages_unacknowledged"));
            // Each worker leaves a bookmark there.
            let is_stream = name == topology::revocation_stream();
            (!is_stream && (ready > 0 || unacked > marks))
                .then(|| format!("{name}: {ready} ready, {unacked}"))
        };
        let left: Vec<String> = list.as_array()?.iter().filter_map(holds).collect();
        seen = left.join("; ");
        left.is_empty().then_some(())
    };
    let waited = xtask::wait_until("nothing is left in any queue", PATIENCE, empty);
    assert!(waited.is_ok(), "left: {seen}");
}
