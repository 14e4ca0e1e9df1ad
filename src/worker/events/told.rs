//! The events of tasks, from what the worker knows of them. Pure.

use std::time::Duration;

use crate::protocol::event::{EventKind, TaskInfo};
use crate::protocol::{Exception, date, repr};
use crate::task::retry::traceback;
use crate::task::{Outcome, Request};
use crate::worker::unsettled::{Ending, Finished};

/// What only events tell of a run.
#[derive(Clone, Debug, Default)]
pub(in crate::worker) struct Facts {
    /// How long the function has run.
    pub(in crate::worker) runtime: Option<Duration>,
    /// The signal with which it was stopped, by name or number.
    pub(in crate::worker) signal: Option<String>,
}

pub(super) fn received(request: &Request) -> EventKind {
    let name = request.shadow.as_ref().unwrap_or(&request.task);
    EventKind::TaskReceived(Box::new(TaskInfo {
        uuid: request.id.clone(),
        name: Some(name.clone()),
        args: Some(request.argsrepr.clone()),
        kwargs: Some(request.kwargsrepr.clone()),
        root_id: request.root_id.clone(),
        parent_id: request.parent_id.clone(),
        retries: i64::from(request.retries),
        eta: request.eta.map(date::format),
        expires: request.expires.map(date::format),
    }))
}

/// How a request has ended; `None` if as in Celery nobody is told, or if it has not ended.
pub(super) fn ended(finished: &Finished) -> Option<EventKind> {
    let request = &finished.unsettled.request;
    if request.id.is_empty() {
        // Of what could not be read; no monitor could do anything with it.
        return None;
    }
    let outcome = match &finished.ending {
        Ending::Ended(outcome) | Ending::Parked { outcome, .. } => outcome,
        Ending::Refused { exception, .. } => return Some(failed(request, exception, None)),
        Ending::Delayed { .. } | Ending::Counted { .. } => return None,
    };
    let uuid = || request.id.clone();
    let facts = &finished.unsettled.facts;
    Some(match outcome {
        Outcome::Success(value) => EventKind::TaskSucceeded {
            uuid: uuid(),
            result: Some(repr::value(value)),
            runtime: facts.runtime.map(|it| it.as_secs_f64()),
        },
        Outcome::Retry { error, after, .. } => EventKind::TaskRetried {
            uuid: uuid(),
            exception: Some(repr::exception(error.exception())),
            traceback: Some(traceback(error, *after)),
        },
        Outcome::Reject { requeue, .. } => {
            EventKind::TaskRejected { uuid: uuid(), requeue: *requeue }
        }
        Outcome::Revoked { reason } => EventKind::TaskRevoked {
            uuid: uuid(),
            terminated: reason == "terminated",
            signum: facts.signal.as_deref().and_then(number),
            expired: reason == "expired",
        },
        Outcome::Ignore | Outcome::Replaced { .. } => return None,
        Outcome::Failure(_)
        | Outcome::TimedOut { .. }
        | Outcome::Panicked { .. }
        | Outcome::Lost { .. } => {
            let (exception, traceback) = outcome.failure()?;
            failed(request, &exception, traceback)
        }
    })
}

/// As in Celery, there is always a traceback, but of tasks that never began.
fn failed(request: &Request, exception: &Exception, traceback: Option<String>) -> EventKind {
    let uuid = request.id.clone();
    EventKind::TaskFailed { uuid, exception: Some(repr::exception(exception)), traceback }
}

/// The number of a signal.
#[cfg(unix)]
fn number(signal: &str) -> Option<i64> {
    crate::process::signal_named(signal).map(|signal| i64::from(signal.as_raw()))
}

#[cfg(not(unix))]
fn number(signal: &str) -> Option<i64> {
    const TERM: i64 = 15;
    if signal == "SIGTERM" { Some(TERM) } else { signal.parse().ok() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::dead_letter::Reason;
    use super::super::super::original::Original;
    use super::super::super::unsettled::Unsettled;
    use super::*;
    use crate::protocol::{Message, Signature, Value};
    use crate::task::TaskError;

    fn told(ending: Ending, facts: Facts) -> Option<EventKind> {
        let request = Request { id: "1".to_owned(), ..Request::default() };
        let unsettled = Unsettled {
            request: Arc::new(request),
            original: Original::untouched(Message::default()),
            token: None,
            sequel: None,
            children: Vec::new(),
            entry: None,
            facts,
        };
        ended(&Finished { unsettled: Box::new(unsettled), ending })
    }

    fn of(outcome: Outcome) -> Option<EventKind> {
        told(Ending::Ended(outcome), Facts::default())
    }

    #[test]
    fn a_success_shows_what_was_returned_and_how_long_it_took() {
        let facts = Facts { runtime: Some(Duration::from_millis(1500)), signal: None };
        let value = Value::from(vec![Value::Null, Value::from("x")]);
        let event = told(Ending::Ended(Outcome::Success(value)), facts);
        let result = Some("[None, 'x']".to_owned());
        let expected = EventKind::TaskSucceeded { uuid: "1".into(), result, runtime: Some(1.5) };
        assert_eq!(event, Some(expected));
    }

    #[test]
    fn failures_show_their_exception_as_python_does() {
        let reason = || Reason { word: "rejected", error: "x".to_owned() };
        let lost = || Outcome::Lost { reason: "killed".to_owned() };
        let rows = [
            (Ending::Ended(Outcome::Failure(TaskError::new("x"))), "Exception('x')"),
            (Ending::Ended(lost()), "WorkerLostError('killed')"),
            (
                Ending::Ended(Outcome::TimedOut { limit: Duration::from_secs(3), soft: false }),
                "TimeLimitExceeded(3)",
            ),
            (Ending::Parked { reason: reason(), outcome: lost() }, "WorkerLostError('killed')"),
            (
                Ending::Refused { reason: reason(), exception: Exception::not_registered("t") },
                "NotRegistered('t')",
            ),
        ];
        for (ending, expected) in rows {
            let Some(EventKind::TaskFailed { exception, .. }) = told(ending, Facts::default())
            else {
                panic!("{expected}")
            };
            assert_eq!(exception.as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_retry_shows_why_and_when() {
        let after = Duration::from_secs(3);
        let error = TaskError::new("down");
        let event = of(Outcome::Retry { error, after, changed: None });
        let Some(EventKind::TaskRetried { exception, traceback, .. }) = event else {
            panic!("{event:?}")
        };
        assert_eq!(exception.as_deref(), Some("Exception('down')"));
        assert!(traceback.is_some_and(|it| it.contains("Retry in 3s")));
    }

    #[test]
    fn what_was_revoked_tells_how() {
        let revoked = |reason: &'static str, signal: Option<&str>| {
            let facts = Facts { runtime: None, signal: signal.map(str::to_owned) };
            let outcome = Outcome::Revoked { reason: reason.into() };
            match told(Ending::Ended(outcome), facts) {
                Some(EventKind::TaskRevoked { terminated, signum, expired, .. }) => {
                    (terminated, signum, expired)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(revoked("revoked", None), (false, None, false));
        assert_eq!(revoked("terminated", Some("SIGTERM")), (true, Some(15), false));
        assert_eq!(revoked("expired", None), (false, None, true));
    }

    #[test]
    fn nobody_hears_of_what_does_not_end() {
        assert_eq!(of(Outcome::Ignore), None);
        assert_eq!(of(Outcome::Replaced { by: Box::new(Signature::new("t")) }), None);
        assert_eq!(told(Ending::Counted { deliveries: 2 }, Facts::default()), None);
        let rejected = of(Outcome::Reject { reason: "x".to_owned(), requeue: true });
        assert_eq!(rejected, Some(EventKind::TaskRejected { uuid: "1".into(), requeue: true }));
    }
}
