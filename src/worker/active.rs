//! The register of jobs: which requests this worker holds, how far each has come, and the way to
//! stop one.
//!
//! Runs nothing itself: whoever runs a job polls its [`Entry`] beside the job. An entry costs no
//! allocation of its own and three short locks in its life, each of one shard out of many.
//!
//! **Invariant:** a request is listed from [`Active::enter`] until its entry is dropped, and once
//! it was cancelled, its function is neither started nor polled again.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use slab::Slab;

use crate::amqp::SettleToken;
use crate::task::Request;

/// More shards than threads, so that these seldom wait for each other.
const SHARDS: usize = 16;

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for a slot.
    Reserved,
    /// It waits for its date.
    Scheduled,
    /// Its function was started.
    Active,
}

/// Why a job is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    /// Somebody has revoked it. One that runs is stopped only with `terminate`.
    Revoked {
        /// Whether it is stopped even if it runs.
        terminate: bool,
        /// The signal for a process that runs it.
        signal: Option<String>,
    },
    /// The connection of its delivery was lost, and the task's policy is to stop then.
    ConnectionLost,
}

impl Cancel {
    /// Somebody has revoked it. Processes get SIGTERM if nothing else is said.
    pub(super) fn revoked(terminate: bool, signal: Option<String>) -> Self {
        let usual = || terminate.then(|| "SIGTERM".to_owned());
        Self::Revoked { terminate, signal: signal.or_else(usual) }
    }

    /// Whether it stops a job that has come as far as `stage`.
    fn stops(&self, stage: Stage) -> bool {
        stage != Stage::Active || !matches!(self, Self::Revoked { terminate: false, .. })
    }
}

/// One job of the register, as it was when it was listed.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) request: Arc<Request>,
    pub(super) stage: Stage,
    /// When its function was started.
    pub(super) since: Option<Timestamp>,
    /// The child process that runs it.
    pub(super) pid: Option<u32>,
}

/// The jobs of one worker. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Active(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shards: [Shard; SHARDS],
    /// Of this register, among all of the process; not 0.
    number: u64,
}

impl Default for Inner {
    fn default() -> Self {
        static MADE: AtomicU16 = AtomicU16::new(1);
        let number = u64::from(MADE.fetch_add(1, Ordering::Relaxed).max(1));
        Self { shards: Default::default(), number }
    }
}

/// On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<Slab<Row>>);

#[derive(Debug)]
struct Row {
    request: Arc<Request>,
    stage: Stage,
    since: Option<Instant>,
    call: Call,
    /// Of whoever runs the job.
    waker: Option<Waker>,
    /// What few jobs have.
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Default)]
struct Rare {
    cancel: Option<Cancel>,
    pid: Option<u32>,
    /// Of the message, where it was delivered again.
    successor: Option<SettleToken>,
}

/// What a call that runs, or goes on, is known by when its message is delivered again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) key: u64,
    /// The channel of its delivery; 0 if it is not to be known again.
    pub(super) channel: u64,
}

impl Row {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn cancelled(&self) -> Option<&Cancel> {
        self.rare.as_ref().and_then(|rare| rare.cancel.as_ref())
    }

    /// Who is to be woken, if that stops the job.
    fn cancel(&mut self, why: &Cancel) -> Option<Option<Waker>> {
        if !why.stops(self.stage) {
            return None;
        }
        let rare = self.rare();
        if rare.cancel.is_none() {
            rare.cancel = Some(why.clone());
        }
        Some(self.waker.take())
    }
}

impl Active {
    /// Adds a job, which waits for a slot. It stays until the entry is dropped.
    pub(super) fn enter(&self, request: &Arc<Request>) -> Entry {
        // Requests lie far apart in memory, and where they lie is no pattern.
        let place = Arc::as_ptr(request) as u64;
        let shard = place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60;
        let row = Row {
            request: Arc::clone(request),
            stage: Stage::Reserved,
            since: None,
            call: Call::default(),
            waker: None,
            rare: None,
        };
        let key = self.shard(shard as usize).insert(row);
        Entry { active: self.clone(), shard: shard as u32, key: key as u32 }
    }

    /// Stops the jobs of this id; false if there is none, or none that this stops.
    #[cfg(test)]
    pub(super) fn cancel(&self, id: &str, why: Cancel) -> bool {
        !self.cancel_if(|request| request.id == id, why).is_empty()
    }

    /// Stops all jobs that are `wanted`, and gives their ids. Looks at every job.
    #[expect(clippy::needless_pass_by_value, reason = "a reason is made for this")]
    pub(super) fn cancel_if(&self, wanted: impl Fn(&Request) -> bool, why: Cancel) -> Vec<String> {
        let mut stopped = Vec::new();
        let mut wakers = Vec::new();
        for shard in 0..SHARDS {
            for (_, row) in self.shard(shard).iter_mut() {
                if wanted(&row.request)
                    && let Some(waker) = row.cancel(&why)
                {
                    stopped.push(row.request.id.clone());
                    wakers.extend(waker);
                }
            }
        }
        // Not under a lock: who is woken may run at once.
        wakers.into_iter().for_each(Waker::wake);
        stopped
    }

    /// Hands the job that runs the same call a delivery of its message that has come after its own
    /// was lost.
    ///
    /// # Errors
    /// Gives the token back, if there is no such job.
    pub(super) fn take_over(
        &self,
        request: &Request,
        key: u64,
        token: SettleToken,
    ) -> Result<(), SettleToken> {
        let same = |row: &Row| {
            let Call { key: known, channel } = row.call;
            known == key && channel != 0 && row.request.id == request.id && token.outlived(channel)
        };
        for shard in 0..SHARDS {
            let mut rows = self.shard(shard);
            if let Some((_, row)) = rows.iter_mut().find(|(_, row)| same(row)) {
                row.call.channel = token.channel();
                let previous = row.rare().successor.replace(token);
                drop(rows);
                // It is stale, too; and its settling takes another lock.
                drop(previous);
                return Ok(());
            }
        }
        Err(token)
    }

    /// The request of the job of this number, if it is here.
    pub(super) fn numbered(&self, number: u64) -> Option<Arc<Request>> {
        if number >> 48 != self.0.number {
            return None;
        }
        let (shard, key) = ((number >> 32) & 0xFFFF, number & 0xFFFF_FFFF);
        let rows = self.shard(usize::try_from(shard).ok()?);
        rows.get(usize::try_from(key).ok()?).map(|row| Arc::clone(&row.request))
    }

    /// All jobs, in no order.
    pub(super) fn list(&self) -> Vec<Held> {
        let (now, clock) = (Timestamp::now(), Instant::now());
        let at = |since: Instant| {
            let ago = SignedDuration::try_from(clock.saturating_duration_since(since));
            ago.ok().and_then(|ago| now.checked_sub(ago).ok()).unwrap_or(now)
        };
        let mut held = Vec::new();
        for shard in 0..SHARDS {
            held.extend(self.shard(shard).iter().map(|(_, row)| Held {
                request: Arc::clone(&row.request),
                stage: row.stage,
                since: row.since.map(at),
                pid: row.rare.as_ref().and_then(|rare| rare.pid),
            }));
        }
        held
    }

    /// How many jobs have started.
    pub(super) fn running(&self) -> usize {
        let started = |(_, row): &(usize, &Row)| row.stage == Stage::Active;
        (0..SHARDS).map(|shard| self.shard(shard).iter().filter(started).count()).sum()
    }

    fn shard(&self, at: usize) -> MutexGuard<'_, Slab<Row>> {
        // Nothing under these locks panics, and the jobs of a poisoned one would be lost.
        self.0.shards[at % SHARDS].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job's place in the register, which it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    active: Active,
    shard: u32,
    key: u32,
}

impl Entry {
    /// The job waits for its date, or no longer does.
    pub(super) fn schedule(&self, scheduled: bool) {
        let stage = if scheduled { Stage::Scheduled } else { Stage::Reserved };
        self.with(|row| row.stage = stage);
    }

    /// The job's function is about to be started.
    ///
    /// # Errors
    /// Why it must not be: it was cancelled before.
    pub(super) fn start(&self, now: Instant, call: Call) -> Result<(), Cancel> {
        self.with(|row| {
            if let Some(why) = row.cancelled() {
                return Err(why.clone());
            }
            (row.stage, row.since, row.call) = (Stage::Active, Some(now), call);
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// The child process that runs the job.
    pub(super) fn set_pid(&self, pid: Option<u32>) {
        self.with(|row| row.rare().pid = pid);
    }

    /// The job among all of the process.
    pub(super) fn number(&self) -> u64 {
        (self.active.0.number << 48) | (u64::from(self.shard) << 32) | u64::from(self.key)
    }

    /// What the job's message is known by while it goes on as another one.
    pub(super) fn set_call(&self, call: Call) {
        self.with(|row| row.call = call);
    }

    /// What the job's call is known by, if it has started or goes on.
    pub(super) fn call(&self) -> Call {
        self.with(|row| row.call).unwrap_or_default()
    }

    /// Leaves the register, and gives the delivery that has taken the place of the job's own.
    pub(super) fn leave(self) -> Option<SettleToken> {
        self.with(|row| row.rare.as_mut()?.successor.take()).flatten()
    }

    /// Ready when the job was cancelled; else the task of `cx` is woken when it is.
    pub(super) fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<Cancel> {
        let polled = self.with(|row| {
            if let Some(why) = row.cancelled() {
                return Poll::Ready(why.clone());
            }
            if !row.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                row.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        });
        polled.unwrap_or(Poll::Pending)
    }

    /// Completes when the job is cancelled. Only one can wait at a time.
    pub(super) async fn cancelled(&self) -> Cancel {
        poll_fn(|cx| self.poll_cancelled(cx)).await
    }

    fn with<T>(&self, change: impl FnOnce(&mut Row) -> T) -> Option<T> {
        self.active.shard(self.shard as usize).get_mut(self.key as usize).map(change)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let row = self.active.shard(self.shard as usize).try_remove(self.key as usize);
        // What it frees is freed without the lock.
        drop(row);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn request(id: &str) -> Arc<Request> {
        Arc::new(Request { id: id.to_owned(), ..Request::default() })
    }

    fn revoked(terminate: bool) -> Cancel {
        Cancel::Revoked { terminate, signal: None }
    }

    fn ids(active: &Active) -> Vec<(String, Stage)> {
        let mut ids: Vec<_> =
            active.list().into_iter().map(|held| (held.request.id.clone(), held.stage)).collect();
        ids.sort_by(|a, b| a.0.cmp(&b.0));
        ids
    }

    #[test]
    fn a_job_is_listed_from_its_entry_to_its_end() {
        let active = Active::default();
        let (first, second) = (active.enter(&request("1")), active.enter(&request("2")));
        assert_eq!(ids(&active), [("1".into(), Stage::Reserved), ("2".into(), Stage::Reserved)]);
        second.schedule(true);
        first.start(Instant::now(), Call::default()).unwrap();
        assert_eq!(ids(&active), [("1".into(), Stage::Active), ("2".into(), Stage::Scheduled)]);
        let since: Vec<bool> = active.list().iter().map(|held| held.since.is_some()).collect();
        assert_eq!(since.iter().filter(|since| **since).count(), 1, "{since:?}");
        drop(first);
        assert_eq!(ids(&active), [("2".into(), Stage::Scheduled)]);
    }

    #[test]
    fn a_revoked_job_does_not_start() {
        let active = Active::default();
        let entry = active.enter(&request("1"));
        assert!(!active.cancel("2", revoked(false)), "an unknown id");
        assert!(active.cancel("1", revoked(false)));
        assert!(active.cancel("1", Cancel::ConnectionLost), "the first reason stays");
        assert_eq!(entry.start(Instant::now(), Call::default()), Err(revoked(false)));
    }

    #[tokio::test]
    async fn a_running_job_is_stopped_only_by_force() {
        let active = Active::default();
        let entry = active.enter(&request("1"));
        entry.start(Instant::now(), Call::default()).unwrap();
        let mut cancelled = tokio_test_task(entry);
        assert!(!cancelled.0.is_finished());
        assert!(!active.cancel("1", revoked(false)));
        cancelled.1.notified().await;
        assert_eq!(active.cancel_if(|it| it.id == "1", revoked(true)), ["1"]);
        assert_eq!((&mut cancelled.0).await.unwrap(), revoked(true));
        assert!(active.list().is_empty());
    }

    type Waiting = (tokio::task::JoinHandle<Cancel>, Arc<tokio::sync::Notify>);

    /// Waits for the cancellation of a job, and tells when it does.
    fn tokio_test_task(entry: Entry) -> Waiting {
        let waits = Arc::new(tokio::sync::Notify::new());
        let told = Arc::clone(&waits);
        let waiting = tokio::spawn(async move {
            told.notify_one();
            entry.cancelled().await
        });
        (waiting, waits)
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter(u8),
        Start(u8),
        Cancel(u8, bool),
        Leave(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let id = 0..12_u8;
        prop_oneof![
            3 => id.clone().prop_map(Step::Enter),
            2 => id.clone().prop_map(Step::Start),
            2 => (id.clone(), any::<bool>()).prop_map(|(id, force)| Step::Cancel(id, force)),
            2 => id.prop_map(Step::Leave),
        ]
    }

    proptest! {
        /// The register does what a plain map of the jobs would do.
        #[test]
        fn it_knows_every_job(steps in proptest::collection::vec(step(), 0..80)) {
            let active = Active::default();
            let mut known: BTreeMap<String, (Entry, Stage, Option<Cancel>)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Enter(id) => {
                        let id = id.to_string();
                        let entry = active.enter(&request(&id));
                        known.insert(id, (entry, Stage::Reserved, None));
                    }
                    Step::Start(id) => {
                        if let Some((entry, stage, why)) = known.get_mut(&id.to_string()) {
                            let started = entry.start(Instant::now(), Call::default());
                            prop_assert_eq!(started.clone().err(), why.clone());
                            if started.is_ok() {
                                *stage = Stage::Active;
                            }
                        }
                    }
                    Step::Cancel(id, force) => {
                        let it = known.get_mut(&id.to_string());
                        let stops = |stage: Stage| force || stage != Stage::Active;
                        let stopped = it.as_ref().is_some_and(|(_, stage, _)| stops(*stage));
                        prop_assert_eq!(active.cancel(&id.to_string(), revoked(force)), stopped);
                        if stopped && let Some((_, _, why)) = it {
                            why.get_or_insert(revoked(force));
                        }
                    }
                    Step::Leave(id) => {
                        known.remove(&id.to_string());
                    }
                }
                let expected: Vec<_> = {
                    let mut all: Vec<_> =
                        known.iter().map(|(id, (_, stage, _))| (id.clone(), *stage)).collect();
                    all.sort_by(|a, b| a.0.cmp(&b.0));
                    all
                };
                prop_assert_eq!(ids(&active), expected);
            }
        }
    }
}
