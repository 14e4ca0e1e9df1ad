//! The worker's pulse: whether its queues are consumed and the broker answers.
//!
//! Repairs nothing: connections, channels and consumers come back by themselves. It notices when
//! they do not. **Invariant:** a worker that cannot work ends within `worker_recovery_limit`, also
//! while it stops: then it cannot work if it cannot publish what follows from the tasks that ran.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::Error;
use super::health_file::HealthFile;
use super::running::Crew;
use crate::amqp::{Connection, ConnectionState, ConsumerHandle};
use crate::client::Config;

/// The least time between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What a worker can say about itself.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Whether all queues are consumed.
    pub is_consuming: bool,
    /// Whether results and calls can be published, or will be when the broker lets us.
    pub is_publishing: bool,
    /// Time since the broker has answered last.
    pub answered_ago: Duration,
    /// Whether that is within `worker_liveness_timeout`.
    pub is_answered: bool,
    /// Threads of blocking tasks that ran out of time and did not return.
    pub lost_threads: usize,
    /// Whether blocking tasks can still be run: not all slots are kept by such threads.
    pub runs_blocking: bool,
}

impl Health {
    /// Whether the worker can do its work.
    pub fn is_healthy(&self) -> bool {
        self.is_live() && self.runs_blocking
    }

    /// Whether the worker and the broker understand each other.
    fn is_live(&self) -> bool {
        self.is_consuming && self.is_publishing && self.is_answered
    }
}

/// Asks the broker from time to time.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Once the worker consumes.
    consuming: OnceLock<(Connection, ConsumerHandle)>,
    /// How long an answer counts.
    timeout: Duration,
    limit: Option<Duration>,
    answered: Mutex<Instant>,
}

impl Pulse {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            consuming: OnceLock::new(),
            timeout: config.worker_liveness_timeout,
            limit: config.worker_recovery_limit,
            answered: Mutex::new(Instant::now()),
        })
    }

    /// The worker has begun to consume.
    pub(super) fn begin(&self, connection: Connection, consumers: ConsumerHandle) {
        *self.answered() = Instant::now();
        // There is no second beginning.
        let _ = self.consuming.set((connection, consumers));
    }

    pub(super) fn health(&self, crew: &Crew) -> Health {
        let answered_ago = self.answered().elapsed();
        let publishing = crew.client.connection().state();
        let is_publishing = matches!(
            &*publishing.borrow(),
            ConnectionState::Connected { .. } | ConnectionState::Blocked { .. }
        );
        Health {
            is_consuming: self.consuming.get().is_some_and(|(_, it)| it.is_registered()),
            is_publishing,
            answered_ago,
            is_answered: answered_ago <= self.timeout,
            lost_threads: crew.lost_threads.count(),
            runs_blocking: crew.lost_threads.slots_kept() < crew.blocking_slots.current(),
        }
    }

    /// Asks on and on, and says so in `file` if all is well; gives an error when there was no
    /// health for too long.
    pub(super) async fn watch(&self, crew: &Crew, file: &mut Option<HealthFile>) -> Error {
        let interval = (self.timeout / 3).max(INTERVAL_MIN);
        let mut healthy = Instant::now();
        let mut was_healthy = true;
        loop {
            let next = Instant::now() + interval;
            self.ask(next).await;
            let health = self.health(crew);
            // What is left to do by a worker that stops needs no new messages.
            let is_healthy = match crew.stop.is_asked() {
                true => health.is_publishing,
                false => health.is_live(),
            };
            if let Some(file) = file.as_mut().filter(|_| is_healthy && health.runs_blocking) {
                file.touch().await;
            }
            if is_healthy {
                healthy = Instant::now();
            } else if was_healthy {
                warn!(?health, "this worker cannot do its work for now");
            }
            was_healthy = is_healthy;
            if let Some(limit) = self.limit.filter(|limit| healthy.elapsed() > *limit) {
                error!(?health, limit_s = limit.as_secs(), "this worker has not recovered");
                return Error::Unhealthy(limit);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Asks the broker once, until the next time at most.
    async fn ask(&self, next: Instant) {
        if let Some((connection, _)) = self.consuming.get()
            && let Ok(Ok(())) = tokio::time::timeout_at(next, connection.probe()).await
        {
            *self.answered() = Instant::now();
        }
    }

    fn answered(&self) -> MutexGuard<'_, Instant> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
