//! Faults that the shared broker can be made to show: connections cut, queues deleted.

use std::collections::HashSet;

use celeriac::amqp::PublishError;
use celeriac::worker::Error;
use celeriac::{AsyncResult, SendError};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{add, hold, note};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_worker_s_connections_are_cut() {
    const SLOTS: usize = 10;
    let bundle = Bundle::new("worker-cut").await;
    let worker = bundle.worker_with(|worker| worker.concurrency(SLOTS)).await;
    let sent = bundle.client.send_all((0..500).map(|n| hold::s(n.to_string()))).await;
    let results: Vec<AsyncResult<String>> = sent.into_iter().map(Result::unwrap).collect();
    bundle.probe.seen(SLOTS).await;
    bundle.cut_and_wait("consume");
    bundle.cut_and_wait("publish");
    let consumed = || (bundle.vhost.queue_depth("celeriac").ok()?.unacked > 0).then_some(());
    bundle.vhost.wait_until("deliveries come again", consumed).unwrap();
    bundle.probe.open(10_000);
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result.get(PATIENCE).await.unwrap(), n.to_string());
    }
    stop(worker).await;
    bundle.settled();
    let (distinct, duplicates) = bundle.probe.counts();
    println!("worker's connections cut: {distinct} of 500 done, {duplicates} run twice");
    assert_eq!(distinct, 500);
    assert_eq!(duplicates, 0, "what ran is known when it comes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_sent_is_done_when_the_client_s_connection_is_cut() {
    let bundle = Bundle::new("client-cut").await;
    let worker = bundle.worker().await;
    // The client and the worker have one each.
    let publishing = bundle.connections("publish", 2);
    let client = bundle.client.clone();
    let sending = tokio::spawn(async move {
        let mut results = Vec::new();
        for chunk in 0..40 {
            let calls = (0..50).map(|n| note::s((chunk * 50 + n).to_string()));
            results.extend(client.send_all(calls).await);
        }
        results
    });
    bundle.probe.seen(200).await;
    bundle.cut(&publishing);
    let sent = within(sending).await.unwrap();
    let failed = sent.iter().filter(|sent| sent.is_err()).count();
    for result in sent.into_iter().flatten() {
        result.get(PATIENCE).await.unwrap();
    }
    stop(worker).await;
    bundle.settled();
    let (distinct, duplicates) = bundle.probe.counts();
    println!(
        "connections to publish cut: {distinct} of 2000 done, {duplicates} run twice, \
         {failed} not sent"
    );
    assert_eq!((distinct, failed), (2000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_arrive_although_the_reply_connection_is_cut() {
    let bundle = Bundle::new("reply-cut").await;
    let worker = bundle.worker_with(|worker| worker.concurrency(200)).await;
    let sent = bundle.client.send_all((0..200).map(|n| hold::s(n.to_string()))).await;
    bundle.probe.seen(200).await;
    let names = bundle.connections("results", 1);
    bundle.probe.open(100);
    bundle.cut(&names);
    bundle.probe.open(100);
    for (n, result) in sent.into_iter().enumerate() {
        assert_eq!(result.unwrap().get(PATIENCE).await.unwrap(), n.to_string());
    }
    stop(worker).await;
    assert_eq!(bundle.probe.counts(), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_deleted_under_its_worker_is_consumed_again() {
    let bundle = Bundle::new("queue-gone").await;
    let worker = bundle.worker().await;
    let held = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    bundle.vhost.delete_queue("celeriac").unwrap();
    bundle.vhost.wait_until("the queue is back", || bundle.vhost.queue("celeriac").ok()?).unwrap();
    // A queue that is still on its way out refuses what reaches it.
    let accepted = async {
        loop {
            match add::delay(&bundle.client, 1, 1).await {
                Err(SendError::Publish { source, .. })
                    if matches!(*source, PublishError::Nacked) => {}
                sent => break sent.unwrap(),
            }
        }
    };
    let sum = within(accepted).await;
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 2);
    bundle.probe.open(1);
    assert_eq!(held.get(PATIENCE).await.unwrap(), "x", "its result needs no queue");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_workers_share_is_done_once_when_one_of_them_leaves() {
    let bundle = Bundle::new("leaving").await;
    let leaving = bundle.worker_with(|worker| worker.concurrency(5)).await;
    let sent = bundle.client.send_all((0..300).map(|n| note::s(n.to_string()))).await;
    let staying = bundle.worker_with(|worker| worker.hostname("other@host")).await;
    stop(leaving).await;
    for result in sent {
        result.unwrap().get(PATIENCE).await.unwrap();
    }
    stop(staying).await;
    assert_eq!(bundle.probe.counts(), (300, 0));
    let labels: HashSet<String> = bundle.probe.runs().into_iter().collect();
    assert_eq!(labels.len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_closes_although_its_broker_is_gone() {
    let bundle = Bundle::new("close").await;
    let result = add::delay(&bundle.client, 1, 1).await.unwrap();
    let mut state = bundle.client.connection().state();
    let Bundle { vhost, client, .. } = bundle;
    // All connections end with their virtual host, and none can be made again.
    drop(vhost);
    within(state.wait_for(|state| !state.is_connected())).await.unwrap();
    within(client.close()).await;
    assert!(result.get(PATIENCE).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_although_its_broker_is_gone() {
    let bundle = Bundle::new("stop-gone").await;
    let worker = bundle.worker().await;
    let mut state = bundle.client.connection().state();
    let Bundle { vhost, .. } = bundle;
    drop(vhost);
    within(state.wait_for(|state| !state.is_connected())).await.unwrap();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_can_publish_no_more_stops_instead_of_running_tasks_in_vain() {
    let bundle = Bundle::with("no-publish", |config| config.broker_connection_retry = false).await;
    let worker = bundle.worker().await;
    hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    let publishing = bundle.connections("publish", 2);
    // What is connected stays, and nothing else may connect.
    let path = ["vhost-limits", bundle.vhost.name(), "max-connections"];
    bundle.vhost.management().put(&path, &serde_json::json!({"value": 0})).unwrap();
    bundle.cut(&publishing);
    let error = within(worker.wait()).await.unwrap_err();
    assert!(matches!(error, Error::Lost(_)) && error.is_connection(), "{error:?}");
    bundle.probe.open(100);
    bundle.wait_for_depth(1, 0);
    assert_eq!(bundle.probe.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_can_join_no_more_stops_instead_of_leaving_chords_to_wait() {
    let bundle = Bundle::with("no-join", |config| config.broker_connection_retry = false).await;
    let worker = bundle.worker().await;
    let joining = bundle.connections("join", 1);
    let path = ["vhost-limits", bundle.vhost.name(), "max-connections"];
    bundle.vhost.management().put(&path, &serde_json::json!({"value": 0})).unwrap();
    bundle.cut(&joining);
    let error = within(worker.wait()).await.unwrap_err();
    assert!(matches!(error, Error::Lost(_)) && error.is_connection(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_consume_again_finishes_what_runs_and_says_so() {
    let bundle = Bundle::with("no-consume", |config| config.broker_connection_retry = false).await;
    let worker = bundle.worker().await;
    let held = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    let consuming = bundle.connections("consume", 1);
    let path = ["vhost-limits", bundle.vhost.name(), "max-connections"];
    bundle.vhost.management().put(&path, &serde_json::json!({"value": 0})).unwrap();
    bundle.cut(&consuming);
    bundle.wait_for_depth(1, 0);
    bundle.probe.open(1);
    assert_eq!(held.get(PATIENCE).await.unwrap(), "x");
    let error = within(worker.wait()).await.unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error:?}");
    assert_eq!(bundle.probe.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_worker_was_cut_off_is_done_once_more_and_settled() {
    let bundle = Bundle::new("cut-off").await;
    let first = bundle.narrow_worker().await;
    let result = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    let connection = bundle.connections("consume", 1);
    let second = bundle.worker_with(|worker| worker.hostname("other@host")).await;
    bundle.cut(&connection);
    bundle.probe.seen(2).await;
    bundle.probe.open(2);
    assert_eq!(result.get(PATIENCE).await.unwrap(), "x");
    stop(first).await;
    stop(second).await;
    bundle.settled();
    assert_eq!(bundle.probe.counts(), (1, 1));
}
