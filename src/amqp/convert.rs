//! Between our values and AMQP's: header tables and basic properties, both ways.
//!
//! Does not touch bodies. **Invariant:** nothing that comes from the wire or from a caller can
//! panic here or make a frame that the broker must answer by closing the connection.
//!
//! ```text
//! Null V | Bool t | Int I (32 bits) or l | Float d | String S | Bytes x | Array A | Map F
//! datetime T (whole seconds) | Decimal D (read only) | everything else is text, S
//! ```

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable, LongString, ShortString};

use super::error::Error;
use crate::protocol::{Map, Properties, Tag, Value, header_names};

/// Tables deeper than this are cut off when they are read.
const DEPTH_MAX: usize = 64;

/// The encoded size of a message's properties, counted while they are converted.
#[derive(Debug, Default)]
struct Size(usize);

/// A name as AMQP takes it: at most 255 bytes.
pub(super) fn short(what: &'static str, text: &str) -> Result<ShortString, Error> {
    ShortString::try_new(text).map_err(|_| Error::NameTooLong { what, len: text.len() })
}

/// Converts properties for publishing, with the size in bytes of the frame that carries them;
/// it is exact but for short numbers, which are counted as long ones.
///
/// ```text
/// type:1 channel:2 length:4 | class:2 weight:2 body size:8 flags:2 | fields | end:1
/// ```
pub(super) fn to_properties(from: &Properties) -> Result<(BasicProperties, usize), Error> {
    let mut size = Size(22);
    let mut to = BasicProperties::default();
    macro_rules! set {
        ($($field:ident as $what:literal => $with:ident;)*) => {$(
            if let Some(text) = &from.$field {
                size.0 += text.len() + 1;
                to = to.$with(short($what, text)?);
            }
        )*};
    }
    set! {
        content_type as "content type" => with_content_type;
        content_encoding as "content encoding" => with_content_encoding;
        correlation_id as "correlation id" => with_correlation_id;
        reply_to as "reply_to" => with_reply_to;
        expiration as "expiration" => with_expiration;
        message_id as "message id" => with_message_id;
        kind as "message type" => with_type;
        user_id as "user id" => with_user_id;
        app_id as "app id" => with_app_id;
    }
    if let Some(headers) = &from.headers {
        to = to.with_headers(table(headers, &mut size)?);
    }
    if let Some(delivery_mode) = from.delivery_mode {
        size.0 += 1;
        to = to.with_delivery_mode(delivery_mode);
    }
    if let Some(priority) = from.priority {
        size.0 += 1;
        to = to.with_priority(priority);
    }
    if let Some(timestamp) = from.timestamp {
        size.0 += 8;
        to = to.with_timestamp(timestamp);
    }
    Ok((to, size.0))
}

/// Converts the properties of a delivered message.
pub(super) fn from_properties(from: &BasicProperties) -> Properties {
    let text = |it: &Option<ShortString>| it.as_ref().map(|text| text.as_str().to_owned());
    Properties {
        content_type: text(from.content_type()),
        content_encoding: text(from.content_encoding()),
        headers: from.headers().as_ref().map(|headers| from_table(headers, DEPTH_MAX)),
        delivery_mode: *from.delivery_mode(),
        priority: *from.priority(),
        correlation_id: text(from.correlation_id()),
        reply_to: text(from.reply_to()),
        expiration: text(from.expiration()),
        message_id: text(from.message_id()),
        timestamp: *from.timestamp(),
        kind: text(from.kind()),
        user_id: text(from.user_id()),
        app_id: text(from.app_id()),
    }
}

/// Converts the arguments of a declaration, binding or consumer.
pub(super) fn arguments(map: &Map) -> Result<FieldTable, Error> {
    table(map, &mut Size::default())
}

fn table(map: &Map, size: &mut Size) -> Result<FieldTable, Error> {
    let mut to = Vec::with_capacity(map.len());
    size.0 += 4;
    for (key, value) in map.iter() {
        size.0 += key.len() + 1;
        to.push((short("a header's name", key)?, to_amqp(value, size)?));
    }
    // Made in one go: our own headers are sorted already, so nothing is looked for.
    Ok(FieldTable::from(BTreeMap::from_iter(to)))
}

fn to_amqp(value: &Value, size: &mut Size) -> Result<AMQPValue, Error> {
    size.0 += 1;
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(flag) => {
            size.0 += 1;
            AMQPValue::Boolean(*flag)
        }
        Value::Int(number) => {
            size.0 += 8;
            i32::try_from(*number).map_or(AMQPValue::LongLongInt(*number), AMQPValue::LongInt)
        }
        Value::Float(number) => {
            size.0 += 8;
            AMQPValue::Double(*number)
        }
        // AMQP has no letter for integers beyond 63 bits that every client reads alike.
        Value::UInt(number) => long(&number.to_string(), size),
        Value::BigInt(text) | Value::String(text) => long(text, size),
        Value::Tagged(Tag::DateTime, text) => {
            size.0 += 8;
            match seconds(text) {
                Some(seconds) => AMQPValue::Timestamp(seconds),
                None => long(text, size),
            }
        }
        Value::Tagged(_, text) => long(text, size),
        Value::Bytes(bytes) => {
            size.0 += bytes.len() + 4;
            AMQPValue::ByteArray(ByteArray::from(bytes.as_slice()))
        }
        Value::Array(items) => {
            size.0 += 4;
            let items: Result<Vec<_>, _> = items.iter().map(|item| to_amqp(item, size)).collect();
            AMQPValue::FieldArray(FieldArray::from(items?))
        }
        Value::Map(map) => AMQPValue::FieldTable(table(map, size)?),
    })
}

fn long(text: &str, size: &mut Size) -> AMQPValue {
    size.0 += text.len() + 4;
    AMQPValue::LongString(LongString::from(text))
}

/// Seconds since the epoch of an ISO 8601 text; one without offset is taken as UTC.
fn seconds(text: &str) -> Option<u64> {
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let naive = text.parse::<jiff::civil::DateTime>().ok()?;
        Some(naive.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })?;
    u64::try_from(timestamp.as_second()).ok()
}

fn from_table(table: &FieldTable, depth: usize) -> Map {
    let entries = table.inner().iter();
    entries.map(|(key, value)| (header_names::key(key.as_str()), from_amqp(value, depth))).collect()
}

fn from_amqp(value: &AMQPValue, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return Value::Null };
    match value {
        AMQPValue::Boolean(flag) => Value::Bool(*flag),
        AMQPValue::ShortShortInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::ShortShortUInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::ShortInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::ShortUInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::LongInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::LongUInt(number) => Value::Int(i64::from(*number)),
        AMQPValue::LongLongInt(number) => Value::Int(*number),
        AMQPValue::Float(number) => Value::Float(f64::from(*number)),
        AMQPValue::Double(number) => Value::Float(*number),
        AMQPValue::DecimalValue(decimal) => {
            Value::Tagged(Tag::Decimal, decimal_text(decimal.value, decimal.scale))
        }
        AMQPValue::ShortString(text) => Value::String(text.as_str().to_owned()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => Value::Bytes(text.as_bytes().to_vec()),
        },
        AMQPValue::FieldArray(items) => {
            Value::Array(items.as_slice().iter().map(|item| from_amqp(item, depth)).collect())
        }
        AMQPValue::Timestamp(seconds) => from_seconds(*seconds),
        AMQPValue::FieldTable(table) => Value::Map(from_table(table, depth)),
        AMQPValue::ByteArray(bytes) => Value::Bytes(bytes.as_slice().to_vec()),
        AMQPValue::Void => Value::Null,
    }
}

fn from_seconds(seconds: u64) -> Value {
    let timestamp = i64::try_from(seconds).ok();
    match timestamp.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
        Some(timestamp) => {
            let text = timestamp.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string();
            Value::Tagged(Tag::DateTime, text)
        }
        None => Value::from(seconds),
    }
}

fn decimal_text(value: u32, scale: u8) -> String {
    let digits = format!("{value:0>width$}", width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(value: &Value) -> Value {
        from_amqp(&to_amqp(value, &mut Size::default()).unwrap(), DEPTH_MAX)
    }

    #[test]
    fn values_come_back_as_they_went() {
        let mut map = Map::new();
        map.push("a", Value::Array(vec![Value::Null, Value::Bool(true)]));
        map.push("b", "text");
        for value in [
            Value::Int(1),
            Value::Int(i64::MIN),
            Value::Float(0.5),
            Value::String("ü".to_owned()),
            Value::Bytes(vec![0, 255]),
            Value::Tagged(Tag::DateTime, "2026-11-22T11:08:56+00:00".to_owned()),
            Value::Map(map),
        ] {
            assert_eq!(round_trip(&value), value);
        }
    }

    #[test]
    fn what_amqp_cannot_hold_becomes_text() {
        assert_eq!(round_trip(&Value::UInt(u64::MAX)), Value::from(u64::MAX.to_string()));
        assert_eq!(round_trip(&Value::Tagged(Tag::Uuid, "ab".to_owned())), Value::from("ab"));
        let date = Value::Tagged(Tag::DateTime, "soon".to_owned());
        assert_eq!(round_trip(&date), Value::from("soon"));
    }

    #[test]
    fn integers_take_the_letter_that_celery_takes() {
        let letter = |number: i64| to_amqp(&Value::Int(number), &mut Size::default()).unwrap();
        assert_eq!(letter(i64::from(i32::MAX)), AMQPValue::LongInt(i32::MAX));
        assert_eq!(letter(1 << 31), AMQPValue::LongLongInt(1 << 31));
    }

    #[test]
    fn text_that_is_not_utf8_is_read_as_bytes() {
        let raw = AMQPValue::LongString(LongString::from(vec![0xff, 0xfe]));
        assert_eq!(from_amqp(&raw, DEPTH_MAX), Value::Bytes(vec![0xff, 0xfe]));
    }

    #[test]
    fn decimals_are_read_as_text() {
        assert_eq!(decimal_text(12345, 2), "123.45");
        assert_eq!(decimal_text(5, 2), "0.05");
        assert_eq!(decimal_text(5, 0), "5");
    }

    #[test]
    fn a_table_that_is_too_deep_is_cut_off() {
        let mut value = AMQPValue::Void;
        for _ in 0..DEPTH_MAX * 2 {
            value = AMQPValue::FieldArray(FieldArray::from(vec![value]));
        }
        let mut cut = from_amqp(&value, DEPTH_MAX);
        let mut depth = 0;
        while let Value::Array(mut items) = cut {
            cut = items.pop().unwrap_or_default();
            depth += 1;
        }
        assert_eq!(depth, DEPTH_MAX);
    }

    #[test]
    fn names_that_are_too_long_are_refused() {
        let properties = Properties { reply_to: Some("x".repeat(256)), ..Default::default() };
        let error = to_properties(&properties).unwrap_err();
        assert_eq!(error.to_string(), "reply_to has 256 bytes, and AMQP allows 255");
        let mut headers = Map::new();
        headers.push("k".repeat(300), 1_i64);
        let properties = Properties { headers: Some(headers), ..Default::default() };
        assert!(to_properties(&properties).is_err());
    }

    #[test]
    fn properties_come_back_as_they_went() {
        let mut headers = Map::new();
        headers.push("id", "x");
        let properties = Properties {
            content_type: Some("application/json".to_owned()),
            headers: Some(headers),
            delivery_mode: Some(2),
            priority: Some(0),
            timestamp: Some(7),
            kind: Some("t".to_owned()),
            ..Default::default()
        };
        let (converted, size) = to_properties(&properties).unwrap();
        assert_eq!(from_properties(&converted), properties);
        assert!(size > 20);
    }
}
