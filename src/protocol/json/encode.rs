//! The writer of JSON: straight into the output, byte for byte as Python's `json.dumps`.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Error, Limits, Map, Value};
use crate::protocol::result::Part;
use crate::protocol::{Tag, float};

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
    out.push(b'[');
    array(args, out, Limits::DEPTH_MAX - 1)?;
    out.extend_from_slice(b", ");
    map(kwargs, out, Limits::DEPTH_MAX - 1)?;
    out.extend_from_slice(b", ");
    map(embed, out, Limits::DEPTH_MAX - 1)?;
    out.push(b']');
    Ok(())
}

/// Writes a map from entries that are borrowed.
pub(in crate::protocol) fn encode_entries(
    entries: &[(&str, Part<'_>)],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    out.push(b'{');
    for (at, (key, part)) in entries.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        text(key, out);
        out.extend_from_slice(b": ");
        match part {
            Part::Null => out.extend_from_slice(b"null"),
            Part::Text(content) => text(content, out),
            Part::Array(items) => array(items, out, Limits::DEPTH_MAX - 1)?,
            Part::Value(value) => write(value, out, Limits::DEPTH_MAX - 1)?,
        }
    }
    out.push(b'}');
    Ok(())
}

fn write(value: &Value, out: &mut Vec<u8>, depth_left: usize) -> Result<(), Error> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => display(number, out),
        Value::UInt(number) => display(number, out),
        Value::BigInt(digits) => big_int(digits, out)?,
        Value::Float(number) => float(*number, out),
        Value::String(content) => text(content, out),
        Value::Bytes(content) => bytes(content, out),
        Value::Array(items) => array(items, out, depth_left)?,
        Value::Map(entries) => map(entries, out, depth_left)?,
        Value::Tagged(tag, content) => tagged(*tag, content, out),
    }
    Ok(())
}

fn array(items: &[Value], out: &mut Vec<u8>, depth_left: usize) -> Result<(), Error> {
    let inner = deeper(depth_left)?;
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        write(item, out, inner)?;
    }
    out.push(b']');
    Ok(())
}

fn map(entries: &Map, out: &mut Vec<u8>, depth_left: usize) -> Result<(), Error> {
    let inner = deeper(depth_left)?;
    out.push(b'{');
    for (at, (key, value)) in entries.iter().enumerate() {
        entry(at, key, value, out, inner)?;
    }
    out.push(b'}');
    Ok(())
}

fn entry(
    at: usize,
    key: &str,
    value: &Value,
    out: &mut Vec<u8>,
    depth_left: usize,
) -> Result<(), Error> {
    if at > 0 {
        out.extend_from_slice(b", ");
    }
    text(key, out);
    out.extend_from_slice(b": ");
    write(value, out, depth_left)
}

fn text(content: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = content;
    while let Some(at) = rest.bytes().position(needs_escape) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        let mut characters = tail.chars();
        if let Some(character) = characters.next() {
            escape(character, out);
        }
        rest = characters.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

fn needs_escape(byte: u8) -> bool {
    !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\')
}

fn escape(character: char, out: &mut Vec<u8>) {
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                display(format_args!("\\u{unit:04x}"), out);
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn bytes(content: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(content) {
        Ok(plain) => marked("bytes", plain, out),
        Err(_) => marked("base64", &STANDARD.encode(content), out),
    }
}

fn tagged(tag: Tag, content: &str, out: &mut Vec<u8>) {
    let name = match tag {
        Tag::DateTime => "datetime",
        Tag::Date => "date",
        Tag::Time => "time",
        Tag::Decimal => "decimal",
        Tag::Uuid => {
            out.extend_from_slice(b"{\"__type__\": \"uuid\", \"__value__\": {\"hex\": ");
            text(content, out);
            out.extend_from_slice(b"}}");
            return;
        }
    };
    marked(name, content, out);
}

fn marked(name: &str, content: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"__type__\": ");
    text(name, out);
    out.extend_from_slice(b", \"__value__\": ");
    text(content, out);
    out.push(b'}');
}

fn float(number: f64, out: &mut Vec<u8>) {
    if number.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if number.is_infinite() {
        out.extend_from_slice(if number > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        display(float::Python(number), out);
    }
}

fn big_int(digits: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::malformed("an integer", digits));
    }
    out.extend_from_slice(digits.as_bytes());
    Ok(())
}

fn display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    // Writing into a vector has no way to fail.
    let _ = write!(out, "{value}");
}

fn deeper(depth_left: usize) -> Result<usize, Error> {
    depth_left
        .checked_sub(1)
        .ok_or(Error::Limit { what: "levels of nesting", max: Limits::DEPTH_MAX })
}
