//! Tasks for later wait in the delay queues of the broker, whoever sent them.

use std::collections::HashSet;
use std::time::Duration;

use celeriac::amqp::QueueKind;
use jiff::Timestamp;
use serde_json::json;
use xtask::QueueDepth;

use crate::bundle::{Bundle, PATIENCE, queue, stop};
use crate::tasks::{due, facts, note, now};

/// The level at which an hour waits first: 2048 seconds.
const LEVEL_OF_AN_HOUR: &str = "celery_delayed_11";

/// Puts a call of `tests.now` into the task queue, as other programs do.
fn publish_for(bundle: &Bundle, eta: Timestamp, id: &str, reply_to: &str) {
    let headers = json!({
        "lang": "py", "task": "tests.now", "id": id, "eta": eta.to_string(), "tenant": "acme",
        "x-death": [], "x-last-death-queue": "elsewhere",
    });
    let properties = json!({
        "content_type": "application/json", "headers": headers, "correlation_id": id,
        "reply_to": reply_to, "priority": 3, "delivery_mode": 2,
    });
    assert!(bundle.vhost.publish("", "celeriac", &properties, b"[[], {}, {}]").unwrap());
}

fn wait_for_one_in(bundle: &Bundle, queue: &str) {
    let one = QueueDepth { ready: 1, unacked: 0 };
    bundle.vhost.wait_for_depth(queue, one, PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_task_waits_in_the_broker_and_is_never_early() {
    let bundle = Bundle::new("far").await;
    let before = Timestamp::now();
    // Without a worker: the client alone makes sure that it will arrive.
    let result = bundle.client.send(now::s().countdown(Duration::from_millis(4300))).await.unwrap();
    let queues = bundle.vhost.queues().unwrap();
    assert_eq!(queues.iter().filter(|name| name.starts_with("celery_delayed_")).count(), 28);
    let worker = bundle.worker().await;
    let ran_at = result.get(PATIENCE).await.unwrap();
    let late = ran_at - before.as_millisecond() - 4300;
    assert!(late >= 0, "early by {late} ms");
    println!("late by {late} ms");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_later_that_arrives_in_the_task_queue_is_handed_on_as_it_is() {
    let bundle = Bundle::new("handed-on").await;
    let worker = bundle.worker().await;
    let eta = Timestamp::now() + Duration::from_secs(3700);
    publish_for(&bundle, eta, "one", "somebody");
    wait_for_one_in(&bundle, LEVEL_OF_AN_HOUR);
    bundle.settled();
    let messages = bundle.vhost.messages(LEVEL_OF_AN_HOUR).unwrap();
    let message = &messages[0];
    assert_eq!(message.exchange, LEVEL_OF_AN_HOUR);
    assert!(message.routing_key.ends_with(".celeriac") && message.routing_key.starts_with("0.0."));
    assert_eq!(message.payload, b"[[], {}, {}]");
    assert_eq!(message.header("eta"), Some(&json!(eta.to_string())));
    assert_eq!(message.header("tenant"), Some(&json!("acme")));
    for trace in ["x-death", "x-last-death-queue"] {
        assert_eq!(message.header(trace), None, "{trace}");
    }
    assert_eq!(message.properties["priority"], 3);
    assert_eq!(message.properties["reply_to"], "somebody");
    assert_eq!(message.properties["correlation_id"], "one");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delay_queues_that_were_deleted_are_declared_again() {
    let bundle = Bundle::new("delay-deleted").await;
    let worker = bundle.worker().await;
    let in_seconds = |seconds| Timestamp::now() + Duration::from_secs(seconds);
    publish_for(&bundle, in_seconds(3700), "one", "");
    wait_for_one_in(&bundle, LEVEL_OF_AN_HOUR);
    let first = ["exchanges", bundle.vhost.name(), "celery_delayed_5"];
    bundle.vhost.management().delete(&first).unwrap();
    bundle.vhost.delete_queue("celery_delayed_5").unwrap();
    publish_for(&bundle, in_seconds(50), "two", "");
    wait_for_one_in(&bundle, "celery_delayed_5");
    bundle.settled();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_for_later_to_a_queue_that_does_not_exist_is_an_error() {
    let bundle = Bundle::new("delay-nowhere").await;
    let call = note::s("lost".to_owned()).countdown(Duration::from_secs(60)).queue("nowhere");
    let error = bundle.client.send(call).await.unwrap_err();
    assert!(error.is_unroutable(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_delay_queues_tasks_wait_in_the_worker() {
    let bundle = Bundle::new("delay-denied").await;
    let user = bundle.vhost.url().split("://").nth(1).unwrap().split(':').next().unwrap();
    let rights = json!({ "configure": "^(?!celery_delayed).*", "write": ".*", "read": ".*" });
    let path = ["permissions", bundle.vhost.name(), user];
    bundle.vhost.management().put(&path, &rights).unwrap();
    let worker = bundle.worker().await;
    let far = now::s().countdown(Duration::from_secs(3600));
    bundle.client.send(far).await.unwrap();
    bundle.wait_for_depth(0, 1);
    let before = Timestamp::now();
    let result = bundle.client.send(now::s().countdown(Duration::from_secs(3))).await.unwrap();
    let ran_at = result.get(PATIENCE).await.unwrap();
    assert!(ran_at >= before.as_millisecond() + 3000);
    let queues = bundle.vhost.queues().unwrap();
    assert!(!queues.iter().any(|name| name.starts_with("celery_delayed_")), "{queues:?}");
    stop(worker).await;
}

/// Longer than all delay queues together hold it: it waits, and is handed on, and waits again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_in_a_century_waits_as_long_as_it_can_and_then_again() {
    const LONGEST: &str = "celery_delayed_27";
    let bundle = Bundle::new("century").await;
    let century = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    bundle.client.send(now::s().countdown(century)).await.unwrap();
    wait_for_one_in(&bundle, LONGEST);
    let longest = format!("{}celeriac", "1.".repeat(28));
    assert_eq!(bundle.vhost.messages(LONGEST).unwrap()[0].routing_key, longest);
    // As it comes out after the first eight years.
    let worker = bundle.worker().await;
    let eta = Timestamp::now() + century / 2;
    publish_for(&bundle, eta, "again", "");
    let two = QueueDepth { ready: 2, unacked: 0 };
    bundle.vhost.wait_for_depth(LONGEST, two, PATIENCE).unwrap();
    let messages = bundle.vhost.messages(LONGEST).unwrap();
    assert_eq!(messages[1].routing_key, longest);
    assert_eq!(messages[1].header("eta"), Some(&json!(eta.to_string())));
    bundle.settled();
    stop(worker).await;
    assert!(bundle.probe.runs().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_a_queue_with_priorities_waits_in_the_broker_and_keeps_its_own() {
    let bundle = Bundle::with("delay-priority", |config| {
        let mut ranked = queue("ranked");
        ranked.max_priority = Some(9);
        config.task_queues = vec![ranked];
    })
    .await;
    let before = Timestamp::now();
    let call = facts::s().queue("ranked").priority(7).countdown(Duration::from_millis(4300));
    let result = bundle.client.send(call).await.unwrap();
    let waits = || {
        let names = (0..=2).map(|level| format!("celery_delayed_{level}"));
        names.into_iter().find(|name| bundle.vhost.messages(name).is_ok_and(|it| !it.is_empty()))
    };
    bundle.vhost.wait_until("it waits in the broker", waits).unwrap();
    let worker = bundle.worker_with(|worker| worker.queues(["ranked"])).await;
    let facts = result.get(PATIENCE).await.unwrap();
    assert!(Timestamp::now() >= before + Duration::from_millis(4300));
    let fact = |name: &str| facts.get(name).and_then(celeriac::Value::as_i64);
    assert_eq!(fact("priority"), Some(7), "{facts:?}");
    stop(worker).await;
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Memory of this process, which is the worker's and the client's, in KiB.
fn memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// `CELERIAC_DELAYED_TASKS` and `CELERIAC_DELAYED_SECONDS` make it larger; 20,000 tasks and 60
/// seconds is the size for which the delay queues are meant to hold without effort.
#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_with_random_delays_run_once_each_and_none_early() {
    let seconds = setting("CELERIAC_DELAYED_SECONDS", 8);
    run_at_random(QueueKind::Quorum, setting("CELERIAC_DELAYED_TASKS", 2000), seconds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_wait_as_well_in_classic_delay_queues() {
    run_at_random(QueueKind::Classic, 500, 5).await;
}

#[expect(clippy::print_stdout, reason = "the figures are what somebody runs this for")]
async fn run_at_random(kind: QueueKind, count: u64, seconds: u64) {
    let set = |config: &mut celeriac::Config| {
        config.broker_native_delayed_delivery_queue_type = kind;
    };
    let bundle = Bundle::with("many-delays", set).await;
    let worker = bundle.worker().await;
    // So that what is declared at first is not counted.
    let first = bundle.client.send(now::s().countdown(Duration::from_secs(3))).await.unwrap();
    first.get(PATIENCE).await.unwrap();
    bundle.probe.drain();
    let path = ["queues", bundle.vhost.name(), "celery_delayed_2"];
    let declared = bundle.vhost.management().get(&path).unwrap().unwrap();
    let expected = if kind == QueueKind::Quorum { "quorum" } else { "classic" };
    assert_eq!(declared["type"], expected);
    let before = memory_kib();
    let random = || uuid::Uuid::new_v4().as_u128() as u64;
    let mut spread = HashSet::new();
    let calls = (0..count).map(|number| {
        let delay_ms = random() % (seconds * 1000 + 1);
        spread.insert(delay_ms);
        let at = Timestamp::now() + Duration::from_millis(delay_ms);
        due::s(usize::try_from(number).unwrap(), at.as_millisecond()).eta(at).ignore_result(true)
    });
    let calls: Vec<_> = calls.collect();
    let begun = Timestamp::now();
    for sent in bundle.client.send_all(calls).await {
        sent.unwrap();
    }
    println!("sent in {:#}", Timestamp::now().duration_since(begun));
    // The client has built all calls at once, which is most of it.
    let sent = memory_kib();
    let mut held_max = 0;
    while bundle.probe.runs().len() < usize::try_from(count).unwrap() {
        let depth = bundle.vhost.queue_depth("celeriac").unwrap();
        held_max = held_max.max(depth.unacked);
        tokio::time::timeout(Duration::from_millis(500), bundle.probe.seen_more()).await.ok();
    }
    let prefetch = worker.info().prefetch;
    let runs = bundle.probe.runs();
    let (distinct, repeated) = {
        let numbers: HashSet<&str> =
            runs.iter().map(|run| run.split(' ').next().unwrap()).collect();
        (numbers.len(), runs.len() - numbers.len())
    };
    let mut late: Vec<i64> =
        runs.iter().map(|run| run.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    late.sort_unstable();
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    println!(
        "{count} tasks over {seconds} s, {} different delays: late by {} ms at least, {} ms in \
         the middle, {} ms in 99 of 100, {} ms at most; at most {held_max} unacked of {prefetch}; \
         memory {before:?} KiB \
         before, {sent:?} KiB when all were sent, {:?} KiB after",
        spread.len(),
        at(0.0),
        at(0.5),
        at(0.99),
        at(1.0),
        memory_kib(),
    );
    assert_eq!((distinct as u64, repeated), (count, 0));
    assert!(at(0.0) >= 0, "one was early");
    assert!(held_max <= u64::from(prefetch));
    stop(worker).await;
    bundle.settled();
}
