//! The body of a `pack`: many records in one message, so that a shard stays short.
//!
//! ```text
//! [["open", "<chord>", 0, bin], ["ok", "<chord>", 3, bin], ["err", "<chord>", [3, 1], bin],
//!  ["ok", "<chord>", 4, bin, 2], ...]
//! ```
//!
//! `bin` is the body of the record that the entry stands for, byte by byte. The fifth element is
//! how many parts the part has added, if any.

use super::link::{chord_id, place};
use super::place::{ADDED_MAX, Place};
use super::record::decode_value;
use super::reference::Reference;
use crate::protocol::{Error, Limits, Map, Value, fields, msgpack};

/// What an entry of a pack stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A chord has begun.
    Open,
    /// A part has succeeded.
    Ok,
    /// A part has succeeded, and its value is parked.
    Ref,
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
    /// Place of the part; that of the first where there is none.
    pub index: Place,
    /// How many parts the part has added.
    pub adds: u32,
    /// Body of the record.
    pub body: Vec<u8>,
}

impl EntryKind {
    /// The record's AMQP type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ok => "ok",
            Self::Ref => "ref",
            Self::Err => "err",
            Self::Expire => "expire",
            Self::Cancel => "cancel",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "open" => Self::Open,
            "ok" => Self::Ok,
            "ref" => Self::Ref,
            "err" => Self::Err,
            "expire" => Self::Expire,
            "cancel" => Self::Cancel,
            _ => return None,
        })
    }
}

/// Which record of a chord an entry stands for.
#[derive(Clone, Debug)]
pub(crate) struct Entitled {
    pub(crate) kind: EntryKind,
    pub(crate) index: Place,
    pub(crate) adds: u32,
}

/// Writes the body of a pack.
#[derive(Debug, Default)]
pub(crate) struct PackWriter {
    entries: Vec<u8>,
    count: usize,
}

impl PackWriter {
    pub(crate) fn push(&mut self, title: &Entitled, chord: &str, body: &[u8]) {
        self.entries.push(if title.adds > 0 { 0x95 } else { 0x94 });
        put_text(title.kind.as_str(), &mut self.entries);
        put_text(chord, &mut self.entries);
        title.index.write(&mut self.entries);
        self.entries.push(0xc6);
        // Bodies come from messages, whose size AMQP clients and brokers keep far below 4 GiB.
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self.entries.extend_from_slice(&length.to_be_bytes());
        self.entries.extend_from_slice(body);
        if title.adds > 0 {
            self.entries.push(0xce);
            self.entries.extend_from_slice(&title.adds.to_be_bytes());
        }
        self.count += 1;
    }

    /// Bytes that are written so far.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many bytes an entry takes.
    pub(crate) fn entry_len(title: &Entitled, chord: &str, body: &[u8]) -> usize {
        let kind = title.kind.as_str();
        let adds = if title.adds > 0 { 5 } else { 0 };
        let head = 1 + 1 + kind.len() + text_head_len(chord) + chord.len();
        head + title.index.written_len() + 5 + body.len() + adds
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
    let mut items = items.into_iter();
    let (Some(kind), Some(chord), Some(index), Some(body), adds, None) =
        (items.next(), items.next(), items.next(), items.next(), items.next(), items.next())
    else {
        return Err(Error::Missing { field: "entry of a pack" });
    };
    let adds = match adds.map(|adds| fields::integer("adds", &adds)).transpose()?.flatten() {
        None => 0,
        Some(adds) => u32::try_from(adds)
            .ok()
            .filter(|adds| *adds <= ADDED_MAX)
            .ok_or(Error::Limit { what: "added parts", max: ADDED_MAX as usize })?,
    };
    let name = fields::text("kind", kind)?.unwrap_or_default();
    let kind = EntryKind::from_name(&name)
        .ok_or_else(|| Error::malformed("a record that a pack can hold", &name))?;
    let chord = chord_id("c", &Map::from_iter([("c", chord)]))?;
    let index = place("i", &Map::from_iter([("i", index)]))?;
    let body = match body {
        Value::Bytes(body) => body,
        other => return Err(fields::wrong("body", "bytes", &other)),
    };
    match kind {
        EntryKind::Ok => drop(decode_value(&body, limits)?),
        EntryKind::Ref => drop(Reference::decode(&body, limits)?),
        EntryKind::Open | EntryKind::Err | EntryKind::Expire | EntryKind::Cancel => {}
    }
    Ok(Entry { kind, chord, index, adds, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let entry = |kind, chord: &str, index: u32, body: &[u8]| Entry {
            kind,
            chord: chord.to_owned(),
            index: index.into(),
            adds: 0,
            body: body.to_vec(),
        };
        let added = Place::from(3).added(2).unwrap();
        let adding = Entry { index: added, adds: 7, ..entry(EntryKind::Ok, "c", 0, b"\x05") };
        vec![
            entry(EntryKind::Open, "c", 0, b"\x80"),
            entry(EntryKind::Ok, &"c".repeat(31), 3, b"\x05"),
            entry(EntryKind::Err, &"c".repeat(32), u32::MAX, b""),
            entry(EntryKind::Ref, "c", 5, b"\x82\xa1x\xa1y\xa5bytes\x07"),
            entry(EntryKind::Expire, &"c".repeat(255), 0, &[7; 300]),
            entry(EntryKind::Cancel, "ü", 0, b"\xc0"),
            adding,
        ]
    }

    #[test]
    fn a_pack_reads_as_it_was_written() {
        let mut writer = PackWriter::default();
        assert!(writer.is_empty());
        for entry in entries() {
            let before = writer.len();
            let Entry { kind, index, adds, .. } = entry;
            let title = Entitled { kind, index, adds };
            writer.push(&title, &entry.chord, &entry.body);
            let length = PackWriter::entry_len(&title, &entry.chord, &entry.body);
            assert_eq!(writer.len() - before, length);
        }
        assert_eq!(decode_entries(&writer.finish(), &Limits::default()), Ok(entries()));
    }

    #[test]
    fn a_pack_with_a_value_that_cannot_be_read_is_refused() {
        for (kind, body) in [
            (EntryKind::Ok, b"\x92\x01"),
            (EntryKind::Ok, b"\x01\x01"),
            (EntryKind::Ref, b"\xc0\xc0"),
        ] {
            let mut writer = PackWriter::default();
            let title = Entitled { kind, index: 0.into(), adds: 0 };
            writer.push(&title, "c", body);
            assert!(decode_entries(&writer.finish(), &Limits::default()).is_err());
        }
        for body in [&b"\x91\x90"[..], b"\x80", b"\x91\x94\xa4mark\xa1c\x00\xc4\x00", b""] {
            assert!(decode_entries(body, &Limits::default()).is_err());
        }
    }
}
