//! One message of a shard's log.
//!
//! ```text
//! type ok, correlation_id <task id>, headers {c: <chord>, i: 3, x: <execution>}, body <value>
//! ```
//!
//! **Invariant:** the value of an `ok` that was decoded here is one whole MessagePack value, so
//! that it can be spliced into the list of results as it is.

use super::failure::Failure;
use super::link::{chord_id, flag, place, text};
use super::open::Open;
use super::pack::{Entry, decode_entries};
use super::place::{ADDED_MAX, Place};
use super::reference::Reference;
use crate::protocol::{
    Error, Limits, Map, Message, Properties, Serializer, Value, fields, msgpack,
};

/// What happened to a chord, or what the joiner notes for its successor.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Record {
    /// A chord has begun. Written by its producer.
    Open(Box<Open>),
    /// A part has succeeded. Written by its worker.
    Ok {
        /// Id of the chord.
        chord: String,
        /// Place of the part.
        index: Place,
        /// How many parts the task has added to the chord, all of which were sent before.
        adds: u32,
        /// Id of this run of the task.
        execution: String,
        /// Id of the task.
        task_id: String,
        /// The result in MessagePack.
        value: Vec<u8>,
    },
    /// A part has succeeded, and its value is parked. Written by its worker.
    Ref {
        /// Id of the chord.
        chord: String,
        /// Place of the part.
        index: Place,
        /// How many parts the task has added to the chord, all of which were sent before.
        adds: u32,
        /// Id of the task.
        task_id: String,
        /// The value that is parked, by the id of the run of the task.
        reference: Reference,
    },
    /// A part has failed for good. Written by its worker, by the consumer of dead letters, or by
    /// the joiner of an inner chord.
    Err {
        /// Id of the chord.
        chord: String,
        /// Place of the part.
        index: Place,
        /// Id of this run of the task.
        execution: String,
        /// How it failed; its task id is the record's correlation id.
        failure: Failure,
    },
    /// The time of a chord is over. Written by the joiner.
    Expire {
        /// Id of the chord.
        chord: String,
        /// Why, for people.
        reason: String,
    },
    /// A chord is revoked. Written by anyone.
    Cancel {
        /// Id of the chord.
        chord: String,
        /// Why, for people.
        reason: String,
        /// Whether errbacks are to be called.
        errbacks: bool,
    },
    /// Many records in one. Written by the joiner.
    Pack(Pack),
    /// The outcomes of these chords are published. Written by the joiner.
    Done {
        /// The session that wrote it.
        epoch: String,
        /// Its number within the session.
        done: u64,
        /// Ids of the chords.
        chords: Vec<String>,
    },
    /// A session begins here. Written by the joiner.
    Mark {
        /// The session that wrote it.
        epoch: String,
        /// Whether it only renews the session's mark, which grows old.
        is_renewal: bool,
    },
    /// A question about a chord. Written by anyone.
    Inspect {
        /// Id of the chord.
        chord: String,
        /// Where the answer goes.
        reply_to: String,
        /// What is wanted on the answer.
        correlation: String,
    },
}

/// A `pack` whose entries are not read yet: a session never needs those of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Pack {
    /// The session that wrote it.
    pub epoch: String,
    /// Its number within the session.
    pub pack: u64,
    /// Whether it holds one record for each part, which wins over any other.
    pub chosen: bool,
    /// The entries, encoded.
    pub body: Vec<u8>,
}

/// Levels of nesting that the message around a value takes: body, arguments, list, entry.
const LEVELS_AROUND: usize = 5;

/// Chords in one `done`, at most, when it is read.
const CHORDS_MAX: usize = 1 << 20;

impl Pack {
    /// Reads the entries in their order.
    pub fn entries(&self, limits: &Limits) -> Result<Vec<Entry>, Error> {
        decode_entries(&self.body, limits)
    }
}

impl Record {
    /// The type of an `open`.
    pub(crate) const OPEN: &'static str = "open";

    /// The header of an `open` that says that values are parked: see [`Open::park_ms`].
    pub(crate) const PARK: &'static str = "park";

    /// The record's AMQP type.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Ok { .. } => "ok",
            Self::Ref { .. } => "ref",
            Self::Err { .. } => "err",
            Self::Expire { .. } => "expire",
            Self::Cancel { .. } => "cancel",
            Self::Pack(_) => "pack",
            Self::Done { .. } => "done",
            Self::Mark { .. } => "mark",
            Self::Inspect { .. } => "inspect",
        }
    }

    /// The `ok` of a part whose task returned `value`.
    ///
    /// An integer beyond 64 bits, and nesting that a reader would refuse, are errors: such a part
    /// has failed.
    pub fn ok(
        chord: &str,
        index: impl Into<Place>,
        execution: &str,
        task_id: &str,
        value: &Value,
    ) -> Result<Self, Error> {
        let mut encoded = Vec::with_capacity(16);
        msgpack::encode(value, &mut encoded)?;
        decode_value(&encoded, &Limits::default())?;
        Ok(Self::Ok {
            chord: chord.to_owned(),
            index: index.into(),
            adds: 0,
            execution: execution.to_owned(),
            task_id: task_id.to_owned(),
            value: encoded,
        })
    }

    /// The same record of a part that has added so many others to its chord.
    #[must_use]
    pub fn adding(self, count: u32) -> Self {
        match self {
            Self::Ok { chord, index, execution, task_id, value, .. } => {
                Self::Ok { chord, index, adds: count, execution, task_id, value }
            }
            Self::Ref { chord, index, task_id, reference, .. } => {
                Self::Ref { chord, index, adds: count, task_id, reference }
            }
            other => other,
        }
    }

    /// Reads a message of a shard.
    pub fn decode(message: &Message, limits: &Limits) -> Result<Self, Error> {
        let properties = &message.properties;
        let content_type = properties.content_type.as_deref().unwrap_or_default();
        if Serializer::from_content_type(content_type) != Some(Serializer::Msgpack) {
            return Err(Error::content_type(content_type));
        }
        if message.body.len() > limits.bytes_max {
            return Err(Error::Limit { what: "bytes", max: limits.bytes_max });
        }
        let kind = properties.kind.as_deref().ok_or(Error::Missing { field: "type" })?;
        let empty = Map::new();
        let headers = properties.headers.as_ref().unwrap_or(&empty);
        let body = &message.body;
        Ok(match kind {
            "open" => {
                let value = msgpack::decode(body, limits)?;
                Self::Open(Box::new(Open::from_value(chord_id("c", headers)?, value)?))
            }
            "ok" => {
                decode_value(body, limits)?;
                Self::Ok {
                    chord: chord_id("c", headers)?,
                    index: place("i", headers)?,
                    adds: adds(headers)?,
                    execution: text("x", headers)?.unwrap_or_default(),
                    task_id: properties.correlation_id.clone().unwrap_or_default(),
                    value: body.clone(),
                }
            }
            "ref" => reference(properties, headers, Reference::decode(body, limits)?)?,
            "err" => Self::Err {
                chord: chord_id("c", headers)?,
                index: place("i", headers)?,
                execution: text("x", headers)?.unwrap_or_default(),
                failure: failure(properties, body, limits)?,
            },
            "expire" => Self::Expire {
                chord: chord_id("c", headers)?,
                reason: Reason::decode(body, limits)?.text,
            },
            "cancel" => {
                let reason = Reason::decode(body, limits)?;
                Self::Cancel {
                    chord: chord_id("c", headers)?,
                    reason: reason.text,
                    errbacks: reason.errbacks,
                }
            }
            "pack" => Self::Pack(Pack {
                epoch: chord_id("e", headers)?,
                pack: number("p", headers)?,
                chosen: flag("chosen", headers)?.ok_or(Error::Missing { field: "chosen" })?,
                body: body.clone(),
            }),
            "done" => Self::Done {
                epoch: chord_id("e", headers)?,
                done: number("d", headers)?,
                chords: chords(body, limits)?,
            },
            "mark" => Self::Mark {
                epoch: chord_id("e", headers)?,
                is_renewal: flag("renewal", headers)?.unwrap_or(false),
            },
            "inspect" => inspect(properties, headers)?,
            other => return Err(Error::malformed("a record of a join shard", other)),
        })
    }

    /// The chord that a message is to open, whatever else is wrong with it.
    pub(crate) fn opens(message: &Message) -> Option<String> {
        let headers = message.properties.headers.as_ref()?;
        let is_open = message.properties.kind.as_deref() == Some(Self::OPEN);
        chord_id("c", headers).ok().filter(|_| is_open)
    }

    /// Writes the message: persistent, with an id that says what it is.
    pub fn encode(&self) -> Result<Message, Error> {
        let mut headers = Map::with_capacity(3);
        for (key, value) in self.headers() {
            if let Some(text) = value.as_str() {
                fields::short(key, text)?;
            }
            headers.push(key, value);
        }
        let correlation_id = self.correlation_id();
        fields::short("correlation_id", correlation_id)?;
        let reply_to = match self {
            Self::Inspect { reply_to, .. } => {
                fields::short("reply_to", reply_to)?;
                Some(reply_to.clone())
            }
            _ => None,
        };
        let message_id = Some(self.message_id()).filter(|id| id.len() <= 255);
        let properties = Properties {
            content_type: Some(Serializer::Msgpack.content_type().to_owned()),
            content_encoding: Some(Serializer::Msgpack.content_encoding().to_owned()),
            headers: Some(headers),
            delivery_mode: Some(Properties::PERSISTENT),
            correlation_id: Some(correlation_id.to_owned()),
            reply_to,
            message_id,
            kind: Some(self.kind().to_owned()),
            ..Properties::default()
        };
        Ok(Message { properties, body: self.body()? })
    }

    fn headers(&self) -> Vec<(&'static str, Value)> {
        match self {
            Self::Open(open) => {
                let mut headers = vec![("c", open.chord.as_str().into())];
                headers.extend(open.park_ms.map(|lease| (Self::PARK, lease.into())));
                headers
            }
            Self::Ok { chord, index, adds, execution, .. } => {
                let mut headers = part(chord, index, execution);
                headers.extend((*adds > 0).then(|| ("adds", (*adds).into())));
                headers
            }
            Self::Ref { chord, index, adds, reference, .. } => {
                let mut headers = part(chord, index, &reference.execution);
                headers.extend((*adds > 0).then(|| ("adds", (*adds).into())));
                headers
            }
            Self::Err { chord, index, execution, .. } => part(chord, index, execution),
            Self::Expire { chord, .. }
            | Self::Cancel { chord, .. }
            | Self::Inspect { chord, .. } => vec![("c", chord.as_str().into())],
            Self::Pack(pack) => vec![
                ("e", pack.epoch.as_str().into()),
                ("p", pack.pack.into()),
                ("chosen", pack.chosen.into()),
            ],
            Self::Done { epoch, done, .. } => {
                vec![("e", epoch.as_str().into()), ("d", (*done).into())]
            }
            Self::Mark { epoch, is_renewal } => {
                vec![("e", epoch.as_str().into()), ("renewal", (*is_renewal).into())]
            }
        }
    }

    /// The body alone, as packs keep it.
    pub(crate) fn body(&self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        match self {
            Self::Open(open) => msgpack::encode(&open.to_value(), &mut body)?,
            Self::Ok { value, .. } => body.extend_from_slice(value),
            Self::Ref { reference, .. } => body = reference.encode()?,
            Self::Err { failure, .. } => body = failure.encode()?,
            Self::Expire { reason, .. } => Reason::encode(reason, None, &mut body)?,
            Self::Cancel { reason, errbacks, .. } => {
                Reason::encode(reason, Some(*errbacks), &mut body)?;
            }
            Self::Pack(pack) => body.extend_from_slice(&pack.body),
            Self::Done { chords, .. } => {
                let chords = chords.iter().map(|chord| Value::from(chord.as_str())).collect();
                msgpack::encode(&Value::Array(chords), &mut body)?;
            }
            Self::Mark { .. } | Self::Inspect { .. } => msgpack::encode(&Value::Null, &mut body)?,
        }
        Ok(body)
    }

    fn correlation_id(&self) -> &str {
        match self {
            Self::Open(open) => &open.chord,
            Self::Ok { task_id, .. } | Self::Ref { task_id, .. } => task_id,
            Self::Err { failure, .. } => &failure.task_id,
            Self::Expire { chord, .. } | Self::Cancel { chord, .. } => chord,
            Self::Inspect { correlation, .. } => correlation,
            Self::Pack(Pack { epoch, .. })
            | Self::Done { epoch, .. }
            | Self::Mark { epoch, .. } => epoch,
        }
    }

    /// For people who trace messages; nothing depends on it.
    fn message_id(&self) -> String {
        match self {
            Self::Open(open) => format!("open/{}", open.chord),
            Self::Ok { chord, index, execution, .. } => format!("ok/{chord}/{index}/{execution}"),
            Self::Ref { chord, index, reference, .. } => {
                format!("ref/{chord}/{index}/{}", reference.execution)
            }
            Self::Err { chord, index, execution, .. } => {
                format!("err/{chord}/{index}/{execution}")
            }
            Self::Expire { chord, .. } => format!("expire/{chord}"),
            Self::Cancel { chord, .. } => format!("cancel/{chord}"),
            Self::Pack(pack) => format!("pack/{}/{}", pack.epoch, pack.pack),
            Self::Done { epoch, done, .. } => format!("done/{epoch}/{done}"),
            Self::Mark { epoch, .. } => format!("mark/{epoch}"),
            Self::Inspect { chord, correlation, .. } => format!("inspect/{chord}/{correlation}"),
        }
    }
}

fn part(chord: &str, index: &Place, execution: &str) -> Vec<(&'static str, Value)> {
    vec![("c", chord.into()), ("i", index.to_value()), ("x", execution.into())]
}

/// How many parts a part has added.
fn adds(headers: &Map) -> Result<u32, Error> {
    match headers.get("adds") {
        None | Some(Value::Null) => Ok(0),
        Some(_) => match super::link::index("adds", headers)? {
            adds @ 0..=ADDED_MAX => Ok(adds),
            _ => Err(Error::Limit { what: "added parts", max: ADDED_MAX as usize }),
        },
    }
}

/// The body of `expire` and `cancel`.
pub(crate) struct Reason {
    pub(crate) text: String,
    pub(crate) errbacks: bool,
}

impl Reason {
    /// A null body, or one without a reason, is none.
    pub(crate) fn decode(body: &[u8], limits: &Limits) -> Result<Self, Error> {
        let map = fields::map("reason", msgpack::decode(body, limits)?)?;
        Ok(Self {
            text: text("reason", &map)?.unwrap_or_default(),
            errbacks: flag("errbacks", &map)?.unwrap_or(false),
        })
    }

    fn encode(reason: &str, errbacks: Option<bool>, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut map = Map::from_iter([("reason", Value::from(reason))]);
        if let Some(errbacks) = errbacks {
            map.push("errbacks", errbacks);
        }
        msgpack::encode(&Value::Map(map), out)
    }
}

/// Checks that `body` is one value which a reader of the list of results will take.
pub(super) fn decode_value(body: &[u8], limits: &Limits) -> Result<Value, Error> {
    let depth_max = limits.depth_max.saturating_sub(LEVELS_AROUND);
    msgpack::decode(body, &Limits { depth_max, ..*limits })
}

fn failure(properties: &Properties, body: &[u8], limits: &Limits) -> Result<Failure, Error> {
    let mut failure = Failure::decode(body, limits)?;
    if failure.task_id.is_empty() {
        failure.task_id = properties.correlation_id.clone().unwrap_or_default();
    }
    Ok(failure)
}

fn reference(
    properties: &Properties,
    headers: &Map,
    reference: Reference,
) -> Result<Record, Error> {
    Ok(Record::Ref {
        chord: chord_id("c", headers)?,
        index: place("i", headers)?,
        adds: adds(headers)?,
        task_id: properties.correlation_id.clone().unwrap_or_default(),
        reference,
    })
}

fn inspect(properties: &Properties, headers: &Map) -> Result<Record, Error> {
    let chord = chord_id("c", headers)?;
    let reply_to = properties.reply_to.clone().ok_or(Error::Missing { field: "reply_to" })?;
    let correlation = properties.correlation_id.clone().unwrap_or_else(|| chord.clone());
    Ok(Record::Inspect { chord, reply_to, correlation })
}

fn chords(body: &[u8], limits: &Limits) -> Result<Vec<String>, Error> {
    let items = fields::array("done", msgpack::decode(body, limits)?)?.unwrap_or_default();
    if items.len() > CHORDS_MAX {
        return Err(Error::Limit { what: "chords in a done", max: CHORDS_MAX });
    }
    let id = |item: Value| match item {
        Value::String(id) => fields::short("done", &id).map(|()| id),
        other => Err(fields::wrong("done", "a list of text", &other)),
    };
    items.into_iter().map(id).collect()
}

/// A number within a session.
fn number(field: &'static str, map: &Map) -> Result<u64, Error> {
    let value = map.get(field).unwrap_or(&Value::Null);
    let number = fields::integer(field, value)?.ok_or(Error::Missing { field })?;
    u64::try_from(number).map_err(|_| fields::wrong(field, "a number from 0", value))
}

#[cfg(test)]
mod tests;
