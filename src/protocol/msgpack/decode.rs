//! The reader of MessagePack: total, bounded, and tolerant of what Python really sends.
//!
//! **Invariant:** memory is reserved only for values that the remaining bytes can still hold. Each
//! value takes one byte at least, so the values that all open containers still wait for (`owed`)
//! never exceed the bytes that are left; an announced length that breaks this ends the decoding
//! before anything is reserved for it.

use std::borrow::Cow;

use rmp::Marker;

use super::{Error, Limits, Map, Value};
use crate::protocol::{Tag, date, keys};

const FORMAT: &str = "msgpack";

/// How every group signature begins on the wire, after the map's header.
const GROUP_PREFIX: &[u8] = b"\xa4task\xaccelery.group";

/// The keys of a signature in the order in which Python writes them, as they are encoded.
const GROUP_KEYS: [&[u8]; 6] = [
    b"\xa4task",
    b"\xa4args",
    b"\xa6kwargs",
    b"\xa7options",
    b"\xacsubtask_type",
    b"\xa9immutable",
];

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Value, Error> {
    if bytes.len() > limits.bytes_max {
        return Err(Error::Limit { what: "bytes", max: limits.bytes_max });
    }
    let mut reader = Reader {
        rest: bytes,
        length: bytes.len(),
        owed: 0,
        items_left: limits.items_max,
        depth_left: limits.depth_max,
        limits,
    };
    let value = reader.value()?;
    if reader.rest.is_empty() { Ok(value) } else { Err(reader.syntax("bytes after the value")) }
}

struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
    owed: usize,
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
        let [marker] = self.number()?;
        // The only way down: what is on the stack here is there once for each level of nesting.
        match Marker::from_u8(marker) {
            Marker::FixArray(length) => self.array(length.into()),
            Marker::Array16 => self.length_16().and_then(|length| self.array(length)),
            Marker::Array32 => self.length_32().and_then(|length| self.array(length)),
            Marker::FixMap(length) => self.map(length.into()),
            Marker::Map16 => self.length_16().and_then(|length| self.map(length)),
            Marker::Map32 => self.length_32().and_then(|length| self.map(length)),
            scalar => self.scalar(scalar),
        }
    }

    fn scalar(&mut self, marker: Marker) -> Result<Value, Error> {
        Ok(match marker {
            Marker::Null => Value::Null,
            Marker::True => Value::Bool(true),
            Marker::False => Value::Bool(false),
            Marker::FixPos(number) => Value::Int(number.into()),
            Marker::FixNeg(number) => Value::Int(number.into()),
            Marker::U8 => Value::Int(u8::from_be_bytes(self.number()?).into()),
            Marker::U16 => Value::Int(u16::from_be_bytes(self.number()?).into()),
            Marker::U32 => Value::Int(u32::from_be_bytes(self.number()?).into()),
            Marker::U64 => u64::from_be_bytes(self.number()?).into(),
            Marker::I8 => Value::Int(i8::from_be_bytes(self.number()?).into()),
            Marker::I16 => Value::Int(i16::from_be_bytes(self.number()?).into()),
            Marker::I32 => Value::Int(i32::from_be_bytes(self.number()?).into()),
            Marker::I64 => Value::Int(i64::from_be_bytes(self.number()?)),
            Marker::F32 => Value::Float(f32::from_be_bytes(self.number()?).into()),
            Marker::F64 => Value::Float(f64::from_be_bytes(self.number()?)),
            Marker::FixStr(length) => self.text(length.into())?,
            Marker::Str8 => self.length_8().and_then(|length| self.text(length))?,
            Marker::Str16 => self.length_16().and_then(|length| self.text(length))?,
            Marker::Str32 => self.length_32().and_then(|length| self.text(length))?,
            Marker::Bin8 => self.length_8().and_then(|length| self.bytes(length))?,
            Marker::Bin16 => self.length_16().and_then(|length| self.bytes(length))?,
            Marker::Bin32 => self.length_32().and_then(|length| self.bytes(length))?,
            Marker::FixExt4 => self.timestamp(4)?,
            Marker::FixExt8 => self.timestamp(8)?,
            Marker::Ext8 => self.length_8().and_then(|length| self.timestamp(length))?,
            Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt16
            | Marker::Ext16
            | Marker::Ext32 => return Err(self.syntax("unknown extension type")),
            Marker::FixArray(_)
            | Marker::Array16
            | Marker::Array32
            | Marker::FixMap(_)
            | Marker::Map16
            | Marker::Map32
            | Marker::Reserved => return Err(self.syntax("reserved marker")),
        })
    }

    /// Text, or the raw bytes that old packers wrote with the same marker.
    fn text(&mut self, length: usize) -> Result<Value, Error> {
        let content = self.take(length)?;
        Ok(match std::str::from_utf8(content) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => Value::Bytes(content.to_vec()),
        })
    }

    fn bytes(&mut self, length: usize) -> Result<Value, Error> {
        self.take(length).map(|content| Value::Bytes(content.to_vec()))
    }

    fn array(&mut self, length: usize) -> Result<Value, Error> {
        self.owe(length)?;
        self.enter()?;
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            self.owed = self.owed.saturating_sub(1);
            items.push(self.value()?);
        }
        self.depth_left += 1;
        Ok(Value::Array(items))
    }

    fn map(&mut self, length: usize) -> Result<Value, Error> {
        if self.rest.starts_with(GROUP_PREFIX) {
            return self.group(length);
        }
        self.owe(length.saturating_mul(2))?;
        self.enter()?;
        let mut map = Map::with_capacity(length);
        for _ in 0..length {
            self.owed = self.owed.saturating_sub(2);
            self.entry(&mut map)?;
        }
        self.depth_left += 1;
        map.keep_last();
        Ok(Value::Map(map))
    }

    /// A map that begins as a group signature: its announced length may be a lie.
    ///
    /// As long as the keys are those of a signature, in their order, they are read whatever was
    /// announced. If they end before the sixth, the map is a well-formed one after all. Trying the
    /// announced length first would not do: a chord of five tasks whose body is a group of seven
    /// adds up, and decodes into something else.
    fn group(&mut self, announced: usize) -> Result<Value, Error> {
        self.enter()?;
        let mut map = Map::with_capacity(GROUP_KEYS.len());
        for key in GROUP_KEYS {
            if !self.rest.starts_with(key) {
                break;
            }
            self.entry(&mut map)?;
        }
        if map.len() < GROUP_KEYS.len() {
            for _ in map.len()..announced {
                self.entry(&mut map)?;
            }
        }
        self.depth_left += 1;
        map.keep_last();
        Ok(Value::Map(map))
    }

    fn entry(&mut self, map: &mut Map) -> Result<(), Error> {
        let key = self.key()?;
        let value = self.value()?;
        map.push(key, value);
        Ok(())
    }

    fn key(&mut self) -> Result<Cow<'static, str>, Error> {
        let [marker] = self.number()?;
        let length = match Marker::from_u8(marker) {
            Marker::FixStr(length) => length.into(),
            Marker::Str8 | Marker::Bin8 => self.length_8()?,
            Marker::Str16 | Marker::Bin16 => self.length_16()?,
            Marker::Str32 | Marker::Bin32 => self.length_32()?,
            _ => return Err(self.syntax("a map key that is not text")),
        };
        let content = self.take(length)?;
        match std::str::from_utf8(content) {
            Ok(text) => Ok(keys::intern(text)),
            Err(_) => Err(self.syntax("a map key that is not UTF-8")),
        }
    }

    /// The timestamp extension, type -1, in its three sizes.
    fn timestamp(&mut self, length: usize) -> Result<Value, Error> {
        let [kind] = self.number()?;
        if i8::from_be_bytes([kind]) != -1 {
            return Err(self.syntax("unknown extension type"));
        }
        let (second, nanosecond) = match length {
            4 => (i64::from(u32::from_be_bytes(self.number()?)), 0),
            8 => {
                // 30 bits of nanoseconds, then 34 bits of seconds.
                let both = u64::from_be_bytes(self.number()?);
                ((both & 0x3_ffff_ffff) as i64, (both >> 34) as u32)
            }
            12 => {
                let nanosecond = u32::from_be_bytes(self.number()?);
                (i64::from_be_bytes(self.number()?), nanosecond)
            }
            _ => return Err(self.syntax("a timestamp of unknown size")),
        };
        if nanosecond > 999_999_999 {
            return Err(self.syntax("a timestamp beyond its range"));
        }
        match jiff::Timestamp::new(second, nanosecond as i32) {
            Ok(at) => Ok(Value::Tagged(Tag::DateTime, date::format(at))),
            Err(_) => Err(self.syntax("a timestamp beyond its range")),
        }
    }

    /// Accounts for `count` more values, and refuses what the bytes cannot hold.
    fn owe(&mut self, count: usize) -> Result<(), Error> {
        self.owed = self.owed.saturating_add(count);
        if self.owed > self.rest.len() {
            return Err(Error::Truncated { format: FORMAT });
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Error> {
        let max = self.limits.depth_max;
        self.depth_left = self
            .depth_left
            .checked_sub(1)
            .ok_or(Error::Limit { what: "levels of nesting", max })?;
        Ok(())
    }

    fn length_8(&mut self) -> Result<usize, Error> {
        self.number().map(|[length]| length.into())
    }

    fn length_16(&mut self) -> Result<usize, Error> {
        self.number().map(|length| u16::from_be_bytes(length).into())
    }

    fn length_32(&mut self) -> Result<usize, Error> {
        self.number().map(|length| u32::from_be_bytes(length) as usize)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) =
            self.rest.split_first_chunk().ok_or(Error::Truncated { format: FORMAT })?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (head, rest) =
            self.rest.split_at_checked(length).ok_or(Error::Truncated { format: FORMAT })?;
        self.rest = rest;
        Ok(head)
    }

    fn syntax(&self, problem: &'static str) -> Error {
        Error::Syntax { format: FORMAT, at: self.length - self.rest.len(), problem }
    }
}
