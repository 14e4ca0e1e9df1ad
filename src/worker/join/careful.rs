//! Which message of an outcome made the broker close the channel, and what is learnt from that.
//!
//! The broker does not say which publish it refuses. So after a refusal the next session publishes
//! one step of an outcome at a time; what is refused then is not published a third time.
//!
//! **Invariant:** a step is blamed only if it was the only one under way, twice refused.

use std::collections::VecDeque;

use crate::amqp::{self, PublishError};

/// How many refused steps are remembered.
const REFUSED_MAX: usize = 256;

/// What names a step from one session to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StepName {
    pub(super) chord: String,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) correlation_id: Option<String>,
    /// What is published instead of a step may have the same address.
    pub(super) is_repaired: bool,
}

/// What a shard has learnt from refusals.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Whether the next session publishes one step at a time.
    pub(super) is_careful: bool,
    refused: VecDeque<(StepName, u16, String)>,
}

impl Refusals {
    /// A session has ended with `error` while these steps were under way.
    pub(super) fn learn(&mut self, error: &amqp::Error, under_way: &[StepName]) {
        let amqp::Error::Refused { code, text } = error else { return };
        // Late acks and double ones are not about publishes.
        if error.is_connection() || text.contains("delivery") {
            return;
        }
        let was_careful = std::mem::replace(&mut self.is_careful, true);
        let [step] = under_way else { return };
        let is_of_other =
            text.contains("exchange '") && !text.contains(&format!("'{}'", step.exchange));
        if was_careful && !is_of_other {
            self.refused.truncate(REFUSED_MAX - 1);
            self.refused.push_front((step.clone(), *code, text.clone()));
        }
    }

    /// Why there is no use in publishing this step.
    pub(super) fn of(&self, step: &StepName) -> Option<PublishError> {
        let (_, code, text) = self.refused.iter().find(|(refused, ..)| refused == step)?;
        Some(PublishError::Refused { code: *code, text: text.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(chord: &str) -> StepName {
        StepName {
            chord: chord.to_owned(),
            exchange: "theirs".to_owned(),
            routing_key: "q".to_owned(),
            correlation_id: None,
            is_repaired: false,
        }
    }

    #[test]
    fn only_what_is_refused_alone_is_blamed() {
        let refused = |text: &str| amqp::Error::Refused { code: 403, text: text.to_owned() };
        let (own, other) = (refused("no exchange 'theirs'"), refused("no exchange 'ours'"));
        let mut refusals = Refusals::default();
        refusals.learn(&refused("unknown delivery tag 7"), &[step("a")]);
        assert!(!refusals.is_careful);
        refusals.learn(&own, &[step("a")]);
        assert!(refusals.is_careful && refusals.of(&step("a")).is_none());
        refusals.learn(&own, &[step("a"), step("b")]);
        refusals.learn(&other, &[step("a")]);
        assert!(refusals.of(&step("a")).is_none());
        refusals.learn(&own, &[step("a")]);
        assert!(matches!(refusals.of(&step("a")), Some(PublishError::Refused { code: 403, .. })));
        assert!(refusals.of(&step("b")).is_none());
    }
}
