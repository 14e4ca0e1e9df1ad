//! What a worker answers.

use super::request::decode_body;
use crate::protocol::fields::{self, short};
use crate::protocol::{Error, Map, Message, Properties, Serializer, Value, announcement, repr};

/// One worker's answer; a message may hold several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// The ticket of the request.
    pub ticket: Option<String>,
    /// Values by the names of the nodes.
    pub answers: Map,
}

impl Reply {
    /// The answer of the node `hostname`.
    pub fn of(hostname: &str, ticket: Option<String>, value: Value) -> Self {
        Self { ticket, answers: Map::from_iter([(hostname.to_owned(), value)]) }
    }

    /// Reads a message of a caller's reply queue.
    ///
    /// # Errors
    /// When the message is no reply, or larger than [`LIMITS`](super::LIMITS).
    pub fn decode(message: &Message) -> Result<Self, Error> {
        let ticket = message.header("ticket").cloned();
        let ticket = fields::text("ticket", ticket.unwrap_or_default())?;
        let (_, answers) = decode_body(message)?;
        Ok(Self { ticket, answers })
    }

    /// Writes the message, which is transient: nobody waits for it after a restart.
    ///
    /// # Errors
    /// When a value has no form in that encoding.
    pub fn encode(self, serializer: Serializer, clock: i64) -> Result<Message, Error> {
        let mut headers = Map::with_capacity(2);
        headers.push("clock", clock);
        if let Some(ticket) = self.ticket {
            short("ticket", &ticket)?;
            headers.push("ticket", ticket);
        }
        let answers = Value::Map(self.answers);
        announcement::encode(&answers, serializer, headers, Properties::TRANSIENT)
    }

    /// `{"ok": text}`.
    pub fn ok(text: impl Into<Value>) -> Value {
        Value::Map(Map::from_iter([("ok", text)]))
    }

    /// `{"error": text}`.
    pub fn error(text: impl Into<Value>) -> Value {
        Value::Map(Map::from_iter([("error", text)]))
    }

    /// The error of a Python exception with one text, as its `repr` shows it.
    pub fn exception(kind: &str, text: &str) -> Value {
        Self::error(format!("{kind}({})", repr::value(&text.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_look_as_python_shows_them() {
        let error = |value: Value| value.as_map()?.get("error")?.as_str().map(str::to_owned);
        let shown = error(Reply::exception("KeyError", "frobnicate"));
        assert_eq!(shown.as_deref(), Some("KeyError('frobnicate')"));
        let shown = error(Reply::exception("TypeError", "no 'x'"));
        assert_eq!(shown.as_deref(), Some("TypeError(\"no 'x'\")"));
    }

    #[test]
    fn a_reply_comes_back_as_it_was_in_both_encodings() {
        for serializer in [Serializer::Json, Serializer::Msgpack] {
            let reply = Reply::of("w1@h", Some("t".to_owned()), Reply::ok("pong"));
            let message = reply.clone().encode(serializer, 3).unwrap();
            assert_eq!(Reply::decode(&message).unwrap(), reply);
        }
    }
}
