//! Chords while workers, their joiners and the broker are killed with -9 at random moments.

use std::time::{Duration, Instant};

use celeriac::amqp::{Publish, Publisher, topology};
use celeriac::protocol::canvas::{Call, Canvas, lower};
use celeriac::protocol::join::Record;
use celeriac::protocol::{self, CallOptions, Map, Value};
use celeriac::{Client, Signature};
use serde_json::json;
use xtask::{PrivateNode, Spawned};

use crate::dice::Dice;
use crate::effects::{self, Effects};
use crate::{PATIENCE, setting, worker};

/// Parts of each chord.
const PARTS: i64 = 10;
/// Workers at any time.
const WORKERS: usize = 3;
/// Chords that are begun between two kills.
const CHORDS_EACH: usize = 12;
/// Every so many kills, the broker's turn comes.
const BROKER_TURN: usize = 9;
/// Begins chords and kills whatever works on them.
pub(crate) async fn run(seed: u64) {
    let chords = setting("CELERIAC_TEST_CHAOS_CHORDS").unwrap_or(100) as usize;
    println!("chords: {chords} of {PARTS} parts");
    let started = Instant::now();
    let mut dice = Dice::new(seed);
    let mut node = tokio::task::block_in_place(PrivateNode::start).unwrap();
    let mut workers: Vec<Spawned> = (0..WORKERS).map(|_| worker::spawn(node.url())).collect();
    let client = Client::connect(worker::config(node.url())).await.unwrap();
    let effects = Effects::listen(node.url()).await;
    let (mut begun, mut killed, mut broker_killed) = (Vec::new(), 0, 0);
    while begun.len() < chords {
        for _ in 0..CHORDS_EACH.min(chords - begun.len()) {
            // The results of every other one are parked.
            let parks = begun.len() % 2 == 1;
            begun.push(begin(&node, &client, parks).await);
        }
        // Random moments are the point.
        tokio::time::sleep(Duration::from_millis(100 + dice.below(900))).await;
        if (killed + broker_killed) % BROKER_TURN == BROKER_TURN - 2 {
            broker_killed += 1;
            tokio::task::block_in_place(|| {
                node.kill_9()?;
                node.start_again()
            })
            .unwrap();
        } else {
            killed += 1;
            let victim = dice.below(WORKERS as u64) as usize;
            // A child that is dropped is killed.
            workers[victim] = worker::spawn(node.url());
        }
    }
    let told = effects.of_all(&begun, PATIENCE).await;
    let repeated = effects::check(&begun, &told, PARTS);
    tokio::task::block_in_place(|| nothing_is_left(&node));
    println!(
        "chords: {chords} of {PARTS} parts in {:.1} s; workers killed {killed} times, the \
         broker {broker_killed} times; each body told its complete list, {repeated} of them more \
         than once, and the same each time; nothing left",
        started.elapsed().as_secs_f64()
    );
    drop(workers);
}

/// Logs a chord, sends its parts, and tells the id of its body.
async fn begin(node: &PrivateNode, client: &Client, parks: bool) -> String {
    let part = |index: i64| {
        Canvas::Task(protocol::Signature {
            args: vec![index.into()],
            ..protocol::Signature::new("chaos.part")
        })
    };
    let body = Canvas::Task(protocol::Signature::new("chaos.body"));
    let mut canvas = Canvas::chord((0..PARTS).map(part).collect(), body).unwrap();
    if parks {
        let join = Map::from_iter([("park_above", 0)]);
        let extra = Map::from_iter([("join", join)]);
        canvas.set(CallOptions { extra, ..CallOptions::default() });
    }
    let mut call = Call::default();
    call.join.shards = client.config().join_shards;
    call.options.reply_to = Some(effects::QUEUE.to_owned());
    let lowered = lower(canvas, call).unwrap();
    if parks {
        tokio::task::block_in_place(|| declare_park(node, &lowered.opens[0].chord));
    }
    log_opens(client, &lowered.opens).await;
    let calls = lowered.calls.into_iter().map(|call| {
        let options = CallOptions::from_map(call.options).unwrap();
        Signature::<Value>::new(call.task).args(call.args).with_options(options)
    });
    for sent in client.send_all(calls).await {
        sent.unwrap();
    }
    lowered.result.id().to_owned()
}

/// Declares what a client declares that sends the chord itself.
fn declare_park(node: &PrivateNode, chord: &str) {
    let arguments = json!({"x-queue-type": "quorum", "x-single-active-consumer": true});
    let declared = || {
        let queue = json!({"durable": true, "arguments": arguments});
        node.management().put(&["queues", "/", &topology::park_queue(chord)], &queue).ok()
    };
    xtask::wait_until("the parked results have a queue", PATIENCE, declared).unwrap();
}

async fn log_opens(client: &Client, opens: &[protocol::join::Open]) {
    let publisher = Publisher::new(client.connection());
    let publish = |open: &protocol::join::Open| {
        let record = Record::Open(Box::new(open.clone())).encode().unwrap();
        Publish::new(topology::results_exchange(), &*open.route, record)
    };
    let started = Instant::now();
    loop {
        let logged = publisher.publish_all(opens.iter().map(publish).collect::<Vec<_>>()).await;
        match logged.into_iter().find_map(Result::err) {
            None => return,
            // The first worker has not declared the shards yet.
            Some(error) if error.is_returned() && started.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Some(error) => panic!("{error}"),
        }
    }
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
