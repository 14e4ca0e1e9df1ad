//! The page about chords tells enough: a worker that is written from it takes part in a chord.

use celeriac::amqp::QueueKind;
use celeriac::client::Route;
use celeriac::client::canvas::Workflow;
use celeriac::client::config::QueueSetting;
use celeriac::protocol::{Serializer, Value, repr};
use celeriac::{App, Client, Worker};
use xtask::process::Spawned;

use crate::{OURS, PATIENCE, Setup};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/chords.md");

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_written_from_the_page_delivers_parts() {
    let setup = Setup::new(OURS, Serializer::Msgpack);
    let mut config = setup.config();
    config.task_routes = config.task_routes.route("sketch.*", Route::queue("sketch")).expect("ok");
    let mut queue = QueueSetting::named("sketch");
    queue.queue_type = Some(QueueKind::Classic);
    config.task_queues.push(queue);
    let worker = Worker::new(App::new(config.clone())).start().await.expect("worker starts");
    let client = Client::connect(config).await.expect("client connects");
    let mut command = setup.python(&["sketch.py"]);
    let python = Spawned::start(command.env("SKETCH_PAGE", PAGE)).expect("Python starts");
    python.wait_for_line("ready", PATIENCE).expect("it consumes");
    let begin = async |divisor: i64| {
        let own = Workflow::task("sketch.divide", [Value::Int(divisor)]);
        let rust = Workflow::task("rs.add", [1.into(), 1.into()]);
        let body = Workflow::task("celery.accumulate", []);
        let begun = client.apply(Workflow::chord([own, rust], body)).await.expect("sent");
        begun.get(PATIENCE).await
    };
    assert_eq!(repr::value(&begin(4).await.expect("a list")), "[[25, 2]]");
    let error = begin(0).await.expect_err("a failure").to_string();
    assert!(error.contains("ZeroDivisionError('integer division"), "{error}");
    python.wait_for_line("ok err", PATIENCE).expect("it says what it did");
    client.close().await;
    worker.handle().shutdown();
    worker.wait().await.expect("worker stops");
}
