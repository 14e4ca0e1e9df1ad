//! The executor: runs jobs in slots, and turns whatever a task does into an outcome.
//!
//! Async tasks run on the runtime, as many at once as there are slots; blocking tasks run on a
//! bounded pool of threads (see `attempt`). Settles nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::active::{Call, Cancel};
use super::admission::{Admission, admit};
use super::attempt::{self, End, Terms};
use super::delay;
use super::errback::{self, Errback};
use super::gather::{self, NoList};
use super::guard::{self, Panicked};
use super::intake::Job;
#[cfg(unix)]
use super::isolate;
use super::journal;
use super::limits::Limits;
use super::not_run::{delayed, expired, goes_back, left_over, stopped, withheld};
use super::place::{self, NoPlace};
use super::rate::{Pace, WAIT_MAX};
use super::redelivered::{Known, recognise};
use super::report::report;
use super::running::Crew;
use super::slots::{Slot, Turn};
use super::unsettled::{Ending, Finished, Unsettled};
use crate::protocol::{Exception, Map, ResultMeta, TaskState, Value};
use crate::task::{
    Acks, Context, Invocation, Isolate, OnConnectionLoss, Outcome, Run, TaskError, TaskErrorKind,
    TaskResult, retry,
};

/// Submits jobs. Dropping it lets the jobs under way finish.
#[derive(Debug)]
pub(super) struct Executor {
    lanes: Arc<Lanes>,
    finished: mpsc::Sender<Finished>,
}

#[derive(Debug)]
struct Lanes {
    crew: Arc<Crew>,
}

/// What a job waits for before it starts.
enum Begin {
    /// A slot.
    InTurn(Turn),
    /// Its date, and then the rest.
    WhenDue,
    /// A start that the rate limit allows, and then a slot.
    Paced(Pace),
}

impl Executor {
    pub(super) fn new(crew: Arc<Crew>, finished: mpsc::Sender<Finished>) -> Self {
        guard::install();
        Self { lanes: Arc::new(Lanes { crew }), finished }
    }

    /// Runs a job as soon as it is due and a slot is free. The prefetch bounds how many wait.
    ///
    /// Jobs that are due get their slots in the order in which they are submitted.
    /// One that `came_back` ends like that instead, if nothing is known of it here.
    pub(super) async fn submit(&self, mut job: Job, came_back: Option<Ending>) {
        journal::received(&job.unsettled.request);
        let crew = &self.lanes.crew;
        if job.unsettled.request.delivery_info.redelivered {
            let runs_again = on_connection_loss(&job, crew) != OnConnectionLoss::Recognise;
            if recognise(&mut job.unsettled, &crew.active, &crew.recent, runs_again) != Known::No {
                return;
            }
        }
        if let Some(ending) = came_back {
            job.unsettled.entry = Some(crew.active.enter(&job.unsettled.request));
            self.finish(Finished { unsettled: job.unsettled, ending }).await;
            return;
        }
        crew.events.received(&job.unsettled.request);
        let entry = crew.active.enter(&job.unsettled.request);
        let begin = match admission(&job) {
            Admission::Delay { .. } => {
                entry.schedule(true);
                Begin::WhenDue
            }
            // It needs no slot.
            Admission::Expired => Begin::Paced(Pace::Now),
            // It takes a start when it has all the rest.
            Admission::Run if place::is_limited_in_fleet(&job) => Begin::Paced(Pace::Now),
            Admission::Run => match crew.rates.pace(job.task.name) {
                // It may have to wait for room.
                Pace::Now if gather::is_needed(&job) => Begin::Paced(Pace::Now),
                Pace::Now => Begin::InTurn(Turn::next(place::slots(&job, crew))),
                pace => Begin::Paced(pace),
            },
        };
        job.unsettled.entry = Some(entry);
        let (lanes, finished) = (Arc::clone(&self.lanes), self.finished.clone());
        // All that follows holds room for it several times.
        let job = Box::new(job);
        tokio::spawn(async move {
            // Free only when the settling has taken the job: it waits there without a bound of its
            // own if it was acked early.
            let mut slot = None;
            // No `if let`: it would keep room for what ended beside all that runs.
            let Some(ended) = lanes.run(job, begin, &mut slot).await else { return };
            // The receiver is gone only in a cold shutdown, when nothing is settled any more.
            let _ = finished.send(ended).await;
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
            lanes.call(errbacks, &finished, &mut None).await;
            let _ = handed_on.send(finished).await;
        });
    }
}

impl Lanes {
    /// Runs one job to its end; `None` when it went back.
    async fn run(
        &self,
        mut job: Box<Job>,
        begin: Begin,
        held: &mut Option<Slot>,
    ) -> Option<Finished> {
        // It is in the register already: what is revoked from now on stops it there.
        if self.crew.revoked.verdict(&job.unsettled.request).is_some() {
            return withheld(job.unsettled, Cancel::revoked(false, None));
        }
        if admission(&job) == Admission::Expired {
            return expired(job.unsettled);
        }
        let turn = match begin {
            Begin::InTurn(turn) => Some(turn),
            begin => {
                // Boxed, here and below, is what few jobs need: all of them hold room for the rest.
                if let Some(until) = Box::pin(self.wait(&job, begin)).await {
                    return delayed(job, until);
                }
                None
            }
        };
        let room = match gather::room(&mut job, &self.crew).await {
            Ok(room) => room,
            Err(why) => {
                // Its errbacks may need the slot that this one has.
                drop(turn);
                return self.not_gathered(job, why, held).await;
            }
        };
        let place = match turn {
            // The usual way, which asks nobody and waits for nothing.
            Some(Turn::Come(_)) if self.crew.stop.is_asked() => Err(NoPlace::Over),
            Some(Turn::Come(slot)) => Ok((slot, None)),
            Some(turn) => {
                Box::pin(place::take_slot(&job, &self.crew, turn)).await.map(|it| (it, None))
            }
            None => Box::pin(place::take(&job, &self.crew)).await,
        };
        let (slot, mut permit) = match place {
            Ok(both) if place::is_live(&job) => both,
            Ok(_) | Err(NoPlace::Over) => return self.not_started(job.unsettled).await,
            Err(NoPlace::Cancelled(why)) => return withheld(job.unsettled, why),
            Err(NoPlace::Until(until)) => return delayed(job, until),
        };
        *held = Some(slot);
        let _values = match gather::values(&mut job, room, &self.crew).await {
            Ok(held) => held,
            Err(why) => return self.not_gathered(job, why, held).await,
        };
        if admission(&job) == Admission::Expired {
            return expired(job.unsettled);
        }
        let started = Instant::now();
        let on_loss = on_connection_loss(&job, &self.crew);
        if let Err(why) = self.start(&job, started, on_loss) {
            return withheld(job.unsettled, why);
        }
        self.crew.tally.count(&job.unsettled.request.task);
        self.crew.events.started(&job.unsettled.request);
        if acks_early(&job, &self.crew)
            && let Some(token) = job.unsettled.token.take()
        {
            token.ack();
        }
        let tracked = self.crew.client.config().task_track_started;
        if job.task.options.track_started.unwrap_or(tracked) {
            self.track_started(&job);
        }
        let limits = self.crew.time_limits.of(&job.unsettled.request, &job.task.options);
        let threads = &self.crew.lost_threads;
        let mut terms =
            Terms { started, limits, on_loss, threads, slot: held, permit: &mut permit };
        let ended = self.execute(job, &mut terms).await;
        self.crew.recycling.task_ended(&self.crew.stop);
        ended
    }

    /// Gives back a job that was not started. A worker that stops does so when it consumes nothing
    /// any more: before, the broker would deliver it here again, and count that.
    async fn not_started(&self, unsettled: Box<Unsettled>) -> Option<Finished> {
        if !self.crew.stop.is_asked() {
            return goes_back(unsettled, "it was not started");
        }
        self.crew.stop.away.cancelled().await;
        left_over(unsettled, self.crew.client.config().worker_delivery_limit)
    }

    /// The end of a body that has not got its list.
    async fn not_gathered(
        &self,
        job: Box<Job>,
        why: NoList,
        held: &mut Option<Slot>,
    ) -> Option<Finished> {
        match why {
            NoList::Cancelled(why) => withheld(job.unsettled, why),
            NoList::Until(until) => delayed(job, until),
            NoList::GoesBack(reason) => {
                debug!(task_id = job.unsettled.request.id, reason, "a body has not got its list");
                self.not_started(job.unsettled).await
            }
            NoList::Over => {
                gather::ended_before(job.unsettled);
                None
            }
            NoList::Refused(reason, exception) => {
                let mut finished = gather::without_list(job.unsettled, reason, *exception);
                let errbacks = errback::take(&mut finished.unsettled, &self.crew.registry);
                Box::pin(self.call(errbacks, &finished, held)).await;
                Some(finished)
            }
        }
    }

    /// Lists the job as one that runs, unless it was cancelled. Only what acks late, and does not
    /// mind, is known again if its delivery is lost.
    fn start(&self, job: &Job, now: Instant, on_loss: OnConnectionLoss) -> Result<(), Cancel> {
        let Some(entry) = &job.unsettled.entry else { return Ok(()) };
        let token = job.unsettled.token.as_ref();
        let channel = match token.filter(|_| !acks_early(job, &self.crew)) {
            Some(token) if on_loss == OnConnectionLoss::Recognise => token.channel(),
            _ => 0,
        };
        let call = match channel {
            0 => Call::default(),
            channel => Call { key: self.crew.recent.key(&job.unsettled.request), channel },
        };
        entry.start(now, call)
    }

    /// Waits until a job may start, if it may wait here; gives a date if it may not.
    async fn wait(&self, job: &Job, begin: Begin) -> Option<Timestamp> {
        let until = tokio::select! {
            biased;
            () = self.crew.stop.warm.cancelled() => None,
            until = self.hold(job, begin) => until,
            () = place::lost(job) => None,
            _ = place::cancelled(job) => None,
        };
        if let Some(entry) = &job.unsettled.entry {
            entry.schedule(false);
        }
        until
    }

    /// As [`wait`](Self::wait): until its date, and until its rate limit allows a start.
    async fn hold(&self, job: &Job, begin: Begin) -> Option<Timestamp> {
        let request = &job.unsettled.request;
        let mut pace = match begin {
            Begin::InTurn(_) => Pace::Now,
            Begin::Paced(pace) => pace,
            Begin::WhenDue => {
                let until = delay::wait(request, &self.crew).await;
                if until.is_some() || admission(job) == Admission::Expired {
                    return until;
                }
                if place::is_limited_in_fleet(job) {
                    return None;
                }
                self.crew.rates.pace(job.task.name)
            }
        };
        loop {
            match pace {
                Pace::Now => return None,
                Pace::Wait(time) => {
                    tokio::time::sleep(time).await;
                    return None;
                }
                Pace::Later(after) => {
                    if self.crew.client.delays().serve(&request.delivery_info.queue) {
                        return Timestamp::now().checked_add(after).ok();
                    }
                    tokio::time::sleep(WAIT_MAX).await;
                    pace = self.crew.rates.pace(job.task.name);
                }
            }
        }
    }

    async fn execute(&self, job: Box<Job>, terms: &mut Terms<'_>) -> Option<Finished> {
        let Job { mut unsettled, task, args, kwargs } = *job;
        let context = Context::new(
            Arc::clone(&unsettled.request),
            Arc::clone(&self.crew.environment),
            Arc::clone(&self.crew.stop.cold),
        );
        let calls = context.clone();
        let invocation = Invocation { args, kwargs, context };
        let Terms { started, limits, .. } = *terms;
        let ended = match task.options.isolate {
            Some(Isolate::Process) => Box::pin(self.isolated(invocation, &unsettled, terms)).await,
            None => attempt::run(task, invocation, (&*unsettled).into(), terms).await,
        };
        let outcome = match ended {
            End::Returned(result) => {
                let again = |outcome| retry::judge(outcome, &task.options, &unsettled.request);
                match out_of_time(&result, &calls, limits) {
                    Some(late) => late.or_again(again),
                    None => again(Outcome::from(result)),
                }
            }
            End::TimedOut(limit) => Outcome::TimedOut { limit, soft: false },
            End::Panicked(Panicked { message, backtrace }) => {
                Outcome::Panicked { message, backtrace: Some(backtrace) }
            }
            End::Cancelled(why) => return stopped(unsettled, &why),
            // As in Celery, only what acks late.
            End::Lost(reason)
                if task.options.reject_on_worker_lost == Some(true)
                    && unsettled.token.is_some() =>
            {
                Outcome::Reject { reason, requeue: true }
            }
            End::Lost(reason) => Outcome::Lost { reason },
        };
        let outcome = match unsettled.token {
            Some(_) => outcome,
            None => acked_early(outcome),
        };
        let runtime = started.elapsed();
        journal::ended(&unsettled.request, &outcome, runtime);
        unsettled.facts.runtime = Some(runtime);
        unsettled.children = calls.take_children();
        if let Some(sequel) = &mut unsettled.sequel {
            sequel.added = calls.take_added();
        }
        let has_sequel = unsettled.sequel.is_some();
        let mut finished = Finished { unsettled, ending: Ending::Ended(outcome) };
        if has_sequel && finished.ending.failure().is_some() {
            let errbacks = errback::take(&mut finished.unsettled, &self.crew.registry);
            Box::pin(self.call(errbacks, &finished, terms.slot)).await;
        }
        Some(finished)
    }

    #[cfg(unix)]
    async fn isolated(
        &self,
        invocation: Invocation,
        unsettled: &Unsettled,
        terms: &mut Terms<'_>,
    ) -> End {
        isolate::attempt(&self.crew.isolates, invocation, unsettled, terms).await
    }

    /// A worker with such tasks does not start.
    #[cfg(not(unix))]
    async fn isolated(&self, _: Invocation, _: &Unsettled, _: &mut Terms<'_>) -> End {
        End::Lost("isolate = process needs a Unix system".to_owned())
    }

    async fn call(&self, errbacks: Vec<Errback>, finished: &Finished, slot: &mut Option<Slot>) {
        if errbacks.is_empty() {
            return;
        }
        let Some(failure) = finished.ending.failure() else { return };
        let request = &finished.unsettled.request;
        errback::call(errbacks, request, failure, &self.crew, slot).await;
    }

    /// Tells the caller that the task runs. Nothing waits for it: a lost report is no reason not to
    /// run, and a slow broker none to run later.
    fn track_started(&self, job: &Job) {
        let config = self.crew.client.config();
        let request = &job.unsettled.request;
        let mut about = Map::with_capacity(2);
        about.push("pid", i64::from(std::process::id()));
        about.push("hostname", self.crew.info.hostname.as_str());
        let meta = ResultMeta::new(&*request.id, TaskState::Started, Value::Map(about));
        let Some(report) = report(request, meta, config) else { return };
        let publisher = self.crew.client.publisher().clone();
        let mut publishing = Box::pin(async move { publisher.publish(report).await });
        // The first poll gives it its place before all that the task will publish.
        if publishing.as_mut().now_or_never().is_none() {
            tokio::spawn(publishing);
        }
    }
}

fn acks_early(job: &Job, crew: &Crew) -> bool {
    let default = if crew.client.config().task_acks_late { Acks::Late } else { Acks::Early };
    job.task.options.acks.unwrap_or(default) == Acks::Early
}

fn admission(job: &Job) -> Admission {
    let request = &job.unsettled.request;
    match (request.eta, request.expires) {
        // Most have no dates; the clock need not be read.
        (None, None) => Admission::Run,
        (eta, expires) => admit(eta, expires, Timestamp::now()),
    }
}

/// A task that has failed because its time was up.
struct OutOfTime {
    limit: Duration,
}

impl OutOfTime {
    /// As in Celery, where the limit is an error like others, it may be a reason to run it again.
    fn or_again(self, again: impl FnOnce(Outcome) -> Outcome) -> Outcome {
        let ended = || Outcome::TimedOut { limit: self.limit, soft: true };
        let Some((exception, _)) = ended().into_exception() else { return ended() };
        let error = TaskError::from(exception).with_kind(TaskErrorKind::Retryable);
        match again(Outcome::Failure(error)) {
            again @ Outcome::Retry { .. } => again,
            _ => ended(),
        }
    }
}

/// A task that fails after its soft limit has passed has failed because of it, unless it says that
/// its error is permanent, or otherwise what is to become of it.
fn out_of_time(result: &TaskResult, context: &Context, limits: Limits) -> Option<OutOfTime> {
    let error = result.as_ref().err()?;
    if error.kind() != TaskErrorKind::Retryable || context.check_soft_time_limit().is_ok() {
        return None;
    }
    let task_id = context.id();
    info!(task_id, %error, "what a task that was out of time has failed with");
    Some(OutOfTime { limit: limits.soft.unwrap_or_default() })
}

/// What has no message any more cannot go back: it has failed.
fn acked_early(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Reject { reason, requeue: true } => {
            let error = TaskError::from(Exception::reject(reason));
            Outcome::Failure(error.with_kind(TaskErrorKind::Permanent))
        }
        other => other,
    }
}

/// What becomes of the job if its delivery is lost.
fn on_connection_loss(job: &Job, crew: &Crew) -> OnConnectionLoss {
    let cancel = crew.client.config().worker_cancel_long_running_tasks_on_connection_loss;
    let default = if cancel { OnConnectionLoss::Cancel } else { OnConnectionLoss::Recognise };
    let isolate = job.task.options.isolate;
    match (job.task.options.on_connection_loss.unwrap_or(default), job.task.run) {
        (policy, _) if isolate == Some(Isolate::Process) => policy,
        // A thread cannot be stopped: it is asked to end, and its message is known again.
        (OnConnectionLoss::Cancel, Run::Blocking(_)) => OnConnectionLoss::Recognise,
        (policy, _) => policy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Request, TaskOptions};

    #[test]
    fn the_end_of_time_is_an_error_that_may_be_retried() {
        let late = || OutOfTime { limit: Duration::from_secs(3) };
        let judged = |options: &TaskOptions| {
            late().or_again(|outcome| retry::judge(outcome, options, &Request::default()))
        };
        let plain = judged(&TaskOptions::default());
        assert!(matches!(plain, Outcome::TimedOut { soft: true, .. }), "{plain:?}");
        let retried = TaskOptions { max_retries: Some(1), ..TaskOptions::default() };
        assert!(matches!(judged(&retried), Outcome::Retry { .. }));
        let spent = TaskOptions { max_retries: Some(0), ..TaskOptions::default() };
        assert!(matches!(judged(&spent), Outcome::TimedOut { soft: true, .. }));
    }

    #[test]
    fn what_was_acked_early_fails_instead_of_going_back() {
        let back = Outcome::Reject { reason: "why".to_owned(), requeue: true };
        let failed = acked_early(back);
        assert!(matches!(failed, Outcome::Failure(_)));
        let (exception, _) = failed.into_exception().unwrap();
        assert_eq!(exception.to_string(), Exception::reject("why").to_string());
        let parked = Outcome::Reject { reason: "why".to_owned(), requeue: false };
        assert!(matches!(acked_early(parked), Outcome::Reject { requeue: false, .. }));
    }
}
