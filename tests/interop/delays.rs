//! Native delayed delivery, shared with Celery: its queues, its messages, its bindings.

use std::time::Duration;

use celeriac::amqp::QueueKind;
use celeriac::client::config::QueueSetting;
use celeriac::protocol::Serializer;
use celeriac::{App, Client, Config, Signature, Worker};
use jiff::Timestamp;
use xtask::process::Spawned;

use crate::{PATIENCE, Setup};

/// A quorum queue of a topic exchange, both of this name, as Celery declares them.
const QUEUE: &str = "shared.later";

fn config(setup: &Setup) -> Config {
    let mut config = setup.config();
    let mut queue = QueueSetting::named(QUEUE);
    queue.queue_type = Some(QueueKind::Quorum);
    config.task_queues = vec![queue];
    config
}

/// A Python command that delays natively, on a queue that is there already.
fn python(setup: &Setup, arguments: &[&str]) -> std::process::Command {
    let mut command = setup.python(arguments);
    command.env("INTEROP_DELAYED", "1").env("INTEROP_NO_DECLARE", "1");
    command
}

fn python_worker(setup: &Setup) -> Spawned {
    let mut command = python(setup, &["-m", "celery", "-A", "proj", "worker", "-c", "1"]);
    command.args(["-l", "info", "-Q", QUEUE, "-n", "python@%h", "--pool", "solo"]);
    let worker = Spawned::start(&mut command).expect("the Python worker starts");
    worker.wait_for_line(" ready.", PATIENCE).expect("the Python worker is ready");
    worker
}

/// Sends `name` with a countdown from Python, and gives what it returns, a date, and the date
/// before which it must not lie.
fn delayed_by_python(setup: &Setup, name: &str) -> (Timestamp, Timestamp) {
    let script = format!(
        "from proj import app; print(app.send_task('{name}', countdown=4).get(timeout=60))"
    );
    let due = Timestamp::now() + Duration::from_secs(4);
    let output = python(setup, &["-c", &script]).output().expect("Python starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let problem = String::from_utf8_lossy(&output.stderr);
    (text.trim().parse().unwrap_or_else(|_| panic!("{text}{problem}")), due)
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_of_rust_reach_a_python_worker_by_the_queues_that_both_declare() {
    let setup = Setup::new(QUEUE, Serializer::Json);
    // Rust declares first, Python declares the same again, and then takes part.
    let client = Client::connect(config(&setup)).await.expect("client connects");
    let call = || Signature::<String>::new("py.now").countdown(Duration::from_secs(4));
    let before = Timestamp::now();
    let first = client.send(call()).await.expect("sent");
    let worker = python_worker(&setup);
    let second_before = Timestamp::now();
    let second = client.send(call()).await.expect("sent");
    for (result, before) in [(first, before), (second, second_before)] {
        let ran: Timestamp = result.get(PATIENCE).await.expect("text").parse().expect("a date");
        let due = before + Duration::from_secs(4);
        assert!(ran >= due, "{ran} is before {due}");
    }
    let (ran, due) = delayed_by_python(&setup, "py.now");
    assert!(ran >= due, "{ran} is before {due}");
    drop(worker);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_of_python_reach_a_rust_worker() {
    let setup = Setup::new(QUEUE, Serializer::Json);
    // Python declares first, and leaves its queues behind.
    let client = Client::connect(config(&setup)).await.expect("client connects");
    drop(python_worker(&setup));
    let worker = Worker::new(App::new(config(&setup))).start().await.expect("worker starts");
    let (ran, due) = {
        let setup = &setup;
        tokio::task::block_in_place(|| delayed_by_python(setup, "rs.now"))
    };
    assert!(ran >= due, "{ran} is before {due}");
    worker.handle().shutdown();
    worker.wait().await.expect("worker stops");
    client.close().await;
}
