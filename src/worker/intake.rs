//! Intake: a delivery becomes a job, or the reason why it cannot be one.
//!
//! Runs nothing and publishes nothing. **Invariant:** nothing that arrives is lost here: what is
//! not a job comes back as a refusal with the delivery's token in it.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::dead_letter::Reason;
use super::running::Crew;
use super::unsettled::{Ending, Finished, Unsettled};
use crate::amqp::Delivery;
use crate::protocol::{
    DecodeError, DecodeErrorKind, Embed, Exception, Map, Serializer, TaskHeaders, TaskMessage,
    Value,
};
use crate::task::{DeliveryInfo, Request, TaskDef};

/// A request with everything that running its task takes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) unsettled: Box<Unsettled>,
    pub(super) task: &'static TaskDef,
    pub(super) args: Vec<Value>,
    pub(super) kwargs: Map,
}

/// Reads one delivery.
pub(super) fn read(delivery: Delivery, crew: &Crew) -> Result<Job, Box<Finished>> {
    let Delivery { message, exchange, routing_key, queue, redelivered, token } = delivery;
    let priority = message.properties.priority;
    let queue = queue.to_string();
    let delivery_info = DeliveryInfo { exchange, routing_key, queue, priority, redelivered };
    let hostname = crew.info.hostname.clone();
    let decoded = TaskMessage::decode(&message, &crew.limits);
    let unsettled =
        |request| Box::new(Unsettled { request: Arc::new(request), message, token: Some(token) });
    let task_message = match decoded {
        Ok(task_message) => task_message,
        Err(failed) => {
            let error = chain(&failed);
            let exception = match failed.kind() {
                DecodeErrorKind::ContentType => Exception::content_disallowed(error.as_str()),
                _ => Exception::decode_error(error.as_str()),
            };
            let request = Request { delivery_info, hostname, ..unreadable(&failed) };
            return Err(refused(unsettled(request), (failed.reason(), error, exception)));
        }
    };
    let judged = check(&task_message, crew);
    let ignore_result = judged.as_ref().ok().and_then(|task| task.options.ignore_result);
    let TaskMessage { headers, body, serializer, reply_to, correlation_id, .. } = task_message;
    let zone = &crew.client.config().timezone;
    let addressed = Request {
        delivery_info,
        hostname,
        serializer,
        reply_to,
        correlation_id,
        ..Request::default()
    };
    let request = facts(headers, ignore_result.unwrap_or(false), zone, addressed);
    let unsettled = unsettled(request);
    match judged {
        Ok(task) => Ok(Job { unsettled, task, args: body.args, kwargs: body.kwargs }),
        Err(refusal) => Err(refused(unsettled, refusal)),
    }
}

fn refused(unsettled: Box<Unsettled>, (word, error, exception): Refusal) -> Box<Finished> {
    let ending = Ending::Refused { reason: Reason { word, error }, exception };
    Box::new(Finished { unsettled, ending })
}

/// The facts of the headers, added to those of the delivery. `ignore_result` is the task's own
/// setting, which holds when the message does not say.
fn facts(
    headers: TaskHeaders,
    ignore_result: bool,
    zone: &TimeZone,
    addressed: Request,
) -> Request {
    let limit = |seconds: Option<f64>| Duration::try_from_secs_f64(seconds?).ok();
    Request {
        eta: headers.eta.as_ref().map(|date| date.timestamp(zone)),
        expires: headers.expires.as_ref().map(|date| date.timestamp(zone)),
        time_limit: limit(headers.timelimit.hard),
        soft_time_limit: limit(headers.timelimit.soft),
        retries: u32::try_from(headers.retries).unwrap_or(0),
        ignore_result: headers.ignore_result.unwrap_or(ignore_result),
        id: headers.id,
        task: headers.task,
        shadow: headers.shadow,
        argsrepr: headers.argsrepr,
        kwargsrepr: headers.kwargsrepr,
        root_id: headers.root_id,
        parent_id: headers.parent_id,
        group: headers.group,
        group_index: headers.group_index,
        origin: Some(headers.origin),
        headers: headers.extra,
        stamps: headers.stamps,
        ..addressed
    }
}

/// As much of a request as could be read.
fn unreadable(failed: &DecodeError) -> Request {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Request {
        id: owned(failed.id().or_else(|| failed.correlation_id())).unwrap_or_default(),
        task: owned(failed.task()).unwrap_or_default(),
        reply_to: owned(failed.reply_to()),
        correlation_id: owned(failed.correlation_id()),
        // Celery's default, which every client accepts.
        serializer: failed.serializer().unwrap_or(Serializer::Json),
        ..Request::default()
    }
}

type Refusal = (&'static str, String, Exception);

/// The task of a readable message, if this worker can run it.
fn check(message: &TaskMessage, crew: &Crew) -> Result<&'static TaskDef, Refusal> {
    let serializer = message.serializer;
    if !crew.client.config().accept_content.contains(&serializer) {
        let error = format!("content type {} is not in accept_content", serializer.content_type());
        let exception = Exception::content_disallowed(error.as_str());
        return Err(("content-type", error, exception));
    }
    let name = message.headers.task.as_str();
    let Some(task) = crew.registry.task(name) else {
        let error = format!("received unregistered task of type '{name}'");
        return Err(("unknown-task", error, Exception::not_registered(name)));
    };
    let Embed { callbacks, errbacks, chain, chord, .. } = &message.body.embed;
    let any = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if any(callbacks) || any(errbacks) || any(chain) || chord.is_some() {
        // Running only the first step would lose the others without a word.
        let error = "this worker does not run chains, callbacks and chords".to_owned();
        let exception = Exception::new("builtins", "NotImplementedError", error.as_str());
        return Err(("canvas", error, exception));
    }
    Ok(task)
}

/// An error with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
