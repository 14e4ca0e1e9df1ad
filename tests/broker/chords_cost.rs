//! What a chord costs its broker: G5 of docs/chords.md, counted.

use std::collections::BTreeMap;

use celeriac::Config;
use celeriac::amqp::topology;
use serde_json::json;
use xtask::FetchedMessage;

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::workflow::{brisk, doubles, sums, total};

/// What the broker has counted at a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    published: u64,
    delivered: u64,
    redelivered: u64,
    acked: u64,
}

fn counts(bundle: &Bundle, queue: &str) -> Option<Counts> {
    let queue = bundle.vhost.queue(queue).ok()??;
    let of = |name: &str| queue["message_stats"][name].as_u64().unwrap_or(0);
    Some(Counts {
        published: of("publish"),
        delivered: of("deliver"),
        redelivered: of("redeliver"),
        acked: of("ack"),
    })
}

/// A chord of so many parts, in a log that is packed when it holds more than `raws_max` records.
/// Gives all that was written into the log, by its type.
async fn log_of(hint: &str, parts: i64, raws_max: usize) -> BTreeMap<String, Vec<FetchedMessage>> {
    let change = |config: &mut Config| {
        brisk(config);
        config.join_shards = 1;
        config.join_u_max = raws_max;
    };
    let bundle = Bundle::joining_with(hint, change).await;
    let worker = bundle.worker().await;
    // Another queue gets the same as the log.
    let (management, vhost) = (bundle.vhost.management(), bundle.vhost.name());
    management.put(&["queues", vhost, "copies"], &json!({"durable": true})).unwrap();
    let binding = ["bindings", vhost, "e", topology::results_exchange(), "q", "copies"];
    management.post(&binding, &json!({"routing_key": "join.0"})).unwrap();
    let begun = bundle.begin(sums(parts, total())).await;
    bundle.probe.seen(1).await;
    assert_eq!(bundle.probe.drain(), [format!("{} {}", begun.id, doubles(parts))]);
    bundle.nothing_is_left();
    let mut last = None;
    let is_counted = || {
        let copies = bundle.vhost.messages("copies").ok()?;
        last = counts(&bundle, &topology::join_queue(0));
        let all = copies.len() as u64;
        // The mark stays as long as its session.
        let wanted = Counts { published: all, delivered: all, redelivered: 0, acked: all - 1 };
        (last == Some(wanted)).then_some(copies)
    };
    let copies = xtask::wait_until("all is delivered once and acked once", PATIENCE, is_counted);
    let copies = copies.unwrap_or_else(|error| panic!("{error}; last seen: {last:?}"));
    stop(worker).await;
    let mut log: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for message in copies {
        let kind = message.properties["type"].as_str().unwrap().to_owned();
        log.entry(kind).or_default().push(message);
    }
    let mut places: Vec<_> =
        log["ok"].iter().map(|part| part.header("i").unwrap().as_i64().unwrap()).collect();
    places.sort_unstable();
    assert_eq!(places, (0..parts).collect::<Vec<_>>(), "each part is written once");
    assert_eq!(log["open"].len(), 1);
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_costs_one_publish_one_delivery_and_one_ack() {
    let log = log_of("chord-cost", 300, 1000).await;
    assert!(!log.contains_key("pack"), "{:?}", log.keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_add_little_to_that() {
    const PARTS: usize = 1200;
    const RAWS_MAX: usize = 100;
    let log = log_of("chord-cost-packs", PARTS as i64, RAWS_MAX).await;
    // Each takes the older half of what is more, and at 64 of them they become one.
    let packs = log["pack"].len();
    assert!(packs <= PARTS / (RAWS_MAX / 2) + 2, "{packs} packs");
}
