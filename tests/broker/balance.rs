//! Shards are spread over the workers that are there, whoever came first.

use std::collections::BTreeMap;
use std::time::Duration;

use celeriac::Config;
use celeriac::worker::RunningWorker;
use xtask::wait_until;

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::workflow::{brisk, sums, total};

const SHARDS: u32 = 4;

fn spread(config: &mut Config) {
    brisk(config);
    config.join_shards = SHARDS;
    config.join_rebalance = Duration::from_millis(200);
}

async fn worker(bundle: &Bundle, hostname: &str) -> RunningWorker {
    bundle.worker_with(|worker| worker.hostname(hostname)).await
}

/// How many shards each worker reads, by its name.
fn readers(bundle: &Bundle) -> BTreeMap<String, usize> {
    let mut readers = BTreeMap::new();
    let consumers = bundle.vhost.management().get(&["consumers", bundle.vhost.name()]).unwrap();
    for consumer in consumers.iter().filter_map(|it| it.as_array()).flatten() {
        let tag = consumer["consumer_tag"].as_str().unwrap_or_default();
        if let Some((hostname, _)) = tag.split_once(".join.")
            && consumer["activity_status"] == "single_active"
        {
            *readers.entry(hostname.to_owned()).or_default() += 1;
        }
    }
    readers
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_move_to_workers_that_come_later_while_chords_go_on() {
    let bundle = Bundle::joining_with("balance", spread).await;
    let first = worker(&bundle, "first@host").await;
    let mut begun = 0;
    // Whoever reads nothing has nothing to give away: every shard gets some chords.
    let mut begin = async |count: i64| {
        for _ in 0..count {
            bundle.begin(sums(3, total())).await;
        }
        begun += count;
        bundle.probe.seen(usize::try_from(begun).unwrap()).await;
    };
    begin(40).await;
    let second = worker(&bundle, "second@host").await;
    let half = BTreeMap::from([("first@host".to_owned(), 2), ("second@host".to_owned(), 2)]);
    let is_spread = || (readers(&bundle) == half).then_some(());
    wait_until("both workers have their share", PATIENCE, is_spread).unwrap();
    begin(40).await;
    assert_eq!(bundle.probe.counts(), (80, 0), "every body ran once");
    assert_eq!(readers(&bundle), half, "and stays so");
    bundle.nothing_is_left();
    stop(first).await;
    stop(second).await;
    bundle.settled();
}
