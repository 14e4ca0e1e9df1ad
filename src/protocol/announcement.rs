//! Messages that concern many and that nobody keeps for long: remote control and events.
//!
//! Knows how they are wrapped, not what they say. **Invariant:** reading is bounded by the limits
//! that the caller gives, and looks at the length before anything else.

use super::{Error, Limits, Map, Message, Properties, Serializer, Value};

/// The body, and how it was written.
///
/// # Errors
/// When nobody here knows its encoding, when it is larger than the limits, or is not in it.
pub(super) fn decode(message: &Message, limits: &Limits) -> Result<(Serializer, Value), Error> {
    let content_type = message.properties.content_type.as_deref().unwrap_or_default();
    let serializer = Serializer::from_content_type(content_type)
        .ok_or_else(|| Error::content_type(content_type))?;
    if message.body.len() > limits.bytes_max {
        return Err(Error::Limit { what: "bytes", max: limits.bytes_max });
    }
    serializer.decode(&message.body, limits).map(|body| (serializer, body))
}

/// A message with this body and these headers.
///
/// # Errors
/// When a value has no form in that encoding.
pub(super) fn encode(
    body: &Value,
    serializer: Serializer,
    headers: Map,
    delivery_mode: u8,
) -> Result<Message, Error> {
    let mut bytes = Vec::new();
    serializer.encode(body, &mut bytes)?;
    let properties = Properties {
        content_type: Some(serializer.content_type().to_owned()),
        content_encoding: Some(serializer.content_encoding().to_owned()),
        headers: Some(headers),
        delivery_mode: Some(delivery_mode),
        priority: Some(0),
        ..Properties::default()
    };
    Ok(Message { properties, body: bytes })
}
