//! The reader of JSON: total, bounded, and as tolerant as Python's `json.loads`.
//!
//! **Invariant:** `at` never passes the end of the text, and every byte is looked at a bounded
//! number of times.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{Error, FORMAT, Limits, Map, Value};
use crate::protocol::{Tag, error, keys};

/// Python refuses longer integers too, since reading them costs the square of their length.
const INTEGER_DIGITS_MAX: usize = 4300;

/// Standard base64, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Value, Error> {
    if bytes.len() > limits.bytes_max {
        return Err(Error::Limit { what: "bytes", max: limits.bytes_max });
    }
    let text = std::str::from_utf8(bytes).map_err(|problem| Error::Syntax {
        format: FORMAT,
        at: problem.valid_up_to(),
        problem: "text that is not UTF-8",
    })?;
    let mut reader =
        Reader { text, at: 0, items_left: limits.items_max, depth_left: limits.depth_max, limits };
    let value = reader.value()?;
    match reader.next_token() {
        None => Ok(value),
        Some(_) => Err(reader.syntax("text after the value")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    items_left: usize,
    depth_left: usize,
    limits: &'a Limits,
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Result<Value, Error> {
        let items_max = self.limits.items_max;
        self.items_left = self
            .items_left
            .checked_sub(1)
            .ok_or(Error::Limit { what: "values", max: items_max })?;
        let first = self.next_token().ok_or(Error::Truncated { format: FORMAT })?;
        match first {
            b'"' => self.string().map(|text| Value::String(text.into_owned())),
            b'[' => self.array(),
            b'{' => self.map(),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            b'N' => self.word("NaN", Value::Float(f64::NAN)),
            b'I' => self.word("Infinity", Value::Float(f64::INFINITY)),
            b'-' if self.rest().starts_with("-I") => {
                self.word("-Infinity", Value::Float(f64::NEG_INFINITY))
            }
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.syntax("no value")),
        }
    }

    fn array(&mut self) -> Result<Value, Error> {
        self.enter()?;
        self.at += 1;
        let mut items = Vec::new();
        if !self.ends(b']') {
            loop {
                items.push(self.value()?);
                if !self.goes_on(b']')? {
                    break;
                }
            }
        }
        self.depth_left += 1;
        Ok(Value::Array(items))
    }

    fn map(&mut self) -> Result<Value, Error> {
        self.enter()?;
        self.at += 1;
        let mut map = Map::new();
        if !self.ends(b'}') {
            loop {
                if self.next_token() != Some(b'"') {
                    return Err(self.syntax("no map key"));
                }
                let key = match self.string()? {
                    Cow::Borrowed(key) => keys::intern(key),
                    Cow::Owned(key) => Cow::Owned(key),
                };
                if self.next_token() != Some(b':') {
                    return Err(self.syntax("no colon after a map key"));
                }
                self.at += 1;
                map.push(key, self.value()?);
                if !self.goes_on(b'}')? {
                    break;
                }
            }
        }
        self.depth_left += 1;
        map.keep_last();
        unmark(map)
    }

    /// Whether the container ends before its first element; if so, steps over its end.
    fn ends(&mut self, end: u8) -> bool {
        let ends = self.next_token() == Some(end);
        self.at += usize::from(ends);
        ends
    }

    /// Steps over the comma or the end after an element; tells whether it was a comma.
    fn goes_on(&mut self, end: u8) -> Result<bool, Error> {
        let token = self.next_token().ok_or(Error::Truncated { format: FORMAT })?;
        if token != b',' && token != end {
            return Err(self.syntax("neither a comma nor an end"));
        }
        self.at += 1;
        Ok(token == b',')
    }

    /// The string that begins here, borrowed if nothing in it is escaped.
    fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.at += 1;
        let plain = self.run()?;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                // `run` stops at a quote or at a backslash only.
                _ => text.push(self.escape()?),
            }
            text.push_str(self.run()?);
        }
    }

    /// The characters up to the next quote or backslash.
    fn run(&mut self) -> Result<&'a str, Error> {
        let rest = self.rest();
        let stop = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        let run = stop.and_then(|stop| rest.get(..stop));
        let run = run.ok_or(Error::Truncated { format: FORMAT })?;
        self.at += run.len();
        match self.peek() {
            Some(b'"' | b'\\') => Ok(run),
            _ => Err(self.syntax("a control character in a string")),
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        self.at += 1;
        let letter = self.peek().ok_or(Error::Truncated { format: FORMAT })?;
        let character = match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => return self.unicode_escape(),
            _ => return Err(self.syntax("an unknown escape")),
        };
        self.at += 1;
        Ok(character)
    }

    /// `u` and four digits, twice for characters beyond the first 65,536.
    fn unicode_escape(&mut self) -> Result<char, Error> {
        let high = self.unit()?;
        let low = match high {
            0xd800..=0xdbff if self.rest().starts_with("\\u") => {
                self.at += 1;
                Some(self.unit()?)
            }
            _ => None,
        };
        let units = [high, low.unwrap_or_default()];
        let length = 1 + usize::from(low.is_some());
        let mut characters = char::decode_utf16(units.into_iter().take(length));
        match (characters.next(), characters.next()) {
            (Some(Ok(character)), None) => Ok(character),
            _ => Err(self.syntax("half a surrogate pair")),
        }
    }

    fn unit(&mut self) -> Result<u16, Error> {
        let digits = self.rest().get(1..5);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.syntax("a broken \\u escape"))?;
        self.at += 5;
        Ok(unit)
    }

    fn number(&mut self) -> Result<Value, Error> {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let whole = digits(rest, sign);
        let leading_zero = whole > 1 && rest.as_bytes().get(sign) == Some(&b'0');
        if whole == 0 || leading_zero {
            return Err(self.syntax("a broken number"));
        }
        let mut end = sign + whole;
        let fraction = match rest.as_bytes().get(end) {
            Some(b'.') => digits(rest, end + 1),
            _ => 0,
        };
        if fraction > 0 {
            end += 1 + fraction;
        }
        let exponent = exponent(rest, end);
        end += exponent;
        let text = rest.get(..end).unwrap_or_default();
        let value = if fraction > 0 || exponent > 0 {
            text.parse().ok().map(Value::Float)
        } else {
            integer(text)
        };
        let value = value.ok_or_else(|| self.syntax("a broken number"))?;
        self.at += end;
        Ok(value)
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, Error> {
        if !self.rest().starts_with(word) {
            return Err(self.syntax("no value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn enter(&mut self) -> Result<(), Error> {
        let max = self.limits.depth_max;
        self.depth_left = self
            .depth_left
            .checked_sub(1)
            .ok_or(Error::Limit { what: "levels of nesting", max })?;
        Ok(())
    }

    /// The next byte that is not white space, without stepping over it.
    fn next_token(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t'));
        self.at += blank.count();
        self.peek()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn syntax(&self, problem: &'static str) -> Error {
        Error::Syntax { format: FORMAT, at: self.at, problem }
    }
}

/// The number of digits from `start`.
fn digits(text: &str, start: usize) -> usize {
    let tail = text.as_bytes().get(start..).unwrap_or_default();
    tail.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// The length of the exponent that begins at `start`, or 0.
fn exponent(text: &str, start: usize) -> usize {
    let tail = text.as_bytes().get(start..).unwrap_or_default();
    let before_digits = match tail {
        [b'e' | b'E', b'+' | b'-', ..] => 2,
        [b'e' | b'E', ..] => 1,
        _ => return 0,
    };
    match digits(text, start + before_digits) {
        0 => 0,
        count => before_digits + count,
    }
}

fn integer(text: &str) -> Option<Value> {
    if let Ok(number) = text.parse::<i64>() {
        Some(Value::Int(number))
    } else if let Ok(number) = text.parse::<u64>() {
        Some(Value::UInt(number))
    } else if text.len() <= INTEGER_DIGITS_MAX {
        Some(Value::BigInt(text.to_owned()))
    } else {
        None
    }
}

/// Turns a map of exactly `__type__` and `__value__` into the value that it marks.
fn unmark(mut map: Map) -> Result<Value, Error> {
    if map.len() != 2 || !map.contains_key("__type__") || !map.contains_key("__value__") {
        return Ok(Value::Map(map));
    }
    let name = match map.remove("__type__") {
        Some(Value::String(name)) => name,
        other => return Err(Error::UnknownType(other.unwrap_or_default().kind().to_owned())),
    };
    let content = match (&*name, map.remove("__value__")) {
        (_, Some(Value::String(content))) => content,
        ("uuid", Some(Value::Map(mut fields))) => match fields.remove("hex") {
            Some(Value::String(hex)) => hex,
            other => return Err(not_text(&other.unwrap_or_default())),
        },
        (_, other) => return Err(not_text(&other.unwrap_or_default())),
    };
    Ok(match &*name {
        "datetime" => Value::Tagged(Tag::DateTime, content),
        "date" => Value::Tagged(Tag::Date, content),
        "time" => Value::Tagged(Tag::Time, content),
        "decimal" => Value::Tagged(Tag::Decimal, content),
        "uuid" => Value::Tagged(Tag::Uuid, uuid_hex(&content)?),
        "bytes" => Value::Bytes(content.into_bytes()),
        "base64" => match BASE64.decode(&content) {
            Ok(bytes) => Value::Bytes(bytes),
            Err(_) => return Err(Error::malformed("base64", &content)),
        },
        unknown => return Err(Error::UnknownType(error::excerpt(unknown))),
    })
}

fn uuid_hex(content: &str) -> Result<String, Error> {
    match uuid::Uuid::try_parse(content) {
        Ok(uuid) => Ok(uuid.simple().to_string()),
        Err(_) => Err(Error::malformed("a UUID", content)),
    }
}

fn not_text(found: &Value) -> Error {
    Error::Field { field: "__value__", expected: "text", found: found.kind() }
}
