//! The producer: sends tasks, a batch at a time, and waits for their results; at least as many as
//! it is told, and more until it is told that it is enough.

use std::collections::HashSet;
use std::time::Duration;

use celeriac::{AsyncResult, Client};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fault::outage;
use crate::marks::{Moment, now};
use crate::strike::Strike;
use crate::{PATIENCE, worker};

/// Tasks that are sent together.
const BATCH: u64 = 50;
/// With as many tasks on their way, nothing more is sent.
const OPEN_MAX: usize = 200;

/// How far it is.
#[derive(Clone, Copy, Default)]
struct Progress {
    done: u64,
    /// Nothing is on its way.
    idle: bool,
}

/// What it is to do.
#[derive(Clone, Copy)]
struct Pace {
    /// With as many tasks on their way, nothing more is sent.
    open_max: usize,
    /// Sends no more than it was told at first.
    enough: bool,
}

pub(crate) struct Load {
    progress: watch::Receiver<Progress>,
    pace: watch::Sender<Pace>,
    working: JoinHandle<Tally>,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Tally {
    /// Tasks that were sent: all numbers below.
    pub(crate) tasks: u64,
    /// When the results came, in order.
    pub(crate) arrivals: Vec<Moment>,
    /// Sends that failed and were made again.
    pub(crate) sent_again: usize,
    batches: Vec<Batch>,
}

/// The sends that were made together.
struct Batch {
    numbers: Vec<u64>,
    /// Those of them that ended without a confirm.
    failed: Vec<u64>,
    begun: Moment,
    ended: Moment,
}

impl Load {
    /// Begins to send tasks, `tasks` at least.
    pub(crate) fn start(client: Client, tasks: u64) -> Self {
        let (progressing, progress) = watch::channel(Progress::default());
        let (pace, paces) = watch::channel(Pace { open_max: OPEN_MAX, enough: false });
        let working = Working {
            client,
            tasks,
            next: 0,
            again: Vec::new(),
            sending: None,
            open: FuturesUnordered::new(),
            tally: Tally::default(),
        };
        Self { progress, pace, working: tokio::spawn(working.run(progressing, paces)) }
    }

    /// Waits until so many results have come.
    pub(crate) async fn done(&mut self, count: u64) {
        self.wait(|progress| progress.done >= count).await;
    }

    /// Sends nothing more for now, and waits until nothing is on its way.
    pub(crate) async fn pause(&mut self) {
        self.keep_open(0);
        self.wait(|progress| progress.idle).await;
    }

    pub(crate) fn go_on(&self) {
        self.keep_open(OPEN_MAX);
    }

    /// Sends something even if no result comes.
    pub(crate) fn press_on(&self) {
        self.keep_open(OPEN_MAX + BATCH as usize);
    }

    fn keep_open(&self, open_max: usize) {
        self.pace.send_modify(|pace| pace.open_max = open_max);
    }

    /// What was to be sent is sent and done.
    pub(crate) async fn end(self) -> Tally {
        self.pace.send_modify(|pace| pace.enough = true);
        self.working.await.unwrap()
    }

    async fn wait(&mut self, until: impl Fn(&Progress) -> bool) {
        let reached = self.progress.wait_for(|progress| until(progress));
        let in_time = tokio::time::timeout(patience(), reached).await.is_ok();
        assert!(in_time, "stuck after {} results", self.progress.borrow().done);
    }
}

struct Working {
    client: Client,
    tasks: u64,
    next: u64,
    /// Not confirmed, so they are sent again.
    again: Vec<u64>,
    sending: Option<BoxFuture<'static, (Batch, Vec<AsyncResult<u64>>)>>,
    open: FuturesUnordered<BoxFuture<'static, u64>>,
    tally: Tally,
}

impl Working {
    async fn run(
        mut self,
        progressing: watch::Sender<Progress>,
        mut paces: watch::Receiver<Pace>,
    ) -> Tally {
        loop {
            let pace = *paces.borrow_and_update();
            if self.sending.is_none() && self.open.len() < pace.open_max {
                self.sending = self.batch(pace.enough);
            }
            let done = self.tally.arrivals.len() as u64;
            let idle = self.sending.is_none() && self.open.is_empty();
            progressing.send_replace(Progress { done, idle });
            if pace.enough && idle && self.next >= self.tasks {
                assert_eq!(done, self.next, "each task has a result");
                self.tally.tasks = self.next;
                return self.tally;
            }
            tokio::select! {
                (batch, sent) = maybe(&mut self.sending) => {
                    self.sending = None;
                    self.tally.sent_again += batch.failed.len();
                    self.again.clone_from(&batch.failed);
                    self.tally.batches.push(batch);
                    self.open.extend(sent.into_iter().map(|result| {
                        async move { result.get(patience()).await.unwrap() }.boxed()
                    }));
                }
                Some(_) = self.open.next() => self.tally.arrivals.push(now()),
                _ = paces.changed() => {}
            }
        }
    }

    fn batch(
        &mut self,
        enough: bool,
    ) -> Option<BoxFuture<'static, (Batch, Vec<AsyncResult<u64>>)>> {
        let mut numbers = std::mem::take(&mut self.again);
        if numbers.is_empty() && !(enough && self.next >= self.tasks) {
            numbers.extend(self.next..self.next + BATCH);
            self.next += BATCH;
        }
        if numbers.is_empty() {
            return None;
        }
        let client = self.client.clone();
        let sending = async move {
            let (begun, mut failed, mut sent) = (now(), Vec::new(), Vec::new());
            let calls = numbers.iter().map(|number| worker::mark::s(*number));
            for (number, outcome) in numbers.iter().zip(client.send_all(calls).await) {
                match outcome {
                    Ok(result) => sent.push(result),
                    Err(_) => failed.push(*number),
                }
            }
            (Batch { numbers, failed, begun, ended: now() }, sent)
        };
        Some(sending.boxed())
    }
}

/// Longest wait for a result, which may have to wait for the broker.
pub(crate) fn patience() -> Duration {
    PATIENCE + outage()
}

async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl Tally {
    /// The longest time without a result after each of `strikes` and before the next one.
    pub(crate) fn pauses(&self, strikes: &[Strike]) -> Vec<Duration> {
        let ends = strikes.iter().skip(1).map(|next| Some(next.begun)).chain([None]);
        let pause = |(strike, to): (&Strike, Option<Moment>)| {
            let here = |at: &&Moment| **at > strike.begun && to.is_none_or(|to| **at <= to);
            let mut before = strike.begun;
            let gap = |at: &Moment| at.saturating_sub(std::mem::replace(&mut before, *at));
            self.arrivals.iter().filter(here).map(gap).max().unwrap_or_default()
        };
        strikes.iter().zip(ends).map(pause).collect()
    }

    /// The numbers of which two messages may be on their way: those that the producer sent again,
    /// and if a strike `takes_the_broker`, those whose confirms were on their way then, which the
    /// client sends again with the same id.
    pub(crate) fn sent_twice(&self, strikes: &[Strike], takes_the_broker: bool) -> HashSet<u64> {
        let mut numbers = HashSet::new();
        for batch in &self.batches {
            numbers.extend(&batch.failed);
            let in_it = |it: &Strike| batch.begun <= it.ended && batch.ended >= it.begun;
            if takes_the_broker && strikes.iter().any(in_it) {
                numbers.extend(&batch.numbers);
            }
        }
        numbers
    }
}
