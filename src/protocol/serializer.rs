//! The two serializers that are spoken: MessagePack and JSON.

use std::str::FromStr;

use super::{Error, Limits, Value, json, msgpack};

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Serializer {
    /// `application/x-msgpack`, the default.
    #[default]
    Msgpack,
    /// `application/json`, Celery's default.
    Json,
}

impl Serializer {
    /// Celery's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Msgpack => "msgpack",
            Self::Json => "json",
        }
    }

    /// The MIME type that messages carry.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Msgpack => "application/x-msgpack",
            Self::Json => "application/json",
        }
    }

    /// The content encoding that messages carry.
    pub const fn content_encoding(self) -> &'static str {
        match self {
            Self::Msgpack => "binary",
            Self::Json => "utf-8",
        }
    }

    /// Reads a content type: a MIME type or Celery's short name.
    ///
    /// `None` for everything else: pickle and yaml are refused on purpose.
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        match content_type {
            "application/x-msgpack" | "application/msgpack" | "msgpack" => Some(Self::Msgpack),
            "application/json" | "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Reads one value in this encoding.
    pub fn decode(self, bytes: &[u8], limits: &Limits) -> Result<Value, Error> {
        match self {
            Self::Msgpack => msgpack::decode(bytes, limits),
            Self::Json => json::decode(bytes, limits),
        }
    }

    /// Appends one value in this encoding.
    pub fn encode(self, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Msgpack => msgpack::encode(value, out),
            Self::Json => json::encode(value, out),
        }
    }
}

/// A serializer name that is not spoken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown serializer '{0}': use 'msgpack' or 'json'")]
pub struct UnknownSerializer(String);

impl FromStr for Serializer {
    type Err = UnknownSerializer;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::from_content_type(name).ok_or_else(|| UnknownSerializer(name.to_owned()))
    }
}
