//! What a worker tells monitors: that it is there, and what becomes of its tasks.
//!
//! `heart` tells of the worker, from time to time; executor and settling tell of tasks, and `told`
//! writes what they tell. All goes out through one dispatcher, which nobody waits for.
//!
//! **Invariant:** while nobody wants the events of tasks, a task costs one look at a flag wherever
//! it could be told of.

pub(super) mod ballots;
mod facts;
mod heart;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) use heart::Heart;
pub(super) use told::Facts;

use tokio::sync::Semaphore;

use super::unsettled::Finished;
use crate::client::{Client, Dispatcher};
use crate::protocol::event::{EventKind, WorkerFacts};
use crate::task::{CustomEvent, Request, SendEvents};

/// The events of one worker.
#[derive(Debug)]
pub(super) struct Events {
    dispatcher: Dispatcher,
    /// Whether events of tasks are sent.
    tasks: AtomicBool,
    /// Whether they are sent whatever commands say.
    always: bool,
    /// One for each ballot that may be under way.
    ballots: Arc<Semaphore>,
}

impl Events {
    /// The events of the worker `hostname`.
    pub(super) fn new(client: &Client, hostname: &str) -> Self {
        let (config, clock) = (client.config(), Arc::clone(client.clock()));
        let connection = client.connection().clone();
        let always = config.worker_send_task_events;
        Self {
            dispatcher: Dispatcher::start(connection, &config.event_exchange, hostname, clock),
            tasks: AtomicBool::new(always),
            always,
            ballots: Arc::new(Semaphore::new(ballots::BALLOTS_MAX)),
        }
    }

    /// Sends events of tasks from now on; false if that was so before.
    pub(super) fn enable(&self) -> bool {
        !self.tasks.swap(true, Ordering::Relaxed)
    }

    /// Sends no events of tasks any more; false if that was so before, or is not to be.
    pub(super) fn disable(&self) -> bool {
        !self.always && self.tasks.swap(false, Ordering::Relaxed)
    }

    /// A call was taken.
    pub(super) fn received(&self, request: &Request) {
        if self.wants_tasks() {
            self.dispatcher.send(told::received(request));
        }
    }

    /// A call starts.
    pub(super) fn started(&self, request: &Request) {
        if self.wants_tasks() {
            self.dispatcher.send(EventKind::TaskStarted { uuid: request.id.clone() });
        }
    }

    /// A request has come to its end, and is about to be settled.
    pub(super) fn ended(&self, finished: &Finished) {
        if self.wants_tasks()
            && let Some(event) = told::ended(finished)
        {
            self.dispatcher.send(event);
        }
    }

    /// Tells that the worker is there, because somebody has asked: as in Celery, without figures.
    pub(super) fn answer(&self) {
        /// What Celery says; heartbeats may come more often.
        const FREQ: f64 = 5.0;
        let facts = WorkerFacts { freq: Some(FREQ), ..facts::software() };
        self.dispatcher.send(EventKind::WorkerHeartbeat(facts));
    }

    /// How many events were sent, and how many were dropped.
    pub(super) fn counts(&self) -> (u64, u64) {
        self.dispatcher.counts()
    }

    /// Sends what was told so far.
    pub(super) async fn close(&self) {
        self.dispatcher.close().await;
    }

    fn wants_tasks(&self) -> bool {
        self.tasks.load(Ordering::Relaxed)
    }
}

/// As in Celery, whatever commands say of the other events.
impl SendEvents for Events {
    fn send_event(&self, request: &Request, event: CustomEvent) {
        self.dispatcher.send(event.into_kind(&request.id));
    }
}
