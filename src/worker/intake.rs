//! Intake: a delivery becomes a job, or the reason why it cannot be one.
//!
//! Runs nothing and publishes nothing. **Invariant:** nothing that arrives is lost here: what is
//! not a job comes back as a refusal with the delivery's token in it.

use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::dead_letter::Reason;
use super::events::Facts;
use super::follow::chained;
use super::gather;
use super::original::Original;
use super::running::Crew;
use super::sequel::Sequel;
use super::unsettled::{Ending, Finished, Unsettled};
use crate::amqp::Delivery;
use crate::protocol::{
    DecodeError, DecodeErrorKind, Exception, Map, Serializer, TaskBody, TaskHeaders, TaskMessage,
    Value, dead,
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
    let Delivery { mut message, exchange, routing_key, queue, redelivered, token } = delivery;
    let priority = message.properties.priority;
    let queue = queue.to_string();
    let delivery_info = DeliveryInfo { exchange, routing_key, queue, priority, redelivered };
    let hostname = crew.info.hostname.clone();
    let decoded = TaskMessage::take(&mut message.properties, &message.body, &crew.limits);
    let unsettled = |request, original, sequel| {
        let (request, token, children) = (Arc::new(request), Some(token), Vec::new());
        let (entry, facts) = (None, Facts::default());
        Box::new(Unsettled { request, original, token, sequel, children, entry, facts })
    };
    let (mut task_message, remains) = match decoded {
        Ok(decoded) => decoded,
        Err(failed) => {
            let error = chained(&failed);
            let exception = match failed.kind() {
                DecodeErrorKind::ContentType => Exception::content_disallowed(error.as_str()),
                _ => Exception::decode_error(error.as_str()),
            };
            let request = Request { delivery_info, hostname, ..unreadable(&failed) };
            let sequel = failed.headers().and_then(|headers| Sequel::of_headers(&headers.extra));
            let unsettled = unsettled(request, Original::untouched(message), sequel);
            return Err(refused(unsettled, (failed.reason(), error, exception)));
        }
    };
    gather::name_task(&mut task_message.headers);
    let TaskBody { args, kwargs, embed } = take(&mut task_message.body);
    let (sequel, problem) = Sequel::read(embed, &task_message.headers.extra);
    let join = || crew.client.composer().join();
    let problem = problem.or_else(|| sequel.as_deref()?.unsendable(join));
    let judged = check(&task_message, problem, crew);
    let ignore_result = judged.as_ref().ok().and_then(|task| task.options.ignore_result);
    let TaskMessage { mut headers, serializer, reply_to, correlation_id, .. } = task_message;
    let zone = &crew.client.config().timezone;
    let addressed = Request {
        delivery_info,
        hostname,
        serializer,
        reply_to,
        correlation_id,
        ..Request::default()
    };
    let request = facts(&mut headers, ignore_result.unwrap_or(false), zone, addressed);
    let unsettled = unsettled(request, Original::without(message, headers, remains), sequel);
    match judged {
        Ok(task) => Ok(Job { unsettled, task, args, kwargs }),
        Err(refusal) => Err(refused(unsettled, refusal)),
    }
}

fn refused(unsettled: Box<Unsettled>, (word, error, exception): Refusal) -> Box<Finished> {
    let ending = Ending::Refused { reason: Reason { word, error }, exception };
    Box::new(Finished { unsettled, ending })
}

/// The facts of the headers, added to those of the delivery. `ignore_result` is the task's own
/// setting, which holds when the message does not say. Takes the texts out of `headers`; they are
/// those that [`Original::restore`] puts back.
pub(super) fn facts(
    headers: &mut TaskHeaders,
    ignore_result: bool,
    zone: &TimeZone,
    addressed: Request,
) -> Request {
    let limit = |seconds: Option<f64>| Duration::try_from_secs_f64(seconds?).ok();
    let mut addressed = addressed;
    // What was counted is delivered as a new message.
    addressed.delivery_info.redelivered |= headers.extra.contains_key(dead::DELIVERIES);
    Request {
        eta: headers.eta.as_ref().map(|date| date.timestamp(zone)),
        expires: headers.expires.as_ref().map(|date| date.timestamp(zone)),
        time_limit: limit(headers.timelimit.hard),
        soft_time_limit: limit(headers.timelimit.soft),
        retries: u32::try_from(headers.retries).unwrap_or(0),
        ignore_result: headers.ignore_result.unwrap_or(ignore_result),
        id: take(&mut headers.id),
        task: take(&mut headers.task),
        shadow: take(&mut headers.shadow),
        argsrepr: take(&mut headers.argsrepr),
        kwargsrepr: take(&mut headers.kwargsrepr),
        root_id: take(&mut headers.root_id),
        parent_id: take(&mut headers.parent_id),
        group: take(&mut headers.group),
        group_index: headers.group_index,
        replaced_task_nesting: headers.replaced_task_nesting,
        origin: Some(take(&mut headers.origin)),
        headers: take(&mut headers.extra),
        stamps: take(&mut headers.stamps),
        ..addressed
    }
}

/// As much of a request as could be read.
pub(super) fn unreadable(failed: &DecodeError) -> Request {
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
fn check(
    message: &TaskMessage,
    problem: Option<String>,
    crew: &Crew,
) -> Result<&'static TaskDef, Refusal> {
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
    if let Some(error) = problem {
        let exception = Exception::new("builtins", "NotImplementedError", error.as_str());
        return Err(("canvas", error, exception));
    }
    Ok(task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::join::{ArgsRef, GATHER};
    use crate::protocol::{Compression, Date, Limits, Message, TimeLimit};

    fn through_a_request(mut message: Message) -> Message {
        let (task_message, remains) =
            TaskMessage::take(&mut message.properties, &message.body, &Limits::default()).unwrap();
        assert_eq!(message.properties.headers, None, "they were taken");
        let TaskMessage { mut headers, reply_to, correlation_id, .. } = task_message;
        gather::name_task(&mut headers);
        assert_eq!(headers.task, "t");
        let addressed = Request { reply_to, correlation_id, ..Request::default() };
        let request = facts(&mut headers, true, &TimeZone::UTC, addressed);
        Original::without(message, headers, remains).restore(&request)
    }

    #[test]
    fn a_message_can_be_put_together_again_from_its_request() {
        let date = |text| Some(Date::parse(text).unwrap());
        let text = |text: &str| Some(text.to_owned());
        let headers = TaskHeaders {
            shadow: text("other"),
            eta: date("2030-01-02T08:34:05+05:30"),
            expires: date("2030-01-02T03:04:05"),
            timelimit: TimeLimit { hard: Some(30.0), soft: Some(2.5) },
            retries: -1,
            group: text("g"),
            group_index: Some(3),
            root_id: text("root"),
            parent_id: text("parent"),
            argsrepr: "(1,)".to_owned(),
            kwargsrepr: "{}".to_owned(),
            origin: "gen1@host".to_owned(),
            ignore_result: Some(false),
            replaced_task_nesting: 2,
            stamped_headers: Some(vec!["stamp".into()]),
            stamps: Map::from_iter([("stamp", 1)]),
            extra: Map::from_iter([("tenant", "acme")]),
            ..TaskHeaders::new("t", "1")
        };
        let full = TaskMessage {
            headers,
            compression: Some(Compression::Zlib),
            reply_to: text("caller"),
            correlation_id: text("1"),
            ..TaskMessage::default()
        };
        let header = ArgsRef { task: "t".to_owned(), chord: "c".to_owned() };
        let gathered = TaskMessage {
            headers: TaskHeaders {
                extra: Map::from_iter([(ArgsRef::HEADER, header.into_value())]),
                ..TaskHeaders::new(GATHER, "1")
            },
            ..TaskMessage::default()
        };
        let least = TaskMessage { headers: TaskHeaders::new("t", "1"), ..TaskMessage::default() };
        for message in [full, gathered, least].map(|it| it.encode().unwrap()) {
            assert_eq!(through_a_request(message.clone()), message);
        }
    }
}
