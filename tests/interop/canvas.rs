//! Workflows that Python builds and both kinds of workers run: the checks are in `canvas.py`.

use std::process::Command;

use celeriac::amqp::QueueKind;
use celeriac::client::Route;
use celeriac::client::config::QueueSetting;
use celeriac::protocol::Serializer;
use celeriac::worker::RunningWorker;
use celeriac::{App, Config, Worker};
use xtask::process::Spawned;
use xtask::python::CHORDS_REQUIREMENTS;
use xtask::vhost::QueueDepth;

use crate::{CELERYS, OURS, PATIENCE, Setup};

/// Queue of the tasks whose names begin with `py.`.
const PYTHONS: &str = "python";

/// Workers of both kinds on one broker, each with a queue of its own.
pub(crate) struct Mixed {
    pub(crate) setup: Setup,
    /// Where Celery counts the parts of its own chords, if it does.
    backend: Option<String>,
    rust: RunningWorker,
    python: Spawned,
}

impl Mixed {
    pub(crate) async fn start(queue: &'static str, serializer: Serializer) -> Self {
        Self::start_with(queue, serializer, None).await
    }

    /// The same with the URL of a backend that counts parts of chords.
    pub(crate) async fn start_with(
        queue: &'static str,
        serializer: Serializer,
        backend: Option<String>,
    ) -> Self {
        let setup = Setup::new(queue, serializer);
        let rust = Worker::new(App::new(routed(&setup))).start().await.expect("worker starts");
        let arguments = ["-m", "celery", "-A", "proj", "worker", "-c", "1"];
        let mut command = python(&setup, backend.as_deref(), &arguments);
        command.args(["-l", "info", "-Q", PYTHONS, "-n", "python@%h", "--pool", "solo"]);
        let python = Spawned::start(&mut command).expect("the Python worker starts");
        python.wait_for_line(" ready.", PATIENCE).expect("the Python worker is ready");
        Self { setup, backend, rust, python }
    }

    /// Settings that route each task to the worker that has it.
    pub(crate) fn config(&self) -> Config {
        routed(&self.setup)
    }

    /// What the Python worker has printed.
    pub(crate) fn printed(&self) -> String {
        self.python.output()
    }

    /// Runs a Python client, and gives what it has printed. It must end well.
    pub(crate) async fn run(&self, script: &str) -> String {
        let mut client = python(&self.setup, self.backend.as_deref(), &[script]);
        let output = tokio::task::spawn_blocking(move || client.output()).await;
        let output = output.expect("the thread ends").expect("Python starts");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        let worker = self.printed();
        assert!(output.status.success(), "{printed}\n{errors}\n--- the Python worker\n{worker}");
        printed
    }

    /// The names of the Rust worker's connections, as soon as the broker shows all of them; `gone`
    /// are those that it had before.
    pub(crate) fn connections(&self, gone: &[String]) -> Vec<String> {
        let ours = |it: &serde_json::Value| {
            let is_ours = it["client_properties"]["product"] == "celeriac";
            let name = it["name"].as_str().filter(|_| is_ours).map(str::to_owned);
            name.filter(|name| !gone.contains(name))
        };
        let all = || {
            let all = self.setup.vhost.connections().ok()?;
            // One to publish, one to consume, and one to join.
            Some(all.iter().filter_map(ours).collect::<Vec<_>>()).filter(|all| all.len() >= 3)
        };
        self.setup.vhost.wait_until("the worker's connections are seen", all).expect("they are")
    }

    /// Cuts connections of the Rust worker, which comes back by itself.
    pub(crate) fn cut(&self, connections: &[String]) {
        for name in connections {
            let management = self.setup.vhost.management();
            management.delete(&["connections", name]).expect("the broker cuts it");
        }
    }

    /// Whether a connection of ours was made after `since_ms`, in place of one that was lost.
    pub(crate) fn has_reconnected(&self, since_ms: i64) -> bool {
        let connections = self.setup.vhost.connections().expect("the broker answers");
        connections.iter().any(|it| {
            it["client_properties"]["product"] == "celeriac"
                && it["connected_at"].as_i64().is_none_or(|at_ms| at_ms > since_ms)
        })
    }

    /// Stops the workers; nothing may be left in the queues.
    pub(crate) async fn stop(self) {
        self.rust.handle().shutdown();
        self.rust.wait().await.expect("worker stops");
        let empty = QueueDepth { ready: 0, unacked: 0 };
        for queue in [self.setup.queue, PYTHONS] {
            self.setup.vhost.wait_for_depth(queue, empty, PATIENCE).expect("nothing is left");
            // The figures above may be those of half a second ago.
            let left = self.setup.vhost.messages(queue).expect("the queue is there");
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

/// Python among both kinds of workers.
fn python(setup: &Setup, backend: Option<&str>, arguments: &[&str]) -> Command {
    let mut command = match backend {
        None => setup.python(arguments),
        Some(url) => {
            let mut command = setup.python_with(&[CHORDS_REQUIREMENTS], arguments);
            command.env("INTEROP_BACKEND", url);
            command
        }
    };
    command.env("INTEROP_MIXED", "1");
    command
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
    mixed.run(script).await;
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
