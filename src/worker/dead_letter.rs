//! What a message looks like when it is parked in `<queue>.dead`: itself, and why it is there.

use tracing::error;

use crate::amqp::{Publish, topology};
use crate::protocol::dead::{self, Death};
use crate::protocol::{Map, Message, Properties, Value};
use crate::task::Request;

/// Why a message was parked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// A short word for filters: `unknown-task`, `content-type`, `body`, `rejected`, …
    pub(super) word: &'static str,
    /// The whole story for people.
    pub(super) error: String,
}

/// Addresses `message` to the parking queue with the reason in its headers.
///
/// The body and everything that the sender wrote stay as they are, so that the message can be
/// put back. Parked messages do not expire and are the worker's own: the sender's `expiration` and
/// `user_id` are taken off and kept in headers. A header of an earlier parking is replaced.
///
/// All headers travel in one frame. Where the sender's leave no room, `fits` says so, and ours are
/// cut down to the reason, then left out. A message that was delivered fits without them, unless
/// the broker or the conversion of a type made it larger; only then are the sender's largest
/// headers left out, because a message that cannot be parked would come back for ever.
pub(super) fn park(
    mut message: Message,
    reason: &Reason,
    request: &Request,
    fits: impl Fn(&Properties) -> bool,
) -> Publish {
    let properties = &mut message.properties;
    let mut own: Map = properties.headers.take().unwrap_or_default();
    let expiration = properties.expiration.take();
    let mut story = story(reason, request, &own, expiration);
    // The broker refuses to route in circles what carries the trace of an earlier death.
    dead::strip(&mut own);
    // The broker refuses the name of another user than the one who publishes.
    if let Some(user_id) = properties.user_id.take() {
        story.insert(dead::USER_ID, user_id);
    }
    properties.delivery_mode = Some(Properties::PERSISTENT);
    let brief = Map::from_iter([(dead::REASON, Value::from(reason.word))]);
    let mut try_with = |own: &Map, added: &Map| {
        let mut headers = own.clone();
        added.iter().for_each(|(key, value)| headers.insert(key.to_owned(), value.clone()));
        properties.headers = Some(headers);
        fits(properties)
    };
    if ![&story, &brief, &Map::new()].iter().any(|added| try_with(&own, added)) {
        let mut kept: Vec<(&str, &Value)> = own.iter().collect();
        kept.sort_by_key(|(key, value)| key.len() + weight(value));
        let owned = |(key, value): &(&str, &Value)| ((*key).to_owned(), (*value).clone());
        let first = |count: usize| kept.iter().take(count).map(owned).collect::<Map>();
        let counts: Vec<usize> = (0..=kept.len()).collect();
        // The largest count that fits; with nothing kept, nothing but the body is left to fit.
        let count = counts.partition_point(|count| try_with(&first(*count), &brief));
        try_with(&first(count.saturating_sub(1)), &brief);
        let dropped: Vec<&str> =
            kept.iter().skip(count.saturating_sub(1)).map(|(key, _)| *key).collect();
        error!(task_id = request.id, ?dropped, "headers left out, they do not fit a frame");
    }
    Publish::new("", topology::parking_queue(&request.delivery_info.queue), message)
}

/// The headers that tell why, where and when.
fn story(reason: &Reason, request: &Request, own: &Map, expiration: Option<String>) -> Map {
    let source = &request.delivery_info;
    // One that died in the broker is here for the count of another queue.
    let deliveries = match Death::last(own) {
        Some(_) => own.get(dead::DELIVERIES).and_then(Value::as_i64),
        None => dead::deliveries(own).and_then(|count| i64::try_from(count).ok()),
    };
    let attempts = deliveries.unwrap_or_else(|| source.redelivered.into()).saturating_add(1);
    let mut story = Map::new();
    story.insert(dead::REASON, reason.word);
    story.insert(dead::ERROR, shortened(&reason.error));
    story.insert(dead::QUEUE, source.queue.as_str());
    story.insert(dead::EXCHANGE, source.exchange.as_str());
    story.insert(dead::ROUTING_KEY, source.routing_key.as_str());
    story.insert(dead::WORKER, request.hostname.as_str());
    story.insert(dead::ATTEMPTS, attempts);
    story.insert(dead::TIME, jiff::Timestamp::now().to_string());
    if let Some(expiration) = expiration {
        story.insert(dead::EXPIRATION, expiration);
    }
    story
}

/// Roughly the bytes of a header's value.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) | Value::BigInt(text) | Value::Tagged(_, text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Map(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => 9,
    }
}

/// A header table must fit one AMQP frame, together with the sender's headers.
fn shortened(error: &str) -> String {
    const CHARS_MAX: usize = 1024;
    error.chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of a message with headers of these sizes, parked where a frame takes `max`.
    fn parked(sizes: &[usize], max: usize) -> Map {
        let names = ["a", "b", "c"];
        let of = |size: &usize| Value::from("x".repeat(*size));
        let headers: Map = names.into_iter().zip(sizes.iter().map(of)).collect();
        let mut message = Message { body: b"body".to_vec(), ..Message::default() };
        message.properties.headers = Some(headers);
        message.properties.expiration = Some("1000".to_owned());
        message.properties.user_id = Some("sender".to_owned());
        let reason = Reason { word: "body", error: "it is not a task".to_owned() };
        let size = |headers: &Map| {
            headers.iter().map(|(key, value)| key.len() + weight(value)).sum::<usize>()
        };
        let fits = |properties: &Properties| properties.headers.as_ref().map(size) <= Some(max);
        let publish = park(message, &reason, &Request::default(), fits);
        assert_eq!(publish.message.body, b"body");
        assert_eq!(publish.message.properties.expiration, None);
        assert_eq!(publish.message.properties.user_id, None);
        publish.message.properties.headers.unwrap()
    }

    #[test]
    fn the_reason_takes_only_the_room_that_the_sender_leaves() {
        let keys =
            |headers: &Map| headers.iter().map(|(key, _)| key.to_owned()).collect::<Vec<_>>();
        let all = parked(&[100, 200, 300], 10_000);
        assert_eq!(all.len(), 3 + 10);
        assert_eq!(all.get("dead_user_id").and_then(Value::as_str), Some("sender"));
        assert_eq!(all.get("dead_expiration").and_then(Value::as_str), Some("1000"));
        assert_eq!(keys(&parked(&[100, 200, 300], 650)), ["a", "b", "c", "dead_reason"]);
        assert_eq!(keys(&parked(&[100, 200, 300], 603)), ["a", "b", "c"]);
        assert_eq!(keys(&parked(&[100, 300, 200], 602)), ["a", "c", "dead_reason"]);
        assert_eq!(keys(&parked(&[100, 300, 200], 20)), ["dead_reason"]);
    }
}
