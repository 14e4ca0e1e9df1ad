//! What a message looks like when it is parked in `<queue>.dead`: itself, and why it is there.

use crate::amqp::{Publish, topology};
use crate::protocol::{Map, Message, Value};
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
/// put back. Parked messages do not expire: the sender's `expiration` is taken off and kept in a
/// header. A header of an earlier parking is replaced.
pub(super) fn park(mut message: Message, reason: &Reason, request: &Request) -> Publish {
    let source = &request.delivery_info;
    let properties = &mut message.properties;
    let mut headers: Map = properties.headers.take().unwrap_or_default();
    // The broker refuses to route in circles what carries the trace of an earlier death.
    for trace in
        ["x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"]
    {
        headers.remove(trace);
    }
    let attempts = headers.get("x-delivery-count").and_then(Value::as_i64);
    let attempts = attempts.unwrap_or_else(|| source.redelivered.into()).saturating_add(1);
    headers.insert("dead_reason", reason.word);
    headers.insert("dead_error", shortened(&reason.error));
    headers.insert("dead_queue", source.queue.as_str());
    headers.insert("dead_exchange", source.exchange.as_str());
    headers.insert("dead_routing_key", source.routing_key.as_str());
    headers.insert("dead_worker", request.hostname.as_str());
    headers.insert("dead_attempts", attempts);
    headers.insert("dead_time", jiff::Timestamp::now().to_string());
    if let Some(expiration) = properties.expiration.take() {
        headers.insert("dead_expiration", expiration);
    }
    properties.headers = Some(headers);
    properties.delivery_mode = Some(2);
    Publish::new("", topology::parking_queue(&source.queue), message)
}

/// A header table must fit one AMQP frame, together with the sender's headers.
fn shortened(error: &str) -> String {
    const CHARS_MAX: usize = 1024;
    error.chars().take(CHARS_MAX).collect()
}
