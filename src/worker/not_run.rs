//! The ends of jobs that were not run, or not to their end.
//!
//! Settles nothing but what goes back. **Invariant:** a job whose message can go back to the broker
//! does, rather than fail.

use std::time::Duration;

use jiff::Timestamp;
use tracing::debug;

use super::active::Cancel;
use super::intake::Job;
use super::journal;
use super::place::is_live;
use super::unsettled::{Ending, Finished, Unsettled};
use crate::task::Outcome;

/// The end of a job that was cancelled before it ran. As in Celery it was not terminated, whatever
/// was asked for.
pub(super) fn withheld(unsettled: Box<Unsettled>, why: Cancel) -> Option<Finished> {
    let why = match why {
        Cancel::Revoked { .. } => Cancel::Revoked { terminate: false, signal: None },
        lost @ Cancel::ConnectionLost => lost,
    };
    stopped(unsettled, &why)
}

/// The end of a job that was cancelled while it ran.
pub(super) fn stopped(mut unsettled: Box<Unsettled>, why: &Cancel) -> Option<Finished> {
    let reason = match why {
        Cancel::Revoked { terminate: false, .. } => "revoked",
        Cancel::Revoked { terminate: true, signal } => {
            unsettled.facts.signal.clone_from(signal);
            "terminated"
        }
        Cancel::ConnectionLost => return goes_back(unsettled, "its connection was lost"),
    };
    let outcome = Outcome::Revoked { reason: reason.into() };
    journal::ended(&unsettled.request, &outcome, Duration::ZERO);
    Some(Finished { unsettled, ending: Ending::Ended(outcome) })
}

/// The end of a job that came too late.
pub(super) fn expired(unsettled: Box<Unsettled>) -> Option<Finished> {
    journal::expired(&unsettled.request);
    let ending = Ending::Ended(Outcome::Revoked { reason: "expired".into() });
    Some(Finished { unsettled, ending })
}

/// Hands a job on, if it is this worker's still.
pub(super) fn delayed(job: Box<Job>, until: Timestamp) -> Option<Finished> {
    if !is_live(&job) {
        return goes_back(job.unsettled, "its connection was lost");
    }
    Some(Finished { unsettled: job.unsettled, ending: Ending::Delayed { until } })
}

/// Gives a job back to the broker. One that was acked early cannot go back, and is lost.
pub(super) fn goes_back(mut unsettled: Box<Unsettled>, why: &'static str) -> Option<Finished> {
    let task_id = unsettled.request.id.as_str();
    match unsettled.token.take() {
        Some(token) => {
            debug!(task_id, why, "goes back to the broker");
            token.requeue();
            None
        }
        None => {
            let outcome = Outcome::Lost { reason: why.to_owned() };
            journal::ended(&unsettled.request, &outcome, Duration::ZERO);
            Some(Finished { unsettled, ending: Ending::Ended(outcome) })
        }
    }
}
