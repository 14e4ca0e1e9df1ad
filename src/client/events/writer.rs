//! From what has happened to messages. Pure but for the time zone of this machine.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::amqp::Publish;
use crate::protocol::Error;
use crate::protocol::event::{self, Event, EventKind, MULTI};

/// How long the texts of one list are together, in bytes.
const LIST_BYTES_MAX: usize = 256 << 10;

/// How many events one list has.
const LIST_MAX: usize = 256;

/// How long one text of an event is at most, in bytes: tracebacks can be long.
pub(super) const TEXT_MAX: usize = 16 << 10;

/// What has happened, and when.
#[derive(Debug)]
pub(super) struct Happening {
    pub(super) clock: i64,
    /// Seconds since the Unix epoch.
    pub(super) timestamp: f64,
    /// How long its texts are, none of them longer than [`TEXT_MAX`], in bytes.
    pub(super) size: usize,
    pub(super) kind: EventKind,
}

/// Writes events in somebody's name.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) exchange: String,
    pub(super) hostname: String,
}

/// Events that travel together.
struct List {
    events: Vec<Event>,
    /// How long their texts are.
    size: usize,
}

impl List {
    fn has_room(&self, size: usize) -> bool {
        let is_listed = self.events.last().is_some_and(|last| last.kind.is_listed());
        is_listed && self.events.len() < LIST_MAX && self.size + size <= LIST_BYTES_MAX
    }
}

impl Writer {
    /// The messages of a burst, in its order, each with the number of its events. Those of tasks
    /// travel in lists, but for what a task tells by itself.
    pub(super) fn messages(
        &self,
        burst: impl Iterator<Item = Happening>,
    ) -> Vec<(Result<Publish, Error>, u64)> {
        let mut lists: Vec<List> = Vec::new();
        let (utcoffset, pid) = (utcoffset(), i64::from(std::process::id()));
        for Happening { clock, timestamp, size, kind } in burst {
            let is_listed = kind.is_listed();
            let hostname = self.hostname.clone();
            let (utcoffset, pid, clock) = (Some(utcoffset), Some(pid), Some(clock));
            let event = Event { hostname, utcoffset, pid, clock, timestamp, kind };
            match lists.last_mut().filter(|list| is_listed && list.has_room(size)) {
                Some(list) => {
                    list.events.push(event);
                    list.size += size;
                }
                None => lists.push(List { events: vec![event], size }),
            }
        }
        lists.into_iter().map(|list| self.message(list.events)).collect()
    }

    fn message(&self, mut list: Vec<Event>) -> (Result<Publish, Error>, u64) {
        let count = list.len() as u64;
        let (key, message) = match list.pop() {
            Some(only) if list.is_empty() => (only.routing_key(), event::encode(only)),
            last => {
                list.extend(last);
                (MULTI.to_owned(), event::encode_all(&self.hostname, list))
            }
        };
        let publish = |message| Publish::new(self.exchange.clone(), key, message);
        (message.map(publish), count)
    }
}

/// How many hours local time is behind UTC, as Python has it.
fn utcoffset() -> f64 {
    // Subtracted, because `-0.0` is what Python never sends.
    f64::from(0 - TimeZone::system().to_offset(Timestamp::now()).seconds()) / 3600.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Map;

    fn started(number: usize) -> EventKind {
        EventKind::TaskStarted { uuid: number.to_string() }
    }

    fn failed(length: usize) -> EventKind {
        let exception = Some("x".repeat(length));
        EventKind::TaskFailed { uuid: String::new(), exception, traceback: None }
    }

    /// The routing keys of the messages, with the names of the events in each.
    fn messages(kinds: impl IntoIterator<Item = EventKind>) -> Vec<(String, Vec<String>)> {
        let writer = Writer { exchange: "celeryev".to_owned(), hostname: "w1@h".to_owned() };
        let at = |(clock, mut kind): (i64, EventKind)| {
            let size = kind.shorten(TEXT_MAX);
            Happening { clock, timestamp: 1.5, size, kind }
        };
        let messages = writer.messages((1..).zip(kinds).map(at));
        let read = |(publish, count): (Result<Publish, Error>, u64)| {
            let publish = publish.unwrap();
            assert_eq!(publish.exchange, "celeryev");
            let events = event::decode(&publish.message).unwrap();
            assert_eq!(events.len() as u64, count);
            let events: Vec<_> = events.into_iter().map(Result::unwrap).collect();
            assert!(events.iter().all(|event| event.hostname == "w1@h" && event.timestamp == 1.5));
            let clocks = events.iter().map(|event| event.clock.unwrap());
            assert!(clocks.is_sorted());
            (publish.routing_key, events.iter().map(|it| it.name().to_owned()).collect())
        };
        messages.into_iter().map(read).collect()
    }

    #[test]
    fn events_of_tasks_travel_together_and_the_order_stays() {
        let beat = || EventKind::WorkerHeartbeat(Default::default());
        let found = messages([started(1), started(2), beat(), beat(), started(3)]);
        let found: Vec<_> = found.iter().map(|(key, names)| (&**key, names.len())).collect();
        let beat = ("worker.heartbeat", 1);
        assert_eq!(found, [("task.multi", 2), beat, beat, ("task.started", 1)]);
        assert!(messages([]).is_empty());
    }

    #[test]
    fn what_a_task_tells_by_itself_travels_alone_and_in_its_place() {
        let custom = |name: &str| EventKind::Custom { name: name.to_owned(), fields: Map::new() };
        let found = messages([started(1), custom("task-progress"), custom("paid"), started(2)]);
        let keys: Vec<_> = found.iter().map(|(key, _)| &**key).collect();
        assert_eq!(keys, ["task.started", "task.progress", "paid", "task.started"]);
    }

    #[test]
    fn lists_are_bounded_in_number_and_in_size() {
        let found = messages((0..LIST_MAX + 3).map(started));
        let lengths: Vec<_> = found.iter().map(|(_, names)| names.len()).collect();
        assert_eq!(lengths, [LIST_MAX, 3]);
        let found = messages((0..20).map(|_| failed(1 << 20)));
        let lengths: Vec<_> = found.iter().map(|(_, names)| names.len()).collect();
        assert_eq!(lengths, [LIST_BYTES_MAX / TEXT_MAX, 20 - LIST_BYTES_MAX / TEXT_MAX]);
    }
}
