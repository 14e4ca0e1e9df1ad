//! What becomes of tasks that run while the connection of their messages is lost, by their policy.

use celeriac::{State, task};

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::probe::Probe;
use crate::tasks::{block, hold};

/// Says that it runs, waits at the gate, and says that it ends.
async fn gate(probe: &Probe) {
    let _ends = Ends(probe.clone());
    probe.record("begins");
    probe.pass().await;
}

struct Ends(Probe);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.record("ends");
    }
}

#[task(name = "tests.hold_finish", on_connection_loss = finish)]
async fn hold_finish(probe: State<Probe>) {
    gate(&probe).await;
}

#[task(name = "tests.hold_cancel", on_connection_loss = cancel)]
async fn hold_cancel(probe: State<Probe>) {
    gate(&probe).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_back_while_its_task_runs_is_known_again() {
    let bundle = Bundle::new("recognise").await;
    let worker = bundle.worker().await;
    let held = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    let blocks = block::delay(&bundle.client).await.unwrap();
    bundle.probe.seen(2).await;
    for _ in 0..2 {
        bundle.cut_and_wait("consume");
        bundle.wait_for_depth(0, 2);
    }
    bundle.probe.open(2);
    assert_eq!(held.get(PATIENCE).await.unwrap(), "x");
    assert_eq!(blocks.get(PATIENCE).await.unwrap(), 4);
    bundle.settled();
    assert_eq!(bundle.probe.counts(), (2, 0), "neither ran twice");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_classic_queue_is_known_before_it_is_counted() {
    let bundle = Bundle::with("recognise-classic", |config| {
        config.task_default_queue_type = celeriac::amqp::QueueKind::Classic;
        config.worker_delivery_limit = 1;
    })
    .await;
    let worker = bundle.worker().await;
    let held = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    for _ in 0..2 {
        bundle.cut_and_wait("consume");
        bundle.wait_for_depth(0, 1);
    }
    bundle.probe.open(1);
    assert_eq!(held.get(PATIENCE).await.unwrap(), "x");
    bundle.settled();
    assert_eq!(bundle.probe.counts(), (1, 0), "it ran once, and was not given up");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_back_after_its_task_has_ended_is_acked() {
    let bundle = Bundle::new("recognise-ended").await;
    let worker = bundle.worker().await;
    let held = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    let old = bundle.connections("consume", 1);
    // What is connected stays, and nothing else may connect.
    let limit = ["vhost-limits", bundle.vhost.name(), "max-connections"];
    bundle.vhost.management().put(&limit, &serde_json::json!({"value": 0})).unwrap();
    bundle.cut(&old);
    bundle.wait_for_depth(1, 0);
    bundle.probe.open(2);
    assert_eq!(held.get(PATIENCE).await.unwrap(), "x");
    bundle.vhost.management().delete(&limit).unwrap();
    bundle.settled();
    assert_eq!(bundle.probe.counts(), (1, 0));
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_to_finish_does_and_runs_again() {
    let bundle = Bundle::new("loss-finish").await;
    let worker = bundle.worker().await;
    let held = hold_finish::delay(&bundle.client).await.unwrap();
    bundle.probe.seen(1).await;
    bundle.cut_and_wait("consume");
    bundle.probe.seen(2).await;
    assert_eq!(bundle.probe.drain(), ["begins", "begins"]);
    bundle.probe.open(2);
    held.get(PATIENCE).await.unwrap();
    stop(worker).await;
    bundle.settled();
    assert_eq!(bundle.probe.drain(), ["ends", "ends"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_to_be_cancelled_ends_before_it_begins_again() {
    let bundle = Bundle::new("loss-cancel").await;
    let worker = bundle.worker().await;
    let held = hold_cancel::delay(&bundle.client).await.unwrap();
    bundle.probe.seen(1).await;
    bundle.cut_and_wait("consume");
    bundle.probe.seen(3).await;
    assert_eq!(bundle.probe.drain(), ["begins", "ends", "begins"]);
    bundle.probe.open(1);
    held.get(PATIENCE).await.unwrap();
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setting_of_celery_s_cancels_all_that_do_not_say_otherwise() {
    let bundle = Bundle::with("loss-setting", |config| {
        config.worker_cancel_long_running_tasks_on_connection_loss = true;
    })
    .await;
    let worker = bundle.worker().await;
    let held = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    bundle.cut_and_wait("consume");
    bundle.probe.seen(2).await;
    bundle.probe.open(1);
    assert_eq!(held.get(PATIENCE).await.unwrap(), "x", "the first one waits no more");
    stop(worker).await;
    bundle.settled();
}
