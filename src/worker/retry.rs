//! Retries on their way: the same call once more, as its message and the task say. Pure but for the
//! clock.
//!
//! Whether there is a retry is decided by `task::retry`. **Invariant:** everything that somebody
//! relies on stays as it was: the id, the caller, the place in a workflow and what follows,
//! headers, stamps, priority, limits and the date of expiry.

use jiff::{SignedDuration, Timestamp};

use super::delay;
use super::effect::{Effect, Kind};
use super::gather;
use super::original::Original;
use crate::amqp::Publish;
use crate::client::delays::{self, Due};
use crate::protocol::{
    DecodeError, Error, Exception, Limits, Message, Properties, TaskMessage, Value, date, dead,
    repr,
};
use crate::task::{NewArguments, Request};

/// The call of a retry, which goes back to the queue that this one came from.
pub(super) fn again(
    original: Original,
    request: &Request,
    after: std::time::Duration,
    changed: Option<&NewArguments>,
) -> Result<Effect, Exception> {
    let now = Timestamp::now();
    let after = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
    // A date that no calendar has is as good as the last one that it has.
    let eta = now.checked_add(after).unwrap_or(Timestamp::MAX);
    let message = message(original.restore(request), request, eta, changed)?;
    let queue = request.delivery_info.queue.as_str();
    let publish = match (Due { eta: Some(eta), expires: request.expires }).wait(now) {
        Some(seconds) => delays::delayed(seconds, queue, message),
        None => Publish::new("", queue, message),
    };
    Ok(Effect::new(Kind::Step, publish))
}

/// A reference of the call itself, which Celery counts among the children of one that is retried.
pub(super) fn reference(request: &Request) -> Value {
    let id = Value::Array(vec![request.id.as_str().into(), Value::Null]);
    Value::Array(vec![id, Value::Null])
}

fn message(
    mut message: Message,
    request: &Request,
    eta: Timestamp,
    changed: Option<&NewArguments>,
) -> Result<Message, Exception> {
    delay::clean(&mut message);
    let is_current = message.header("task").is_some();
    if changed.is_some() || !is_current {
        message = rewritten(message, changed).map_err(|failed| {
            Exception::encode_error(format!("the retry cannot be written: {failed}"))
        })?;
    }
    let headers = message.properties.headers.get_or_insert_default();
    // Whoever was lost with this run, the next one is another.
    dead::strip(headers);
    headers.insert("retries", i64::from(request.retries).saturating_add(1));
    headers.insert("eta", date::format(eta));
    headers.insert("parent_id", request.id.as_str());
    Ok(message)
}

/// Why a message could not be written once more.
#[derive(Debug, thiserror::Error)]
enum Unwritable {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] Error),
}

/// The message with other arguments, in protocol version 2.
fn rewritten(message: Message, changed: Option<&NewArguments>) -> Result<Message, Unwritable> {
    // It was read before, within the same limits.
    let mut call = TaskMessage::decode(&message, &Limits::default())?;
    let NewArguments { args, kwargs } = changed.cloned().unwrap_or_default();
    if let Some(args) = args {
        gather::refer_no_more(&mut call.headers);
        call.headers.argsrepr = repr::args(&args);
        call.body.args = args;
    }
    if let Some(kwargs) = kwargs {
        call.headers.kwargsrepr = repr::kwargs(&kwargs);
        call.body.kwargs = kwargs;
    }
    let Properties { message_id, timestamp, kind, app_id, .. } = message.properties;
    let mut message = call.into_message()?;
    let own = &mut message.properties;
    (own.message_id, own.timestamp, own.kind, own.app_id) = (message_id, timestamp, kind, app_id);
    Ok(message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::amqp::topology;
    use crate::client::delays::is_delayed;
    use crate::protocol::join::{ArgsRef, GATHER};
    use crate::protocol::{
        Compression, Embed, Map, Serializer, Signature, TaskBody, TaskHeaders, TimeLimit,
    };
    use crate::task::DeliveryInfo;

    const SECOND: Duration = Duration::from_secs(1);

    fn call() -> TaskMessage {
        let stamps = Map::from_iter([("tenant", "acme")]);
        let headers = TaskHeaders {
            group: Some("g".into()),
            group_index: Some(3),
            root_id: Some("root".into()),
            parent_id: Some("parent".into()),
            origin: "gen1@host".into(),
            timelimit: TimeLimit { hard: Some(30.0), soft: None },
            retries: 1,
            stamps,
            extra: Map::from_iter([("own", "header")]),
            ..TaskHeaders::new("t", "1")
        };
        let embed = Embed {
            callbacks: Some(vec![Signature::new("callback")]),
            chain: Some(vec![Signature::new("next")]),
            ..Embed::default()
        };
        TaskMessage {
            headers,
            body: TaskBody { args: vec![Value::Int(1)], kwargs: Map::new(), embed },
            serializer: Serializer::Json,
            compression: Some(Compression::Zlib),
            priority: Some(7),
            reply_to: Some("caller".into()),
            correlation_id: Some("1".into()),
            expiration_ms: Some(9000),
            persistent: true,
        }
    }

    fn request(retries: u32) -> Request {
        let delivery_info = DeliveryInfo { queue: "q".into(), ..DeliveryInfo::default() };
        Request { id: "1".into(), retries, delivery_info, ..Request::default() }
    }

    fn retried(message: Message, after: Duration, changed: Option<&NewArguments>) -> Publish {
        let request = Request {
            reply_to: message.properties.reply_to.clone(),
            correlation_id: message.properties.correlation_id.clone(),
            ..request(1)
        };
        let original = Original::untouched(message);
        let effect = again(original, &request, after, changed).unwrap();
        assert_eq!(effect.kind, Kind::Step);
        Publish::clone(&effect.publish)
    }

    fn read(publish: &Publish) -> TaskMessage {
        TaskMessage::decode(&publish.message, &Limits::default()).unwrap()
    }

    #[test]
    fn a_retry_is_the_same_call_with_one_more_retry_and_a_date() {
        let mut message = call().encode().unwrap();
        message.properties.user_id = Some("sender".to_owned());
        let headers = message.properties.headers.as_mut().unwrap();
        headers.insert("x-death", vec![Value::from("trace")]);
        headers.insert("x-delivery-count", 2);
        headers.insert(dead::DELIVERIES, 2);
        let body = message.body.clone();
        let publish = retried(message, 60 * SECOND, None);
        assert_eq!(publish.message.body, body, "byte for byte");
        assert_eq!(publish.message.properties.user_id, None);
        let mut again = read(&publish);
        assert!(again.headers.eta.take().is_some());
        let mut expected = call();
        expected.headers.retries = 2;
        expected.headers.parent_id = Some("1".to_owned());
        expected.headers.compression = again.headers.compression.clone();
        expected.expiration_ms = None;
        assert_eq!(again, expected);
    }

    #[test]
    fn it_waits_in_the_delay_queues_or_in_the_worker() {
        let message = || call().encode().unwrap();
        let far = retried(message(), 60 * SECOND, None);
        assert!(is_delayed(&far) && far.routing_key.ends_with(".q"), "{far:?}");
        assert_eq!(far.exchange, topology::delay_exchange(5));
        let near = retried(message(), SECOND, None);
        assert_eq!((&*near.exchange, &*near.routing_key), ("", "q"));
        retried(message(), Duration::MAX, None);
    }

    #[test]
    fn other_arguments_take_the_place_of_the_old_ones() {
        let kwargs = Some(Map::from_iter([("y", 2)]));
        let changed = NewArguments { args: None, kwargs };
        let again = read(&retried(call().encode().unwrap(), SECOND, Some(&changed)));
        assert_eq!(again.body.args, [Value::Int(1)]);
        assert_eq!(again.headers.kwargsrepr, "{'y': 2}");
        assert_eq!(again.body.kwargs.get("y"), Some(&Value::Int(2)));
        assert_eq!(again.body.embed, call().body.embed);
        assert_eq!((again.compression, again.priority), (Some(Compression::Zlib), Some(7)));
    }

    #[test]
    fn a_body_with_references_keeps_them_unless_it_gets_another_list() {
        let mut message = call().encode().unwrap();
        gather::refer(&mut message, "c");
        let named = |publish: &Publish| {
            let headers = read(publish).headers;
            (headers.task, headers.extra.contains_key(ArgsRef::HEADER))
        };
        let kept = retried(message.clone(), SECOND, None);
        assert_eq!(named(&kept), (GATHER.to_owned(), true));
        let changed = NewArguments { args: Some(vec![Value::Int(3)]), kwargs: None };
        let other = retried(message, SECOND, Some(&changed));
        assert_eq!(named(&other), ("t".to_owned(), false));
    }

    #[test]
    fn a_message_of_protocol_1_is_retried_in_protocol_2() {
        let body = br#"{"task": "t", "id": "1", "args": [1], "kwargs": {}, "retries": 1}"#;
        let mut message = Message { body: body.to_vec(), ..Message::default() };
        message.properties.content_type = Some("application/json".to_owned());
        let again = read(&retried(message, SECOND, None));
        assert_eq!((again.headers.retries, &*again.headers.task), (2, "t"));
        assert_eq!(again.body.args, [Value::Int(1)]);
    }
}
