//! One message that must be confirmed before a request is settled, and what it means when it
//! cannot be published. Pure.

use std::sync::Arc;

use crate::amqp::{Publish, PublishError};
use crate::client::delays;

/// How often a message that the broker will not store is published again, where there is another
/// way for it.
const NACKS_MAX: u32 = 10;

/// A message to be published, for one request.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) kind: Kind,
    /// Shared with the publisher, so that it can be published again.
    pub(super) publish: Arc<Publish>,
    /// Whether something was repaired for it already.
    pub(super) repaired: bool,
    /// How often the broker would not store it, where that is bounded; else whether it would not.
    pub(super) nacks: u32,
    /// Whether it is published when all others of its request are confirmed.
    pub(super) is_last: bool,
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request's own message, on its way to the parking queue.
    Park,
    /// A report to a caller.
    Report,
    /// The call of another task.
    Step,
    /// A record for a joiner.
    Record,
    /// A value on its way to the queue of its chord.
    Value,
    /// The request's own message, on its way back to its queue.
    HandOn,
}

/// What a failed publish means for its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody is left to be told: no reason to run the task again.
    Done,
    /// This report can never be sent, but a smaller one can.
    Unsendable,
    /// Somebody has deleted what this worker had declared. The task goes back.
    Missing,
    /// The queue of a task, or that of a joiner, is not there: declare it and publish again.
    Declare,
    /// This call can never be sent: what it was to do has failed.
    Doomed,
    /// The delay queues do not take it: it goes to its queue, and waits in a worker.
    Straight,
    /// The task goes back.
    Unknown,
}

impl Effect {
    pub(super) fn new(kind: Kind, publish: Publish) -> Self {
        let publish = Arc::new(publish);
        Self { kind, publish, repaired: false, nacks: 0, is_last: false }
    }

    /// Whether it goes to the delay queues.
    pub(super) fn is_delayed(&self) -> bool {
        delays::is_delayed(&self.publish)
    }

    /// The same, addressed to the queue to which the delay queues lead.
    pub(super) fn straight(mut self) -> Self {
        delays::straight(Arc::make_mut(&mut self.publish));
        Self { repaired: false, nacks: 0, ..self }
    }

    /// What is published again if a queue would not store it, which may have room soon. Not for
    /// ever where messages can go straight to their queue, and where the worker is to stop: the
    /// request then goes back. Else gives itself back.
    pub(super) fn after_nack(self, failed: &PublishError, is_stopping: bool) -> Result<Self, Self> {
        let is_bounded = is_stopping || self.is_delayed();
        match failed {
            PublishError::Nacked if !is_bounded => Ok(Self { nacks: 1, ..self }),
            PublishError::Nacked if self.nacks < NACKS_MAX => {
                Ok(Self { nacks: self.nacks + 1, ..self })
            }
            _ => Err(self),
        }
    }

    pub(super) fn judge(&self, failed: &PublishError) -> Verdict {
        let nowhere = failed.is_nowhere();
        if self.is_delayed() {
            return self.judge_delayed(failed);
        }
        match self.kind {
            Kind::HandOn if nowhere && !self.repaired => Verdict::Declare,
            Kind::HandOn => Verdict::Unknown,
            Kind::Report if failed.is_returned() => Verdict::Done,
            // Of a queue that no worker consumes any more, for example.
            Kind::Park if nowhere && !self.repaired => Verdict::Declare,
            Kind::Park | Kind::Report if nowhere => Verdict::Missing,
            Kind::Report if failed.is_permanent() && !self.repaired => Verdict::Unsendable,
            Kind::Park | Kind::Report => Verdict::Unknown,
            Kind::Record if nowhere && !self.repaired => Verdict::Declare,
            // Only queues can be made up from their name; an exchange of somebody's cannot.
            Kind::Step if nowhere && self.publish.exchange.is_empty() && !self.repaired => {
                Verdict::Declare
            }
            Kind::Step if nowhere && !self.publish.exchange.is_empty() => Verdict::Doomed,
            // Whoever has opened the chord has declared the queue, and nobody does again.
            Kind::Value if nowhere || failed.is_permanent() => Verdict::Doomed,
            Kind::Step | Kind::Record if failed.is_permanent() && !nowhere => Verdict::Doomed,
            Kind::Step | Kind::Record | Kind::Value => Verdict::Unknown,
        }
    }

    fn judge_delayed(&self, failed: &PublishError) -> Verdict {
        let too_large = matches!(failed, PublishError::TooLarge { .. } | PublishError::Invalid(_));
        match self.kind {
            _ if failed.is_nowhere() && !self.repaired => Verdict::Declare,
            Kind::Step if too_large => Verdict::Doomed,
            _ => Verdict::Straight,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message;

    #[test]
    fn what_a_full_queue_refuses_is_published_again_until_the_worker_is_to_stop() {
        let effect = || Effect::new(Kind::Step, Publish::new("", "q", Message::default()));
        let delayed = || Effect::new(Kind::Step, delays::delayed(5, "q", Message::default()));
        let large = PublishError::TooLarge { size: 2, max: 1 };
        assert!(effect().after_nack(&large, false).is_err(), "which is no matter of time");
        let times = |effect: Effect, is_stopping: bool| {
            let again = |it: &Effect| it.clone().after_nack(&PublishError::Nacked, is_stopping);
            std::iter::successors(Some(effect), |it| again(it).ok()).skip(1).take(100).count()
        };
        assert_eq!(times(effect(), false), 100);
        assert_eq!(times(effect(), true), 10);
        assert_eq!(times(delayed(), false), 10, "it can go straight to its queue");
        let waits = effect().after_nack(&PublishError::Nacked, false).unwrap();
        assert!(waits.nacks > 0 && times(waits, true) >= 9, "it is tried on for a while");
    }

    #[test]
    fn a_failed_publish_is_judged_by_what_it_was_for() {
        let (exchange, routing_key, text) = (String::new(), String::new(), String::new());
        let returned = PublishError::Returned { exchange, routing_key, code: 312, text };
        let refused = |code| PublishError::Refused { code, text: String::new() };
        let large = PublishError::TooLarge { size: 2, max: 1 };
        let effect = |kind, exchange: &'static str| {
            Effect::new(kind, Publish::new(exchange, "q", Message::default()))
        };
        let repaired = |kind| Effect { repaired: true, ..effect(kind, "") };
        let rows = [
            (&returned, Verdict::Declare, Verdict::Done, Verdict::Declare, Verdict::Declare),
            (&refused(404), Verdict::Declare, Verdict::Missing, Verdict::Declare, Verdict::Declare),
            (
                &refused(406),
                Verdict::Unknown,
                Verdict::Unsendable,
                Verdict::Doomed,
                Verdict::Doomed,
            ),
            (&large, Verdict::Unknown, Verdict::Unsendable, Verdict::Doomed, Verdict::Doomed),
            (
                &PublishError::Nacked,
                Verdict::Unknown,
                Verdict::Unknown,
                Verdict::Unknown,
                Verdict::Unknown,
            ),
        ];
        for (failed, park, report, step, record) in rows {
            assert_eq!(effect(Kind::Park, "").judge(failed), park, "{failed:?}");
            assert_eq!(effect(Kind::Report, "").judge(failed), report, "{failed:?}");
            assert_eq!(effect(Kind::Step, "").judge(failed), step, "{failed:?}");
            assert_eq!(effect(Kind::Record, "results").judge(failed), record, "{failed:?}");
        }
        assert_eq!(effect(Kind::HandOn, "").judge(&returned), Verdict::Declare);
        assert_eq!(effect(Kind::HandOn, "").judge(&large), Verdict::Unknown, "it is never lost");
        assert_eq!(effect(Kind::Step, "own").judge(&returned), Verdict::Doomed);
        for failed in [&returned, &refused(404), &refused(406), &large] {
            assert_eq!(effect(Kind::Value, "").judge(failed), Verdict::Doomed, "{failed:?}");
        }
        assert_eq!(effect(Kind::Value, "").judge(&PublishError::Nacked), Verdict::Unknown);
        assert_eq!(repaired(Kind::Park).judge(&returned), Verdict::Missing);
        assert_eq!(repaired(Kind::Step).judge(&returned), Verdict::Unknown);
        assert_eq!(repaired(Kind::Record).judge(&returned), Verdict::Unknown);
        for kind in [Kind::Step, Kind::HandOn] {
            let delayed = || Effect::new(kind, delays::delayed(5, "q", Message::default()));
            assert_eq!(delayed().judge(&returned), Verdict::Declare);
            let again = Effect { repaired: true, ..delayed() };
            for failed in [&returned, &refused(403), &PublishError::Nacked] {
                assert_eq!(again.judge(failed), Verdict::Straight, "{failed:?}");
            }
            let straight = again.straight();
            assert_eq!((&*straight.publish.exchange, &*straight.publish.routing_key), ("", "q"));
            assert_eq!(straight.judge(&returned), Verdict::Declare, "its queue is gone, too");
        }
        for failed in [&refused(406), &large] {
            let smaller = repaired(Kind::Report).judge(failed);
            assert_eq!(smaller, Verdict::Unknown, "no third report: {failed:?}");
        }
    }
}
