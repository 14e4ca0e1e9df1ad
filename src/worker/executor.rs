//! The executor: runs jobs in slots, and turns whatever a task does into an outcome.
//!
//! Async tasks run on the runtime, as many at once as there are slots; blocking tasks run on a
//! bounded pool of threads (see `attempt`). Settles nothing.

use std::pin::pin;
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
use super::limited;
use super::limits::Limits;
use super::not_run::{delayed, expired, goes_back, stopped};
use super::permits::Permit;
use super::rate::{Pace, WAIT_MAX};
use super::redelivered::{Known, recognise};
use super::report::report;
use super::running::Crew;
use super::slots::{Slot, Slots, Turn};
use super::unsettled::{Ending, Finished, Unsettled};
use crate::amqp::SettleToken;
use crate::backoff::Backoff;
use crate::protocol::{Exception, Map, ResultMeta, TaskState, Value};
use crate::task::{
    Acks, Context, Invocation, Isolate, OnConnectionLoss, Outcome, Run, TaskError, TaskErrorKind,
    TaskResult, retry,
};

/// How long a job waits here for its permit, and with it for a slot.
const PERMIT_PATIENCE: Duration = Duration::from_secs(2);

/// How long it waits for its permit when it has a slot.
const PERMIT_WITH_SLOT: Duration = Duration::from_millis(500);

/// How long it then waits in the broker.
const PERMIT_RETRY: Backoff =
    Backoff { base: Duration::from_secs(3), cap: Duration::from_secs(3), jitter: true };

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

/// What a job needs to start. Without a slot it is not to start here.
type Place = (Option<Slot>, Option<Permit>);

/// Why a job does not start now.
enum NoPlace {
    Cancelled(Cancel),
    /// It is to come back then.
    Until(Timestamp),
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
        let entry = crew.active.enter(&job.unsettled.request);
        let begin = match admission(&job) {
            Admission::Delay { .. } => {
                entry.schedule(true);
                Begin::WhenDue
            }
            // It needs no slot.
            Admission::Expired => Begin::Paced(Pace::Now),
            Admission::Run => match crew.rates.pace(job.task.name) {
                // It may have to wait for the fleet.
                Pace::Now if is_limited_in_fleet(&job) => Begin::Paced(Pace::Now),
                Pace::Now => Begin::InTurn(Turn::next(self.lanes.slots(&job))),
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
            if let Some(ended) = lanes.run(job, begin, &mut slot).await {
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
    fn slots(&self, job: &Job) -> &Arc<Slots> {
        match job.task.run {
            // A process costs as much as a thread and more.
            _ if job.task.options.isolate.is_some() => &self.crew.blocking_slots,
            Run::Async(_) => &self.crew.slots,
            Run::Blocking(_) => &self.crew.blocking_slots,
        }
    }

    /// Runs one job to its end; `None` when it went back.
    async fn run(
        &self,
        mut job: Box<Job>,
        begin: Begin,
        held: &mut Option<Slot>,
    ) -> Option<Finished> {
        // It is in the register already: what is revoked from now on stops it there.
        if self.crew.revoked.verdict(&job.unsettled.request).is_some() {
            return stopped(job.unsettled, &Cancel::Revoked { terminate: false, signal: None });
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
        let place = match turn {
            // The usual way, which asks nobody and waits for nothing.
            Some(Turn::Come(slot)) => Ok((Some(slot).filter(|_| !self.crew.stop.is_asked()), None)),
            // Without a limit of the fleet, which would be more to wait for.
            Some(turn) => Box::pin(self.take_slot(&job, Some(turn))).await.map(|it| (it, None)),
            None => Box::pin(self.take_place(&job)).await,
        };
        let (slot, _permit) = match place {
            Ok(both) => both,
            Err(NoPlace::Cancelled(why)) => return stopped(job.unsettled, &why),
            Err(NoPlace::Until(until)) => return delayed(job, until),
        };
        let Some(slot) = slot.filter(|_| is_live(&job)) else {
            return self.not_started(job.unsettled).await;
        };
        if admission(&job) == Admission::Expired {
            return expired(job.unsettled);
        }
        let _values = match gather::values(&mut job, &self.crew).await {
            Ok(held) => held,
            Err(why) => return self.not_gathered(job.unsettled, why).await,
        };
        let started = Instant::now();
        let on_loss = on_connection_loss(&job, &self.crew);
        if let Err(why) = self.start(&job, started, on_loss) {
            return stopped(job.unsettled, &why);
        }
        self.crew.tally.count(&job.unsettled.request.task);
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
        *held = Some(slot);
        let threads = &self.crew.lost_threads;
        let mut terms = Terms { started, limits, on_loss, threads, slot: held };
        let ended = self.execute(job, &mut terms).await;
        self.crew.recycling.task_ended(&self.crew.stop);
        ended
    }

    /// Gives back a job that was not started. A worker that stops does so when it consumes nothing
    /// any more: before, the broker would deliver it here again, and count that.
    async fn not_started(&self, unsettled: Box<Unsettled>) -> Option<Finished> {
        if self.crew.stop.is_asked() {
            self.crew.stop.away.cancelled().await;
        }
        goes_back(unsettled, "it was not started")
    }

    /// The end of a body that has not got its list.
    async fn not_gathered(&self, unsettled: Box<Unsettled>, why: NoList) -> Option<Finished> {
        match why {
            NoList::Cancelled(why) => stopped(unsettled, &why),
            NoList::GoesBack(reason) => {
                debug!(task_id = unsettled.request.id, reason, "a body has not got its list");
                self.not_started(unsettled).await
            }
            NoList::Over => {
                gather::ended_before(unsettled);
                None
            }
            NoList::Refused(reason, exception) => {
                let mut finished = gather::without_list(unsettled, reason, exception);
                let errbacks = errback::take(&mut finished.unsettled, &self.crew.registry);
                self.call(errbacks, &finished).await;
                Some(finished)
            }
        }
    }

    /// Waits for a slot, and before that for a permit if the job needs one. Who waits for the one
    /// keeps the other from others for a moment only; then, with a slot, it asks once more.
    async fn take_both(&self, job: &Job) -> Result<Place, NoPlace> {
        loop {
            let mut permit = self.permit(job).await.map_err(NoPlace::Until)?;
            let mut waiting = pin!(self.take_slot(job, None));
            let slot = tokio::select! {
                biased;
                slot = &mut waiting => slot,
                () = tokio::time::sleep(PERMIT_PATIENCE), if permit.is_some() => {
                    if let Some(permit) = permit.take() {
                        permit.give_back();
                    }
                    waiting.await
                }
            };
            let slot = slot?;
            let options = &job.task.options;
            let Some(limit) = options.global_concurrency else { return Ok((slot, None)) };
            if slot.is_none() || permit.is_some() || !is_live(job) {
                return Ok((slot, permit));
            }
            let name = limited::name(job, options.concurrency_key);
            let acquire = self.crew.permits.acquire_first(&name, limit.get());
            if let Ok(Some(permit)) = tokio::time::timeout(PERMIT_WITH_SLOT, acquire).await {
                return Ok((slot, Some(permit)));
            }
        }
    }

    /// Waits a moment for the permit of a job that needs one; gives the date of another try if
    /// there is none. A job that is not to run after all gets none, either.
    async fn permit(&self, job: &Job) -> Result<Option<Permit>, Timestamp> {
        let options = &job.task.options;
        let Some(limit) = options.global_concurrency else { return Ok(None) };
        let name = limited::name(job, options.concurrency_key);
        loop {
            let acquire = self.crew.permits.acquire(&name, limit.get());
            tokio::select! {
                biased;
                () = self.crew.stop.warm.cancelled() => return Ok(None),
                () = lost(job) => return Ok(None),
                _ = cancelled(job) => return Ok(None),
                permit = acquire => return Ok(permit),
                () = tokio::time::sleep(PERMIT_PATIENCE) => {}
            }
            if self.crew.client.delays().serve(&job.unsettled.request.delivery_info.queue) {
                return Err(Timestamp::now() + PERMIT_RETRY.delay(0));
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
            () = lost(job) => None,
            _ = cancelled(job) => None,
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

    /// Waits for a place, and where starts are counted in the whole fleet, for one of those. Only
    /// who has a place takes a start, so that it is used at once; nobody keeps a place to wait.
    async fn take_place(&self, job: &Job) -> Result<Place, NoPlace> {
        let Some(limit) = job.task.options.global_rate_limit else {
            return self.take_both(job).await;
        };
        let (starts, name) = (&self.crew.starts, limited::name(job, job.task.options.rate_key));
        let since = Instant::now();
        loop {
            let pause = match starts.wait(&name, limit) {
                Some(pause) => pause,
                None => {
                    let place = self.take_both(job).await?;
                    if place.0.is_none() || !is_live(job) {
                        return Ok(place);
                    }
                    match self.unless_over(job, starts.take(&name, limit)).await? {
                        None => return Ok((None, None)),
                        Some(Ok(())) => return Ok(place),
                        Some(Err(pause)) => pause,
                    }
                }
            };
            if since.elapsed() + pause > WAIT_MAX
                && self.crew.client.delays().serve(&job.unsettled.request.delivery_info.queue)
            {
                return Err(NoPlace::Until(Timestamp::now() + starts.ahead(&name, limit)));
            }
            if self.unless_over(job, tokio::time::sleep(pause)).await?.is_none() {
                return Ok((None, None));
            }
        }
    }

    /// Waits for a slot; `None` when the job is not to start here.
    async fn take_slot(&self, job: &Job, turn: Option<Turn>) -> Result<Option<Slot>, NoPlace> {
        let turn = turn.unwrap_or_else(|| Turn::next(self.slots(job)));
        self.unless_over(job, turn.come()).await.map(Option::flatten)
    }

    /// Waits for something, as long as the job may start here; `None` when it may not any more.
    async fn unless_over<T>(
        &self,
        job: &Job,
        what: impl Future<Output = T>,
    ) -> Result<Option<T>, NoPlace> {
        tokio::select! {
            biased;
            () = self.crew.stop.warm.cancelled() => Ok(None),
            why = cancelled(job) => Err(NoPlace::Cancelled(why)),
            it = what => Ok(Some(it)),
            () = lost(job) => Ok(None),
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
            None => attempt::run(task, invocation, &unsettled, terms).await,
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
        journal::ended(&unsettled.request, &outcome, started.elapsed());
        unsettled.children = calls.take_children();
        if let Some(sequel) = &mut unsettled.sequel {
            sequel.added = calls.take_added();
        }
        let has_sequel = unsettled.sequel.is_some();
        let mut finished = Finished { unsettled, ending: Ending::Ended(outcome) };
        if has_sequel && finished.ending.failure().is_some() {
            let errbacks = errback::take(&mut finished.unsettled, &self.crew.registry);
            Box::pin(self.call(errbacks, &finished)).await;
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

    async fn call(&self, errbacks: Vec<Errback>, finished: &Finished) {
        if errbacks.is_empty() {
            return;
        }
        let Some(failure) = finished.ending.failure() else { return };
        let request = &finished.unsettled.request;
        errback::call(errbacks, request, failure, &self.crew.environment).await;
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

/// Whether it needs a permit or a start of the whole fleet.
fn is_limited_in_fleet(job: &Job) -> bool {
    let options = &job.task.options;
    options.global_concurrency.is_some() || options.global_rate_limit.is_some()
}

/// Whether the delivery is still this worker's; if not, the broker delivers it again, and running
/// it here would run it twice.
pub(super) fn is_live(job: &Job) -> bool {
    job.unsettled.token.as_ref().is_none_or(SettleToken::is_live)
}

/// Completes when the delivery is no longer this worker's.
pub(super) async fn lost(job: &Job) {
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

/// Completes when the job is cancelled.
pub(super) async fn cancelled(job: &Job) -> Cancel {
    match &job.unsettled.entry {
        Some(entry) => entry.cancelled().await,
        None => std::future::pending().await,
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
