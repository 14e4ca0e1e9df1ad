//! A worker that runs: what it is, how it is stopped, how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Error;
use super::active::Active;
use super::autoscale::Autoscale;
use super::delay::Hold;
use super::deletion::Deletions;
use super::events::Events;
use super::gather;
#[cfg(unix)]
use super::isolate;
use super::limits::TimeLimits;
use super::lost_threads::LostThreads;
use super::permits::Permits;
use super::pulse::{Health, Pulse};
use super::rate::Rates;
use super::recycling::Recycling;
use super::redelivered::Recent;
use super::revoked::Revoked;
use super::slots::Slots;
use super::starts::Starts;
use super::tally::Tally;
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
    pub(super) recycling: Recycling,
    pub(super) autoscale: Autoscale,
    /// The children that run isolated tasks.
    #[cfg(unix)]
    pub(super) isolates: isolate::Pool,
    /// Every job between intake and settling.
    pub(super) active: Active,
    /// One for each async task that may run.
    pub(super) slots: Arc<Slots>,
    /// One for each blocking task that may run.
    pub(super) blocking_slots: Arc<Slots>,
    /// How often tasks may start.
    pub(super) rates: Rates,
    /// How long tasks may run.
    pub(super) time_limits: TimeLimits,
    /// The threads of blocking tasks that were given up.
    pub(super) lost_threads: Arc<LostThreads>,
    /// The calls that were settled last.
    pub(super) recent: Recent,
    /// Whether the broker answers.
    pub(super) pulse: Arc<Pulse>,
    /// What must not run.
    pub(super) revoked: Revoked,
    /// How many calls were started.
    pub(super) tally: Tally,
    /// What monitors are told.
    pub(super) events: Arc<Events>,
    /// Jobs that wait here for their date.
    pub(super) hold: Hold,
    /// How many calls run in the whole fleet.
    pub(super) permits: Permits,
    /// How often calls start in the whole fleet.
    pub(super) starts: Starts,
    /// How much of parked values is held.
    pub(super) gathering: gather::Budget,
    /// What is deleted of them.
    pub(super) deletions: Arc<Deletions>,
}

/// The two ways to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    /// Take nothing new, finish what runs.
    pub(super) warm: CancellationToken,
    /// Leave at once. Every task's context sees it.
    pub(super) cold: Arc<CancellationToken>,
    /// Nothing is consumed any more: what goes back to its queue does not come here again.
    pub(super) away: CancellationToken,
    /// Whether either was asked for; to ask a token takes a lock, and every job asks.
    asked: Arc<AtomicBool>,
    /// Whether it stops because it has done enough.
    recycled: Arc<AtomicBool>,
}

impl Stop {
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(super) fn is_recycled(&self) -> bool {
        self.recycled.load(Ordering::Acquire)
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

    /// Warm shutdown of a worker that is to be replaced.
    pub(super) fn recycle(&self) {
        self.0.recycled.store(true, Ordering::Release);
        self.shutdown();
    }

    /// Whether the worker stops by itself, because it has run as many tasks or holds as much
    /// memory as it was to: another process is to take its place.
    pub fn is_recycled(&self) -> bool {
        self.0.is_recycled()
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

    /// Whether the worker can do its work: for probes and watchdogs.
    pub fn health(&self) -> Health {
        self.crew.pulse.health(&self.crew)
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
