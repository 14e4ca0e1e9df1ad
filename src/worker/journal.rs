//! The log lines of a task's life, in Celery's wording, which tools and people grep for.

use std::time::Duration;

use tracing::{Level, Span, enabled, error, info, info_span};

use crate::protocol::repr;
use crate::task::{Outcome, Request};

/// The span in which a task runs.
pub(super) fn span(request: &Request) -> Span {
    info_span!("task", task_id = request.id, task_name = name(request), retries = request.retries)
}

/// A message was read and is about to wait for its date and a slot.
pub(super) fn received(request: &Request) {
    let (id, name) = (request.id.as_str(), name(request));
    let queue = request.delivery_info.queue.as_str();
    info!(task_id = id, task_name = name, queue, "Task {name}[{id}] received");
}

/// A request came too late.
pub(super) fn expired(request: &Request) {
    let (id, name) = (request.id.as_str(), name(request));
    info!(task_id = id, task_name = name, "Discarding revoked task: {name}[{id}]");
}

/// The name to show.
fn name(request: &Request) -> &str {
    request.shadow.as_deref().unwrap_or(&request.task)
}

/// A task ended.
pub(super) fn ended(request: &Request, outcome: &Outcome, runtime: Duration) {
    let (id, name) = (request.id.as_str(), name(request));
    let runtime_s = runtime.as_secs_f64();
    match outcome {
        Outcome::Success(value) => {
            // The text of a large value is not made for nobody.
            if enabled!(Level::INFO) {
                let value = repr::value(value);
                info!(
                    task_id = id,
                    task_name = name,
                    runtime_s,
                    "Task {name}[{id}] succeeded in {runtime_s}s: {value}"
                );
            }
        }
        Outcome::Failure(failed) => error!(
            task_id = id,
            task_name = name,
            runtime_s,
            traceback = failed.traceback(),
            "Task {name}[{id}] raised unexpected: {}",
            repr::exception(failed.exception())
        ),
        Outcome::Retry { error: failed, after, .. } => info!(
            task_id = id,
            task_name = name,
            after_s = after.as_secs_f64(),
            "Task {name}[{id}] retry: {failed}"
        ),
        Outcome::Panicked { message, backtrace } => error!(
            task_id = id,
            task_name = name,
            runtime_s,
            backtrace,
            "Task {name}[{id}] raised unexpected: Panic({message:?})"
        ),
        Outcome::Reject { reason, requeue } => {
            info!(task_id = id, task_name = name, requeue, "Task {name}[{id}] rejected: {reason}");
        }
        Outcome::Replaced { by } => {
            info!(task_id = id, task_name = name, "Task {name}[{id}] replaced by {}", by.task);
        }
        Outcome::Ignore => info!(task_id = id, task_name = name, "Task {name}[{id}] ignored"),
        Outcome::Revoked { reason } => {
            info!(task_id = id, task_name = name, "Task {name}[{id}] revoked: {reason}");
        }
        Outcome::TimedOut { limit, soft } => error!(
            task_id = id,
            task_name = name,
            "{} time limit ({}s) exceeded for {name}[{id}]",
            if *soft { "Soft" } else { "Hard" },
            limit.as_secs_f64()
        ),
        Outcome::Lost { reason } => {
            error!(task_id = id, task_name = name, "Task {name}[{id}] lost: {reason}");
        }
    }
}
