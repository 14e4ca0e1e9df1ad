//! The real Celery as the judge: its client against our worker, our client against its worker.
//!
//! Every combination of serializer and queue is a test of its own, in a virtual host of its own.

mod canvas;
mod canvas_tasks;
mod control;
mod delays;
mod errbacks;
mod events;
mod joined;
mod mixed;
mod python_client;
mod python_worker;
mod sketch;
mod tasks;

use std::process::Command;
use std::time::Duration;

use celeriac::protocol::Serializer;
use celeriac::worker::RunningWorker;
use celeriac::{App, Config, Worker};
use xtask::python::Python;
use xtask::vhost::TestVhost;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// Our own queue, a quorum queue.
const OURS: &str = "celeriac";
/// Celery's default queue, a classic queue.
const CELERYS: &str = "celery";

/// One combination under test.
struct Setup {
    vhost: TestVhost,
    queue: &'static str,
    serializer: Serializer,
}

impl Setup {
    fn new(queue: &'static str, serializer: Serializer) -> Self {
        let vhost = TestVhost::create("interop").expect("a broker for tests");
        Self { vhost, queue, serializer }
    }

    fn config(&self) -> Config {
        let url = self.vhost.url().parse().expect("the harness makes valid URLs");
        let config = Config::builder().broker_url([url]).task_default_queue(self.queue);
        config.task_serializer(self.serializer).build()
    }

    /// Starts our worker on the queue.
    async fn worker(&self) -> RunningWorker {
        Worker::new(App::new(self.config())).start().await.expect("worker starts")
    }

    /// A Python command that knows the broker, the queue and the serializer.
    fn python(&self, arguments: &[&str]) -> Command {
        self.python_with(&[], arguments)
    }

    /// The same with what further requirements files name.
    fn python_with(&self, requirements: &[&str], arguments: &[&str]) -> Command {
        let python = Python::with(requirements).expect("Python with Celery");
        let mut command = Command::new(python.interpreter());
        command
            .args(arguments)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("INTEROP_BROKER", self.vhost.url())
            .env("INTEROP_QUEUE", self.queue)
            .env("INTEROP_SERIALIZER", self.serializer.name());
        command
    }
}
