//! One parked message, as people see it. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::amqp::topology::{dead_queue, parking_queue};
use crate::protocol::join::{ArgsRef, GATHER};
use crate::protocol::{Limits, Map, Message, TaskMessage, Value, dead};

/// A message in a parking queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    parking: String,
    message: Message,
}

impl Parked {
    /// `message`, found in the queue `parking`.
    pub fn new(parking: impl Into<String>, message: Message) -> Self {
        Self { parking: parking.into(), message }
    }

    /// The message as it lies there.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The task's id.
    pub fn id(&self) -> Option<&str> {
        self.text("id").or(self.message.properties.correlation_id.as_deref())
    }

    /// The task's name; that of the task itself for a body whose results are parked.
    pub fn task(&self) -> Option<&str> {
        let named = self.text("task")?;
        let header = || self.message.header(ArgsRef::HEADER)?.as_map()?.get("task")?.as_str();
        Some(if named == GATHER { header().unwrap_or(named) } else { named })
    }

    /// Why it was parked, in a word.
    pub fn reason(&self) -> Option<&str> {
        self.text(dead::REASON)
    }

    /// Why it was parked.
    pub fn error(&self) -> Option<&str> {
        self.text(dead::ERROR)
    }

    /// When it was parked.
    pub fn time(&self) -> Option<Timestamp> {
        self.text(dead::TIME)?.parse().ok()
    }

    /// The queue that it was in; `None` if it was in none.
    pub fn queue(&self) -> Option<&str> {
        // Headers that did not fit are missing; the name of the queue says as much.
        let queue = self.text(dead::QUEUE).or_else(|| {
            self.parking.strip_suffix(&*parking_queue("")).filter(|name| !name.is_empty())
        });
        queue.filter(|queue| *queue != dead_queue())
    }

    /// The message as its sender wrote it, for another try; its `expiration` begins anew, unless
    /// it was parked because that was over. Without `user_id`: only the sender's own user may say
    /// that.
    pub fn revived(&self) -> Message {
        let mut message = self.message.clone();
        let is_expired = self.reason() == Some("expired");
        message.properties.expiration =
            self.text(dead::EXPIRATION).filter(|_| !is_expired).map(str::to_owned);
        if let Some(headers) = &mut message.properties.headers {
            dead::revive(headers);
        }
        message
    }

    /// What fits a line: id, task, reason, and where and when.
    pub fn summary(&self) -> Map {
        let mut map = Map::with_capacity(10);
        map.push("id", self.id());
        map.push("task", self.task());
        map.push("reason", self.reason());
        map.push("error", self.error());
        map.push("time", self.text(dead::TIME));
        map.push("queue", self.queue());
        map.push("parking_queue", self.parking.as_str());
        map.push("worker", self.text(dead::WORKER));
        map.push("attempts", self.message.header(dead::ATTEMPTS).cloned());
        map.push("body_bytes", self.message.body.len() as u64);
        map
    }

    /// Everything: also headers, properties, the arguments if they can be read, and the bytes.
    pub fn export(&self) -> Map {
        let mut map = self.summary();
        let decoded = TaskMessage::decode(&self.message, &Limits::default());
        let (args, kwargs) = match decoded {
            Ok(call) => (Value::Array(call.body.args), Value::Map(call.body.kwargs)),
            Err(_) => (Value::Null, Value::Null),
        };
        let properties = &self.message.properties;
        map.push("args", args);
        map.push("kwargs", kwargs);
        map.push("exchange", self.text(dead::EXCHANGE));
        map.push("routing_key", self.text(dead::ROUTING_KEY));
        map.push("content_type", properties.content_type.as_deref());
        map.push("content_encoding", properties.content_encoding.as_deref());
        map.push("reply_to", properties.reply_to.as_deref());
        map.push("correlation_id", properties.correlation_id.as_deref());
        map.push("priority", properties.priority.map(i64::from));
        map.push("headers", properties.headers.clone().map_or(Value::Null, Value::Map));
        map.push("body_base64", STANDARD.encode(&self.message.body));
        map
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.message.header(name).and_then(Value::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(headers: &[(&'static str, &str)]) -> Parked {
        let mut message = Message { body: b"hello".to_vec(), ..Message::default() };
        message.properties.headers = Some(headers.iter().copied().collect());
        Parked::new("mail.dead", message)
    }

    #[test]
    fn a_message_knows_where_it_came_from_also_without_headers() {
        assert_eq!(parked(&[("dead_queue", "other")]).queue(), Some("other"));
        assert_eq!(parked(&[]).queue(), Some("mail"));
        assert_eq!(parked(&[("dead_queue", "celeriac.dead-letters")]).queue(), None);
        assert_eq!(Parked::new("celeriac.dead-letters.dead", Message::default()).queue(), None);
    }

    #[test]
    fn a_body_whose_results_are_parked_has_the_name_of_its_task() {
        let mut body = parked(&[("task", GATHER)]);
        assert_eq!(body.task(), Some(GATHER));
        let header = ArgsRef { task: "sum".to_owned(), chord: "c".to_owned() };
        let headers = body.message.properties.headers.as_mut().unwrap();
        headers.insert(ArgsRef::HEADER, header.into_value());
        assert_eq!(body.task(), Some("sum"));
        assert_eq!(parked(&[("task", "other")]).task(), Some("other"));
    }

    #[test]
    fn what_is_revived_has_the_sender_s_headers_only() {
        let parked = parked(&[("id", "1"), ("dead_reason", "body"), ("x-delivery-count", "3")]);
        let revived = parked.revived();
        assert_eq!(revived.properties.headers, Some(Map::from_iter([("id", "1")])));
        assert_eq!(revived.body, b"hello");
    }

    #[test]
    fn what_is_revived_expires_as_its_sender_wanted() {
        let story = |reason| [("dead_expiration", "60000"), ("dead_reason", reason)];
        let again = parked(&story("unknown-task")).revived();
        assert_eq!(again.properties.expiration.as_deref(), Some("60000"));
        assert_eq!(parked(&story("expired")).revived().properties.expiration, None);
    }

    #[test]
    fn what_is_no_task_is_exported_as_bytes() {
        let export = parked(&[("dead_reason", "body")]).export();
        assert_eq!(export.get("body_base64").and_then(Value::as_str), Some("aGVsbG8="));
        assert_eq!(export.get("args"), Some(&Value::Null));
        assert_eq!(export.get("reason").and_then(Value::as_str), Some("body"));
    }
}
