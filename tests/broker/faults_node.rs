//! Faults of a whole broker: it is restarted, or killed, under producers and workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use celeriac::protocol::TaskState;
use celeriac::{AsyncResult, SendError, Signature, Value};
use jiff::Timestamp;
use xtask::{NodeOptions, PrivateNode};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{add, bytes, due, hold, note};

/// 2,000 tasks are in flight and a producer is sending when `fault` befalls the broker; every
/// call whose send was confirmed is done in the end.
#[expect(clippy::print_stdout, reason = "the figures are what somebody runs this for")]
async fn nothing_is_lost(what: &str, fault: fn(&mut PrivateNode) -> xtask::Result<()>) {
    let mut node = PrivateNode::start().unwrap();
    let bundle = Bundle::on(node.vhost("broker-fault").unwrap(), |config| {
        // The patience below is for bugs, and not for a long delay that happened to be drawn.
        config.broker_connection_retry_delay_max = Duration::from_secs(2);
    })
    .await;
    let worker = bundle.worker_with(|worker| worker.concurrency(50)).await;
    let calls = (0..2000).map(|n| hold::s(format!("held {n}")));
    let mut results = bundle.client.send_all(calls).await;
    bundle.probe.seen(50).await;
    let (over, client) = (Arc::new(AtomicBool::new(false)), bundle.client.clone());
    let last = Arc::clone(&over);
    let (begun, begins) = tokio::sync::oneshot::channel();
    let producing = tokio::spawn(async move {
        let (mut sent, mut begun) = (Vec::<Result<AsyncResult<String>, _>>::new(), Some(begun));
        // One more round after the broker is back.
        loop {
            let is_last = last.load(Ordering::Relaxed);
            let at = sent.len();
            let calls = (at..at + 50).map(|n| note::s(format!("sent {n}")));
            sent.extend(client.send_all(calls).await);
            if sent.len() >= 500 {
                begun.take().map(|begun| begun.send(()));
            }
            if is_last {
                return sent;
            }
        }
    });
    within(begins).await.unwrap();
    bundle.probe.open(1000);
    fault(&mut node).unwrap();
    over.store(true, Ordering::Relaxed);
    bundle.probe.open(10_000);
    let produced = tokio::time::timeout(PATIENCE, producing).await;
    let produced = produced.unwrap_or_else(|_| panic!("stuck: {:?}", bundle.client.connection()));
    results.extend(produced.unwrap());
    let all = results.len();
    let confirmed: Vec<_> = results.into_iter().flatten().collect();
    for result in &confirmed {
        result.get(PATIENCE).await.unwrap();
    }
    stop(worker).await;
    bundle.settled();
    let (distinct, duplicates) = bundle.probe.counts();
    println!(
        "broker {what}: {} of {all} sends confirmed, {distinct} done, {duplicates} run twice",
        confirmed.len(),
    );
    assert!(distinct >= confirmed.len());
    bundle.client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_restarted_loses_no_task() {
    nothing_is_lost("restarted", PrivateNode::restart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_loses_no_task() {
    nothing_is_lost("killed with -9", |node| {
        node.kill_9()?;
        node.start_again()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_the_broker_finds_too_large_is_a_failure_and_not_a_loop() {
    let config = vec!["max_message_size = 100000".to_owned()];
    let options = NodeOptions { config, ..NodeOptions::default() };
    let node = PrivateNode::start_with(&options).unwrap();
    let bundle = Bundle::on(node.vhost("too-large").unwrap(), |_| {}).await;
    let worker = bundle.worker().await;
    let result = bytes::delay(&bundle.client, 200_000).await.unwrap();
    let error = result.get(PATIENCE).await.unwrap_err();
    let failure = error.failure().unwrap_or_else(|| panic!("{error:?}"));
    assert!(failure.is("EncodeError"), "{failure:?}");
    let sum = add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 2);
    stop(worker).await;
    bundle.settled();
    assert_eq!(bundle.probe.runs().len(), 1);
    bundle.client.close().await;
}

/// Delays, a retry, a revocation and a claim are made; then the broker is killed and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_broker_that_is_killed_is_kept() {
    const DELAYED: usize = 200;
    let mut node = PrivateNode::start().unwrap();
    let bundle = Bundle::on(node.vhost("broker-keeps").unwrap(), |config| {
        config.broker_connection_retry_delay_max = Duration::from_secs(2);
    })
    .await;
    let client = &bundle.client;
    // A worker is needed for what it sends itself only.
    let worker = bundle.worker().await;
    let again = Signature::<Value>::new("tests.asks_again").arg(6000).arg("first");
    let again = client.send(again).await.unwrap();
    let mut updates = again.updates();
    assert_eq!(updates.next().await.unwrap().status, TaskState::Retry);
    stop(worker).await;

    let begun = Timestamp::now();
    let delayed = (0..DELAYED).map(|number| {
        // From those that are due during the outage to those that are due long after it.
        let at = begun + Duration::from_millis(9000 + 100 * number as u64);
        due::s(number, at.as_millisecond()).eta(at)
    });
    let delayed: Vec<_> = client.send_all(delayed).await.into_iter().map(Result::unwrap).collect();
    let revoked = client.send(note::s("revoked".to_owned())).await.unwrap();
    within(revoked.revoke(false)).await.unwrap();
    let once = || note::s("once".to_owned()).unique(Duration::from_secs(3600));
    let first = client.send(once()).await.unwrap();

    node.wait_until_kept().unwrap();
    node.kill_9().unwrap();
    node.start_again().unwrap();

    let refused = within(client.send(once())).await.unwrap_err();
    let SendError::Duplicate { id, .. } = &refused else { panic!("{refused}") };
    assert_eq!(id.as_deref(), Some(first.id()));
    let worker = bundle.worker().await;
    assert_eq!(first.get(PATIENCE).await.unwrap(), "once");
    let error = revoked.get(PATIENCE).await.unwrap_err();
    assert_eq!(error.failure().unwrap().state, TaskState::Revoked);
    let facts = again.get(PATIENCE).await.unwrap();
    let early_ms = facts.as_map().and_then(|facts| facts.get("early_ms")?.as_i64());
    assert!(early_ms.is_some_and(|it| it <= 0), "{facts:?}");
    for result in &delayed {
        result.get(PATIENCE).await.unwrap();
    }
    stop(worker).await;
    bundle.settled();
    let runs = bundle.probe.runs();
    let mut numbers = Vec::new();
    for (number, late_ms) in runs.iter().filter_map(|run| run.split_once(' ')) {
        assert!(late_ms.parse::<i64>().unwrap() >= 0, "{number} was early by {late_ms} ms");
        numbers.push(number.parse::<usize>().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..DELAYED).collect::<Vec<_>>(), "each runs once");
    assert!(!runs.iter().any(|run| run == "revoked"), "{runs:?}");
    client.close().await;
}
