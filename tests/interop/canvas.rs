//! Workflows that Python builds and both kinds of workers run: the checks are in `canvas.py`.

use celeriac::amqp::QueueKind;
use celeriac::client::Route;
use celeriac::client::config::QueueSetting;
use celeriac::protocol::Serializer;
use celeriac::worker::RunningWorker;
use celeriac::{App, Config, Worker};
use xtask::process::Spawned;
use xtask::vhost::QueueDepth;

use crate::{CELERYS, OURS, PATIENCE, Setup};

/// Queue of the tasks whose names begin with `py.`.
const PYTHONS: &str = "python";

/// Workers of both kinds on one broker, each with a queue of its own.
pub(crate) struct Mixed {
    pub(crate) setup: Setup,
    rust: RunningWorker,
    python: Spawned,
}

impl Mixed {
    pub(crate) async fn start(queue: &'static str, serializer: Serializer) -> Self {
        let setup = Setup::new(queue, serializer);
        let rust = Worker::new(App::new(routed(&setup))).start().await.expect("worker starts");
        let mut command = setup.python(&["-m", "celery", "-A", "proj", "worker", "-c", "1"]);
        command.args(["-l", "info", "-Q", PYTHONS, "-n", "python@%h", "--pool", "solo"]);
        let python = Spawned::start(command.env("INTEROP_MIXED", "1"));
        let python = python.expect("the Python worker starts");
        python.wait_for_line(" ready.", PATIENCE).expect("the Python worker is ready");
        Self { setup, rust, python }
    }

    /// Settings that route each task to the worker that has it.
    pub(crate) fn config(&self) -> Config {
        routed(&self.setup)
    }

    /// What the Python worker has printed.
    pub(crate) fn printed(&self) -> String {
        self.python.output()
    }

    /// Stops the workers; nothing may be left in the queues.
    pub(crate) async fn stop(self) {
        self.rust.handle().shutdown();
        self.rust.wait().await.expect("worker stops");
        let empty = QueueDepth { ready: 0, unacked: 0 };
        for queue in [self.setup.queue, PYTHONS] {
            self.setup.vhost.wait_for_depth(queue, empty, PATIENCE).expect("nothing is left");
        }
    }
}

fn routed(setup: &Setup) -> Config {
    let mut config = setup.config();
    let to_python = config.task_routes.route("py.*", Route::queue(PYTHONS));
    config.task_routes = to_python.expect("a pattern");
    // As Celery declares its queues.
    let mut pythons = QueueSetting::named(PYTHONS);
    pythons.queue_type = Some(QueueKind::Classic);
    config.task_queues.push(pythons);
    config
}

async fn check(script: &str, queue: &'static str, serializer: Serializer) {
    let mixed = Mixed::start(queue, serializer).await;
    let mut client = mixed.setup.python(&[script]);
    client.env("INTEROP_MIXED", "1");
    let output = tokio::task::spawn_blocking(move || client.output()).await;
    let output = output.expect("the thread ends").expect("Python starts");
    assert!(
        output.status.success(),
        "{}\n{}\n--- the Python worker\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        mixed.printed()
    );
    mixed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_that_python_builds_in_json_run_on_both() {
    check("canvas.py", OURS, Serializer::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_that_python_builds_in_msgpack_run_on_both() {
    check("canvas.py", OURS, Serializer::Msgpack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_that_python_builds_run_on_celery_s_queue() {
    check("canvas.py", CELERYS, Serializer::Json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errbacks_are_called_as_often_as_by_celery() {
    check("errbacks.py", OURS, Serializer::Json).await;
}
