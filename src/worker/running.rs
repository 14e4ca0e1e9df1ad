//! A worker that runs: what it is, how it is stopped, how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::client::Client;
use crate::protocol::Limits;
use crate::task::{Environment, Registry};

/// What a worker is, for banners and logs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Node name, `name@host`.
    pub hostname: String,
    /// The broker that was connected to at start, without the password.
    pub broker: String,
    /// Queues that are consumed from.
    pub queues: Vec<String>,
    /// Names of the tasks, sorted.
    pub tasks: Vec<&'static str>,
    /// Async tasks that run at once.
    pub concurrency: usize,
    /// Blocking tasks that run at once.
    pub blocking_slots: usize,
    /// Messages that the broker may hand out before they are acked.
    pub prefetch: u32,
}

/// What all parts of a running worker share.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) info: WorkerInfo,
    pub(super) client: Client,
    pub(super) registry: Arc<Registry>,
    pub(super) environment: Arc<Environment>,
    pub(super) limits: Limits,
    pub(super) stop: Stop,
}

/// The two ways to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Take nothing new, finish what runs.
    pub(super) warm: CancellationToken,
    /// Leave at once. Every task's context sees it.
    pub(super) cold: Arc<CancellationToken>,
    /// Whether either was asked for; to ask a token takes a lock, and every job asks.
    asked: Arc<AtomicBool>,
}

impl Stop {
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// How a worker stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All that ran was finished and settled.
    Warm,
    /// What ran was left unacked; the broker gives it to another worker.
    Cold,
}

/// Stops a worker from anywhere in the program. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WorkerHandle(pub(super) Stop);

impl WorkerHandle {
    /// Warm shutdown: stops consuming, gives back what has not started, finishes what runs.
    /// Saying it twice changes nothing.
    pub fn shutdown(&self) {
        self.0.asked.store(true, Ordering::Release);
        self.0.warm.cancel();
    }

    /// Cold shutdown: leaves at once. What runs stays unacked, so that the broker gives it to
    /// another worker; tasks see their cancellation token.
    pub fn terminate(&self) {
        self.0.cold.cancel();
        self.shutdown();
    }
}

/// A worker that consumes.
#[derive(Debug)]
pub struct RunningWorker {
    pub(super) crew: Arc<Crew>,
    pub(super) consuming: JoinHandle<Result<Stopped, Error>>,
}

impl RunningWorker {
    /// What this worker is.
    pub fn info(&self) -> &WorkerInfo {
        &self.crew.info
    }

    /// A handle to stop it with.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle(self.crew.stop.clone())
    }

    /// Waits until the worker has stopped.
    ///
    /// # Errors
    /// [`Error::Lost`] when the connection was lost and did not come back within the limits of
    /// the settings.
    pub async fn wait(self) -> Result<Stopped, Error> {
        match self.consuming.await {
            Ok(stopped) => stopped,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
}
