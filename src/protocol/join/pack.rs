//! The body of a `pack`: many records in one message, so that a shard stays short.
//!
//! ```text
//! [["open", "<chord>", 0, bin], ["ok", "<chord>", 3, bin], ["err", "<chord>", 4, bin], ...]
//! ```
//!
//! `bin` is the body of the record that the entry stands for, byte by byte.

use super::link::chord_id;
use super::record::decode_value;
use crate::protocol::{Error, Limits, Map, Value, fields, msgpack};

/// What an entry of a pack stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A chord has begun.
    Open,
    /// A part has succeeded.
    Ok,
    /// A part has failed.
    Err,
    /// The time of a chord is over.
    Expire,
    /// A chord is revoked.
    Cancel,
}

/// One record within a pack.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it stands for.
    pub kind: EntryKind,
    /// Id of the chord.
    pub chord: String,
    /// Position in the header; 0 where there is none.
    pub index: u32,
    /// Body of the record.
    pub body: Vec<u8>,
}

impl EntryKind {
    /// The record's AMQP type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ok => "ok",
            Self::Err => "err",
            Self::Expire => "expire",
            Self::Cancel => "cancel",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "open" => Self::Open,
            "ok" => Self::Ok,
            "err" => Self::Err,
            "expire" => Self::Expire,
            "cancel" => Self::Cancel,
            _ => return None,
        })
    }
}

/// Writes the body of a pack; an entry is borrowed as kind, chord, index and body.
#[derive(Debug, Default)]
pub(crate) struct PackWriter {
    entries: Vec<u8>,
    count: usize,
}

impl PackWriter {
    pub(crate) fn push(&mut self, kind: EntryKind, chord: &str, index: u32, body: &[u8]) {
        self.entries.push(0x94);
        put_text(kind.as_str(), &mut self.entries);
        put_text(chord, &mut self.entries);
        self.entries.push(0xce);
        self.entries.extend_from_slice(&index.to_be_bytes());
        self.entries.push(0xc6);
        // Bodies come from messages, whose size AMQP clients and brokers keep far below 4 GiB.
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self.entries.extend_from_slice(&length.to_be_bytes());
        self.entries.extend_from_slice(body);
        self.count += 1;
    }

    /// Bytes that are written so far.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many bytes an entry takes.
    pub(crate) fn entry_len(kind: EntryKind, chord: &str, body: &[u8]) -> usize {
        1 + 1 + kind.as_str().len() + text_head_len(chord) + chord.len() + 5 + 5 + body.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.entries.len() + 5);
        body.push(0xdd);
        let count = u32::try_from(self.count).unwrap_or(u32::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        body.extend_from_slice(&self.entries);
        body
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    match u8::try_from(text.len()) {
        Ok(length @ 0..=31) => out.push(0xa0 | length),
        // Ids are at most 255 bytes long.
        length => out.extend_from_slice(&[0xd9, length.unwrap_or(u8::MAX)]),
    }
    out.extend_from_slice(text.as_bytes());
}

fn text_head_len(text: &str) -> usize {
    if text.len() <= 31 { 1 } else { 2 }
}

/// Reads the body of a pack. Values are checked, because they are spliced without another look.
pub(super) fn decode_entries(body: &[u8], limits: &Limits) -> Result<Vec<Entry>, Error> {
    match msgpack::decode(body, limits)? {
        Value::Array(items) => items.into_iter().map(|item| entry(item, limits)).collect(),
        other => Err(fields::wrong("pack", "a list", &other)),
    }
}

fn entry(item: Value, limits: &Limits) -> Result<Entry, Error> {
    let items = fields::array("entry of a pack", item)?.unwrap_or_default();
    let Ok([kind, chord, index, body]) = <[Value; 4]>::try_from(items) else {
        return Err(Error::Missing { field: "entry of a pack" });
    };
    let name = fields::text("kind", kind)?.unwrap_or_default();
    let kind = EntryKind::from_name(&name)
        .ok_or_else(|| Error::malformed("a record that a pack can hold", &name))?;
    let chord = chord_id("c", &Map::from_iter([("c", chord)]))?;
    let index = super::link::index("i", &Map::from_iter([("i", index)]))?;
    let body = match body {
        Value::Bytes(body) => body,
        other => return Err(fields::wrong("body", "bytes", &other)),
    };
    if kind == EntryKind::Ok {
        decode_value(&body, limits)?;
    }
    Ok(Entry { kind, chord, index, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let entry = |kind, chord: &str, index, body: &[u8]| Entry {
            kind,
            chord: chord.to_owned(),
            index,
            body: body.to_vec(),
        };
        vec![
            entry(EntryKind::Open, "c", 0, b"\x80"),
            entry(EntryKind::Ok, &"c".repeat(31), 3, b"\x05"),
            entry(EntryKind::Err, &"c".repeat(32), u32::MAX, b""),
            entry(EntryKind::Expire, &"c".repeat(255), 0, &[7; 300]),
            entry(EntryKind::Cancel, "ü", 0, b"\xc0"),
        ]
    }

    #[test]
    fn a_pack_reads_as_it_was_written() {
        let mut writer = PackWriter::default();
        assert!(writer.is_empty());
        for entry in entries() {
            let before = writer.len();
            writer.push(entry.kind, &entry.chord, entry.index, &entry.body);
            let length = PackWriter::entry_len(entry.kind, &entry.chord, &entry.body);
            assert_eq!(writer.len() - before, length);
        }
        assert_eq!(decode_entries(&writer.finish(), &Limits::default()), Ok(entries()));
    }

    #[test]
    fn a_pack_with_a_value_that_cannot_be_read_is_refused() {
        for (kind, body) in [(EntryKind::Ok, b"\x92\x01"), (EntryKind::Ok, b"\x01\x01")] {
            let mut writer = PackWriter::default();
            writer.push(kind, "c", 0, body);
            assert!(decode_entries(&writer.finish(), &Limits::default()).is_err());
        }
        for body in [&b"\x91\x90"[..], b"\x80", b"\x91\x94\xa4mark\xa1c\x00\xc4\x00", b""] {
            assert!(decode_entries(body, &Limits::default()).is_err());
        }
    }
}
