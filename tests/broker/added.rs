//! Queues that a worker is told to consume: what is delayed reaches them as it does others.

use std::time::Duration;

use celeriac::Value;
use serde_json::json;

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::control::{arguments, ask};
use crate::tasks::{note, now};

async fn add_queue(bundle: &Bundle, queue: &str) {
    let arguments = arguments([("queue", Value::from(queue))]);
    let answer = ask(&bundle.client, "add_consumer", arguments).await;
    assert_eq!(answer, format!("add consumer {queue}"));
}

/// Waits until a queue is consumed, and gets what comes out of the delay queues for it.
fn wait_until_bound(bundle: &Bundle, queue: &str) {
    let path = ["queues", bundle.vhost.name(), queue, "bindings"];
    let bound = || {
        let bindings = bundle.vhost.management().get(&path).ok()??;
        let mut sources = bindings.as_array()?.iter().map(|binding| &binding["source"]);
        sources.any(|source| source == "celery_delayed_delivery").then_some(())
    };
    bundle.vhost.wait_until("the queue is bound to the delay queues", bound).unwrap();
    let consumed = || (bundle.vhost.consumers(queue).ok()? > 0).then_some(());
    bundle.vhost.wait_until("the queue is consumed", consumed).unwrap();
}

/// Sends a call for after a second as a Python program does, which declares nothing itself.
fn publish_delayed(bundle: &Bundle, queue: &str, label: &str) {
    let headers = json!({ "lang": "py", "task": "tests.note", "id": label });
    let properties =
        json!({ "content_type": "application/json", "headers": headers, "delivery_mode": 2 });
    let body = json!([[label], {}, {}]).to_string();
    let key = format!("{}1.{queue}", "0.".repeat(27));
    let routed = bundle.vhost.publish("celery_delayed_0", &key, &properties, body.as_bytes());
    assert!(routed.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delayed_reaches_a_queue_that_was_added_and_one_that_came_back() {
    let bundle = Bundle::new("added-delay").await;
    let worker = bundle.worker().await;
    add_queue(&bundle, "more").await;
    wait_until_bound(&bundle, "more");
    publish_delayed(&bundle, "more", "first");
    bundle.probe.seen(1).await;

    bundle.vhost.delete_queue("more").unwrap();
    wait_until_bound(&bundle, "more");
    publish_delayed(&bundle, "more", "after the queue was deleted");
    bundle.probe.seen(2).await;

    bundle.cut_and_wait("consume");
    wait_until_bound(&bundle, "more");
    let call = note::s("after a cut".to_owned()).queue("more").countdown(Duration::from_secs(3));
    bundle.client.send(call).await.unwrap().get(PATIENCE).await.unwrap();
    let runs = ["first", "after the queue was deleted", "after a cut"];
    assert_eq!(bundle.probe.runs(), runs);
    stop(worker).await;
}

/// Neither the connection that publishes nor the one that consumes may be in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_bound_although_connections_are_cut_meanwhile() {
    let bundle = Bundle::new("added-cut").await;
    let worker = bundle.worker().await;
    add_queue(&bundle, "more").await;
    bundle.cut(&bundle.connections("publish", 1));
    bundle.cut_and_wait("consume");
    for queue in ["more", "celeriac"] {
        wait_until_bound(&bundle, queue);
        publish_delayed(&bundle, queue, queue);
    }
    bundle.probe.seen(2).await;
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_bound_once_the_broker_allows_it() {
    let bundle = Bundle::new("added-denied").await;
    let user = bundle.vhost.url().split("://").nth(1).unwrap().split(':').next().unwrap();
    let path = ["permissions", bundle.vhost.name(), user];
    let allow = |configure: &str| {
        let rights = json!({ "configure": configure, "write": ".*", "read": ".*" });
        bundle.vhost.management().put(&path, &rights).unwrap();
    };
    allow("^(?!celery_delayed).*");
    let worker = bundle.worker().await;
    add_queue(&bundle, "more").await;
    // Who holds a task for that long has been refused.
    let far = now::s().countdown(Duration::from_secs(3600));
    bundle.client.send(far).await.unwrap();
    bundle.wait_for_depth(0, 1);
    allow(".*");
    for queue in ["more", "celeriac"] {
        wait_until_bound(&bundle, queue);
        publish_delayed(&bundle, queue, queue);
    }
    bundle.probe.seen(2).await;
    stop(worker).await;
}
