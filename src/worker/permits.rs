//! Permits: how many calls of a task, or with a key in common, run at once in the whole fleet.
//!
//! Permit number `n` is a queue that only one connection may have, the one that delivers the
//! worker's messages: who makes the queue has the permit, and who deletes it gives it back. So
//! the broker alone keeps the count, there is nothing to set up or to change when the limit does,
//! and the permits of a worker that is killed come back with its connection.
//!
//! Who looks for a permit asks with a message for each of them which ones are free, because a
//! message that nobody gets is cheaper than a queue that is refused. Of one worker only one asks
//! for the same permits, and few ask at a time.
//!
//! **Invariant:** as long as connections last, no more permits of one name are out than its limit.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{debug, warn};

use super::starts::{WARN_EVERY, is_due};
use crate::amqp::{self, Connection, Publish, Publisher, layout, topology};
use crate::protocol::Message;

/// How long a worker waits before it asks again.
const PAUSE: Duration = Duration::from_millis(200);

/// How often a permit is handed on within a worker before other workers get a chance.
const TURNS_MAX: u32 = 16;

/// How many permits are asked for at once.
const ASKED_MAX: usize = 64;

/// For how many names a worker asks at a time.
const ASKING_MAX: usize = 8;

/// How many permits a worker has at most; each is a queue in the broker.
const HELD_MAX: usize = 10_000;

/// The permits of one worker.
#[derive(Debug)]
pub(super) struct Permits {
    shared: Arc<Shared>,
    kinds: Mutex<Kinds>,
}

#[derive(Debug)]
struct Shared {
    connection: Connection,
    publisher: Publisher,
    asking: Semaphore,
    room: Arc<Semaphore>,
    /// When the log was last told that calls get no permits at all.
    warned: Mutex<Option<Instant>>,
}

impl Shared {
    /// Whether the log is to be told at a level that is seen: calls would wait without end, and
    /// nobody would know why.
    fn is_news(&self) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        is_due(&mut warned, WARN_EVERY, Instant::now())
    }
}

/// What has waiters or permits; who knows of a kind keeps it.
#[derive(Debug, Default)]
struct Kinds {
    by_name: HashMap<Box<str>, Weak<Kind>>,
    /// How many there may be before those that are gone are taken out.
    prune_at: usize,
}

/// The permits of one name.
#[derive(Debug)]
struct Kind {
    name: Box<str>,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Numbers of the permits that this worker has, or is giving back, and in which epoch of the
    /// connection it got them.
    held: HashMap<u32, u64>,
    waiters: VecDeque<Waiter>,
    /// Whether somebody asks for them.
    is_asking: bool,
}

#[derive(Debug)]
struct Waiter {
    /// Tasks that share a key may have different ones; only permits below it will do.
    limit: u32,
    sender: oneshot::Sender<Permit>,
}

/// The right to run one call. Dropping it gives it to the next one.
#[derive(Debug)]
pub(super) struct Permit {
    kind: Arc<Kind>,
    taken: Option<Taken>,
    turns: u32,
}

/// A permit that this worker has.
#[derive(Debug)]
struct Taken {
    number: u32,
    /// The epoch of the connection that it is bound to.
    epoch: u64,
    _place: OwnedSemaphorePermit,
}

impl Permits {
    /// Permits that live as long as `connection`; `publisher` asks for them.
    pub(super) fn new(connection: Connection, publisher: Publisher) -> Self {
        let (asking, room) = (Semaphore::new(ASKING_MAX), Arc::new(Semaphore::new(HELD_MAX)));
        let warned = Mutex::default();
        let shared = Arc::new(Shared { connection, publisher, asking, room, warned });
        Self { shared, kinds: Mutex::default() }
    }

    /// Waits for one of `limit` permits of `name`. Dropping the future loses none.
    pub(super) async fn acquire(&self, name: &str, limit: u32) -> Option<Permit> {
        self.wait(name, limit, VecDeque::push_back).await
    }

    /// The same for who has a slot already, before all who have none.
    pub(super) async fn acquire_first(&self, name: &str, limit: u32) -> Option<Permit> {
        self.wait(name, limit, VecDeque::push_front).await
    }

    async fn wait(
        &self,
        name: &str,
        limit: u32,
        queue_up: fn(&mut VecDeque<Waiter>, Waiter),
    ) -> Option<Permit> {
        let kind = self.kind(name);
        let (sender, permit) = oneshot::channel();
        let is_first = {
            let mut state = kind.lock();
            queue_up(&mut state.waiters, Waiter { limit, sender });
            !std::mem::replace(&mut state.is_asking, true)
        };
        if is_first {
            tokio::spawn(ask_for_waiters(kind));
        }
        permit.await.ok()
    }

    fn kind(&self, name: &str) -> Arc<Kind> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kind) = kinds.by_name.get(name).and_then(Weak::upgrade) {
            return kind;
        }
        if kinds.by_name.len() >= kinds.prune_at {
            kinds.by_name.retain(|_, kind| kind.strong_count() > 0);
            kinds.prune_at = kinds.by_name.len() * 2 + 64;
        }
        let (shared, state) = (Arc::clone(&self.shared), Mutex::default());
        let kind = Arc::new(Kind { name: name.into(), shared, state });
        kinds.by_name.insert(name.into(), Arc::downgrade(&kind));
        kind
    }
}

/// Asks until nobody waits any more.
async fn ask_for_waiters(kind: Arc<Kind>) {
    loop {
        let limit = {
            let mut state = kind.lock();
            state.waiters.retain(|waiter| !waiter.sender.is_closed());
            match state.waiters.iter().map(|waiter| waiter.limit).max() {
                Some(limit) => limit,
                None => {
                    state.is_asking = false;
                    return;
                }
            }
        };
        match kind.ask(limit).await {
            Ok(Some(taken)) => give(&kind, taken, 0),
            Ok(None) => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                if kind.shared.is_news() {
                    warn!(name = kind.name, %error, "permits cannot be taken, calls wait");
                } else {
                    debug!(name = kind.name, %error, "permits cannot be taken");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Kind {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit that is free.
    async fn ask(&self, limit: u32) -> Result<Option<Taken>, amqp::Error> {
        let Shared { connection, publisher, asking, room, .. } = &*self.shared;
        let Ok(place) = Arc::clone(room).try_acquire_owned() else {
            if self.shared.is_news() {
                let (name, max) = (&self.name, HELD_MAX);
                warn!(name, max, "this worker has all the permits that it may have, calls wait");
            }
            return Ok(None);
        };
        // It is never closed.
        let Ok(_asking) = asking.acquire().await else { return Ok(None) };
        // Not all workers begin with the same one.
        let first = uuid::Uuid::new_v4().as_u64_pair().1 as u32 % limit.max(1);
        let numbers: Vec<u32> = {
            let mut state = self.lock();
            // The others came back by themselves, and may be anybody's.
            state.held.retain(|_, epoch| connection.is_in(*epoch));
            let all = (first..limit).chain(0..first);
            all.filter(|number| !state.held.contains_key(number)).take(ASKED_MAX).collect()
        };
        let question = |number: &u32| {
            let mut publish = Publish::new("", self.queue(*number), Message::default());
            publish.when_unknown = amqp::WhenUnknown::Report;
            publish
        };
        let answers = publisher.publish_all(numbers.iter().map(question).collect()).await;
        for (number, answer) in numbers.into_iter().zip(answers) {
            if !answer.is_err_and(|failed| failed.is_returned()) {
                continue;
            }
            match connection.declare_exactly(&layout::permit(&self.queue(number))).await {
                Ok(epoch) => {
                    self.lock().held.insert(number, epoch);
                    return Ok(Some(Taken { number, epoch, _place: place }));
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
        let (queue, connection) = (self.queue(number), &self.shared.connection);
        let is_there = || connection.is_in(epoch);
        until_deleted(&queue, is_there, || connection.delete_queue_in(epoch, &queue)).await;
    }

    fn queue(&self, number: u32) -> String {
        topology::permit_queue(&self.name, number)
    }
}

/// Deletes a queue, again and again, unless it is not ours or goes by itself.
async fn until_deleted<D: Future<Output = Result<(), amqp::Error>>>(
    queue: &str,
    is_there: impl Fn() -> bool,
    delete: impl Fn() -> D,
) {
    while is_there() {
        match delete().await {
            Ok(()) => return,
            Err(error) if error.is_refused() => {
                debug!(queue, %error, "a permit was not given back");
                return;
            }
            Err(error) => debug!(queue, %error, "a permit is still to be deleted"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Gives a permit to who waits for it in this worker, or else back to the broker. One whose
/// connection was lost is anybody's already.
fn give(kind: &Arc<Kind>, taken: Taken, turns: u32) {
    if turns < TURNS_MAX && kind.shared.connection.is_in(taken.epoch) {
        let mut state = kind.lock();
        state.waiters.retain(|waiter| !waiter.sender.is_closed());
        let fits = |waiter: &Waiter| waiter.limit > taken.number;
        if let Some(waiter) =
            state.waiters.iter().position(fits).and_then(|at| state.waiters.remove(at))
        {
            drop(state);
            let (kind, taken) = (Arc::clone(kind), Some(taken));
            let permit = Permit { kind, taken, turns: turns + 1 };
            // If nobody takes it after all, it drops, and comes here once more.
            let _ = waiter.sender.send(permit);
            return;
        }
    }
    let kind = Arc::clone(kind);
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        let Taken { number, epoch, _place } = taken;
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
        if let Some(taken) = self.taken.take() {
            give(&self.kind, taken, self.turns);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// How often a queue is deleted whose deletion ends like this, of a connection that lasts for
    /// so many looks.
    async fn times(ends: Vec<Result<(), amqp::Error>>, looks: u32) -> u32 {
        let (looks, times, ends) = (Cell::new(looks), Cell::new(0), RefCell::new(ends.into_iter()));
        let is_there = || looks.replace(looks.get().saturating_sub(1)) > 0;
        let delete = || {
            times.set(times.get() + 1);
            std::future::ready(ends.borrow_mut().next().unwrap())
        };
        until_deleted("permit", is_there, delete).await;
        times.get()
    }

    /// As long as its queue is there, nobody in the fleet has the permit.
    #[tokio::test(start_paused = true)]
    async fn a_permit_is_deleted_until_that_succeeds() {
        let silent = || Err(amqp::Error::Silent { after: PAUSE });
        let refused = || Err(amqp::Error::Refused { code: 405, text: String::new() });
        assert_eq!(times(vec![Ok(())], 9).await, 1);
        assert_eq!(times(vec![silent(), silent(), silent(), Ok(())], 9).await, 4);
        assert_eq!(times(vec![silent(), refused()], 9).await, 2, "it is somebody else's");
        assert_eq!(times(vec![silent(), silent()], 2).await, 2, "it went with its connection");
    }
}
