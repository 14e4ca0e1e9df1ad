//! One message that must be confirmed before a request is settled, and what it means when it
//! cannot be published. Pure.

use std::sync::Arc;

use crate::amqp::{Publish, PublishError};

/// How often a message that the broker will not store is published again.
const NACKS_MAX: u32 = 10;

/// A message to be published, for one request.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) kind: Kind,
    /// Shared with the publisher, so that it can be published again.
    pub(super) publish: Arc<Publish>,
    /// Whether something was repaired for it already.
    pub(super) repaired: bool,
    /// How often the broker would not store it.
    pub(super) nacks: u32,
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
}

/// What a failed publish means for its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody is left to be told, which is no reason to run the task again.
    Done,
    /// This report can never be sent, but a smaller one can.
    Unsendable,
    /// Somebody has deleted what this worker had declared. The task goes back.
    Missing,
    /// The queue of a task, or that of a joiner, is not there: declare it and publish again.
    Declare,
    /// This call can never be sent: what it was to do has failed.
    Doomed,
    /// The task goes back.
    Unknown,
}

impl Effect {
    pub(super) fn new(kind: Kind, publish: Publish) -> Self {
        Self { kind, publish: Arc::new(publish), repaired: false, nacks: 0 }
    }

    /// What is published again if a queue would not store it, which may have room soon. Not for
    /// ever: the request then goes back, where its deliveries are counted. Else gives itself back.
    pub(super) fn after_nack(self, failed: &PublishError) -> Result<Self, Self> {
        match failed {
            PublishError::Nacked if self.nacks < NACKS_MAX => {
                Ok(Self { nacks: self.nacks + 1, ..self })
            }
            _ => Err(self),
        }
    }

    pub(super) fn judge(&self, failed: &PublishError) -> Verdict {
        let nowhere = failed.is_nowhere();
        match self.kind {
            Kind::Report if failed.is_returned() => Verdict::Done,
            Kind::Park | Kind::Report if nowhere => Verdict::Missing,
            Kind::Report if failed.is_permanent() && !self.repaired => Verdict::Unsendable,
            Kind::Park | Kind::Report => Verdict::Unknown,
            Kind::Record if nowhere && !self.repaired => Verdict::Declare,
            // Only queues can be made up from their name; an exchange of somebody's cannot.
            Kind::Step if nowhere && self.publish.exchange.is_empty() && !self.repaired => {
                Verdict::Declare
            }
            Kind::Step if nowhere && !self.publish.exchange.is_empty() => Verdict::Doomed,
            Kind::Step | Kind::Record if failed.is_permanent() && !nowhere => Verdict::Doomed,
            Kind::Step | Kind::Record => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message;

    #[test]
    fn what_a_full_queue_refuses_is_published_again_but_not_for_ever() {
        let effect = || Effect::new(Kind::Step, Publish::new("", "q", Message::default()));
        let large = PublishError::TooLarge { size: 2, max: 1 };
        assert!(effect().after_nack(&large).is_err(), "which is no matter of time");
        let again = |effect: Effect| effect.after_nack(&PublishError::Nacked).ok();
        let times = std::iter::successors(Some(effect()), |it| again(it.clone())).skip(1).count();
        assert_eq!(times, 10);
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
            (&returned, Verdict::Missing, Verdict::Done, Verdict::Declare, Verdict::Declare),
            (&refused(404), Verdict::Missing, Verdict::Missing, Verdict::Declare, Verdict::Declare),
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
        assert_eq!(effect(Kind::Step, "own").judge(&returned), Verdict::Doomed);
        assert_eq!(repaired(Kind::Step).judge(&returned), Verdict::Unknown);
        assert_eq!(repaired(Kind::Record).judge(&returned), Verdict::Unknown);
        for failed in [&refused(406), &large] {
            let smaller = repaired(Kind::Report).judge(failed);
            assert_eq!(smaller, Verdict::Unknown, "no third report: {failed:?}");
        }
    }
}
