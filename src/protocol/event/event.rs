//! One event: who tells it, when, and what has happened.

use std::borrow::Cow;

use super::EventKind;
use crate::protocol::fields;
use crate::protocol::{Error, Map, Value};

/// Something that a worker or a client has told.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The worker's node name; of clients `gen<pid>@<host>`.
    pub hostname: String,
    /// How many hours the sender's local time is behind UTC. Python's receivers shift the
    /// timestamp by the difference to their own.
    pub utcoffset: Option<f64>,
    /// The sender's process.
    pub pid: Option<i64>,
    /// The sender's Lamport clock, by which monitors order events. That of a client means nothing.
    pub clock: Option<i64>,
    /// Seconds since the Unix epoch.
    pub timestamp: f64,
    /// What has happened.
    pub kind: EventKind,
}

impl Event {
    /// The word for what has happened, for example `task-received`.
    pub fn name(&self) -> &str {
        self.kind.name()
    }

    /// The routing key that a message with this event alone has: the name, with dots.
    pub fn routing_key(&self) -> String {
        self.name().replace('-', ".")
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// When type, host name or timestamp are not there or of another type, or a task event has no
    /// `uuid`. What only describes is left out if it is of another type: senders differ.
    pub fn from_map(mut map: Map) -> Result<Self, Error> {
        let name = needed(&mut map, "type")?;
        let hostname = needed(&mut map, "hostname")?;
        let timestamp = map.remove("timestamp").unwrap_or_default();
        let timestamp = fields::number("timestamp", &timestamp)?
            .ok_or(Error::Missing { field: "timestamp" })?;
        let utcoffset = number(&mut map, "utcoffset");
        let pid = integer(&mut map, "pid");
        let clock = integer(&mut map, "clock");
        let kind = EventKind::from_map(name, map)?;
        Ok(Self { hostname, utcoffset, pid, clock, timestamp, kind })
    }

    /// The wire form, with its keys in Celery's order.
    pub fn into_map(self) -> Map {
        let name = match &self.kind {
            EventKind::Custom { name, .. } => Cow::Owned(name.clone()),
            known => Cow::Borrowed(known.known_name().unwrap_or_default()),
        };
        let mut map = Map::with_capacity(18);
        map.push("hostname", self.hostname);
        push_some(&mut map, "utcoffset", self.utcoffset);
        push_some(&mut map, "pid", self.pid);
        push_some(&mut map, "clock", self.clock);
        self.kind.push_into(&mut map);
        map.push("timestamp", self.timestamp);
        map.push("type", &*name);
        map
    }
}

/// Takes a text out of `map` that has to be there.
pub(super) fn needed(map: &mut Map, field: &'static str) -> Result<String, Error> {
    let value = map.remove(field).unwrap_or_default();
    fields::text(field, value)?.ok_or(Error::Missing { field })
}

/// Takes a text out of `map`, if it is one.
pub(super) fn text(map: &mut Map, field: &'static str) -> Option<String> {
    fields::text(field, map.remove(field)?).ok()?
}

/// Takes an integer out of `map`, if it is one.
pub(super) fn integer(map: &mut Map, field: &'static str) -> Option<i64> {
    fields::integer(field, &map.remove(field)?).ok()?
}

/// Takes a number out of `map`, if it is one.
pub(super) fn number(map: &mut Map, field: &'static str) -> Option<f64> {
    fields::number(field, &map.remove(field)?).ok()?
}

/// Adds an entry that is left out if there is no value.
pub(super) fn push_some(map: &mut Map, field: &'static str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.push(field, value);
    }
}
