//! Rust calls, Python works: the tasks are in `proj.py`.

use std::collections::BTreeMap;

use celeriac::protocol::{Bytes, Compression, DateTime, Decimal, Map, Serializer, TaskState};
use celeriac::{Client, Signature, TaskFailure, Value};
use jiff::Timestamp;
use serde::Serialize;
use xtask::process::Spawned;

use crate::{CELERYS, OURS, PATIENCE, Setup};

struct Bundle {
    setup: Setup,
    client: Client,
    /// Ended when the bundle is dropped.
    _worker: Spawned,
}

impl Bundle {
    async fn new(queue: &'static str, serializer: Serializer) -> Self {
        let setup = Setup::new(queue, serializer);
        // Declares the queue, which the Python worker takes as it is.
        let client = Client::connect(setup.config()).await.expect("client connects");
        let mut command = setup.python(&["-m", "celery", "-A", "proj", "worker", "-c", "1"]);
        command.args(["-l", "info", "-Q", queue, "-n", "python@%h", "--pool", "solo"]);
        let worker = Spawned::start(&mut command).expect("the Python worker starts");
        worker.wait_for_line(" ready.", PATIENCE).expect("the Python worker is ready");
        Self { setup, client, _worker: worker }
    }

    async fn call(&self, signature: Signature<Value>) -> Value {
        let result = self.client.send(signature).await.expect("sent");
        result.get(PATIENCE).await.expect("result")
    }

    async fn failure(&self, signature: Signature<Value>) -> TaskFailure {
        let result = self.client.send(signature).await.expect("sent");
        let error = result.get(PATIENCE).await.expect_err("a failure");
        error.failure().expect("reported by the worker").clone()
    }

    /// What comes back when Python returns its one argument.
    async fn echo(&self, value: impl Serialize) -> Value {
        let echoed = self.call(Signature::new("py.echo").arg(value)).await;
        let Value::Array(mut both) = echoed else { panic!("not a list: {echoed:?}") };
        let Value::Array(mut args) = both.remove(0) else { panic!("not a list") };
        args.remove(0)
    }

    /// The name of the Python type that an argument arrives as.
    async fn kind(&self, value: impl Serialize) -> String {
        let kind = self.call(Signature::new("py.kind").arg(value)).await;
        kind.as_str().expect("text").to_owned()
    }
}

async fn check(queue: &'static str, serializer: Serializer) {
    let bundle = Bundle::new(queue, serializer).await;
    values(&bundle).await;
    kinds(&bundle).await;
    arguments(&bundle).await;
    failures(&bundle).await;
    states(&bundle).await;
    retries(&bundle).await;
    compression(&bundle).await;
    request(&bundle).await;
    bundle.client.close().await;
}

async fn values(bundle: &Bundle) {
    let nested = Map::from_iter([("list", vec![Value::Int(1), Value::Null, Value::Float(2.5)])]);
    let mut values = vec![
        Value::Null,
        Value::Bool(true),
        Value::Int(i64::MIN),
        Value::Int(i64::MAX),
        Value::UInt(u64::MAX),
        Value::Int(-129),
        Value::Float(-0.5),
        Value::Float(1e300),
        Value::Float(f64::INFINITY),
        Value::from("grüße, 世界 🎉 \"\\\n"),
        Value::Bytes((0..=255).collect()),
        Value::Bytes(b"plain".to_vec()),
        Value::Array(vec![Value::Array(Vec::new()), Value::Map(Map::new())]),
        Value::Map(nested),
        Value::from("x".repeat(70_000)),
    ];
    if bundle.setup.serializer == Serializer::Json {
        values.push(Value::BigInt("1".repeat(40)));
    }
    for value in values {
        assert_eq!(bundle.echo(&value).await, value);
    }
}

async fn kinds(bundle: &Bundle) {
    // MessagePack has no form for them that Celery knows, so there they are text.
    let json = bundle.setup.serializer == Serializer::Json;
    let kind = |python: &'static str| if json { python } else { "str" };
    let moment = Timestamp::from_second(1_893_553_445).expect("in range");
    assert_eq!(bundle.kind(DateTime(moment)).await, kind("datetime"));
    assert_eq!(bundle.kind(Decimal("3.14".to_owned())).await, kind("Decimal"));
    assert_eq!(bundle.kind(Bytes(vec![0, 255])).await, "bytes");
    assert_eq!(bundle.kind(BTreeMap::from([("a", 1)])).await, "dict");
    assert_eq!(bundle.kind((1, "x")).await, "list");
    assert_eq!(bundle.kind(None::<i64>).await, "NoneType");
    assert_eq!(bundle.kind(1.0).await, "float");
}

async fn arguments(bundle: &Bundle) {
    let call = Signature::<i64>::new("py.add").arg(2).kwarg("y", 3);
    let result = bundle.client.send(call).await.expect("sent");
    assert_eq!(result.get(PATIENCE).await.expect("a number"), 5);
    let by_name = bundle.client.send_task::<i64>("py.add", [Value::Int(2), Value::Int(2)]).await;
    assert_eq!(by_name.expect("sent").get(PATIENCE).await.expect("a number"), 4);
}

async fn failures(bundle: &Bundle) {
    let failure = bundle.failure(Signature::new("py.boom").arg("kaboom")).await;
    assert!(failure.is("ValueError"), "{failure}");
    assert_eq!(failure.exception.exc_module.as_deref(), Some("builtins"));
    assert_eq!(failure.exception.exc_message, [Value::from("kaboom")]);
    assert!(failure.traceback.is_some_and(|text| text.contains("proj.py")));
    let failure = bundle.failure(Signature::new("py.out_of_stock")).await;
    assert!(failure.is("OutOfStock"), "{failure}");
    assert_eq!(failure.exception.exc_message, [Value::from("no"), Value::Int(3)]);
    let failure = bundle.failure(Signature::new("py.add").arg(1)).await;
    assert!(failure.is("TypeError"), "{failure}");
    let failure = bundle.failure(Signature::new("py.nowhere")).await;
    assert!(failure.is("NotRegistered"), "{failure}");
}

async fn states(bundle: &Bundle) {
    let call = Signature::<i64>::new("py.progress").arg(3);
    let result = bundle.client.send(call).await.expect("sent");
    let mut updates = result.updates();
    let mut seen = Vec::new();
    while let Some(meta) = updates.next().await {
        seen.push(meta.status);
    }
    assert_eq!(seen.last(), Some(&TaskState::Success));
    let progress = TaskState::from("PROGRESS");
    assert!(seen.contains(&progress), "{seen:?}");
    let silent = Signature::<Value>::new("py.silent").ignore_result(true);
    let silent = bundle.client.send(silent).await.expect("sent");
    assert!(silent.get(PATIENCE).await.is_err(), "there is no result to wait for");
}

async fn retries(bundle: &Bundle) {
    let result = bundle.client.send(Signature::<i64>::new("py.flaky").arg(7)).await.expect("sent");
    let mut updates = result.updates();
    let mut seen = Vec::new();
    while let Some(meta) = updates.next().await {
        seen.push(meta.status.to_string());
    }
    assert_eq!(seen, ["RETRY", "RETRY", "SUCCESS"]);
    assert_eq!(result.get(PATIENCE).await.expect("a number"), 7);
}

async fn compression(bundle: &Bundle) {
    for method in [Compression::Zlib, Compression::Zstd] {
        let value = Value::from("compressible ".repeat(1000));
        let call = Signature::new("py.kind").arg(&value).compression(method);
        assert_eq!(bundle.call(call).await, Value::from("str"), "{method:?}");
    }
}

async fn request(bundle: &Bundle) {
    let call = Signature::new("py.request")
        .header("tenant", "acme")
        .shadow("shown")
        .time_limit(std::time::Duration::from_secs(30));
    let Value::Map(facts) = bundle.call(call).await else { panic!("not a dict") };
    assert_eq!(facts.get("id"), facts.get("root_id"));
    assert_eq!(facts.get("shadow"), Some(&Value::from("shown")));
    assert_eq!(facts.get("argsrepr"), Some(&Value::from("()")));
    let origin = facts.get("origin").and_then(Value::as_str).expect("text");
    assert!(origin.starts_with("gen") && origin.contains('@'), "{origin}");
    let headers = facts.get("headers").and_then(Value::as_map).expect("a dict");
    assert_eq!(headers.get("tenant"), Some(&Value::from("acme")));
    let limits = facts.get("timelimit").and_then(Value::as_array).expect("a list");
    assert_eq!(limits.first().and_then(Value::as_f64), Some(30.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_worker_serves_json_on_our_queue() {
    check(OURS, Serializer::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_worker_serves_msgpack_on_our_queue() {
    check(OURS, Serializer::Msgpack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_worker_serves_json_on_celery_s_queue() {
    check(CELERYS, Serializer::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_worker_serves_msgpack_on_celery_s_queue() {
    check(CELERYS, Serializer::Msgpack).await;
}
