//! What the broker dead-letters: whoever waits for it is told, and it is found where people look.

use celeriac::amqp::{Publish, Publisher, topology};
use celeriac::protocol::canvas::Canvas;
use celeriac::protocol::{Exception, Message, TaskHeaders, TaskMessage, TaskState, Value};
use celeriac::worker::Stopped;
use celeriac::{State, task};
use serde_json::json;
use xtask::FetchedMessage;

use crate::bundle::{Bundle, PATIENCE, queue, stop, within};
use crate::probe::Probe;
use crate::tasks::add;
use crate::workflow::{call, total};

/// Where a message waits that no worker is to see.
const LIMBO: &str = "limbo";
/// Where calls wait that are made only so that somebody waits for their id.
const NOBODY: &str = "nobody";

/// A queue that gives a message up after so many deliveries, before a worker declares it.
fn give_up_after(bundle: &Bundle, queue: &str, deliveries: u32) {
    let arguments = json!({"x-queue-type": "quorum", "x-delivery-limit": deliveries - 1,
        "x-dead-letter-exchange": topology::dead_exchange()});
    let queue = ["queues", bundle.vhost.name(), queue];
    bundle.vhost.management().delete(&queue).unwrap();
    let spec = json!({"durable": true, "arguments": arguments});
    bundle.vhost.management().put(&queue, &spec).unwrap();
}

fn parked(bundle: &Bundle, queue: &str, count: usize) -> Vec<FetchedMessage> {
    let all = || bundle.vhost.messages(queue).ok().filter(|all| all.len() >= count);
    let all = xtask::wait_until("messages are parked", PATIENCE, all).unwrap();
    assert_eq!(all.len(), count);
    all
}

fn header<'a>(message: &'a FetchedMessage, name: &str) -> &'a str {
    message.header(name).and_then(serde_json::Value::as_str).unwrap_or_default()
}

/// Waits until no dead letter is left to reap.
fn reaped(bundle: &Bundle) {
    let none = xtask::QueueDepth { ready: 0, unacked: 0 };
    bundle.vhost.wait_for_depth(topology::dead_queue(), none, PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_given_up_fails_with_all_that_was_to_follow_it() {
    let bundle = Bundle::joining("given-up").await;
    give_up_after(&bundle, "celeriac", 3);
    let worker = bundle.worker().await;
    let mut chain = Canvas::chain(vec![call::<Value>("tests.gives_back", []), total()]).unwrap();
    chain.link_error(&celeriac::protocol::Signature::new("tests.on_failure_id"));
    let begun = bundle.begin(chain).await;
    bundle.probe.seen(4).await;
    let runs = bundle.probe.drain();
    let (told, runs) = runs.split_last().unwrap();
    assert!(told.starts_with("told of "), "{told} {runs:?}");
    assert_eq!(runs, ["gives back"; 3]);
    let reports = bundle.reports(2);
    assert!(reports.iter().any(|report| report.task_id == begun.id), "{reports:?}");
    for report in &reports {
        assert_eq!(report.status, TaskState::Failure);
        let exception = Exception::from_value(&report.result).unwrap();
        assert_eq!(exception.exc_type, "WorkerLostError");
    }
    let dead = parked(&bundle, "celeriac.dead", 1).remove(0);
    assert_eq!(header(&dead, "dead_reason"), "delivery-limit");
    assert_eq!(header(&dead, "dead_queue"), "celeriac");
    assert_eq!(header(&dead, "task"), "tests.gives_back");
    assert!(dead.header("x-death").is_none() && dead.header("x-first-death-queue").is_none());
    reaped(&bundle);
    stop(worker).await;
    bundle.settled();
}

/// An errback that takes as long as the gate is closed.
#[task(name = "tests.on_failure_held")]
async fn on_failure_held(request: Value, error: Value, traceback: Value, probe: State<Probe>) {
    let _ = (request, error, traceback);
    probe.record("errback");
    probe.pass().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminating_ends_a_worker_that_waits_for_the_errback_of_a_dead_letter() {
    let bundle = Bundle::joining("given-up-held").await;
    give_up_after(&bundle, "celeriac", 2);
    let worker = bundle.worker().await;
    let mut call = call::<Value>("tests.gives_back", []);
    call.link_error(&celeriac::protocol::Signature::new("tests.on_failure_held"));
    bundle.begin(call).await;
    bundle.probe.seen(3).await;
    assert_eq!(bundle.probe.drain(), ["gives back", "gives back", "errback"]);
    worker.handle().shutdown();
    let dead = topology::dead_queue();
    let stops = || (bundle.vhost.consumers(dead).ok()? == 0).then_some(());
    bundle.vhost.wait_until("nobody reaps", stops).unwrap();
    worker.handle().terminate();
    assert_eq!(within(worker.wait()).await.unwrap(), Stopped::Cold);
    let back = xtask::QueueDepth { ready: 1, unacked: 0 };
    bundle.vhost.wait_for_depth(dead, back, PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_one_of_whose_parts_is_given_up_fails_at_once() {
    let bundle = Bundle::joining("given-up-part").await;
    give_up_after(&bundle, "celeriac", 2);
    let worker = bundle.worker().await;
    let header = vec![call("tests.add", [1, 2]), call::<Value>("tests.gives_back", [])];
    let begun = bundle.begin(Canvas::chord(header, total()).unwrap()).await;
    let report = bundle.reports(1).remove(0);
    assert_eq!(report.task_id, begun.id);
    let exception = Exception::from_value(&report.result).unwrap();
    assert_eq!(exception.exc_type, "ChordError");
    assert!(exception.to_string().contains("WorkerLostError"), "{exception}");
    parked(&bundle, "celeriac.dead", 1);
    bundle.vhost.purge("celeriac.dead").unwrap();
    reaped(&bundle);
    bundle.nothing_is_left();
    stop(worker).await;
    bundle.settled();
}

/// A message for `tests.add` with these dates.
fn dated(id: &str, expires: Option<&str>, reply_to: &str) -> Message {
    let date = |text| celeriac::protocol::Date::parse(text).unwrap();
    let headers = TaskHeaders { expires: expires.map(date), ..TaskHeaders::new("tests.add", id) };
    let mut message = TaskMessage {
        headers,
        reply_to: Some(reply_to.to_owned()),
        correlation_id: Some(id.to_owned()),
        persistent: true,
        ..TaskMessage::default()
    };
    message.body.args = vec![1.into(), 2.into()];
    let mut message = message.encode().unwrap();
    message.properties.expiration = Some("1".to_owned());
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_before_a_worker_sees_it_is_revoked() {
    let limbo =
        |config: &mut celeriac::Config| config.task_queues = [LIMBO, NOBODY].map(queue).into();
    let bundle = Bundle::with("expired-unseen", limbo).await;
    let worker = bundle.worker().await;
    let publisher = Publisher::new(bundle.client.connection());
    // Only for their reply queue, and for somebody to wait.
    let mut waiting = Vec::new();
    for id in ["own", "its queue's"] {
        let call = add::s(1, 2).task_id(id).queue(NOBODY);
        waiting.push(bundle.client.send(call).await.unwrap());
    }
    let reply_to = bundle.reply_queues().pop().unwrap();
    let own = dated("own", Some("2020-01-01T00:00:00Z"), &reply_to);
    publisher.publish(Publish::new("", LIMBO, own)).await.unwrap();
    publisher
        .publish(Publish::new("", LIMBO, dated("its queue's", None, &reply_to)))
        .await
        .unwrap();
    for result in waiting {
        let error = result.get(PATIENCE).await.unwrap_err();
        let failure = error.failure().unwrap();
        assert!(failure.is("TaskRevokedError"), "{failure:?}");
    }
    // No worker has ever consumed its queue.
    let dead = parked(&bundle, "limbo.dead", 1).remove(0);
    assert_eq!((header(&dead, "id"), header(&dead, "dead_reason")), ("its queue's", "expired"));
    reaped(&bundle);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_are_no_tasks_are_put_aside_and_the_reaper_goes_on() {
    let bundle = Bundle::joining("no-corpse").await;
    let worker = bundle.worker().await;
    let exchange = topology::dead_exchange();
    let death = |queue: &str| {
        json!({"headers": {"x-death":
            [{"queue": queue, "reason": "rejected", "exchange": "", "routing-keys": [queue]}]}})
    };
    // The name of its parking queue would be too long.
    let endless = "q".repeat(253);
    let letters = [
        (json!({}), &b"garbage"[..]),
        (json!({"headers": {"x-death": "odd", "dead_queue": 7}}), b"odd"),
        (death("celeriac.join.1"), b"record"),
        (death("never-declared"), b"unreadable"),
        (death(&endless), b"endless"),
    ];
    for (properties, payload) in &letters {
        assert!(bundle.vhost.publish(exchange, "", properties, payload).unwrap());
    }
    let aside = "celeriac.dead-letters.dead";
    let mut found = parked(&bundle, aside, 3);
    found.sort_by_key(|it| it.payload.clone());
    let reasons: Vec<_> =
        found.iter().map(|it| (&*it.payload, header(it, "dead_reason"))).collect();
    assert_eq!(
        reasons,
        [(&b"endless"[..], "unreapable"), (b"garbage", "no-death"), (b"odd", "no-death")]
    );
    let record = parked(&bundle, "celeriac.join.1.dead", 1).remove(0);
    assert_eq!((&*record.payload, header(&record, "dead_reason")), (&b"record"[..], "join-record"));
    let unreadable = parked(&bundle, "never-declared.dead", 1).remove(0);
    assert_eq!(header(&unreadable, "dead_reason"), "rejected");
    reaped(&bundle);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_classic_queue_is_given_up_as_well() {
    let change = |config: &mut celeriac::Config| {
        crate::workflow::brisk(config);
        config.task_default_queue_type = celeriac::amqp::QueueKind::Classic;
        config.worker_delivery_limit = 2;
    };
    let bundle = Bundle::joining_with("given-up-classic", change).await;
    let worker = bundle.worker().await;
    let header = vec![call("tests.add", [1, 2]), call::<Value>("tests.gives_back", [])];
    let begun = bundle.begin(Canvas::chord(header, total()).unwrap()).await;
    let report = bundle.reports(1).remove(0);
    assert_eq!(report.task_id, begun.id);
    let exception = Exception::from_value(&report.result).unwrap().to_string();
    assert!(exception.contains("delivered 3 times"), "{exception}");
    assert_eq!(bundle.probe.drain(), ["gives back"; 3]);
    let dead = parked(&bundle, "celeriac.dead", 1).remove(0);
    assert_eq!(reason_and_attempts(&dead), ("delivery-limit", Some(3)));
    assert!(dead.header("x-celeriac-deliveries").is_none());
    stop(worker).await;
    bundle.settled();
}

/// As Celery declares its quorum queues: the broker would deliver for ever, or drop in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_quorum_queue_that_somebody_else_declared_is_given_up_as_well() {
    let few = |config: &mut celeriac::Config| config.worker_delivery_limit = 3;
    let bundle = Bundle::with("given-up-others", few).await;
    let queue = ["queues", bundle.vhost.name(), "celeriac"];
    let spec = json!({"durable": true, "arguments": {"x-queue-type": "quorum"}});
    bundle.vhost.management().delete(&queue).unwrap();
    bundle.vhost.management().put(&queue, &spec).unwrap();
    let worker = bundle.worker().await;
    let result = crate::tasks::gives_back::delay(&bundle.client).await.unwrap();
    let error = within(result.get(PATIENCE)).await.unwrap_err();
    let failure = error.failure().unwrap();
    assert!(failure.is("WorkerLostError"), "{failure:?}");
    assert!(failure.to_string().contains("delivered 3 times"), "{failure}");
    assert_eq!(bundle.probe.drain(), ["gives back"; 3]);
    let dead = parked(&bundle, "celeriac.dead", 1).remove(0);
    assert_eq!(reason_and_attempts(&dead), ("delivery-limit", Some(4)));
    stop(worker).await;
    bundle.settled();
}

fn reason_and_attempts(dead: &FetchedMessage) -> (&str, Option<u64>) {
    (header(dead, "dead_reason"), dead.header("dead_attempts").and_then(serde_json::Value::as_u64))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_comes_back_to_a_classic_queue_sees_that_it_did() {
    let classic = |config: &mut celeriac::Config| {
        config.task_default_queue_type = celeriac::amqp::QueueKind::Classic;
    };
    let bundle = Bundle::with("back-to-classic", classic).await;
    let worker = bundle.worker().await;
    let result = crate::tasks::second_time::delay(&bundle.client).await.unwrap();
    assert!(result.get(PATIENCE).await.unwrap());
    assert_eq!(bundle.probe.runs().len(), 2);
    stop(worker).await;
    bundle.settled();
}
