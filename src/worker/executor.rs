//! The executor: runs jobs in slots, and turns whatever a task does into an outcome.
//!
//! Async tasks run on the runtime, as many at once as there are slots; blocking tasks run on a
//! bounded pool of threads. A panic is an outcome. Settles nothing.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{Instrument, debug};

use super::admission::{Admission, admit};
use super::errback::{self, Errback};
use super::guard::{self, Guarded, Panicked};
use super::intake::Job;
use super::journal;
use super::report::report;
use super::running::Crew;
use super::unsettled::{Ending, Finished};
use crate::amqp::SettleToken;
use crate::protocol::{Map, ResultMeta, TaskState, Value};
use crate::task::{Acks, Context, Invocation, Outcome, Run, TaskResult};

/// How long is slept at once for a date far away, so that a clock that was set is noticed.
const NAP_MAX: Duration = Duration::from_secs(60);

/// Submits jobs. Dropping it lets the jobs under way finish.
#[derive(Debug)]
pub(super) struct Executor {
    lanes: Arc<Lanes>,
    finished: mpsc::Sender<Finished>,
}

#[derive(Debug)]
struct Lanes {
    crew: Arc<Crew>,
    /// One permit for each async task that may run.
    tasks: Arc<Semaphore>,
    /// One permit for each blocking task that may run.
    blocking: Arc<Semaphore>,
}

/// A place in the queue for a slot.
enum Turn {
    Come(OwnedSemaphorePermit),
    Waiting(BoxFuture<'static, Option<OwnedSemaphorePermit>>),
}

impl Turn {
    /// Queues up at once, so that jobs get their slots in the order of the calls.
    fn next(slots: &Arc<Semaphore>) -> Self {
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return Self::Come(slot);
        }
        // The first poll takes the place; tokio's budget must not make it do nothing.
        let acquire = tokio::task::unconstrained(Arc::clone(slots).acquire_owned());
        let mut waiting = acquire.map(Result::ok).boxed();
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        match waiting.as_mut().poll(&mut nobody) {
            Poll::Ready(Some(slot)) => Self::Come(slot),
            Poll::Ready(None) | Poll::Pending => Self::Waiting(waiting),
        }
    }

    async fn come(self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Come(slot) => Some(slot),
            Self::Waiting(waiting) => waiting.await,
        }
    }
}

impl Executor {
    pub(super) fn new(crew: Arc<Crew>, finished: mpsc::Sender<Finished>) -> Self {
        guard::install();
        let lanes = Lanes {
            tasks: Arc::new(Semaphore::new(crew.info.concurrency)),
            blocking: Arc::new(Semaphore::new(crew.info.blocking_slots)),
            crew,
        };
        Self { lanes: Arc::new(lanes), finished }
    }

    /// Runs a job as soon as it is due and a slot is free. The prefetch bounds how many wait.
    ///
    /// Jobs that are due get their slots in the order in which they are submitted.
    pub(super) fn submit(&self, job: Job) {
        journal::received(&job.unsettled.request);
        let turn = match admission(&job) {
            Admission::Delay { .. } => None,
            Admission::Run | Admission::Expired => Some(Turn::next(self.lanes.slots(&job))),
        };
        let (lanes, finished) = (Arc::clone(&self.lanes), self.finished.clone());
        tokio::spawn(async move {
            if let Some(ended) = lanes.run(job, turn).await {
                // The receiver is gone only in a cold shutdown, when nothing is settled any more.
                let _ = finished.send(ended).await;
            }
        });
    }

    /// Hands on a request that needs no slot.
    pub(super) async fn finish(&self, mut finished: Finished) {
        let crew = &self.lanes.crew;
        let errbacks = match finished.ending.failure() {
            Some(_) => errback::take(&mut finished.unsettled, &crew.registry),
            None => Vec::new(),
        };
        if errbacks.is_empty() {
            let _ = self.finished.send(finished).await;
            return;
        }
        let (lanes, handed_on) = (Arc::clone(&self.lanes), self.finished.clone());
        tokio::spawn(async move {
            lanes.call(errbacks, &finished).await;
            let _ = handed_on.send(finished).await;
        });
    }
}

impl Lanes {
    fn slots(&self, job: &Job) -> &Arc<Semaphore> {
        match job.task.run {
            Run::Async(_) => &self.tasks,
            Run::Blocking(_) => &self.blocking,
        }
    }

    /// Runs one job to its end; `None` when it went back before it started. A job that is not
    /// due has no turn yet.
    async fn run(&self, mut job: Job, turn: Option<Turn>) -> Option<Finished> {
        let slot = match turn {
            // The usual way, which asks nobody and waits for nothing.
            Some(Turn::Come(slot)) => Some(slot).filter(|_| !self.crew.stop.is_asked()),
            turn => tokio::select! {
                biased;
                () = self.crew.stop.warm.cancelled() => None,
                slot = self.take_slot(&job, turn) => slot,
                () = lost(&job) => None,
            },
        };
        let Some(_slot) = slot.filter(|_| is_live(&job)) else {
            let task_id = job.unsettled.request.id.as_str();
            debug!(task_id, "goes back to the broker before it started");
            job.unsettled.token.take()?.requeue();
            return None;
        };
        if admission(&job) == Admission::Expired {
            journal::expired(&job.unsettled.request);
            let ending = Ending::Ended(Outcome::Revoked { reason: "expired".into() });
            return Some(Finished { unsettled: job.unsettled, ending });
        }
        if acks_early(&job, &self.crew)
            && let Some(token) = job.unsettled.token.take()
        {
            token.ack();
        }
        self.track_started(&job).await;
        Some(self.execute(job).await)
    }

    async fn take_slot(&self, job: &Job, turn: Option<Turn>) -> Option<OwnedSemaphorePermit> {
        let turn = match turn {
            Some(turn) => turn,
            None => {
                wait_until_due(job).await;
                Turn::next(self.slots(job))
            }
        };
        turn.come().await
    }

    async fn execute(&self, job: Job) -> Finished {
        let Job { mut unsettled, task, args, kwargs } = job;
        let context = Context::new(
            Arc::clone(&unsettled.request),
            Arc::clone(&self.crew.environment),
            Arc::clone(&self.crew.stop.cold),
        );
        let calls = context.clone();
        let invocation = Invocation { args, kwargs, context };
        // What the task logs itself carries its id and name.
        let span = journal::span(&unsettled.request);
        let started = Instant::now();
        let ended = match task.run {
            Run::Async(run) => match guard::catch(|| run(invocation)) {
                Ok(future) => Guarded::new(future).instrument(span).await,
                Err(panicked) => Err(panicked),
            },
            Run::Blocking(run) => {
                let guarded = move || span.in_scope(|| guard::catch(|| run(invocation)));
                let running = tokio::task::spawn_blocking(guarded);
                // The runtime drops blocking work only when it is shut down itself.
                running.await.unwrap_or_else(|_| Err(Panicked::default()))
            }
        };
        let outcome = outcome(ended);
        journal::ended(&unsettled.request, &outcome, started.elapsed());
        unsettled.children = calls.take_children();
        let has_sequel = unsettled.sequel.is_some();
        let mut finished = Finished { unsettled, ending: Ending::Ended(outcome) };
        if has_sequel && finished.ending.failure().is_some() {
            let errbacks = errback::take(&mut finished.unsettled, &self.crew.registry);
            self.call(errbacks, &finished).await;
        }
        finished
    }

    async fn call(&self, errbacks: Vec<Errback>, finished: &Finished) {
        if errbacks.is_empty() {
            return;
        }
        let Some(failure) = finished.ending.failure() else { return };
        let request = &finished.unsettled.request;
        errback::call(errbacks, request, failure, &self.crew.environment).await;
    }

    /// Tells the caller that the task runs, if that is asked for. Nothing depends on it, so that
    /// a lost report is no reason not to run.
    async fn track_started(&self, job: &Job) {
        let config = self.crew.client.config();
        if !job.task.options.track_started.unwrap_or(config.task_track_started) {
            return;
        }
        let request = &job.unsettled.request;
        let mut about = Map::with_capacity(2);
        about.push("pid", i64::from(std::process::id()));
        about.push("hostname", self.crew.info.hostname.as_str());
        let meta = ResultMeta::new(&*request.id, TaskState::Started, Value::Map(about));
        if let Some(report) = report(request, meta, config) {
            let _ = self.crew.client.publisher().publish(report).await;
        }
    }
}

fn acks_early(job: &Job, crew: &Crew) -> bool {
    let default = if crew.client.config().task_acks_late { Acks::Late } else { Acks::Early };
    job.task.options.acks.unwrap_or(default) == Acks::Early
}

/// Whether the delivery is still this worker's; if not, the broker delivers it again, and running
/// it here would run it twice.
fn is_live(job: &Job) -> bool {
    job.unsettled.token.as_ref().is_none_or(SettleToken::is_live)
}

/// Completes when the delivery is no longer this worker's.
async fn lost(job: &Job) {
    match &job.unsettled.token {
        Some(token) => token.lost().await,
        None => std::future::pending().await,
    }
}

fn admission(job: &Job) -> Admission {
    let request = &job.unsettled.request;
    match (request.eta, request.expires) {
        // Most have no dates; the clock need not be read.
        (None, None) => Admission::Run,
        (eta, expires) => admit(eta, expires, Timestamp::now()),
    }
}

/// Sleeps until the job's date.
async fn wait_until_due(job: &Job) {
    while let Admission::Delay { until } = admission(job) {
        let rest = until.duration_since(Timestamp::now()).unsigned_abs();
        tokio::time::sleep(rest.min(NAP_MAX)).await;
    }
}

fn outcome(ended: Result<TaskResult, Panicked>) -> Outcome {
    match ended {
        Ok(result) => Outcome::from(result),
        Err(Panicked { message, backtrace }) => {
            Outcome::Panicked { message, backtrace: Some(backtrace) }
        }
    }
}
