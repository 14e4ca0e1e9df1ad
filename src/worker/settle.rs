//! Settling: what follows from the end of a request, in the order that loses nothing.
//!
//! Works in bursts: the effects of all requests that ended meanwhile are published together,
//! their confirms are awaited together, and then their deliveries are settled.
//!
//! **Invariant:** a delivery is acked only after every effect of its request was confirmed. What
//! could not be confirmed leaves the delivery to be redelivered.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::dead_letter::{self, Reason};
use super::report::report;
use super::running::Crew;
use super::unsettled::{Ending, Finished, Unsettled};
use crate::amqp::{PublishError, SettleToken, layout};
use crate::protocol::{Exception, Properties, ResultMeta, TaskState};
use crate::task::{Outcome, Request};

/// Requests that are settled together at most.
const BURST_MAX: usize = 256;
/// Bursts whose confirms may be under way at once.
const BURSTS_UNDER_WAY_MAX: usize = 8;

/// What must happen after a request ended.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// The report to the caller.
    result: Option<ResultMeta>,
    /// Why the message is parked, if it is.
    park: Option<Reason>,
    /// Give the delivery back instead of acking it.
    requeue: bool,
}

/// Lists what must happen after a request ended.
fn plan(task_id: &str, ending: Ending) -> Plan {
    let outcome = match ending {
        Ending::Ended(outcome) => outcome,
        Ending::Refused { reason, exception } => {
            let result = Some(ResultMeta::failure(task_id, exception));
            return Plan { result, park: Some(reason), requeue: false };
        }
    };
    match outcome {
        Outcome::Success(value) => {
            Plan { result: Some(ResultMeta::success(task_id, value)), ..Plan::default() }
        }
        Outcome::Reject { requeue: true, .. } => Plan { requeue: true, ..Plan::default() },
        Outcome::Reject { requeue: false, reason } => Plan {
            result: Some(ResultMeta::failure(task_id, Exception::reject(reason.as_str()))),
            park: Some(Reason { word: "rejected", error: reason }),
            requeue: false,
        },
        Outcome::Ignore => Plan::default(),
        Outcome::Revoked { reason } => {
            Plan { result: Some(ResultMeta::revoked(task_id, &reason)), ..Plan::default() }
        }
        Outcome::Failure(_)
        | Outcome::Retry { .. }
        | Outcome::TimedOut { .. }
        | Outcome::Panicked { .. }
        | Outcome::Lost { .. } => Plan { result: failure(task_id, outcome), ..Plan::default() },
    }
}

/// The report of an outcome that has an exception.
fn failure(task_id: &str, outcome: Outcome) -> Option<ResultMeta> {
    let status = TaskState::from(outcome.state()?);
    let (exception, traceback) = outcome.into_exception()?;
    let mut meta = ResultMeta::new(task_id, status, exception.into_value());
    meta.traceback = traceback;
    Some(meta)
}

/// Settles requests until the last sender of `finished` is gone and all is settled.
pub(super) async fn run(mut finished: mpsc::Receiver<Finished>, crew: Arc<Crew>) {
    let mut burst = Vec::with_capacity(BURST_MAX);
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            taken = finished.recv_many(&mut burst, BURST_MAX),
                if under_way.len() < BURSTS_UNDER_WAY_MAX =>
            {
                if taken == 0 {
                    break;
                }
                under_way.push(settle(std::mem::take(&mut burst), &crew));
            }
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
        }
    }
    while under_way.next().await.is_some() {}
}

/// A request whose effects are being published.
struct Open {
    request: Arc<Request>,
    token: Option<SettleToken>,
    requeue: bool,
    /// Whether the first effect is the parking; the others are reports.
    parks: bool,
    effects: usize,
}

/// Publishes the effects of a burst, and settles each delivery when its own are confirmed.
async fn settle(burst: Vec<Finished>, crew: &Crew) {
    let mut publishes = Vec::with_capacity(burst.len());
    let mut open = Vec::with_capacity(burst.len());
    for Finished { unsettled, ending } in burst {
        let Unsettled { request, message, token } = *unsettled;
        let Plan { result, park, requeue } = plan(&request.id, ending);
        let before = publishes.len();
        if let Some(reason) = &park {
            warn_parked(&request, reason);
            let fits = |it: &Properties| crew.client.connection().carries(it);
            publishes.push(dead_letter::park(message, reason, &request, fits));
        }
        publishes.extend(result.and_then(|meta| report(&request, meta, crew.client.config())));
        let effects = publishes.len() - before;
        open.push(Open { request, token, requeue, parks: park.is_some(), effects });
    }
    let mut outcomes = crew.client.publisher().publish_all(publishes).await.into_iter();
    let mut repaired = false;
    for Open { request, token, requeue, parks, effects } in open {
        let mut done = true;
        for (at, outcome) in outcomes.by_ref().take(effects).enumerate() {
            let Err(failed) = outcome else { continue };
            done &= match judge(&request, at > 0 || !parks, &failed) {
                Verdict::Done => true,
                Verdict::Unsendable => tell_unsendable(&request, &failed, crew).await,
                Verdict::Missing if !repaired => {
                    repaired = true;
                    repair(crew).await;
                    false
                }
                Verdict::Missing | Verdict::Unknown => false,
            };
        }
        spend(token, done && !requeue);
    }
}

/// A request that was acked early has no token left.
fn spend(token: Option<SettleToken>, ack: bool) {
    let Some(token) = token else { return };
    if ack { token.ack() } else { token.requeue() }
}

/// What a failed publish means for its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody is left to be told, which is no reason to run the task again.
    Done,
    /// This report can never be sent, but a smaller one can.
    Unsendable,
    /// Somebody has deleted what this worker had declared.
    Missing,
    /// The task goes back.
    Unknown,
}

fn judge(request: &Request, is_report: bool, failed: &PublishError) -> Verdict {
    let shown: &dyn std::error::Error = failed;
    match failed {
        PublishError::Returned { .. } if is_report => {
            debug!(task_id = request.id, reply_to = request.reply_to, "caller is gone");
            return Verdict::Done;
        }
        PublishError::Returned { .. } | PublishError::Refused { code: 404, .. } => {
            error!(task_id = request.id, error = shown, "nowhere to publish to, task goes back");
            return Verdict::Missing;
        }
        failed if is_report && failed.is_permanent() => {
            error!(task_id = request.id, error = shown, "result cannot be sent");
            return Verdict::Unsendable;
        }
        _ => error!(task_id = request.id, error = shown, "effect not confirmed, task goes back"),
    }
    Verdict::Unknown
}

/// Fails a task whose own result can never reach the caller: running it again would end the same
/// way, again and again. False if even that was not confirmed.
async fn tell_unsendable(request: &Request, failed: &PublishError, crew: &Crew) -> bool {
    let exception = Exception::encode_error(format!("the result cannot be sent: {failed}"));
    let meta = ResultMeta::failure(&*request.id, exception);
    let Some(report) = report(request, meta, crew.client.config()) else { return true };
    match crew.client.publisher().publish(report).await {
        Ok(()) => true,
        Err(failed) => judge(request, true, &failed) == Verdict::Done,
    }
}

/// Declares again what the worker needs, so that the tasks which go back find it.
async fn repair(crew: &Crew) {
    let config = crew.client.config();
    let specs: Vec<_> = crew.info.queues.iter().map(|name| config.queue(name)).collect();
    if let Err(failed) = crew.client.connection().declare(&layout::working(&specs)).await {
        let failed: &dyn std::error::Error = &failed;
        error!(error = failed, "failed to declare queues and exchanges again");
    }
}

fn warn_parked(request: &Request, reason: &Reason) {
    warn!(
        task_id = request.id,
        task_name = request.task,
        queue = request.delivery_info.queue,
        reason = reason.word,
        error = reason.error,
        "message parked"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Value;

    #[test]
    fn a_failed_publish_is_judged_by_what_it_was_for() {
        let request = Request::default();
        let (exchange, routing_key, text) = (String::new(), String::new(), String::new());
        let returned = PublishError::Returned { exchange, routing_key, code: 312, text };
        let refused = |code| PublishError::Refused { code, text: String::new() };
        let large = PublishError::TooLarge { size: 2, max: 1 };
        for (failed, parking, report) in [
            (&returned, Verdict::Missing, Verdict::Done),
            (&refused(404), Verdict::Missing, Verdict::Missing),
            (&refused(406), Verdict::Unknown, Verdict::Unsendable),
            (&large, Verdict::Unknown, Verdict::Unsendable),
            (&PublishError::Nacked, Verdict::Unknown, Verdict::Unknown),
        ] {
            assert_eq!(judge(&request, false, failed), parking, "{failed:?}");
            assert_eq!(judge(&request, true, failed), report, "{failed:?}");
        }
    }

    #[test]
    fn every_end_has_its_effects() {
        let check =
            |outcome: Outcome, status: Option<&str>, parked: Option<&str>, requeue: bool| {
                let shown = format!("{outcome:?}");
                let plan = plan("1", Ending::Ended(outcome));
                let found = plan.result.as_ref().map(|meta| meta.status.as_str());
                assert_eq!(found, status, "{shown}");
                assert_eq!(plan.park.map(|reason| reason.word), parked, "{shown}");
                assert_eq!(plan.requeue, requeue, "{shown}");
            };
        let reject = |requeue| Outcome::Reject { requeue, reason: "poison".into() };
        let panicked = Outcome::Panicked { message: "oh".into(), backtrace: None };
        check(Outcome::Success(Value::Int(4)), Some("SUCCESS"), None, false);
        check(reject(true), None, None, true);
        check(reject(false), Some("FAILURE"), Some("rejected"), false);
        check(Outcome::Ignore, None, None, false);
        check(Outcome::Revoked { reason: "expired".into() }, Some("REVOKED"), None, false);
        check(panicked, Some("FAILURE"), None, false);
        check(Outcome::Failure(crate::TaskError::new("no")), Some("FAILURE"), None, false);
    }
}
