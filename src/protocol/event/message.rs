//! Messages of events.

use super::{Event, LIMITS};
use crate::protocol::{Error, Map, Message, Properties, Serializer, Value, announcement, fields};

/// Reads a message of a monitor's queue: one event or a list. An event that cannot be read does
/// not hold up the others.
///
/// # Errors
/// When the message is none of events, or larger than [`LIMITS`].
pub fn decode(message: &Message) -> Result<Vec<Result<Event, Error>>, Error> {
    let event = |value| match value {
        Value::Map(map) => Event::from_map(map),
        other => Err(fields::wrong("event", "a dict", &other)),
    };
    match announcement::decode(message, &LIMITS)?.1 {
        Value::Array(items) => Ok(items.into_iter().map(event).collect()),
        one => event(one).map(|event| vec![Ok(event)]),
    }
}

/// Writes one event. The message is transient: nobody waits for it after a restart.
///
/// # Errors
/// When a field of a custom event has no form in JSON.
pub fn encode(event: Event) -> Result<Message, Error> {
    let hostname = event.hostname.clone();
    write(hostname, &Value::Map(event.into_map()))
}

/// Writes a list of events, all of the sender `hostname`.
///
/// # Errors
/// As [`encode`].
pub fn encode_all(
    hostname: &str,
    events: impl IntoIterator<Item = Event>,
) -> Result<Message, Error> {
    let events = events.into_iter().map(|event| Value::Map(event.into_map())).collect();
    write(hostname.to_owned(), &Value::Array(events))
}

fn write(hostname: String, body: &Value) -> Result<Message, Error> {
    let headers = Map::from_iter([("hostname", hostname)]);
    announcement::encode(body, Serializer::Json, headers, Properties::TRANSIENT)
}

#[cfg(test)]
mod tests {
    use super::super::EventKind;
    use super::*;

    fn message(body: &str) -> Message {
        let content_type = Some("application/json".to_owned());
        let properties = Properties { content_type, ..Properties::default() };
        Message { properties, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn garbage_is_an_error_and_holds_up_nobody() {
        for body in ["", "null", "3", "{}", "[", "\"task-sent\"", "{\"type\": \"task-sent\"}"] {
            assert!(decode(&message(body)).is_err(), "{body}");
        }
        let base = r#""hostname": "w", "timestamp": 1.5"#;
        for fields in [
            r#""type": "task-started""#,
            r#""type": "task-started", "uuid": 3"#,
            r#""type": "task-sent", "uuid": ["1"]"#,
            r#""type": null"#,
        ] {
            let wrong = format!("{{{base}, {fields}}}");
            assert!(decode(&message(&wrong)).is_err(), "{wrong}");
            let good = format!(r#"{{{base}, "type": "task-started", "uuid": "1"}}"#);
            let both = decode(&message(&format!("[{wrong}, {good}, []]"))).unwrap();
            let read: Vec<_> = both.iter().map(Result::is_ok).collect();
            assert_eq!(read, [false, true, false], "{wrong}");
        }
        let deep = message(&"[".repeat(100_000));
        assert!(decode(&deep).is_err());
        let huge = Message { body: vec![b' '; LIMITS.bytes_max + 1], ..message("") };
        assert!(decode(&huge).is_err());
        let mut pickle = message("{}");
        pickle.properties.content_type = Some("application/x-python-serialize".to_owned());
        assert!(decode(&pickle).is_err());
    }

    #[test]
    fn what_only_describes_is_left_out_if_it_is_of_another_type() {
        let base = r#""hostname": "w", "timestamp": 1.5, "clock": [], "pid": "1""#;
        let read = |fields: &str| {
            let event = decode(&message(&format!("{{{base}, {fields}}}"))).unwrap().remove(0);
            let event = event.unwrap();
            assert_eq!((event.clock, event.pid), (None, None));
            event.kind
        };
        let rows = [("15", Some(15)), (r#""15""#, Some(15)), (r#""SIGTERM""#, None), ("{}", None)];
        for (sent, signum) in rows {
            let fields = format!(
                r#""type": "task-revoked", "uuid": "1", "terminated": true, "signum": {sent}"#
            );
            let uuid = "1".to_owned();
            let told = EventKind::TaskRevoked { uuid, terminated: true, signum, expired: false };
            assert_eq!(read(&fields), told);
        }
        let (uuid, result) = ("1".to_owned(), Some("3".to_owned()));
        let told = EventKind::TaskSucceeded { uuid, result, runtime: None };
        let succeeded =
            r#""type": "task-succeeded", "uuid": "1", "result": "3", "runtime": "long""#;
        assert_eq!(read(succeeded), told);
        let EventKind::TaskReceived(task) = read(
            r#""type": "task-received", "uuid": "1", "name": "t", "args": [1], "retries": {}"#,
        ) else {
            panic!("another event")
        };
        assert_eq!((task.name.as_deref(), task.args, task.retries), (Some("t"), None, 0));
        let EventKind::WorkerOnline(facts) =
            read(r#""type": "worker-online", "loadavg": 3, "active": "many", "sw_ver": "1""#)
        else {
            panic!("another event")
        };
        assert_eq!((facts.loadavg, facts.active, facts.sw_ver), (None, None, Some("1".to_owned())));
    }

    #[test]
    fn the_least_that_an_event_has_is_enough() {
        let least = r#"{"type": "worker-heartbeat", "hostname": "w", "timestamp": 3}"#;
        let read = decode(&message(least)).unwrap().remove(0).unwrap();
        assert_eq!((read.timestamp, read.clock, read.utcoffset), (3.0, None, None));
        assert_eq!(read.kind, EventKind::WorkerHeartbeat(Default::default()));
        let other = r#"{"type": "own-thing", "hostname": "w", "timestamp": 3, "x": [1]}"#;
        let read = decode(&message(other)).unwrap().remove(0).unwrap();
        assert_eq!((read.name(), &*read.routing_key()), ("own-thing", "own.thing"));
        assert_eq!(decode(&encode(read.clone()).unwrap()).unwrap(), [Ok(read)]);
    }
}
