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

use tracing::warn;

use super::dead_letter::{self, Reason};
use super::downfall::{self, Cause};
use super::effect::{Effect, Kind};
use super::follow::{self, Following};
use super::original::Original;
use super::report::report;
use super::scribe::Scribe;
use super::sequel::Sequel;
use super::unsettled::{Ending, Finished, Unsettled};
use crate::amqp::SettleToken;
use crate::protocol::{Exception, Properties, ResultMeta, Signature, TaskState, Value};
use crate::task::{Outcome, Request};

/// A request whose effects are being published.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) request: Arc<Request>,
    pub(super) token: Option<SettleToken>,
    /// Give the delivery back instead of acking it.
    pub(super) requeue: bool,
    /// How many effects of the round are this request's.
    pub(super) effects: usize,
    /// What is published once those are confirmed.
    pub(super) later: Vec<Effect>,
}

/// Lists what must happen after a request ended, and adds the first of it to `round`.
pub(super) fn begin(finished: Finished, scribe: &Scribe<'_>, round: &mut Vec<Effect>) -> Open {
    let Finished { unsettled, ending } = finished;
    let Unsettled { request, original, token, sequel, children } = *unsettled;
    let before = round.len();
    let mut planning = Planning { request: &request, sequel, children, scribe, round };
    let (requeue, later) = planning.end(ending, original);
    let effects = round.len() - before;
    Open { request, token, requeue, effects, later }
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
            Outcome::Retry { .. } => self.retried(outcome),
            Outcome::Failure(_)
            | Outcome::Revoked { .. }
            | Outcome::TimedOut { .. }
            | Outcome::Panicked { .. }
            | Outcome::Lost { .. } => {
                let state = outcome.state().map_or(TaskState::Failure, TaskState::from);
                let (exception, traceback) = outcome.into_exception().unwrap_or_else(no_exception);
                self.failed(exception, traceback, state)
            }
        };
        (false, later)
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

    fn retried(&mut self, outcome: Outcome) -> Vec<Effect> {
        if let Some((exception, traceback)) = outcome.into_exception() {
            let id = &*self.request.id;
            let mut meta = ResultMeta::new(id, TaskState::Retry, exception.into_value());
            meta.traceback = traceback;
            self.report(meta);
        }
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
        if opens.is_empty() {
            return Vec::new();
        }
        let later = self.round.split_off(calls);
        self.round.extend(opens);
        later
    }

    fn report(&mut self, mut meta: ResultMeta) {
        meta.children = Some(std::mem::take(&mut self.children));
        let publish = report(self.request, meta, self.scribe.config());
        self.round.extend(publish.map(|publish| Effect::new(Kind::Report, publish)));
    }
}

/// Every outcome of that kind has one.
fn no_exception() -> (Exception, Option<String>) {
    (Exception::new("builtins", "Exception", "unknown"), None)
}

#[cfg(test)]
mod tests;
