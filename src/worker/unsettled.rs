//! A delivery on its way to being settled.

use std::sync::Arc;

use jiff::Timestamp;

use super::active::Entry;
use super::dead_letter::Reason;
use super::events::Facts;
use super::original::Original;
use super::sequel::Sequel;
use crate::amqp::SettleToken;
use crate::protocol::{Exception, Value};
use crate::task::{Outcome, Request};

/// What is needed to settle a delivery, whatever its task does.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// What could be read of it.
    pub(super) request: Arc<Request>,
    /// As it arrived, for parking it.
    pub(super) original: Original,
    /// `None` once it was acked early.
    pub(super) token: Option<SettleToken>,
    /// What is to follow; `None` for most.
    pub(super) sequel: Option<Box<Sequel>>,
    /// References of the results of what the task has called itself.
    pub(super) children: Vec<Value>,
    /// Its place in the register of jobs, once it is one.
    pub(super) entry: Option<Entry>,
    /// What only events tell of it.
    pub(super) facts: Facts,
}

/// A delivery that needs nothing more but to be settled.
#[derive(Debug)]
pub(super) struct Finished {
    /// Boxed, like everywhere else: it is large, and moves through many hands.
    pub(super) unsettled: Box<Unsettled>,
    pub(super) ending: Ending,
}

/// How a delivery came to its end.
#[derive(Debug)]
pub(super) enum Ending {
    /// Its task was judged or run.
    Ended(Outcome),
    /// It could not be run at all: it is parked, and the caller gets the exception.
    Refused { reason: Reason, exception: Exception },
    /// It is not to be run now: it is handed on to the delay queues, and comes back.
    Delayed { until: Timestamp },
    /// It goes to its queue once more, with the number of its deliveries so far; nobody is told.
    Counted { deliveries: i64 },
    /// It is parked, and otherwise ends as this outcome says.
    Parked { reason: Reason, outcome: Outcome },
}

impl Finished {
    /// Whether it goes on as another message although the broker delivers this one again, too,
    /// because its delivery was lost: then it must not go on.
    pub(super) fn is_void(&self) -> bool {
        let is_live = || self.unsettled.token.as_ref().is_none_or(SettleToken::is_live);
        self.ending.goes_on() && !is_live()
    }
}

impl Ending {
    /// Whether its own message goes on, without an end of the request.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self, Self::Delayed { .. } | Self::Counted { .. })
    }

    /// The exception and its traceback, of an end after which errbacks are called.
    pub(super) fn failure(&self) -> Option<(Exception, Option<String>)> {
        match self {
            Self::Counted { .. } => None,
            Self::Refused { exception, .. } => Some((exception.clone(), None)),
            Self::Ended(outcome) | Self::Parked { outcome, .. } => outcome.failure(),
            Self::Delayed { .. } => None,
        }
    }
}
