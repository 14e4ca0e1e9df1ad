//! What a job needs before it starts: a slot, and where something is limited, a permit of the
//! whole fleet, a start of this worker and one of the whole fleet.
//!
//! A slot and a permit can be given back, a start is used up. So what is used up is only looked at
//! first, while there is none of it nobody takes anything, and it is taken last, by who has all
//! the rest. Runs and settles nothing.
//!
//! **Invariants:** a start is taken by who then starts; nobody keeps a slot or a permit from
//! others for longer than a moment in order to wait for something else, or for longer than a few
//! seconds while the broker does not answer.

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::active::Cancel;
use super::intake::Job;
use super::limited;
use super::permits::Permit;
use super::rate::{Taken, WAIT_MAX};
use super::running::Crew;
use super::slots::{Slot, Slots, Turn};
use super::starts::Gate;
use crate::amqp::SettleToken;
use crate::backoff::Backoff;
use crate::task::{RateLimit, Run};

/// How long a job waits here for its permit, and with it for a slot.
const PERMIT_PATIENCE: Duration = Duration::from_secs(2);

/// How long it waits for its permit when it has a slot.
const PERMIT_WITH_SLOT: Duration = Duration::from_millis(500);

/// How long it then waits in the broker.
const PERMIT_RETRY: Backoff =
    Backoff { base: Duration::from_secs(3), cap: Duration::from_secs(3), jitter: true };

/// How long who has a slot and a permit waits for the next start of this worker.
const RATE_PATIENCE: Duration = Duration::from_millis(20);

/// How long a job waits in the broker if this worker counts too many keys already.
const CROWDED_RETRY: Backoff =
    Backoff { base: Duration::from_secs(30), cap: Duration::from_secs(30), jitter: true };

/// What a job needs to start.
pub(super) type Place = (Slot, Option<Permit>);

/// Why a job does not start now.
#[derive(Debug)]
pub(super) enum NoPlace {
    Cancelled(Cancel),
    /// It is to come back then.
    Until(Timestamp),
    /// It is not to start here any more.
    Over,
}

/// Why there is no place now.
enum Missing {
    /// There is surely no start for so long.
    Start(Duration),
    For(NoPlace),
}

impl From<NoPlace> for Missing {
    fn from(why: NoPlace) -> Self {
        Self::For(why)
    }
}

/// Whether a job needs a permit or a start of the whole fleet.
pub(super) fn is_limited_in_fleet(job: &Job) -> bool {
    let options = &job.task.options;
    options.global_concurrency.is_some() || options.global_rate_limit.is_some()
}

/// The slots for tasks of this kind.
pub(super) fn slots<'a>(job: &Job, crew: &'a Crew) -> &'a Arc<Slots> {
    match job.task.run {
        // A process costs as much as a thread and more.
        _ if job.task.options.isolate.is_some() => &crew.blocking_slots,
        Run::Async(_) => &crew.slots,
        Run::Blocking(_) => &crew.blocking_slots,
    }
}

/// Waits for all that the job needs to start.
pub(super) async fn take(job: &Job, crew: &Crew) -> Result<Place, NoPlace> {
    if is_limited_in_fleet(job) {
        return Box::pin(Search::new(job, crew).take()).await;
    }
    take_slot(job, crew, Turn::next(slots(job, crew))).await.map(|slot| (slot, None))
}

/// Waits for a slot, and for nothing else.
pub(super) async fn take_slot(job: &Job, crew: &Crew, turn: Turn) -> Result<Slot, NoPlace> {
    unless_over(job, crew, turn.come()).await?.ok_or(NoPlace::Over)
}

/// Waits for something, as long as the job may start here.
async fn unless_over<T>(
    job: &Job,
    crew: &Crew,
    what: impl Future<Output = T>,
) -> Result<T, NoPlace> {
    tokio::select! {
        biased;
        () = crew.stop.warm.cancelled() => Err(NoPlace::Over),
        why = cancelled(job) => Err(NoPlace::Cancelled(why)),
        it = what => Ok(it),
        () = lost(job) => Err(NoPlace::Over),
    }
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

/// Completes when the job is cancelled.
pub(super) async fn cancelled(job: &Job) -> Cancel {
    match &job.unsettled.entry {
        Some(entry) => entry.cancelled().await,
        None => std::future::pending().await,
    }
}

/// The search of one job for its place.
struct Search<'a> {
    job: &'a Job,
    crew: &'a Crew,
    /// Name and number of its permits.
    permits: Option<(Cow<'static, str>, u32)>,
    /// Where its starts are counted in the whole fleet.
    starts: Option<(Cow<'static, str>, RateLimit)>,
    gate: Option<Arc<Gate>>,
}

impl<'a> Search<'a> {
    /// The names are made once: they may be those of large arguments.
    fn new(job: &'a Job, crew: &'a Crew) -> Self {
        let options = &job.task.options;
        let of_permits = |limit: std::num::NonZeroU32| {
            (limited::name(job, options.concurrency_key), limit.get())
        };
        let of_starts = |limit| (limited::name(job, options.rate_key), limit);
        let permits = options.global_concurrency.map(of_permits);
        let starts = options.global_rate_limit.map(of_starts);
        Self { job, crew, permits, starts, gate: None }
    }

    async fn take(mut self) -> Result<Place, NoPlace> {
        let since = Instant::now();
        loop {
            self.find_gate().await?;
            let pause = match self.pause() {
                Some(pause) => pause,
                None => match self.take_all().await {
                    Ok(place) => return Ok(place),
                    Err(Missing::For(why)) => return Err(why),
                    Err(Missing::Start(pause)) => pause,
                },
            };
            if since.elapsed() + pause > WAIT_MAX && self.can_wait_in_broker() {
                return Err(NoPlace::Until(Timestamp::now() + self.ahead()));
            }
            self.sleep(pause.min(WAIT_MAX)).await?;
        }
    }

    async fn find_gate(&mut self) -> Result<(), NoPlace> {
        let Some((name, limit)) = &self.starts else { return Ok(()) };
        while self.gate.is_none() {
            self.gate = self.crew.starts.gate(name, *limit);
            if self.gate.is_some() {
                break;
            }
            if self.can_wait_in_broker() {
                return Err(NoPlace::Until(Timestamp::now() + CROWDED_RETRY.delay(0)));
            }
            self.sleep(WAIT_MAX).await?;
        }
        Ok(())
    }

    /// How long there is surely no start, as far as is known without taking one.
    fn pause(&self) -> Option<Duration> {
        let of_fleet = self.gate.as_ref().and_then(|gate| gate.wait(Instant::now()));
        let of_worker = self.crew.rates.wait(self.job.task.name);
        of_fleet.max(of_worker.filter(|wait| *wait > RATE_PATIENCE))
    }

    /// When a job that is not to wait here any more should come back.
    fn ahead(&self) -> Duration {
        let of_fleet = self.gate.as_ref().filter(|gate| gate.wait(Instant::now()).is_some());
        let of_fleet = of_fleet.map(|gate| gate.ahead());
        of_fleet.max(self.crew.rates.ahead(self.job.task.name)).unwrap_or(WAIT_MAX)
    }

    /// First what can be given back, and then what cannot.
    async fn take_all(&self) -> Result<Place, Missing> {
        let place = self.take_both().await?;
        // Nothing is used up for what is to run elsewhere.
        if !is_live(self.job) {
            return Err(NoPlace::Over.into());
        }
        let taken = self.take_of_worker().await?;
        let Some(gate) = &self.gate else { return Ok(place) };
        match unless_over(self.job, self.crew, self.crew.starts.take(gate)).await {
            Ok(Ok(())) => Ok(place),
            Ok(Err(pause)) => {
                self.crew.rates.give_back(self.job.task.name, &taken);
                Err(Missing::Start(pause))
            }
            Err(why) => {
                self.crew.rates.give_back(self.job.task.name, &taken);
                Err(why.into())
            }
        }
    }

    /// Waits for a slot, and before that for a permit if the job needs one. Who waits for the one
    /// keeps the other from others for a moment only; then, with a slot, it asks once more.
    async fn take_both(&self) -> Result<Place, Missing> {
        loop {
            let mut permit = self.permit().await?;
            self.check_starts()?;
            let turn = Turn::next(slots(self.job, self.crew));
            let mut waiting = pin!(take_slot(self.job, self.crew, turn));
            let slot = if permit.is_some() {
                tokio::select! {
                    biased;
                    slot = &mut waiting => slot,
                    () = tokio::time::sleep(PERMIT_PATIENCE) => {
                        if let Some(permit) = permit.take() {
                            permit.give_back();
                        }
                        waiting.await
                    }
                }
            } else {
                waiting.await
            };
            let slot = slot?;
            let Some((name, limit)) = &self.permits else { return Ok((slot, None)) };
            if permit.is_some() {
                return Ok((slot, permit));
            }
            self.check_starts()?;
            let acquire = self.crew.permits.acquire_first(name, *limit);
            let acquire = tokio::time::timeout(PERMIT_WITH_SLOT, acquire);
            if let Ok(Some(permit)) = unless_over(self.job, self.crew, acquire).await? {
                return Ok((slot, Some(permit)));
            }
        }
    }

    /// Waits a moment for the permit of a job that needs one, as long as there may be a start for
    /// it; gives the date of another try if there is no permit.
    async fn permit(&self) -> Result<Option<Permit>, Missing> {
        let Some((name, limit)) = &self.permits else { return Ok(None) };
        loop {
            let acquire = self.crew.permits.acquire(name, *limit);
            let acquire = async {
                tokio::select! {
                    biased;
                    pause = self.no_start() => Err(pause),
                    permit = acquire => Ok(permit),
                }
            };
            let acquire = tokio::time::timeout(PERMIT_PATIENCE, acquire);
            match unless_over(self.job, self.crew, acquire).await? {
                Ok(Ok(permit)) => return Ok(permit),
                Ok(Err(pause)) => return Err(Missing::Start(pause)),
                Err(_) if self.can_wait_in_broker() => {
                    let until = Timestamp::now() + PERMIT_RETRY.delay(0);
                    return Err(NoPlace::Until(until).into());
                }
                Err(_) => {}
            }
        }
    }

    fn check_starts(&self) -> Result<(), Missing> {
        self.pause().map_or(Ok(()), |pause| Err(Missing::Start(pause)))
    }

    /// Completes when the fleet has no start for a while.
    async fn no_start(&self) -> Duration {
        match &self.gate {
            Some(gate) => gate.filled().await,
            None => std::future::pending().await,
        }
    }

    /// Takes a start of this worker, unless there is none very soon.
    async fn take_of_worker(&self) -> Result<Taken, Missing> {
        let patient_until = Instant::now() + RATE_PATIENCE;
        loop {
            match self.crew.rates.take(self.job.task.name) {
                Ok(taken) => return Ok(taken),
                Err(wait) if Instant::now() + wait <= patient_until => self.sleep(wait).await?,
                Err(wait) => return Err(Missing::Start(wait)),
            }
        }
    }

    async fn sleep(&self, time: Duration) -> Result<(), NoPlace> {
        unless_over(self.job, self.crew, tokio::time::sleep(time)).await
    }

    fn can_wait_in_broker(&self) -> bool {
        self.crew.client.delays().serve(&self.job.unsettled.request.delivery_info.queue)
    }
}
