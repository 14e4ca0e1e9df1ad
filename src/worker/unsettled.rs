//! A delivery on its way to being settled.

use std::sync::Arc;

use super::dead_letter::Reason;
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
}

impl Ending {
    /// The exception and its traceback, of an end after which errbacks are called.
    pub(super) fn failure(&self) -> Option<(Exception, Option<String>)> {
        match self {
            Self::Refused { exception, .. } => Some((exception.clone(), None)),
            Self::Ended(outcome) => outcome.failure(),
        }
    }
}
