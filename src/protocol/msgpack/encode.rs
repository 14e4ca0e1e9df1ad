//! The writer of MessagePack: straight into the output, without a copy of any value.

use rmp::Marker;

use super::{Error, Limits, Map, Value};
use crate::protocol::result::Part;

const FORMAT: &str = "msgpack";

pub(super) fn encode(value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    write(value, out, Limits::DEPTH_MAX)
}

/// Writes a task body, `[args, kwargs, embed]`, from its parts.
pub(in crate::protocol) fn encode_body(
    args: &[Value],
    kwargs: &Map,
    embed: &Map,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    out.push(Marker::FixArray(3).to_u8());
    array(args, out, Limits::DEPTH_MAX - 1)?;
    map(kwargs, out, Limits::DEPTH_MAX - 1)?;
    map(embed, out, Limits::DEPTH_MAX - 1)
}

/// Writes a map from entries that are borrowed.
pub(in crate::protocol) fn encode_entries(
    entries: &[(&str, Part<'_>)],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    map_length(entries.len(), out)?;
    for (key, part) in entries {
        text(key, out)?;
        match part {
            Part::Null => out.push(Marker::Null.to_u8()),
            Part::Text(content) => text(content, out)?,
            Part::Array(items) => array(items, out, Limits::DEPTH_MAX - 1)?,
            Part::Value(value) => write(value, out, Limits::DEPTH_MAX - 1)?,
        }
    }
    Ok(())
}

fn write(value: &Value, out: &mut Vec<u8>, depth_left: usize) -> Result<(), Error> {
    match value {
        Value::Null => out.push(Marker::Null.to_u8()),
        Value::Bool(true) => out.push(Marker::True.to_u8()),
        Value::Bool(false) => out.push(Marker::False.to_u8()),
        Value::Int(number) => signed(*number, out),
        Value::UInt(number) => unsigned(*number, out),
        Value::BigInt(_) => {
            return Err(Error::Unsupported { format: FORMAT, what: "an integer beyond 64 bits" });
        }
        Value::Float(number) => head(Marker::F64, &number.to_be_bytes(), out),
        Value::String(content) | Value::Tagged(_, content) => text(content, out)?,
        Value::Bytes(content) => bytes(content, out)?,
        Value::Array(items) => array(items, out, depth_left)?,
        Value::Map(entries) => map(entries, out, depth_left)?,
    }
    Ok(())
}

fn array(items: &[Value], out: &mut Vec<u8>, depth_left: usize) -> Result<(), Error> {
    let inner = deeper(depth_left)?;
    match (u8::try_from(items.len()), u16::try_from(items.len())) {
        (Ok(length @ 0..=15), _) => out.push(Marker::FixArray(length).to_u8()),
        (_, Ok(length)) => head(Marker::Array16, &length.to_be_bytes(), out),
        _ => head(Marker::Array32, &long(items.len())?, out),
    }
    items.iter().try_for_each(|item| write(item, out, inner))
}

fn map(entries: &Map, out: &mut Vec<u8>, depth_left: usize) -> Result<(), Error> {
    let inner = deeper(depth_left)?;
    map_length(entries.len(), out)?;
    for (key, value) in entries.iter() {
        text(key, out)?;
        write(value, out, inner)?;
    }
    Ok(())
}

fn map_length(length: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..=15), _) => out.push(Marker::FixMap(length).to_u8()),
        (_, Ok(length)) => head(Marker::Map16, &length.to_be_bytes(), out),
        _ => head(Marker::Map32, &long(length)?, out),
    }
    Ok(())
}

fn text(content: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(length @ 0..=31), _) => out.push(Marker::FixStr(length).to_u8()),
        (Ok(length), _) => head(Marker::Str8, &[length], out),
        (_, Ok(length)) => head(Marker::Str16, &length.to_be_bytes(), out),
        _ => head(Marker::Str32, &long(content.len())?, out),
    }
    out.extend_from_slice(content.as_bytes());
    Ok(())
}

fn bytes(content: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(length), _) => head(Marker::Bin8, &[length], out),
        (_, Ok(length)) => head(Marker::Bin16, &length.to_be_bytes(), out),
        _ => head(Marker::Bin32, &long(content.len())?, out),
    }
    out.extend_from_slice(content);
    Ok(())
}

fn unsigned(number: u64, out: &mut Vec<u8>) {
    if let Ok(small) = u8::try_from(number) {
        match small {
            0..=127 => out.push(small),
            _ => head(Marker::U8, &[small], out),
        }
    } else if let Ok(short) = u16::try_from(number) {
        head(Marker::U16, &short.to_be_bytes(), out);
    } else if let Ok(word) = u32::try_from(number) {
        head(Marker::U32, &word.to_be_bytes(), out);
    } else {
        head(Marker::U64, &number.to_be_bytes(), out);
    }
}

fn signed(number: i64, out: &mut Vec<u8>) {
    if let Ok(positive) = u64::try_from(number) {
        unsigned(positive, out);
    } else if let Ok(small) = i8::try_from(number) {
        match small {
            -32.. => out.push(Marker::FixNeg(small).to_u8()),
            _ => head(Marker::I8, &small.to_be_bytes(), out),
        }
    } else if let Ok(short) = i16::try_from(number) {
        head(Marker::I16, &short.to_be_bytes(), out);
    } else if let Ok(word) = i32::try_from(number) {
        head(Marker::I32, &word.to_be_bytes(), out);
    } else {
        head(Marker::I64, &number.to_be_bytes(), out);
    }
}

fn head(marker: Marker, payload: &[u8], out: &mut Vec<u8>) {
    out.push(marker.to_u8());
    out.extend_from_slice(payload);
}

fn long(length: usize) -> Result<[u8; 4], Error> {
    u32::try_from(length)
        .map(u32::to_be_bytes)
        .map_err(|_| Error::Limit { what: "bytes or elements", max: u32::MAX as usize })
}

fn deeper(depth_left: usize) -> Result<usize, Error> {
    depth_left
        .checked_sub(1)
        .ok_or(Error::Limit { what: "levels of nesting", max: Limits::DEPTH_MAX })
}
