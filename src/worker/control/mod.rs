//! Remote control: the mailbox of a worker, and what its commands do.
//!
//! The way of one command: `mailbox` takes and decodes it, `commands` finds it by its name, one
//! function of `inspect`, `stats`, `conf`, `revoke` or `steer` carries it out, and the mailbox
//! answers in the encoding of the request. Names, arguments and wording are Celery's.
//!
//! **Invariants:** nothing that arrives here can stop the worker, but `shutdown`; what waits is
//! bounded by the broker's queue and one small prefetch.

mod arguments;
mod commands;
mod conf;
mod inspect;
mod mailbox;
mod revoke;
mod stats;
mod steer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mailbox::Mailbox;

use super::binder::Binder;
use super::revocations::Revocations;
use super::running::{Crew, Stopped};
use crate::amqp::{Connection, ConsumerHandle};
use crate::clock::Clock;

/// The mailbox and the stream of revocations of one worker.
#[derive(Debug)]
pub(super) struct Control {
    /// `None` if the settings want none.
    mailbox: Option<Mailbox>,
    revocations: Option<Arc<Revocations>>,
}

impl Control {
    /// Opens the mailbox, if there is to be one; when this returns, it can be written to.
    pub(super) async fn open(
        crew: &Arc<Crew>,
        consumer: &ConsumerHandle,
        connection: &Connection,
        revocations: Option<Revocations>,
        binder: Binder,
    ) -> Self {
        let Some(revocations) = revocations.map(Arc::new) else {
            return Self { mailbox: None, revocations: None };
        };
        let bridge = Bridge {
            crew: Arc::clone(crew),
            consumer: consumer.clone(),
            connection: connection.clone(),
            revocations: Arc::clone(&revocations),
            binder,
            started: Instant::now(),
            bound: Mutex::default(),
        };
        let mailbox = Some(Mailbox::open(bridge).await);
        Self { mailbox, revocations: Some(revocations) }
    }

    /// Takes no more commands. After a warm stop, what was revoked last is shared first.
    pub(super) async fn stop(self, stopped: Stopped) {
        if let Some(mailbox) = self.mailbox {
            mailbox.stop().await;
        }
        // A command that goes on by itself may have it as well.
        if let Some(revocations) = self.revocations
            && stopped == Stopped::Warm
        {
            revocations.stop().await;
        }
    }
}

/// What commands may look at and change.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) crew: Arc<Crew>,
    /// What takes the tasks.
    pub(super) consumer: ConsumerHandle,
    /// The connection on which tasks and commands come in.
    pub(super) connection: Connection,
    pub(super) revocations: Arc<Revocations>,
    /// Binds queues that were added to the delay queues.
    pub(super) binder: Binder,
    started: Instant,
    /// How queues that were added are bound, by name.
    bound: Mutex<HashMap<String, Bound>>,
}

/// How a queue is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    exchange: String,
    exchange_type: String,
    routing_key: String,
}

impl Bridge {
    fn clock(&self) -> &Clock {
        self.crew.client.clock()
    }

    fn bound(&self) -> MutexGuard<'_, HashMap<String, Bound>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
