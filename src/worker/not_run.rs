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
use crate::amqp::SettleToken;
use crate::task::Outcome;

/// How often a message may go back because its worker stops: half the limit of deliveries of a
/// queue of ours, and of RabbitMQ 4's default.
const GIVEN_BACK_MAX: u64 = 10;

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

/// Gives back a job that a worker which stops has not started. One that has been delivered often
/// goes to its queue as a new message: its task is not to blame for workers that stop, and nothing
/// may be given up that was never run. `limit` is the setting `worker_delivery_limit`.
pub(super) fn left_over(unsettled: Box<Unsettled>, limit: u32) -> Option<Finished> {
    let is_live = unsettled.token.as_ref().is_some_and(SettleToken::is_live);
    let deliveries = unsettled.original.deliveries(&unsettled.request);
    if !is_live || deliveries < given_back_max(limit) {
        return goes_back(unsettled, "it was not started");
    }
    Some(Finished { unsettled, ending: Ending::Counted { deliveries: 0 } })
}

/// How many deliveries are often: half of what there may be, so that as many are left for workers
/// that are lost.
fn given_back_max(limit: u32) -> u64 {
    match limit {
        // The broker may have a limit of its own.
        0 => GIVEN_BACK_MAX,
        limit => u64::from(limit / 2).clamp(1, GIVEN_BACK_MAX),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_deliveries_are_for_workers_that_stop() {
        for (limit, most) in [(0, 10), (1, 1), (2, 1), (7, 3), (20, 10), (u32::MAX, 10)] {
            assert_eq!(given_back_max(limit), most, "{limit}");
        }
    }
}
