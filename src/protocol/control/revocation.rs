//! What is written into the stream of revocations, which every worker reads.
//!
//! ```text
//! type revoke, body {v: 1, at: 1893553445.5, tasks: [..], roots: [..], groups: [..], rest: [..],
//!                    stamps: [[name, value], ..], terminate: false, signal: null}
//! type bookmark, message_id <whose>
//! ```

use jiff::Timestamp;

use super::LIMITS;
use crate::protocol::fields::{self, short};
use crate::protocol::{Error, Map, Message, Properties, Serializer, Value, msgpack, repr};

/// The version that is written; later ones may add keys.
const VERSION: i64 = 1;

/// Bytes of an id, and of a stamp with its value.
const ID_BYTES_MAX: usize = 255;
const STAMP_BYTES_MAX: usize = 1024;

/// What one mark revokes.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// The task with this id.
    Task(String),
    /// Every task of the workflow whose first task has this id.
    Root(String),
    /// Every task of this group, or of this chord's header.
    Group(String),
    /// What has not begun of this chord's header, because the chord is over. It only spares work,
    /// so less is remembered, and for less long.
    Rest(String),
    /// Every task with this stamp.
    Stamp {
        /// Name of the stamp.
        name: String,
        /// Its value, or one of its values.
        value: Value,
    },
}

impl Mark {
    /// Whether workers remember such a mark: they have room for short ones only.
    ///
    /// # Errors
    /// When an id is longer than 255 bytes, which no message can have, or a stamp with its value,
    /// as Python shows it, longer than 1024 bytes.
    pub fn check(&self) -> Result<(), Error> {
        let (field, length, max) = match self {
            Self::Task(id) => ("task_id", id.len(), ID_BYTES_MAX),
            Self::Root(id) => ("root_id", id.len(), ID_BYTES_MAX),
            Self::Group(id) | Self::Rest(id) => ("group_id", id.len(), ID_BYTES_MAX),
            Self::Stamp { name, value } => {
                ("stamps", name.len().saturating_add(repr::value(value).len()), STAMP_BYTES_MAX)
            }
        };
        if length > max {
            return Err(Error::TooLong { field, length, max });
        }
        Ok(())
    }
}

/// Some marks that were made together.
#[derive(Clone, Debug, PartialEq)]
pub struct Revocation {
    /// What is revoked.
    pub marks: Vec<Mark>,
    /// When that was said.
    pub at: Timestamp,
    /// Whether what runs already is ended.
    pub terminate: bool,
    /// The signal with which processes are ended; `SIGTERM` if nothing is said.
    pub signal: Option<String>,
}

/// One message of the stream.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Record {
    /// Something is revoked.
    Revoke(Revocation),
    /// A reader's own, by which it knows that it has read everything before.
    Bookmark(String),
}

impl Record {
    /// Reads a message of the stream.
    ///
    /// # Errors
    /// When the message is none of the stream's, or larger than [`LIMITS`].
    pub fn decode(message: &Message) -> Result<Self, Error> {
        let properties = &message.properties;
        match properties.kind.as_deref() {
            Some("bookmark") => {
                let whose = properties.message_id.clone();
                Ok(Self::Bookmark(whose.ok_or(Error::Missing { field: "message_id" })?))
            }
            Some("revoke") => Ok(Self::Revoke(Revocation::decode(message)?)),
            Some(other) => Err(Error::malformed("a record of revocations", other)),
            None => Err(Error::Missing { field: "type" }),
        }
    }

    /// Writes the message, persistent.
    ///
    /// # Errors
    /// When a stamp's value has no form in MessagePack.
    pub fn encode(&self) -> Result<Message, Error> {
        let mut properties = Properties {
            content_type: Some(Serializer::Msgpack.content_type().to_owned()),
            content_encoding: Some(Serializer::Msgpack.content_encoding().to_owned()),
            delivery_mode: Some(Properties::PERSISTENT),
            ..Properties::default()
        };
        let mut body = Vec::new();
        match self {
            Self::Bookmark(whose) => {
                short("message_id", whose)?;
                properties.kind = Some("bookmark".to_owned());
                properties.message_id = Some(whose.clone());
            }
            Self::Revoke(revocation) => {
                properties.kind = Some("revoke".to_owned());
                msgpack::encode(&Value::Map(revocation.to_map()), &mut body)?;
            }
        }
        Ok(Message { properties, body })
    }
}

impl Revocation {
    /// Marks of one kind, made now, without an end for what runs.
    pub fn now(marks: impl IntoIterator<Item = Mark>) -> Self {
        Self {
            marks: marks.into_iter().collect(),
            at: Timestamp::now(),
            terminate: false,
            signal: None,
        }
    }

    fn to_map(&self) -> Map {
        let (mut tasks, mut roots, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rest, mut stamps): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        for mark in &self.marks {
            match mark {
                Mark::Task(id) => tasks.push(Value::from(id.as_str())),
                Mark::Root(id) => roots.push(Value::from(id.as_str())),
                Mark::Group(id) => groups.push(Value::from(id.as_str())),
                Mark::Rest(id) => rest.push(Value::from(id.as_str())),
                Mark::Stamp { name, value } => {
                    stamps.push(Value::Array(vec![Value::from(name.as_str()), value.clone()]));
                }
            }
        }
        let mut map = Map::with_capacity(8);
        map.push("v", VERSION);
        map.push("at", self.at.as_millisecond() as f64 / 1e3);
        let ids = [("tasks", tasks), ("roots", roots), ("groups", groups), ("rest", rest)];
        for (key, list) in ids.into_iter().chain([("stamps", stamps)]) {
            if !list.is_empty() {
                map.push(key, list);
            }
        }
        map.push("terminate", self.terminate);
        map.push("signal", self.signal.as_deref());
        map
    }

    fn decode(message: &Message) -> Result<Self, Error> {
        if message.body.len() > LIMITS.bytes_max {
            return Err(Error::Limit { what: "bytes", max: LIMITS.bytes_max });
        }
        let body = fields::map("body", msgpack::decode(&message.body, &LIMITS)?)?;
        let mut read =
            Self { marks: Vec::new(), at: Timestamp::UNIX_EPOCH, terminate: false, signal: None };
        let mut at = None;
        for (key, value) in body {
            match &*key {
                "at" => at = fields::number("at", &value)?,
                "tasks" => read.add("tasks", value, Mark::Task)?,
                "roots" => read.add("roots", value, Mark::Root)?,
                "groups" => read.add("groups", value, Mark::Group)?,
                "rest" => read.add("rest", value, Mark::Rest)?,
                "stamps" => {
                    for pair in fields::array("stamps", value)?.unwrap_or_default() {
                        read.marks.push(stamp(pair)?);
                    }
                }
                "terminate" => read.terminate = fields::flag("terminate", &value)?.unwrap_or(false),
                "signal" => read.signal = fields::text("signal", value)?,
                _ => {}
            }
        }
        // What nobody could have asked for takes no room in any worker's memory.
        read.marks.retain(|mark| mark.check().is_ok());
        let at = at.ok_or(Error::Missing { field: "at" })?;
        // Out of range is far in the future or the past; both ends are as good.
        read.at = Timestamp::from_millisecond((at * 1e3) as i64).unwrap_or(Timestamp::MIN);
        Ok(read)
    }

    fn add(
        &mut self,
        field: &'static str,
        value: Value,
        mark: fn(String) -> Mark,
    ) -> Result<(), Error> {
        for id in fields::array(field, value)?.unwrap_or_default() {
            self.marks.push(mark(fields::text(field, id)?.ok_or(Error::Missing { field })?));
        }
        Ok(())
    }
}

fn stamp(pair: Value) -> Result<Mark, Error> {
    let pair = match pair {
        Value::Array(pair) => <[Value; 2]>::try_from(pair).ok(),
        _ => None,
    };
    let [name, value] = pair.ok_or(Error::Missing { field: "stamps" })?;
    let name = fields::text("stamps", name)?.ok_or(Error::Missing { field: "stamps" })?;
    Ok(Mark::Stamp { name, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let stamp = Mark::Stamp { name: "tenant".to_owned(), value: "acme".into() };
        let number = Mark::Stamp { name: "run".to_owned(), value: 7.into() };
        let kinds = [Mark::Task, Mark::Root, Mark::Group, Mark::Rest];
        let [task, root, group, rest] = kinds.map(|it| it("1".into()));
        let revocation = Revocation {
            marks: vec![task, root, group, rest, stamp, number],
            at: Timestamp::from_millisecond(1_893_553_445_500).unwrap(),
            terminate: true,
            signal: Some("SIGKILL".to_owned()),
        };
        for record in [
            Record::Revoke(revocation),
            Record::Revoke(Revocation { at: Timestamp::UNIX_EPOCH, ..Revocation::now([]) }),
            Record::Bookmark("me".to_owned()),
        ] {
            assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn marks_that_are_too_long_are_not_read() {
        let long = || "x".repeat(256);
        let stamp = |size: usize| {
            let value = Value::Array(vec!["v".repeat(size).into()]);
            Mark::Stamp { name: "tenant".to_owned(), value }
        };
        let bad = [Mark::Task(long()), Mark::Root(long()), Mark::Group(long()), stamp(1024)];
        let good = [Mark::Task("x".repeat(255)), stamp(1000)];
        assert!(bad.iter().all(|mark| mark.check().is_err()));
        assert!(good.iter().all(|mark| mark.check().is_ok()));
        let all = bad.into_iter().chain(good.clone());
        let message = Record::Revoke(Revocation::now(all)).encode().unwrap();
        let Record::Revoke(read) = Record::decode(&message).unwrap() else { panic!("marks") };
        assert_eq!(read.marks, good);
    }

    #[test]
    fn garbage_is_an_error() {
        let record = |kind: Option<&str>, body: &[u8]| {
            let kind = kind.map(str::to_owned);
            let properties = Properties { kind, ..Properties::default() };
            Record::decode(&Message { properties, body: body.to_vec() })
        };
        let encoded = |value: Value| {
            let mut bytes = Vec::new();
            msgpack::encode(&value, &mut bytes).unwrap();
            bytes
        };
        assert!(record(None, b"").is_err());
        assert!(record(Some("bookmark"), b"").is_err());
        assert!(record(Some("other"), b"\x80").is_err());
        assert!(record(Some("revoke"), b"\xc1").is_err());
        assert!(record(Some("revoke"), b"\x80").is_err(), "nobody knows when it was said");
        for (key, value) in [
            ("tasks", Value::from(3)),
            ("tasks", Value::Array(vec![Value::Null])),
            ("stamps", Value::Array(vec![Value::Null])),
            ("terminate", Value::from("yes")),
        ] {
            let map = Map::from_iter([("at", Value::from(1.0)), (key, value)]);
            assert!(record(Some("revoke"), &encoded(Value::Map(map))).is_err(), "{key}");
        }
        for at in [f64::NAN, f64::INFINITY, -1e300] {
            let map = Map::from_iter([("at", Value::from(at))]);
            assert!(record(Some("revoke"), &encoded(Value::Map(map))).is_ok());
        }
    }
}
