//! Heartbeats: the worker tells when it starts, every few seconds, and when it stops.
//!
//! Not to be mixed up with the heartbeats of connections. **Invariant:** what a heartbeat tells is
//! looked up when it is sent, and nothing is told while the broker cannot hear it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::facts;
use crate::protocol::event::{EventKind, WorkerFacts};
use crate::worker::running::Crew;

/// The least time between two heartbeats.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Tells that a worker is there.
#[derive(Debug)]
pub(in crate::worker) struct Heart {
    /// Stops it, also where nobody waits for that.
    stop: DropGuard,
    /// `None` if the settings want no heartbeats.
    beating: Option<JoinHandle<()>>,
}

impl Heart {
    /// Begins to beat, if the settings say so.
    pub(in crate::worker) fn start(crew: &Arc<Crew>) -> Self {
        let stop = CancellationToken::new();
        let every = crew.client.config().worker_heartbeat_interval;
        let beating = every.filter(|every| !every.is_zero()).map(|every| {
            let (crew, stop) = (Arc::clone(crew), stop.clone());
            let every = every.max(INTERVAL_MIN);
            tokio::spawn(async move { beat(&crew, every, &stop).await })
        });
        Self { stop: stop.drop_guard(), beating }
    }

    /// Tells that the worker stops; then there will be no more events, of tasks either.
    pub(in crate::worker) async fn stop(self, crew: &Crew) {
        drop(self.stop);
        if let Some(beating) = self.beating {
            // What panics has been printed already.
            let _ = beating.await;
        }
        crew.events.close().await;
    }
}

async fn beat(crew: &Crew, every: Duration, stop: &CancellationToken) {
    let tell = |event: fn(WorkerFacts) -> EventKind| {
        let facts = facts::all(crew, every.as_secs_f64());
        crew.events.dispatcher.send(event(facts));
    };
    tell(EventKind::WorkerOnline);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one comes at once.
    ticks.tick().await;
    let state = crew.client.connection().state();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        if state.borrow().is_connected() {
            tell(EventKind::WorkerHeartbeat);
        }
    }
    tell(EventKind::WorkerOffline);
}
