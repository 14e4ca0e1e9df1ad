//! A message without its address: AMQP basic properties, headers and the bytes of the body.

use super::Map;

/// AMQP basic properties, with `None` for the ones that are absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// `utf-8` for JSON, `binary` for MessagePack.
    pub content_encoding: Option<String>,
    /// The header table; `None` is an absent table, which differs from an empty one.
    pub headers: Option<Map>,
    /// 2 is persistent, 1 transient.
    pub delivery_mode: Option<u8>,
    /// 0 to 255; higher first, where the queue knows priorities.
    pub priority: Option<u8>,
    /// Task id.
    pub correlation_id: Option<String>,
    /// Name of the caller's reply queue.
    pub reply_to: Option<String>,
    /// Milliseconds until the broker expires the message, in decimal digits.
    pub expiration: Option<String>,
    /// Free for the application.
    pub message_id: Option<String>,
    /// Seconds since the Unix epoch.
    pub timestamp: Option<u64>,
    /// AMQP's `type`.
    pub kind: Option<String>,
    /// Checked by the broker against the connection's user.
    pub user_id: Option<String>,
    /// Free for the application.
    pub app_id: Option<String>,
}

/// Properties and body: what is published, and what is delivered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Properties with the header table.
    pub properties: Properties,
    /// The encoded body, compressed where the headers say so.
    pub body: Vec<u8>,
}

impl Properties {
    /// The delivery mode of messages that survive a restart of the broker.
    pub const PERSISTENT: u8 = 2;

    /// The delivery mode of messages that live in memory only.
    pub const TRANSIENT: u8 = 1;

    /// The delivery mode for a message that is to survive a restart of the broker, or not.
    pub const fn delivery_mode(persistent: bool) -> u8 {
        if persistent { Self::PERSISTENT } else { Self::TRANSIENT }
    }

    /// The header `key`, if the table has it and it is not void.
    pub fn header(&self, key: &str) -> Option<&super::Value> {
        self.headers.as_ref()?.get(key).filter(|value| !value.is_null())
    }
}

impl Message {
    /// The header `key`, if the message has it and it is not void.
    pub fn header(&self, key: &str) -> Option<&super::Value> {
        self.properties.header(key)
    }
}
