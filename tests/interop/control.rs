//! Remote control: Celery's against our worker (`control.py`), ours against Celery's worker.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use celeriac::client::NodeReply;
use celeriac::protocol::{Serializer, TaskState};
use celeriac::worker::Stopped;
use celeriac::{App, Client, Signature, Value, Worker, task};
use tokio::sync::Notify;
use xtask::process::Spawned;

use crate::{CELERYS, OURS, PATIENCE, Setup};

static GATES: LazyLock<Mutex<HashMap<String, Arc<Notify>>>> = LazyLock::new(Mutex::default);

/// The gate of this name in the virtual host of the task: several tests run at once.
fn gate(context: &celeriac::Context, label: &str) -> Arc<Notify> {
    let client = context.client();
    let broker = &client.config().broker_url;
    let mut gates = GATES.lock().expect("nobody panics here");
    Arc::clone(gates.entry(format!("{broker:?} {label}")).or_default())
}

/// Runs until it is released.
#[task(name = "rs.hold")]
async fn hold(context: celeriac::Context, label: String) -> String {
    gate(&context, &label).notified().await;
    label
}

#[task(name = "rs.release")]
async fn release(context: celeriac::Context, label: String) {
    gate(&context, &label).notify_one();
}

/// Python steers Rust, by both scripts at once.
async fn steered(queue: &'static str, serializer: Serializer) {
    let effects = steered_by("control_effects.py", queue, serializer, |it| it.autoscale(1, 1));
    tokio::join!(steered_by("control.py", queue, serializer, |it| it), effects);
}

/// A worker that this script asks, changes and shuts down.
async fn steered_by(
    script: &str,
    queue: &'static str,
    serializer: Serializer,
    change: impl FnOnce(Worker) -> Worker,
) {
    let setup = Setup::new(queue, serializer);
    let worker = change(Worker::new(App::new(setup.config())).hostname("rust@host"));
    let worker = worker.start().await.expect("worker starts");
    let mut client = setup.python(&[script]);
    let output = tokio::task::spawn_blocking(move || client.output()).await;
    let output = output.expect("the thread ends").expect("Python starts");
    let told = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{told}");
    let stopped = tokio::time::timeout(PATIENCE, worker.wait()).await;
    let stopped = stopped.expect("Python has told it to shut down").expect("worker stops");
    assert_eq!(stopped, Stopped::Warm);
}

/// Rust steers Python.
async fn steering(queue: &'static str, serializer: Serializer) {
    let setup = Setup::new(queue, serializer);
    let client = Client::connect(setup.config()).await.expect("client connects");
    let mut command = setup.python(&["-m", "celery", "-A", "proj", "worker", "-c", "2"]);
    command.args(["-l", "info", "-Q", queue, "-n", "python@host", "--pool", "prefork"]);
    let mut worker = Spawned::start(&mut command).expect("the Python worker starts");
    worker.wait_for_line(" ready.", PATIENCE).expect("the Python worker is ready");
    let control = client.control().timeout(PATIENCE).limit(1);
    let text = |replies: Vec<NodeReply>| {
        let [reply] = &*replies else { panic!("{replies:?}") };
        assert_eq!(reply.hostname, "python@host");
        let told = reply.error().or_else(|| reply.ok()?.as_str());
        told.unwrap_or_else(|| panic!("{reply:?}")).to_owned()
    };
    assert_eq!(text(control.ping().await.expect("sent")), "pong");
    let limited = control.rate_limit("py.add", Some("10/m")).await.expect("sent");
    assert_eq!(text(limited), "new rate limit set successfully");
    let unknown = control.time_limit("nope", Some(Duration::from_secs(1)), None).await;
    assert_eq!(text(unknown.expect("sent")), "unknown task");
    assert_eq!(text(control.pool_grow(1).await.expect("sent")), "pool will grow");
    assert_eq!(text(control.add_consumer("more").await.expect("sent")), "add consumer more");
    let stats = control.stats().await.expect("sent").remove(0).value;
    assert!(stats.as_map().is_some_and(|stats| stats.contains_key("prefetch_count")));
    let flagged = control.revoke(["some-id"], false).await.expect("sent");
    assert_eq!(text(flagged), "tasks {'some-id'} flagged as revoked");
    let call = Signature::<Value>::new("py.add").arg(1).arg(1).task_id("some-id");
    let result = client.send(call).await.expect("sent");
    let error = result.get(PATIENCE).await.expect_err("it is revoked");
    let failure = error.failure().expect("reported by the worker");
    assert_eq!(failure.state, TaskState::Revoked);
    client.control().shutdown().await.expect("sent");
    let status = worker.wait(PATIENCE).expect("the Python worker shuts down");
    assert!(status.success(), "{status:?}");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn celery_steers_our_worker_in_json() {
    steered(OURS, Serializer::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn celery_steers_our_worker_in_msgpack() {
    steered(CELERYS, Serializer::Msgpack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn we_steer_a_python_worker_in_json() {
    steering(CELERYS, Serializer::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn we_steer_a_python_worker_in_msgpack() {
    steering(OURS, Serializer::Msgpack).await;
}
