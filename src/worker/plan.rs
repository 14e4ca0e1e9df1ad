//! What must happen after a request ended, and in which order. Pure.
//!
//! ```text
//! opens of chords ──confirmed──> callbacks, next step, record, report ──confirmed──> ack
//! ```
//!
//! **Invariant:** every end has its effects: nobody who waits for this request, or for something
//! behind it, is left without an answer, and a chord hears of each of its parts. The one exception
//! is a task that asks to be ignored: as in Celery, nobody but its chord hears of it, or of what
//! was to follow it.

use std::sync::Arc;

use tracing::{info, warn};

use super::active::Entry;
use super::dead_letter::{self, Reason};
use super::delay;
use super::downfall::{self, Cause};
use super::effect::{Effect, Kind};
use super::follow::{self, Following};
use super::gather;
use super::original::Original;
use super::redelivered;
use super::report::report;
use super::retry;
use super::scribe::Scribe;
use super::sequel::Sequel;
use super::unsettled::{Ending, Finished, Unsettled};
use crate::amqp::SettleToken;
use crate::client::delays;
use crate::protocol::{Exception, Properties, ResultMeta, Signature, TaskState, Value, dead};
use crate::task::retry::traceback;
use crate::task::{Outcome, Request};

/// What is kept in mind of a request when its message is acked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trail {
    /// Nothing: somebody may send a parked message again, and then it is to run.
    None,
    /// That it has ended.
    Ended,
    /// That it goes on as another message.
    GoesOn,
}

/// A request whose effects are being published.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) request: Arc<Request>,
    pub(super) token: Option<SettleToken>,
    pub(super) entry: Option<Entry>,
    /// Give the delivery back instead of acking it.
    pub(super) requeue: bool,
    pub(super) trail: Trail,
    /// The chord whose parked values are of no more use when it is settled.
    pub(super) let_go: Option<String>,
    /// How many effects of the round are this request's.
    pub(super) effects: usize,
    /// What is published once those are confirmed.
    pub(super) later: Vec<Effect>,
}

impl Open {
    /// What is published next, now that all before is confirmed.
    pub(super) fn next_round(&mut self) -> Vec<Effect> {
        let later = std::mem::take(&mut self.later);
        let (last, now): (Vec<_>, Vec<_>) = later.into_iter().partition(|it| it.is_last);
        if now.is_empty() {
            return last;
        }
        self.later = last;
        now
    }
}

/// Lists what must happen after a request ended, and adds the first of it to `round`.
pub(super) fn begin(finished: Finished, scribe: &Scribe<'_>, round: &mut Vec<Effect>) -> Open {
    let Finished { unsettled, ending } = finished;
    let Unsettled { request, original, token, sequel, children, entry, facts: _ } = *unsettled;
    let before = round.len();
    let goes_on = ending.goes_on();
    let let_go = gather::let_go(&request, &ending);
    let mut planning = Planning { request: &request, sequel, children, scribe, round };
    let (requeue, later) = planning.end(ending, original);
    let own = round.get(before..).unwrap_or_default();
    let trail = match own.iter().any(|effect| effect.kind == Kind::Park) {
        true => Trail::None,
        false if goes_on && own.iter().all(is_counted) => Trail::GoesOn,
        false if goes_on => Trail::None,
        false => Trail::Ended,
    };
    let effects = own.len();
    Open { request, token, entry, requeue, trail, let_go, effects, later }
}

/// Whether a message that goes on can be told from the one that it was, by what is read of it.
fn is_counted(effect: &Effect) -> bool {
    let has = |name| effect.publish.message.header(name).is_some();
    has("task") && has(dead::HAND_ONS)
}

struct Planning<'a> {
    request: &'a Request,
    sequel: Option<Box<Sequel>>,
    children: Vec<Value>,
    scribe: &'a Scribe<'a>,
    round: &'a mut Vec<Effect>,
}

impl Planning<'_> {
    /// Whether the delivery goes back, and what comes in the next round.
    fn end(&mut self, ending: Ending, original: Original) -> (bool, Vec<Effect>) {
        let outcome = match ending {
            Ending::Ended(outcome) => outcome,
            Ending::Refused { reason, exception } => {
                self.park(original, &reason);
                return (false, self.failed(exception, None, TaskState::Failure));
            }
            Ending::Delayed { until } => {
                let mut message = original.restore(self.request);
                self.count_hand_on(&mut message.properties);
                self.round.push(delay::hand_on(message, self.request, until));
                return (false, Vec::new());
            }
            Ending::Counted { deliveries } => {
                return (false, self.counted(original, deliveries));
            }
            Ending::Parked { reason, outcome } => {
                self.park(original, &reason);
                return (false, self.over(outcome));
            }
        };
        let later = match outcome {
            Outcome::Success(value) => self.succeeded(value),
            Outcome::Reject { requeue: true, .. } => return (true, Vec::new()),
            Outcome::Reject { requeue: false, reason } => {
                let exception = Exception::reject(reason.as_str());
                self.park(original, &Reason { word: "rejected", error: reason });
                self.failed(exception, None, TaskState::Failure)
            }
            Outcome::Ignore => self.ignored(),
            Outcome::Replaced { by } => self.replaced(*by),
            Outcome::Retry { .. } => self.retried(outcome, original),
            Outcome::Failure(_)
            | Outcome::Revoked { .. }
            | Outcome::TimedOut { .. }
            | Outcome::Panicked { .. }
            | Outcome::Lost { .. } => self.over(outcome),
        };
        (false, later)
    }

    /// It has ended without a value.
    fn over(&mut self, outcome: Outcome) -> Vec<Effect> {
        let state = outcome.state().map_or(TaskState::Failure, TaskState::from);
        match outcome.into_exception() {
            Some((exception, traceback)) => self.failed(exception, traceback, state),
            None => self.ignored(),
        }
    }

    fn park(&mut self, original: Original, reason: &Reason) {
        let request = self.request;
        warn!(
            task_id = request.id,
            task_name = request.task,
            queue = request.delivery_info.queue,
            reason = reason.word,
            error = reason.error,
            "message parked"
        );
        let fits = |properties: &Properties| self.scribe.carries(properties);
        let publish = dead_letter::park(original.restore(request), reason, request, fits);
        self.round.push(Effect::new(Kind::Park, publish));
    }

    /// Lets the message that goes on be told from this one, if there is room for it.
    fn count_hand_on(&self, properties: &mut Properties) {
        let before = redelivered::hand_ons(self.request);
        let headers = properties.headers.get_or_insert_default();
        headers.insert(dead::HAND_ONS, before.saturating_add(1));
        if !self.scribe.carries(properties)
            && let Some(headers) = &mut properties.headers
        {
            headers.retain(|name| name != dead::HAND_ONS);
        }
    }

    /// Sends it to its queue once more, by way of a second in the delay queues: until then this
    /// delivery is acked, so that the two cannot both come back, however soon its worker dies.
    fn counted(&mut self, original: Original, deliveries: i64) -> Vec<Effect> {
        let request = self.request;
        let queue = &*request.delivery_info.queue;
        info!(task_id = request.id, queue, deliveries, "message has come back, it is sent again");
        let mut message = original.restore(request);
        let headers = message.properties.headers.get_or_insert_default();
        dead::strip(headers);
        headers.insert(dead::DELIVERIES, deliveries);
        self.count_hand_on(&mut message.properties);
        // The broker refuses the name of another user than the one who publishes.
        message.properties.user_id = None;
        if self.scribe.carries(&message.properties) {
            self.round.push(Effect::new(Kind::HandOn, delays::delayed(1, queue, message)));
            return Vec::new();
        }
        let error = "it has come back, and its headers leave no room to count that".to_owned();
        let reason = Reason { word: dead::DELIVERY_LIMIT, error: error.clone() };
        self.park(Original::untouched(message), &reason);
        self.over(Outcome::Lost { reason: error })
    }

    fn succeeded(&mut self, value: Value) -> Vec<Effect> {
        let Some(sequel) = self.sequel.take() else {
            self.report(ResultMeta::success(&*self.request.id, value));
            return Vec::new();
        };
        let mut following = follow::success(self.request, *sequel, &value, self.scribe);
        self.children.append(&mut following.children);
        let meta = ResultMeta::success(&*self.request.id, value);
        self.follow(following, Some(meta))
    }

    fn failed(
        &mut self,
        exception: Exception,
        traceback: Option<String>,
        state: TaskState,
    ) -> Vec<Effect> {
        let following = self.sequel.take().map(|sequel| {
            let traceback = traceback.as_deref();
            let cause = Cause { exception: &exception, traceback, state: &state };
            downfall::failure(self.request, *sequel, cause, self.scribe)
        });
        let mut meta = ResultMeta::new(&*self.request.id, state, exception.into_value());
        meta.traceback = traceback;
        // As in Celery, errbacks come after the report, and are not its children.
        self.report(meta);
        following.map_or_else(Vec::new, |following| self.follow(following, None))
    }

    /// A chord would wait for an ignored part for ever.
    fn ignored(&mut self) -> Vec<Effect> {
        if let Some(link) = self.sequel.take().and_then(|sequel| sequel.link) {
            let exception = crate::TaskError::ignore().exception().clone();
            let cause = Cause::found(&exception);
            downfall::part_failed(&link, self.request, cause, self.round);
        }
        Vec::new()
    }

    fn replaced(&mut self, by: Signature) -> Vec<Effect> {
        let none = Sequel::default();
        let sequel = self.sequel.as_deref().unwrap_or(&none);
        match follow::replace(self.request, sequel, by, self.scribe) {
            Ok(following) => self.follow(following, None),
            Err(exception) => {
                let text = format!("the replacement cannot be sent: {exception}");
                self.failed(exception, Some(text), TaskState::Failure)
            }
        }
    }

    /// As in Celery, the call is sent first, and then the state reported.
    fn retried(&mut self, outcome: Outcome, original: Original) -> Vec<Effect> {
        let Outcome::Retry { error, after, changed } = outcome else { return Vec::new() };
        match retry::again(original, self.request, after, changed.as_deref()) {
            Ok(again) => self.round.push(again),
            Err(exception) => {
                let text = exception.to_string();
                return self.failed(exception, Some(text), TaskState::Failure);
            }
        }
        self.children.push(retry::reference(self.request));
        let traceback = traceback(&error, after);
        let exception = error.exception().clone().into_value();
        let mut meta = ResultMeta::new(&*self.request.id, TaskState::Retry, exception);
        meta.traceback = Some(traceback);
        self.report(meta);
        Vec::new()
    }

    /// Adds what follows to the round, or, if chords begin, to the next one.
    fn follow(&mut self, mut following: Following, meta: Option<ResultMeta>) -> Vec<Effect> {
        let opens = std::mem::take(&mut following.opens);
        let calls = self.round.len();
        self.round.extend(following.into_effects());
        if let Some(meta) = meta {
            self.report(meta);
        }
        let is_ordered = self.round.iter().skip(calls).any(|effect| effect.is_last);
        if opens.is_empty() && !is_ordered {
            return Vec::new();
        }
        let later = self.round.split_off(calls);
        if !opens.is_empty() {
            self.round.extend(opens);
            return later;
        }
        let (last, now) = later.into_iter().partition(|effect| effect.is_last);
        self.round.extend::<Vec<_>>(now);
        last
    }

    fn report(&mut self, mut meta: ResultMeta) {
        meta.children = Some(std::mem::take(&mut self.children));
        let publish = report(self.request, meta, self.scribe.config());
        self.round.extend(publish.map(|publish| Effect::new(Kind::Report, publish)));
    }
}

#[cfg(test)]
mod tests;
