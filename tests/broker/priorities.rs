//! Which worker gets a message first, and how a worker shares itself between its queues.

use celeriac::client::config::QueueSetting;
use xtask::QueueDepth;

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::tasks::{hold, note};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_lower_priority_gets_what_the_others_cannot_take() {
    let bundle = Bundle::with("consumer-priority", |config| {
        config.worker_consumer_priority = Some(-1);
        config.worker_prefetch_multiplier = 1;
    })
    .await;
    let spare = bundle.worker_with(|it| it.hostname("spare@host").concurrency(1)).await;
    let mut config = bundle.client.config().clone();
    config.worker_consumer_priority = Some(5);
    let app = celeriac::App::builder().config(config).state(bundle.probe.clone()).build();
    let first = celeriac::Worker::new(app).hostname("first@host").concurrency(2).blocking_slots(2);
    let first = first.start().await.unwrap();
    let sent = bundle.client.send_all((0..4).map(|n| hold::s(n.to_string()))).await;
    // The prefetch of the first one is four.
    bundle.probe.seen(2).await;
    bundle.wait_for_depth(0, 4);
    stop(spare).await;
    assert_eq!(bundle.probe.runs().len(), 2, "the spare one has had nothing to run");
    bundle.probe.open(4);
    for result in sent {
        result.unwrap().get(PATIENCE).await.unwrap();
    }
    stop(first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_queue_does_not_starve_the_others_of_its_worker() {
    let bundle = Bundle::with("fair", |config| {
        config.task_queues = ["busy", "quiet"].map(QueueSetting::named).into();
        config.worker_prefetch_multiplier = 1;
    })
    .await;
    let client = &bundle.client;
    // It declares them.
    stop(bundle.worker_with(|worker| worker.queues(["busy", "quiet"])).await).await;
    let busy = client.send_all((0..200).map(|n| note::s(n.to_string()).queue("busy"))).await;
    let quiet = client.send_all((0..5).map(|_| note::s("quiet".to_owned()).queue("quiet"))).await;
    let worker = bundle
        .worker_with(|worker| worker.queues(["busy", "quiet"]).concurrency(2).blocking_slots(1));
    let worker = worker.await;
    for result in busy.into_iter().chain(quiet) {
        result.unwrap().get(PATIENCE).await.unwrap();
    }
    let runs = bundle.probe.runs();
    let last = runs.iter().rposition(|label| label == "quiet").unwrap();
    assert!(last < 100, "the last one of the quiet queue was run as number {last}");
    stop(worker).await;
    for queue in ["busy", "quiet"] {
        let none = QueueDepth { ready: 0, unacked: 0 };
        bundle.vhost.wait_for_depth(queue, none, PATIENCE).unwrap();
    }
}
