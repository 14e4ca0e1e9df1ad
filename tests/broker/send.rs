//! Sending: many at once, unroutable calls, routes, and priorities.

use std::error::Error;

use celeriac::amqp::QueueKind;
use celeriac::client::{Route, Routes};
use celeriac::{SendError, Signature};

use crate::bundle::{Bundle, PATIENCE, queue, stop};
use crate::tasks::{add, echo, note};

#[tokio::test(flavor = "multi_thread")]
async fn each_of_2000_calls_has_its_outcome_in_order() {
    let bundle = Bundle::new("many").await;
    let worker = bundle.worker().await;
    let sent = bundle.client.send_all((0..2000).map(|n| add::s(n, 1))).await;
    assert_eq!(sent.len(), 2000);
    for (n, result) in (0..).zip(sent) {
        assert_eq!(result.unwrap().get(PATIENCE).await.unwrap(), n + 1);
    }
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unroutable_call_is_an_error_that_holds_up_no_other() {
    let bundle = Bundle::new("unroutable").await;
    let worker = bundle.worker().await;
    let calls = [
        add::s(1, 1),
        add::s(2, 2).queue("nowhere"),
        add::s(3, 3).exchange("amq.direct").routing_key("nobody"),
        add::s(4, 4),
    ];
    let sent = bundle.client.send_all(calls).await;
    let told = |error: &SendError| {
        let source = error.source().map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    };
    for (at, parts) in [(1, ["", "nowhere"]), (2, ["amq.direct", "nobody"])] {
        let error = sent[at].as_ref().unwrap_err();
        assert!(error.is_unroutable(), "{error:?}");
        let told = told(error);
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    }
    assert_eq!(sent[0].as_ref().unwrap().get(PATIENCE).await.unwrap(), 2);
    assert_eq!(sent[3].as_ref().unwrap().get(PATIENCE).await.unwrap(), 8);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_does_not_exist_fails_its_own_call_only() {
    let bundle = Bundle::new("no-exchange").await;
    let worker = bundle.worker().await;
    let calls = [add::s(1, 1), add::s(2, 2).exchange("no-such").routing_key("x"), add::s(3, 3)];
    let sent = bundle.client.send_all(calls).await;
    let error = sent[1].as_ref().unwrap_err();
    assert!(error.source().unwrap().to_string().contains("no-such"), "{error:?}");
    for (at, sum) in [(0, 2), (2, 6)] {
        assert_eq!(sent[at].as_ref().unwrap().get(PATIENCE).await.unwrap(), sum);
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_choose_the_queue_by_name_by_pattern_and_by_function() {
    let routes = Routes::new()
        .route("tests.add", Route::queue("by-name"))
        .and_then(|routes| routes.route("tests.ec*", Route::queue("by-pattern")))
        .unwrap()
        .function(|call| (call.task == "tests.note").then(|| Route::queue("by-function")));
    let bundle = Bundle::with("routes", |config| {
        config.task_routes = routes;
        config.task_queues = vec![queue("by-function"), queue("by-call")];
    })
    .await;
    let (label, null) = (String::new(), celeriac::Value::Null);
    bundle.client.send(add::s(1, 1)).await.unwrap();
    bundle.client.send(echo::s(null)).await.unwrap();
    bundle.client.send(note::s(label.clone())).await.unwrap();
    bundle.client.send(note::s(label).queue("by-call")).await.unwrap();
    for (queue, task) in [
        ("by-name", "tests.add"),
        ("by-pattern", "tests.echo"),
        ("by-function", "tests.note"),
        ("by-call", "tests.note"),
    ] {
        let messages = bundle.vhost.messages(queue).unwrap();
        assert_eq!(messages.len(), 1, "{queue}");
        assert_eq!(messages[0].header("task").unwrap(), task);
    }
    assert!(bundle.vhost.messages("celeriac").unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_from_all_queues_that_it_is_given() {
    let bundle = Bundle::with("queues", |config| {
        config.task_queues = vec![queue("one"), queue("two")];
    })
    .await;
    let worker = bundle.worker_with(|worker| worker.queues(["one", "two", "celeriac"])).await;
    let calls = ["one", "two", "celeriac"].map(|queue| add::s(1, 1).queue(queue));
    for result in bundle.client.send_all(calls).await {
        assert_eq!(result.unwrap().get(PATIENCE).await.unwrap(), 2);
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_priority_is_delivered_first() {
    let bundle = Bundle::with("priority", |config| {
        let mut ranked = queue("ranked");
        (ranked.queue_type, ranked.max_priority) = (Some(QueueKind::Classic), Some(9));
        config.task_queues = vec![ranked];
    })
    .await;
    let call = |label: &str, priority| {
        note::s(label.to_owned()).queue("ranked").priority(priority).ignore_result(true)
    };
    let mut calls: Vec<Signature<String>> = (0..30).map(|_| call("low", 1)).collect();
    calls.push(call("high", 9));
    for sent in bundle.client.send_all(calls).await {
        sent.unwrap();
    }
    let narrow = |worker: celeriac::Worker| {
        worker.concurrency(1).blocking_slots(1).prefetch_multiplier(1).queues(["ranked"])
    };
    let worker = bundle.worker_with(narrow).await;
    bundle.probe.seen(31).await;
    assert_eq!(bundle.probe.runs()[0], "high");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_has_two_classes_of_priority_since_rabbitmq_4_and_none_before() {
    let bundle = Bundle::new("classes").await;
    let call =
        |label: &str, priority| note::s(label.to_owned()).priority(priority).ignore_result(true);
    let mut calls: Vec<Signature<String>> = (0..30).map(|_| call("low", 4)).collect();
    calls.push(call("high", 5));
    for sent in bundle.client.send_all(calls).await {
        sent.unwrap();
    }
    let worker = bundle.narrow_worker().await;
    bundle.probe.seen(31).await;
    let at = bundle.probe.runs().iter().position(|label| label == "high").unwrap();
    let overview = bundle.vhost.management().get(&["overview"]).unwrap().unwrap();
    let version = overview["rabbitmq_version"].as_str().unwrap();
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    // Up to two of the high class come for each of the normal one.
    let right = if major < 4 { at == 30 } else { at < 3 };
    assert!(right, "it was number {at} of 31 in RabbitMQ {version}");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_one_slot_runs_messages_in_their_order() {
    let bundle = Bundle::new("order").await;
    let labels: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let calls = labels.iter().map(|label| note::s(label.clone()).ignore_result(true));
    for sent in bundle.client.send_all(calls).await {
        sent.unwrap();
    }
    let worker = bundle.narrow_worker().await;
    bundle.probe.seen(200).await;
    assert_eq!(bundle.probe.runs(), labels);
    stop(worker).await;
}
