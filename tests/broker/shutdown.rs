//! The two ways to stop a worker.

use std::time::Duration;

use celeriac::worker::Stopped;
use xtask::FetchedMessage;

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{add, hold};

/// 50 calls of which one runs and the others are prefetched.
async fn busy(bundle: &Bundle) -> Vec<celeriac::AsyncResult<String>> {
    let sent = bundle.client.send_all((0..50).map(|n| hold::s(n.to_string()))).await;
    sent.into_iter().map(Result::unwrap).collect()
}

/// How often a message came back.
fn deliveries(message: &FetchedMessage) -> u64 {
    message.header("x-delivery-count").and_then(serde_json::Value::as_u64).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_shutdown_gives_back_what_waits_and_finishes_what_runs() {
    let bundle = Bundle::new("warm").await;
    let worker = bundle
        .worker_with(|worker| worker.concurrency(1).blocking_slots(1).prefetch_multiplier(20))
        .await;
    let results = busy(&bundle).await;
    bundle.probe.seen(1).await;
    let handle = worker.handle();
    handle.shutdown();
    handle.shutdown();
    // At once, while the one that runs still runs.
    bundle.wait_for_depth(49, 1);
    bundle.probe.open(1);
    assert_eq!(within(worker.wait()).await.unwrap(), Stopped::Warm);
    handle.shutdown();
    let runs = bundle.probe.runs();
    assert_eq!(runs.len(), 1);
    let ran: usize = runs[0].parse().unwrap();
    assert_eq!(results[ran].get(PATIENCE).await.unwrap(), runs[0]);
    bundle.wait_for_depth(49, 0);
    let next = bundle.worker().await;
    bundle.probe.open(49);
    for result in &results {
        result.get(PATIENCE).await.unwrap();
    }
    assert_eq!(bundle.probe.counts(), (50, 0));
    stop(next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_warm_shutdown_gives_back_was_delivered_once() {
    const WAITING: usize = 200;
    let bundle = Bundle::new("warm-once").await;
    let worker = bundle
        .worker_with(|worker| worker.concurrency(1).blocking_slots(1).prefetch_multiplier(200))
        .await;
    let sent = bundle.client.send_all((0..=WAITING).map(|n| hold::s(n.to_string()))).await;
    assert!(sent.iter().all(Result::is_ok));
    bundle.probe.seen(1).await;
    bundle.wait_for_depth(0, WAITING as u64 + 1);
    worker.handle().shutdown();
    bundle.wait_for_depth(WAITING as u64, 1);
    let messages = bundle.vhost.messages("celeriac").unwrap();
    assert_eq!(messages.len(), WAITING);
    let again = messages.iter().filter(|message| deliveries(message) > 1).count();
    assert_eq!(again, 0, "it was a consumer still");
    bundle.probe.open(1);
    assert_eq!(within(worker.wait()).await.unwrap(), Stopped::Warm);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_worker_leaves_what_ran_to_another() {
    let bundle = Bundle::new("cold").await;
    let worker = bundle.worker().await;
    let result = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    worker.handle().terminate();
    assert_eq!(within(worker.wait()).await.unwrap(), Stopped::Cold);
    bundle.wait_for_depth(1, 0);
    let other = bundle.worker_with(|worker| worker.hostname("other@host")).await;
    bundle.probe.seen(2).await;
    bundle.probe.open(2);
    assert_eq!(result.get(PATIENCE).await.unwrap(), "x");
    stop(other).await;
    bundle.settled();
    assert_eq!(bundle.probe.counts(), (1, 1), "it ran twice and no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn terminating_ends_a_warm_shutdown_that_takes_too_long() {
    let bundle = Bundle::new("warm-cold").await;
    let worker = bundle.worker().await;
    hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    worker.handle().shutdown();
    bundle
        .vhost
        .wait_until("nobody consumes", || {
            (bundle.vhost.consumers("celeriac").ok()? == 0).then_some(())
        })
        .unwrap();
    worker.handle().terminate();
    assert_eq!(within(worker.wait()).await.unwrap(), Stopped::Cold);
    bundle.wait_for_depth(1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_takes_nothing_new_although_its_connection_is_cut() {
    let bundle = Bundle::new("stop-cut").await;
    let worker = bundle.worker_with(|worker| worker.concurrency(2)).await;
    let held = ["x", "y"].map(|label| hold::s(label.to_owned()));
    assert!(bundle.client.send_all(held).await.iter().all(Result::is_ok));
    bundle.probe.seen(2).await;
    worker.handle().shutdown();
    let added = add::delay(&bundle.client, 1, 1).await.unwrap();
    bundle.wait_for_depth(1, 2);
    bundle.cut_and_wait("consume");
    bundle.wait_for_depth(3, 0);
    // The first one that ends finds its channel gone.
    bundle.probe.open(1);
    // If it took messages only to give them back, the broker would dead-letter them before long.
    let dead = || bundle.vhost.messages("celeriac.dead-letters").ok()?.pop();
    let second = Duration::from_secs(1);
    assert!(xtask::wait_until("messages are dead", second, dead).is_err());
    let messages = bundle.vhost.messages("celeriac").unwrap();
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|message| deliveries(message) <= 1), "{messages:?}");
    bundle.probe.open(1);
    assert_eq!(within(worker.wait()).await.unwrap(), Stopped::Warm);
    assert!(!added.ready());
    assert_eq!(bundle.probe.runs().len(), 2);
}
