//! One task, there and back.

use celeriac::protocol::{Bytes, Map, Serializer, Value, from_value};
use celeriac::{ResultError, Signature};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{add, block, echo, facts, hold_early, ignores, note};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_comes_back() {
    let bundle = Bundle::new("round-trip").await;
    let worker = bundle.worker().await;
    let result = add::delay(&bundle.client, 2, 2).await.unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 4);
    stop(worker).await;
    bundle.settled();
    bundle.client.close().await;
}

fn values() -> Vec<Value> {
    let nested = Map::from_iter([("list", Value::Array(vec![1.into(), Value::Null, true.into()]))]);
    vec![
        Value::Null,
        false.into(),
        i64::MIN.into(),
        Value::UInt(u64::MAX),
        1.5.into(),
        "Ünïcødé \u{1f600}".into(),
        Value::Bytes(vec![0, 255, 10]),
        Value::Array(Vec::new()),
        Value::Map(nested),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_all_kinds_come_back_as_they_were() {
    let bundle = Bundle::new("kinds").await;
    let worker = bundle.worker().await;
    for serializer in [Serializer::Msgpack, Serializer::Json] {
        let calls = values().into_iter().map(|value| echo::s(value).serializer(serializer));
        let sent = bundle.client.send_all(calls).await;
        for (value, result) in values().into_iter().zip(sent) {
            assert_eq!(result.unwrap().get(PATIENCE).await.unwrap(), value, "{serializer:?}");
        }
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_read_as_the_type_that_is_asked_for() {
    let bundle = Bundle::new("types").await;
    let worker = bundle.worker().await;
    let call = |value: Value| Signature::<Value>::new("tests.echo").arg(value);
    let sent = bundle.client.send(call(Value::Array(vec![1.into(), 2.into()]))).await.unwrap();
    assert_eq!(sent.clone().typed::<Vec<u8>>().get(PATIENCE).await.unwrap(), [1, 2]);
    let error = sent.typed::<String>().get(PATIENCE).await.unwrap_err();
    assert!(matches!(error, ResultError::Mismatch { .. }), "{error:?}");
    let bytes = bundle.client.send(call(Value::Bytes(vec![7]))).await.unwrap();
    let bytes: Bytes = bytes.typed().get(PATIENCE).await.unwrap();
    assert_eq!(bytes, Bytes(vec![7]));
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_ignore_result_runs_and_has_no_reply() {
    let bundle = Bundle::new("ignored").await;
    let worker = bundle.worker().await;
    let call = note::s("x".to_owned()).ignore_result(true);
    let result = bundle.client.send(call).await.unwrap();
    bundle.probe.seen(1).await;
    let error = result.get(PATIENCE).await.unwrap_err();
    assert!(matches!(error, ResultError::Ignored { .. }), "{error:?}");
    assert!(bundle.reply_queues().is_empty(), "nobody needed a reply queue");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ignores_itself_is_settled_without_a_result() {
    let bundle = Bundle::new("ignore").await;
    let worker = bundle.worker().await;
    let result = ignores::delay(&bundle.client).await.unwrap();
    bundle.probe.seen(1).await;
    stop(worker).await;
    bundle.settled();
    assert!(!result.ready());
    assert_eq!(bundle.probe.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_acks_early_is_not_delivered_again_when_its_worker_dies() {
    let bundle = Bundle::new("early").await;
    let worker = bundle.worker().await;
    hold_early::delay(&bundle.client).await.unwrap();
    bundle.probe.seen(1).await;
    worker.handle().terminate();
    within(worker.wait()).await.unwrap();
    let other = bundle.worker().await;
    let sum = add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 2);
    stop(other).await;
    bundle.settled();
    assert_eq!(bundle.probe.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_task_runs_beside_async_ones() {
    let bundle = Bundle::new("thread").await;
    let worker = bundle.narrow_worker().await;
    let blocked = block::delay(&bundle.client).await.unwrap();
    let mut updates = blocked.updates();
    assert_eq!(updates.next().await.unwrap().status.as_str(), "PROGRESS");
    bundle.probe.seen(1).await;
    let sum = add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 2);
    bundle.probe.open(1);
    assert_eq!(blocked.get(PATIENCE).await.unwrap(), 4);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_results_name_task_arguments_and_worker() {
    let bundle = Bundle::with("extended", |config| config.result_extended = true).await;
    let worker = bundle.worker().await;
    let result = add::delay(&bundle.client, 2, 3).await.unwrap();
    result.get(PATIENCE).await.unwrap();
    let extra = result.latest().unwrap().extra;
    let text = |key: &str| extra.get(key).and_then(Value::as_str).map(str::to_owned);
    assert_eq!(text("name").as_deref(), Some("tests.add"));
    assert_eq!(text("args").as_deref(), Some("(2, 3)"));
    assert_eq!(text("kwargs").as_deref(), Some("{}"));
    assert_eq!(text("worker").as_deref(), Some("test@host"));
    assert_eq!(text("queue").as_deref(), Some("celeriac"));
    assert_eq!(extra.get("retries"), Some(&Value::Int(0)));
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_the_id_of_a_call_reach_the_task() {
    let bundle = Bundle::new("headers").await;
    let worker = bundle.worker().await;
    let call = facts::s().header("tenant", "t1").task_id("my-id");
    let result = bundle.client.send(call).await.unwrap();
    assert_eq!(result.id(), "my-id");
    let facts = result.get(PATIENCE).await.unwrap();
    assert_eq!(facts.get("id"), Some(&Value::from("my-id")));
    let headers: Map = from_value(facts.get("headers").unwrap().clone()).unwrap();
    assert_eq!(headers.get("tenant"), Some(&Value::from("t1")));
    stop(worker).await;
}
