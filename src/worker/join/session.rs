//! One subscription of one shard: the machine of `results::join` with its hands and its clock.
//!
//! ```text
//! amqp::Session ── events ──> Joiner::handle ── effects ──> amqp::Session
//! ```
//!
//! Does not decide; `firing.rs` publishes outcomes. **Invariant:** effects are carried out in
//! their order, on the channel that reads the shard.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{debug, error, info, warn};

use super::careful::StepName;
use super::firing::{Firings, Progress, Step};
use super::outcome;
use super::poison;
use super::refused::{Again, Refused};
use super::shard::Shard;
use crate::amqp::{
    self, Publish, PublishError, Session, SessionDelivery, SessionEvent, SessionOptions, topology,
};
use crate::protocol::join::Record;
use crate::protocol::{Limits, Map, Message, Value};
use crate::results::join::{Delivery, Effect, Event, JoinSettings, Joiner, Outcome, PublishId};

/// How long a session that is to stop may take to finish what is being published.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// How long the shard may stand still for an outcome that cannot be published, when it is to be
/// given away: a queue that takes nothing may do so for hours.
const STANDS_STILL_MAX: Duration = Duration::from_secs(60);

/// How long a delivery may stay unacked, asked of brokers that let consumers ask (4.3 on).
const CONSUMER_TIMEOUT_MS: i64 = 3_600_000;

/// Between two reports on what a session does.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// How long a session after one that the broker refused has only one step under way.
pub(super) const CAREFUL_FOR: Duration = Duration::from_secs(30);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// As it was asked to.
    Stopped,
    /// Another worker is to join this shard.
    GivenAway,
    /// The channel or the connection is gone.
    Lost(amqp::Error),
    /// The joiner is in doubt.
    Broken(String),
    /// Somebody newer has to join this shard.
    StandBack { text: String, wait: Duration },
}

/// Subscribes to a shard and joins it until that ends. Tells which steps of outcomes were under way
/// then.
pub(super) async fn join(
    shard: &Shard,
    settings: JoinSettings,
    under_way: &mut Vec<StepName>,
) -> End {
    let config = shard.crew.client.config();
    let options = SessionOptions {
        queue: shard.queue.clone(),
        prefetch: config.join_prefetch,
        tag: format!("{}.join.{}", shard.crew.info.hostname, shard.number),
        arguments: Map::from_iter([("x-consumer-timeout", CONSUMER_TIMEOUT_MS)]),
    };
    let opening = Session::open(&shard.connection, &options);
    let session = match shard.stop.run_until_cancelled(opening).await {
        None => return End::Stopped,
        Some(Err(error)) => return End::Lost(error),
        Some(Ok(session)) => session,
    };
    let epoch = uuid::Uuid::new_v4().to_string();
    let mut joined = Joined {
        shard,
        session,
        joiner: Joiner::new(epoch, settings),
        clock: Clock::start(),
        effects: Vec::new(),
        happened: VecDeque::new(),
        awaited: HashMap::new(),
        firings: Firings::new(shard),
        held: VecDeque::new(),
        refused: Refused::default(),
        careful_until: shard.refusals.is_careful.then(|| Instant::now() + CAREFUL_FOR),
        unreadable: HashMap::new(),
        first: None,
        stopping: None,
        must_go: false,
    };
    let end = joined.run().await.unwrap_or_else(|end| end);
    under_way.extend(joined.awaited.values().filter_map(|awaited| match awaited {
        Awaited::Step(step) => Some(step.name()),
        Awaited::Record(..) | Awaited::Poison(..) | Awaited::Nothing => None,
    }));
    match end {
        End::Stopped | End::GivenAway => {
            // A channel that is gone is as good as closed.
            let _ = joined.session.close().await;
        }
        // What was not sent yet must not be: the channel is closed as it is.
        End::Lost(_) | End::Broken(_) | End::StandBack { .. } => drop(joined),
    }
    end
}

/// With so many publishes under way, what only spares work is not published.
const AWAITED_MAX: usize = 1024;

/// What a publish of the session is for.
#[derive(Debug)]
enum Awaited {
    /// The joiner's own records.
    Record(PublishId, Again),
    /// A part of an outcome.
    Step(Step),
    /// A message that is no record is in the dead letters.
    Poison(u64, Again),
    /// Nobody minds.
    Nothing,
}

struct Joined<'a> {
    shard: &'a Shard,
    session: Session,
    joiner: Joiner,
    clock: Clock,
    /// What the joiner wants done; empty between events.
    effects: Vec<Effect>,
    /// What the joiner has to hear of.
    happened: VecDeque<Event>,
    awaited: HashMap<u64, Awaited>,
    firings: Firings<'a>,
    /// Steps that wait until the one under way is answered.
    held: VecDeque<Step>,
    /// What a queue would not store, until it is published again.
    refused: Refused<Awaited>,
    /// Until when there is only one step under way.
    careful_until: Option<Instant>,
    /// Deliveries that are no records, by their tag.
    unreadable: HashMap<u64, Message>,
    /// When the first delivery came: until then the session only stands by.
    first: Option<Instant>,
    /// When it gives up finishing.
    stopping: Option<Instant>,
    /// Whether the whole worker stops.
    must_go: bool,
}

/// Whether a session that is to end, and has been `late` for so long, may: its successor publishes
/// once more what of an outcome is not over. So only the end of the worker does not wait for that,
/// and nobody waits for ever.
fn may_end(late: Option<Duration>, must_go: bool, is_settled: bool, is_fired: bool) -> bool {
    match late {
        None => is_fired && is_settled,
        Some(late) => is_fired || must_go || late >= STANDS_STILL_MAX,
    }
}

impl Joined<'_> {
    async fn run(&mut self) -> Result<End, End> {
        let mut events = Vec::new();
        let mut report_at = Instant::now() + REPORT_INTERVAL;
        loop {
            if self.is_finished() {
                let is_stopped = self.shard.stop.is_cancelled();
                return Ok(if is_stopped { End::Stopped } else { End::GivenAway });
            }
            let wake = self.wake_at(report_at);
            tokio::select! {
                biased;
                () = self.shard.stop.cancelled(), if !self.must_go => {
                    self.must_go = true;
                    self.stopping = Some(Instant::now() + FINISH_WITHIN);
                }
                () = self.shard.seat.asked(),
                    if self.stopping.is_none() && !self.firings.are_stuck() =>
                {
                    self.stopping = Some(Instant::now() + FINISH_WITHIN);
                }
                Some((step, result)) = self.firings.mended(), if self.firings.are_mending() => {
                    let done = self.firings.looked(step, result).map_err(End::Broken)?;
                    self.go_on(done);
                }
                done = self.session.next(&mut events) => done.map_err(End::Lost)?,
                () = tokio::time::sleep_until(wake.into()) => self.happened.push_back(Event::Tick),
            }
            if Instant::now() >= report_at {
                report_at = Instant::now() + REPORT_INTERVAL;
                self.report();
            }
            for awaited in self.refused.due() {
                self.publish(awaited);
            }
            self.take_happened()?;
            for event in events.drain(..) {
                self.hear(event)?;
                self.take_happened()?;
            }
            self.publish_held();
        }
    }

    fn is_finished(&self) -> bool {
        let Some(until) = self.stopping else { return false };
        let late = Instant::now().checked_duration_since(until);
        may_end(late, self.must_go, self.joiner.is_settled(), self.firings.is_empty())
    }

    fn wake_at(&self, report_at: Instant) -> Instant {
        let due = self.joiner.next_deadline().map(|due_ms| self.clock.instant(due_ms));
        let wake = due.map_or(report_at, |due| due.min(report_at));
        let wake = self.refused.next_due().map_or(wake, |due| due.min(wake));
        let Some(until) = self.stopping else { return wake };
        let until = if Instant::now() < until { until } else { until + STANDS_STILL_MAX };
        wake.min(until)
    }

    /// Turns what the channel says into events of the joiner.
    fn hear(&mut self, event: SessionEvent) -> Result<(), End> {
        match event {
            // They stay with the broker, for the next session.
            SessionEvent::Delivered(_) if self.stopping.is_some() => {}
            SessionEvent::Delivered(delivery) => self.read(delivery),
            SessionEvent::Confirmed { seq } => match self.awaited.remove(&seq) {
                Some(Awaited::Record(publish, _)) => {
                    self.happened.push_back(Event::Confirmed { publish });
                }
                Some(Awaited::Step(step)) => {
                    self.firings.tell(&step);
                    let done = self.firings.confirmed(step);
                    self.go_on(done);
                }
                Some(Awaited::Poison(tag, _)) => self.session.ack(tag),
                Some(Awaited::Nothing) | None => {}
            },
            SessionEvent::Failed { seq, error } => match self.awaited.remove(&seq) {
                Some(Awaited::Step(step)) => self.mend(step, &error)?,
                Some(Awaited::Record(id, again)) => {
                    self.refuse(Awaited::Record(id, again.counted(&error)?));
                }
                Some(Awaited::Poison(tag, again)) => {
                    self.refuse(Awaited::Poison(tag, again.counted(&error)?));
                }
                Some(Awaited::Nothing) | None => debug!(%error, "answer has nobody to go to"),
            },
        }
        Ok(())
    }

    fn read(&mut self, delivery: SessionDelivery) {
        let SessionDelivery { tag, redelivered, message } = delivery;
        if self.first.is_none() {
            self.first = Some(Instant::now());
            self.shard.seat.set_reads(true);
            debug!(shard = self.shard.number, "joiner reads its shard");
        }
        let record = Record::decode(&message, &Limits::default());
        let count = message.header("x-delivery-count").and_then(Value::as_i64).unwrap_or(0);
        let mut unopened = None;
        if record.is_err() {
            unopened = Record::opens(&message);
            self.unreadable.insert(tag, message);
        }
        let count = u64::try_from(count).unwrap_or(0);
        let unopened = unopened.map(Arc::from);
        let delivery = Delivery { tag, redelivered, count, record, unopened };
        self.happened.push_back(Event::Delivered(delivery));
    }

    /// Lets the joiner hear of everything, and does what it says.
    fn take_happened(&mut self) -> Result<(), End> {
        while let Some(event) = self.happened.pop_front() {
            let was_active = self.joiner.is_active();
            self.joiner.handle(self.clock.now_ms(), event, &mut self.effects);
            if self.joiner.is_active() && !was_active {
                self.took_over();
            }
            for effect in std::mem::take(&mut self.effects) {
                self.carry_out(effect)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), End> {
        match effect {
            Effect::Publish { id, record } => {
                let message = record.encode().map_err(|failed| {
                    End::Broken(format!("a record cannot be written: {failed}"))
                })?;
                let route = self.shard.route.clone();
                let publish = Publish::new(topology::results_exchange(), route, message);
                self.publish(Awaited::Record(id, Again::new(publish)));
            }
            Effect::Fire { chord, outcome } => {
                self.tell(&outcome);
                self.revoke_rest(&outcome);
                let steps = self.firings.fire(&chord, &outcome);
                match steps {
                    Some(steps) => self.publish_steps(steps),
                    None => self.happened.push_back(Event::OutcomePublished { chord }),
                }
            }
            Effect::Ack { tags } => tags.into_iter().for_each(|tag| self.session.ack(tag)),
            Effect::Poison { tag, record, reason, untold } => {
                let written = record.and_then(|record| record.encode().ok());
                let message = written.or_else(|| self.unreadable.remove(&tag)).unwrap_or_default();
                warn!(shard = self.shard.number, reason, "message in a shard is no record");
                let again = Again::new(poison::dead(message, (&reason, untold), self.shard));
                self.publish(Awaited::Poison(tag, again));
            }
            Effect::Reply { reply_to, correlation, inspection } => {
                if let Ok(message) = inspection.encode(&correlation) {
                    self.publish_for_nobody(Publish::new("", reply_to, message));
                }
            }
            Effect::Alarm { text, restart: true } => return Err(End::Broken(text)),
            Effect::Alarm { text, restart: false } => {
                error!(shard = self.shard.number, reason = text, "alarm of a joiner");
            }
            Effect::StandBack { text, for_ms } => {
                return Err(End::StandBack { text, wait: Duration::from_millis(for_ms) });
            }
        }
        Ok(())
    }

    /// Revokes what need not run any more, if anything. That only spares work, so it keeps no
    /// outcome open; and it is left out while a stream confirms nothing.
    fn revoke_rest(&mut self, outcome: &Outcome) {
        let Some(publish) = outcome::revocation(outcome) else { return };
        if self.awaited.len() < AWAITED_MAX {
            self.publish_for_nobody(publish);
        }
    }

    fn publish_for_nobody(&mut self, publish: Publish) {
        let seq = self.session.publish(publish);
        self.awaited.insert(seq, Awaited::Nothing);
    }

    /// Publishes a record, for the first time or again.
    fn publish(&mut self, awaited: Awaited) {
        let (Awaited::Record(_, again) | Awaited::Poison(_, again)) = &awaited else { return };
        let seq = self.session.publish(Arc::clone(&again.publish));
        self.awaited.insert(seq, awaited);
    }

    /// Keeps a record that a queue would not store until it may have room. The machine goes on
    /// meanwhile: it relies on nothing that is not confirmed.
    fn refuse(&mut self, awaited: Awaited) {
        let (Awaited::Record(_, again) | Awaited::Poison(_, again)) = &awaited else { return };
        warn!(shard = self.shard.number, nacks = again.nacks, "a record is published again");
        self.refused.push(again.at(), awaited);
    }

    fn publish_steps(&mut self, steps: Vec<Step>) {
        self.held.extend(steps);
        self.publish_held();
    }

    fn publish_held(&mut self) {
        if self.held.is_empty() && self.careful_until.is_some_and(|until| Instant::now() >= until) {
            self.careful_until = None;
        }
        let is_careful = self.careful_until.is_some();
        let is_step = |awaited: &Awaited| matches!(awaited, Awaited::Step(_));
        while !(is_careful && self.awaited.values().any(is_step))
            && let Some(step) = self.held.pop_front()
        {
            if let Some(step) = self.firings.checked(step) {
                let seq = self.session.publish(step.publish());
                self.awaited.insert(seq, Awaited::Step(step));
            }
        }
    }

    /// An outcome may be complete, or have come to its next phase.
    fn go_on(&mut self, done: Progress) {
        match done {
            Progress::Under => {}
            Progress::Next(steps) => self.publish_steps(steps),
            Progress::Complete(chord) => {
                self.happened.push_back(Event::OutcomePublished { chord });
            }
        }
    }

    fn mend(&mut self, step: Step, error: &PublishError) -> Result<(), End> {
        let done = self.firings.failed(step, error).map_err(End::Broken)?;
        self.go_on(done);
        Ok(())
    }

    fn took_over(&self) {
        let took = self.first.map(|first| first.elapsed());
        let replayed = self.joiner.stats().replayed;
        info!(shard = self.shard.number, replayed, ?took, "joiner took over a shard");
    }

    fn tell(&self, outcome: &Outcome) {
        let open = outcome.open();
        let (shard, chord, size) = (self.shard.number, &*open.chord, open.size);
        let kind = outcome.kind();
        let age_ms = self.clock.now_ms().saturating_sub(open.created_ms);
        match outcome {
            Outcome::Complete { .. } => {
                debug!(shard, kind, chord, size, age_ms, "chord is complete")
            }
            Outcome::Failed { index, failure, .. } => {
                let error = &failure.exc;
                info!(shard, kind, chord, size, age_ms, %index, %error, "chord has failed");
            }
            Outcome::Expired { missing, reason, .. } => {
                let why = reason.as_deref().unwrap_or("its time is over");
                info!(shard, kind, chord, size, age_ms, missing, why, "chord is given up");
            }
            Outcome::Cancelled { reason, .. } => {
                info!(shard, kind, chord, size, age_ms, reason, "chord is cancelled");
            }
        }
    }

    /// The session's numbers, for whoever collects them from the events.
    fn report(&self) {
        if self.first.is_none() {
            return;
        }
        let (shard, stats) = (self.shard.number, self.joiner.stats());
        let (unconfirmed, active) = (self.session.unconfirmed(), self.joiner.is_active());
        debug!(shard, active, unconfirmed, ?stats, "joiner's numbers");
    }
}

/// The wall clock as it was when the session began, and a steady one from there on.
struct Clock {
    began_ms: u64,
    began: Instant,
}

impl Clock {
    fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Self { began_ms, began: Instant::now() }
    }

    fn now_ms(&self) -> u64 {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.began_ms.saturating_add(passed)
    }

    fn instant(&self, at_ms: u64) -> Instant {
        /// Further away than anybody waits without looking again.
        const FAR: Duration = Duration::from_secs(24 * 60 * 60);
        // One more, because the clock rounds down.
        let wait = Duration::from_millis(at_ms.saturating_sub(self.began_ms).saturating_add(1));
        self.began.checked_add(wait).unwrap_or_else(|| Instant::now() + FAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_not_given_away_while_an_outcome_is_half_published() {
        let late = Some(Duration::ZERO);
        assert!(may_end(None, false, true, true), "nothing is under way");
        assert!(!may_end(None, false, false, true), "a record may be confirmed soon");
        assert!(may_end(late, false, false, true), "its successor does without");
        assert!(!may_end(late, false, true, false), "its successor would publish it again");
        assert!(may_end(late, true, true, false), "but a worker does not wait for ever");
        assert!(!may_end(None, true, true, false));
        assert!(
            may_end(Some(STANDS_STILL_MAX), false, true, false),
            "nor does a shard stand still"
        );
    }
}
