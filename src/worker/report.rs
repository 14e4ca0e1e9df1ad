//! Reports to the caller: which are wanted, what is in them, and where they go.

use jiff::Timestamp;
use tracing::error;

use crate::amqp::Publish;
use crate::client::Config;
use crate::protocol::{Exception, Map, ResultMeta, TaskState, Value, date};
use crate::results::reply;
use crate::task::Request;

/// The message that tells the caller of `request`; `None` if the caller wants no such report.
///
/// A value that the serializer cannot write becomes a failure, which it can.
pub(super) fn report(request: &Request, mut meta: ResultMeta, config: &Config) -> Option<Publish> {
    let reply_to = request.reply_to.as_deref().filter(|reply_to| !reply_to.is_empty())?;
    if !is_wanted(request, &meta.status, config) {
        return None;
    }
    complete(&mut meta, request);
    if config.result_extended {
        extend(&mut meta, request);
    }
    let serializer = config.result_serializer.unwrap_or(request.serializer);
    let correlation_id = request.correlation_id.as_deref().unwrap_or(&request.id);
    let encode =
        |meta: &ResultMeta| meta.encode(serializer, correlation_id, config.result_persistent);
    let message = encode(&meta).or_else(|failed| {
        meta.status = TaskState::Failure;
        meta.result = Exception::encode_error(failed.to_string()).into_value();
        meta.extra = Map::new();
        encode(&meta)
    });
    match message {
        Ok(message) => Some(reply::publish(reply_to, message)),
        Err(failed) => {
            let failed: &dyn std::error::Error = &failed;
            error!(task_id = request.id, error = failed, "result cannot be written");
            None
        }
    }
}

fn is_wanted(request: &Request, status: &TaskState, config: &Config) -> bool {
    let error_is_wanted = config.task_store_errors_even_if_ignored && *status == TaskState::Failure;
    !request.id.is_empty() && (!request.ignore_result || error_is_wanted)
}

/// Adds what every report carries.
fn complete(meta: &mut ResultMeta, request: &Request) {
    meta.group_id.clone_from(&request.group);
    meta.parent_id.clone_from(&request.parent_id);
    meta.children.get_or_insert_default();
    if meta.status.is_ready() {
        meta.date_done = Some(date::format(Timestamp::now()));
    }
}

/// Adds what `result_extended` asks for.
fn extend(meta: &mut ResultMeta, request: &Request) {
    meta.extra.insert("name", request.task.as_str());
    meta.extra.insert("args", request.argsrepr.as_str());
    meta.extra.insert("kwargs", request.kwargsrepr.as_str());
    meta.extra.insert("worker", request.hostname.as_str());
    meta.extra.insert("retries", Value::Int(request.retries.into()));
    meta.extra.insert("queue", request.delivery_info.queue.as_str());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request { id: "1".into(), reply_to: Some("caller".into()), ..Request::default() }
    }

    #[test]
    fn who_asked_for_nothing_gets_nothing() {
        let wanted = |request: &Request, meta: ResultMeta, config: &Config| {
            report(request, meta, config).is_some()
        };
        let success = || ResultMeta::success("1", Value::Int(4));
        let failure = || ResultMeta::failure("1", Exception::type_error("no"));
        let config = Config::default();
        let ignored = Request { ignore_result: true, ..request() };
        assert!(wanted(&request(), success(), &config));
        assert!(!wanted(&ignored, success(), &config));
        assert!(!wanted(&ignored, failure(), &config));
        assert!(!wanted(&Request { reply_to: None, ..request() }, success(), &config));
        let mut config = config;
        config.task_store_errors_even_if_ignored = true;
        assert!(wanted(&ignored, failure(), &config));
        assert!(!wanted(&ignored, success(), &config));
    }

    #[test]
    fn a_value_that_cannot_be_written_becomes_a_failure() {
        let meta = ResultMeta::success("1", Value::BigInt("1".repeat(40)));
        let publish = report(&request(), meta, &Config::default()).unwrap();
        let limits = crate::protocol::Limits::default();
        let meta = ResultMeta::decode(&publish.message, &limits).unwrap();
        assert_eq!(meta.status, TaskState::Failure);
        let exception = Exception::from_value(&meta.result).unwrap();
        assert_eq!(exception.exc_type, "EncodeError");
    }
}
