//! Permits: how many calls of a task run at once in the whole fleet.
//!
//! Permit number `n` of a task is a queue that only one connection may have, the one that delivers
//! the worker's messages: who makes the queue has the permit, and who deletes it gives it back. So
//! the broker alone keeps the count, there is nothing to set up or to change when the limit does,
//! and the permits of a worker that is killed come back with its connection.
//!
//! Who looks for a permit asks with a message for each of them which ones are free, because a
//! message that nobody gets is cheaper than a queue that is refused. Of one worker only one asks.
//!
//! **Invariant:** as long as connections last, no more permits of a task are out than its limit.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::debug;

use crate::amqp::{self, Connection, Publish, Publisher, layout, topology};
use crate::protocol::Message;

/// How long a worker waits before it asks again.
const PAUSE: Duration = Duration::from_millis(200);

/// How often a permit is handed on within a worker before other workers get a chance.
const TURNS_MAX: u32 = 16;

/// How many permits are asked for at once.
const ASKED_MAX: usize = 64;

/// The permits of one worker.
#[derive(Debug)]
pub(super) struct Permits {
    connection: Connection,
    publisher: Publisher,
    kinds: Mutex<HashMap<&'static str, Arc<Kind>>>,
}

/// The permits of one task.
#[derive(Debug)]
struct Kind {
    task: &'static str,
    connection: Connection,
    publisher: Publisher,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Numbers of the permits that this worker has, or is giving back, and in which epoch of the
    /// connection it got them.
    held: HashMap<u32, u64>,
    waiters: VecDeque<oneshot::Sender<Permit>>,
    /// Whether somebody asks for them.
    is_asking: bool,
}

/// The right to run one call. Dropping it gives it to the next one.
#[derive(Debug)]
pub(super) struct Permit {
    kind: Arc<Kind>,
    number: u32,
    /// The epoch of the connection that it is bound to.
    epoch: u64,
    turns: u32,
}

impl Permits {
    /// Permits that live as long as `connection`; `publisher` asks for them.
    pub(super) fn new(connection: Connection, publisher: Publisher) -> Self {
        Self { connection, publisher, kinds: Mutex::default() }
    }

    /// Waits for one of `limit` permits of `task`. Dropping the future loses none.
    pub(super) async fn acquire(&self, task: &'static str, limit: u32) -> Option<Permit> {
        let kind = self.kind(task);
        let (waiter, permit) = oneshot::channel();
        let is_first = {
            let mut state = kind.lock();
            state.waiters.push_back(waiter);
            !std::mem::replace(&mut state.is_asking, true)
        };
        if is_first {
            tokio::spawn(ask_for_waiters(kind, limit));
        }
        permit.await.ok()
    }

    fn kind(&self, task: &'static str) -> Arc<Kind> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let (connection, publisher) = (self.connection.clone(), self.publisher.clone());
            Arc::new(Kind { task, connection, publisher, state: Mutex::default() })
        };
        Arc::clone(kinds.entry(task).or_insert_with(make))
    }
}

/// Asks until nobody waits any more.
async fn ask_for_waiters(kind: Arc<Kind>, limit: u32) {
    loop {
        {
            let mut state = kind.lock();
            state.waiters.retain(|waiter| !waiter.is_closed());
            if state.waiters.is_empty() {
                state.is_asking = false;
                return;
            }
        }
        match kind.ask(limit).await {
            Ok(Some((number, epoch))) => give(&kind, number, epoch, 0),
            Ok(None) => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                debug!(task_name = kind.task, %error, "permits cannot be asked for");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Kind {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit that is free; gives its number and epoch.
    async fn ask(&self, limit: u32) -> Result<Option<(u32, u64)>, amqp::Error> {
        let mut numbers: Vec<u32> = {
            let mut state = self.lock();
            // The others came back by themselves, and may be anybody's.
            state.held.retain(|_, epoch| self.connection.is_in(*epoch));
            (0..limit).filter(|number| !state.held.contains_key(number)).collect()
        };
        if numbers.is_empty() {
            return Ok(None);
        }
        // Not all workers begin with the same one.
        let first = uuid::Uuid::new_v4().as_u128() % numbers.len() as u128;
        numbers.rotate_left(usize::try_from(first).unwrap_or(0));
        numbers.truncate(ASKED_MAX);
        let question = |number: &u32| {
            let mut publish = Publish::new("", self.queue(*number), Message::default());
            publish.when_unknown = amqp::WhenUnknown::Report;
            publish
        };
        let answers = self.publisher.publish_all(numbers.iter().map(question).collect()).await;
        for (number, answer) in numbers.into_iter().zip(answers) {
            if !answer.is_err_and(|failed| failed.is_returned()) {
                continue;
            }
            match self.connection.declare_exactly(&layout::permit(&self.queue(number))).await {
                Ok(epoch) => {
                    self.lock().held.insert(number, epoch);
                    return Ok(Some((number, epoch)));
                }
                // Another worker was faster.
                Err(amqp::Error::Refused { code: 405, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Deletes the queue of a permit, or sees its connection go: as long as the queue is there,
    /// nobody else has the permit.
    async fn give_back(&self, number: u32, epoch: u64) {
        let (queue, task_name) = (self.queue(number), self.task);
        while self.connection.is_in(epoch) {
            match self.connection.delete_queue_in(epoch, &queue).await {
                Ok(()) => return,
                // It is somebody else's.
                Err(error) if error.is_refused() => {
                    debug!(task_name, number, %error, "a permit was not given back");
                    return;
                }
                Err(error) => debug!(task_name, number, %error, "a permit is still to be deleted"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn queue(&self, number: u32) -> String {
        topology::permit_queue(self.task, number)
    }
}

/// Gives a permit to who waits for it in this worker, or else back to the broker. One whose
/// connection was lost is anybody's already.
fn give(kind: &Arc<Kind>, number: u32, epoch: u64, turns: u32) {
    if turns < TURNS_MAX && kind.connection.is_in(epoch) {
        let mut state = kind.lock();
        while let Some(waiter) = state.waiters.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            drop(state);
            // If nobody takes it after all, it drops, and comes here once more.
            let _ = waiter.send(Permit { kind: Arc::clone(kind), number, epoch, turns: turns + 1 });
            return;
        }
    }
    let kind = Arc::clone(kind);
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        kind.give_back(number, epoch).await;
        let mut state = kind.lock();
        if state.held.get(&number) == Some(&epoch) {
            state.held.remove(&number);
        }
    });
}

impl Permit {
    /// Gives it back to the broker, so that another worker may have it.
    pub(super) fn give_back(mut self) {
        self.turns = TURNS_MAX;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        give(&self.kind, self.number, self.epoch, self.turns);
    }
}
