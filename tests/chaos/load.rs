//! The producer: sends tasks, a batch at a time, and waits for their results.

use std::time::{Duration, Instant};

use celeriac::Client;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fault::outage;
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

pub(crate) struct Load {
    progress: watch::Receiver<Progress>,
    paused: watch::Sender<bool>,
    working: JoinHandle<Tally>,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Tally {
    /// When the results came, in order.
    pub(crate) arrivals: Vec<Instant>,
    /// Sends that failed and were made again.
    pub(crate) sent_again: usize,
}

impl Load {
    /// Begins to send `tasks` tasks.
    pub(crate) fn start(client: Client, tasks: u64) -> Self {
        let (progressing, progress) = watch::channel(Progress::default());
        let (paused, pausing) = watch::channel(false);
        let working = Working {
            client,
            tasks,
            next: 0,
            again: Vec::new(),
            sending: None,
            open: FuturesUnordered::new(),
            tally: Tally::default(),
        };
        Self { progress, paused, working: tokio::spawn(working.run(progressing, pausing)) }
    }

    /// Waits until so many results have come.
    pub(crate) async fn done(&mut self, count: u64) {
        self.wait(|progress| progress.done >= count).await;
    }

    /// Sends nothing more for now, and waits until nothing is on its way.
    pub(crate) async fn pause(&mut self) {
        self.paused.send_replace(true);
        self.wait(|progress| progress.idle).await;
    }

    pub(crate) fn go_on(&self) {
        self.paused.send_replace(false);
    }

    /// All of it is done.
    pub(crate) async fn end(self) -> Tally {
        self.working.await.unwrap()
    }

    async fn wait(&mut self, until: impl Fn(&Progress) -> bool) {
        let reached = self.progress.wait_for(|progress| until(progress));
        let in_time = tokio::time::timeout(patience(), reached).await.is_ok();
        assert!(in_time, "stuck after {} results", self.progress.borrow().done);
    }
}

/// The numbers of a batch, those of them that were not confirmed, and the results of the others.
type Sent = (Vec<u64>, Vec<celeriac::AsyncResult<u64>>);

struct Working {
    client: Client,
    tasks: u64,
    next: u64,
    /// Not confirmed, so they are sent again.
    again: Vec<u64>,
    sending: Option<BoxFuture<'static, Sent>>,
    open: FuturesUnordered<BoxFuture<'static, u64>>,
    tally: Tally,
}

impl Working {
    async fn run(
        mut self,
        progressing: watch::Sender<Progress>,
        mut pausing: watch::Receiver<bool>,
    ) -> Tally {
        loop {
            let paused = *pausing.borrow_and_update();
            if !paused && self.sending.is_none() && self.open.len() < OPEN_MAX {
                self.sending = self.batch();
            }
            let done = self.tally.arrivals.len() as u64;
            let idle = self.sending.is_none() && self.open.is_empty();
            progressing.send_replace(Progress { done, idle });
            if done == self.tasks {
                return self.tally;
            }
            tokio::select! {
                (failed, sent) = maybe(&mut self.sending) => {
                    self.sending = None;
                    self.tally.sent_again += failed.len();
                    self.again = failed;
                    self.open.extend(sent.into_iter().map(|result| {
                        async move { result.get(patience()).await.unwrap() }.boxed()
                    }));
                }
                Some(_) = self.open.next() => self.tally.arrivals.push(Instant::now()),
                _ = pausing.changed() => {}
            }
        }
    }

    fn batch(&mut self) -> Option<BoxFuture<'static, Sent>> {
        let mut numbers = std::mem::take(&mut self.again);
        if numbers.is_empty() {
            let end = self.tasks.min(self.next + BATCH);
            numbers.extend(self.next..end);
            self.next = end;
        }
        if numbers.is_empty() {
            return None;
        }
        let client = self.client.clone();
        let sending = async move {
            let calls = numbers.iter().map(|number| worker::mark::s(*number));
            let (mut failed, mut sent) = (Vec::new(), Vec::new());
            for (number, outcome) in numbers.iter().zip(client.send_all(calls).await) {
                match outcome {
                    Ok(result) => sent.push(result),
                    Err(_) => failed.push(*number),
                }
            }
            (failed, sent)
        };
        Some(sending.boxed())
    }
}

/// Longest wait for a result, which may have to wait for the broker.
fn patience() -> Duration {
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
    pub(crate) fn pauses(&self, strikes: &[Instant]) -> Vec<Duration> {
        let ends = strikes.iter().skip(1).map(Some).chain([None]);
        let pause = |(from, to): (&Instant, Option<&Instant>)| {
            let here = |it: &&Instant| **it > *from && to.is_none_or(|to| *it <= to);
            let mut before = *from;
            let gap = |arrival: &Instant| {
                arrival.duration_since(std::mem::replace(&mut before, *arrival))
            };
            self.arrivals.iter().filter(here).map(gap).max().unwrap_or_default()
        };
        strikes.iter().zip(ends).map(pause).collect()
    }

    /// The time from the end of each fault to the next result.
    pub(crate) fn recoveries(&self, ends: &[Instant]) -> Vec<Duration> {
        let next = |end: &Instant| self.arrivals.iter().find(|arrival| *arrival >= end);
        let recovery = |end| next(end).map(|arrival| arrival.duration_since(*end));
        ends.iter().filter_map(recovery).collect()
    }
}
