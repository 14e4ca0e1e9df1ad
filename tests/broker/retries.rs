//! Tasks that are run again: by their options, or because they ask for it.

use std::time::Duration;

use celeriac::protocol::{Expires, Map, TaskState, Value};
use celeriac::{Context, Signature, State, TaskError, TaskResult, chord, task};
use jiff::Timestamp;
use xtask::QueueDepth;

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::probe::Probe;
use crate::tasks::{add, multiply, on_failure_id, sum};

/// Fails until it was retried twice, and gives its argument then.
#[task(name = "tests.flaky", max_retries = 2, retry_delay = "100ms")]
pub(crate) async fn flaky(cx: Context, value: i64, probe: State<Probe>) -> TaskResult<i64> {
    probe.record(format!("try {}", cx.retries()));
    if cx.retries() < 2 { Err(TaskError::new(format!("try {}", cx.retries()))) } else { Ok(value) }
}

#[task(
    name = "tests.hopeless",
    max_retries = 1,
    retry_backoff = "50ms",
    retry_for(std::num::ParseIntError)
)]
fn hopeless(number: String, probe: State<Probe>) -> TaskResult<i64> {
    probe.record("try");
    Ok(number.parse()?)
}

/// Asks to be run again with other arguments, and says what it then knows about itself.
#[task(name = "tests.asks_again")]
async fn asks_again(cx: Context, wait_ms: u64, word: String) -> TaskResult<Map> {
    if cx.retries() == 0 {
        let again = cx.retry().countdown(Duration::from_millis(wait_ms));
        Err(again.arg(Timestamp::now().as_millisecond() as u64 + wait_ms).arg("again"))?;
    }
    let request = cx.request();
    let mut facts = Map::new();
    facts.push("early_ms", wait_ms as i64 - Timestamp::now().as_millisecond());
    facts.push("word", word);
    facts.push("id", request.id.as_str());
    facts.push("root_id", request.root_id.clone());
    facts.push("retries", i64::from(request.retries));
    facts.push("priority", request.delivery_info.priority.map(i64::from));
    facts.push("headers", request.headers.clone());
    facts.push("origin", request.origin.clone());
    facts.push("limit_s", request.time_limit.map(|limit| limit.as_secs_f64()));
    Ok(facts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flaky_task_succeeds_at_last_and_its_caller_sees_the_retries() {
    let bundle = Bundle::new("flaky").await;
    let worker = bundle.worker().await;
    let result = bundle.client.send(flaky::s(7)).await.unwrap();
    let mut updates = result.updates();
    let mut seen = Vec::new();
    while let Some(meta) = updates.next().await {
        seen.push(meta);
    }
    let states: Vec<_> = seen.iter().map(|meta| meta.status.to_string()).collect();
    assert_eq!(states, ["RETRY", "RETRY", "SUCCESS"]);
    assert_eq!(result.get(PATIENCE).await.unwrap(), 7);
    let traceback = seen[1].traceback.as_deref().unwrap();
    let text = "celery.exceptions.Retry: Retry in 0.1s: Exception('try 1')";
    assert!(traceback.ends_with(text), "{traceback}");
    let own = Value::Array(vec![Value::Array(vec![result.id().into(), Value::Null]), Value::Null]);
    assert_eq!(seen[0].children.as_deref(), Some(&[own][..]));
    assert_eq!(bundle.probe.runs(), ["try 0", "try 1", "try 2"]);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_retry_the_task_fails_with_its_own_error_and_once() {
    let bundle = Bundle::new("hopeless").await;
    let worker = bundle.worker().await;
    let errback = on_failure_id::partial();
    let result = bundle.client.send(hopeless::s("seven".into()).link_error(errback)).await.unwrap();
    let error = result.get(PATIENCE).await.unwrap_err();
    let failure = error.failure().unwrap();
    assert!(failure.is("ParseIntError") && failure.state == TaskState::Failure, "{failure}");
    bundle.probe.seen(3).await;
    let told = format!("told of {}", result.id());
    assert_eq!(bundle.probe.runs(), ["try", "try", &*told]);
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_keeps_its_place_in_a_chain_and_in_a_chord() {
    let bundle = Bundle::new("retry-canvas").await;
    let worker = bundle.worker().await;
    let chain = add::s(1, 2) | flaky::partial() | multiply::partial(10);
    let result = bundle.client.apply(chain).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 30);
    let parts = [flaky::s(1), add::s(2, 3), flaky::s(4)];
    let result = bundle.client.apply(chord(parts, sum::partial())).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 10);
    assert_eq!(bundle.probe.runs().len(), 9, "three flaky ones, three tries each");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_asks_for_a_retry_with_other_arguments_and_keeps_all_else() {
    let bundle = Bundle::new("asks").await;
    let worker = bundle.worker().await;
    // The first waits in the worker, the second in the broker.
    for wait_ms in [300, 3500] {
        let call = asks_again::s(wait_ms, "first".into())
            .priority(4)
            .header("tenant", "acme")
            .time_limit(Duration::from_secs(30));
        let result = bundle.client.send(call).await.unwrap();
        let facts = result.get(PATIENCE).await.unwrap();
        let get = |key: &str| facts.get(key).cloned().unwrap_or_default();
        assert!(get("early_ms").as_i64().unwrap() <= 0, "{facts:?}");
        assert_eq!((get("id"), get("root_id")), (result.id().into(), result.id().into()));
        assert_eq!((get("word"), get("retries")), ("again".into(), Value::Int(1)));
        assert_eq!((get("priority"), get("limit_s")), (Value::Int(4), Value::Float(30.0)));
        assert_eq!(get("headers").as_map().unwrap().get("tenant"), Some(&"acme".into()));
        assert!(get("origin").as_str().unwrap().starts_with("gen"));
    }
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_comes_after_the_call_has_expired_is_revoked() {
    let bundle = Bundle::new("retry-expires").await;
    let worker = bundle.worker().await;
    let call = asks_again::s(3_600_000, "late".into()).expires(Expires::In(Duration::from_secs(3)));
    let result = bundle.client.send(call).await.unwrap();
    let error = result.get(PATIENCE).await.unwrap_err();
    assert!(error.failure().unwrap().is("TaskRevokedError"), "{error:?}");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_retry_is_with_the_broker_when_the_worker_is_gone() {
    let bundle = Bundle::new("retry-far").await;
    let worker = bundle.worker().await;
    let call = Signature::<Value>::new("tests.asks_again").arg(3_700_000).arg("far");
    let result = bundle.client.send(call).await.unwrap();
    let mut updates = result.updates();
    assert_eq!(updates.next().await.unwrap().status, TaskState::Retry);
    stop(worker).await;
    let one = QueueDepth { ready: 1, unacked: 0 };
    bundle.vhost.wait_for_depth("celery_delayed_11", one, PATIENCE).unwrap();
    bundle.settled();
}
