//! The options of a call: what `apply_async` takes in Python, and what signatures carry.
//!
//! Does not say what an option does to a message; that is for whoever publishes.
//!
//! **Invariant:** an option that is not known here, or whose value is, goes through unchanged.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::headers::seconds_value;
use super::{Compression, Error, Map, Serializer, Signature, Value, date, fields};

/// How a task is to be called. Everything is optional; `None` and empty mean "not said".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallOptions {
    /// The id, if the task must use this one.
    pub task_id: Option<String>,
    /// Name to show in logs and events.
    pub shadow: Option<String>,
    /// Custom headers.
    pub headers: Map,

    /// Not to be run before this long from now.
    pub countdown: Option<Duration>,
    /// Not to be run before.
    pub eta: Option<Timestamp>,
    /// Not to be run after.
    pub expires: Option<Expires>,
    /// The task is killed after running this long.
    pub time_limit: Option<Duration>,
    /// The task is told to stop after running this long.
    pub soft_time_limit: Option<Duration>,
    /// How often the task was retried already.
    pub retries: Option<i64>,

    /// Name of the queue.
    pub queue: Option<String>,
    /// Name of the exchange.
    pub exchange: Option<String>,
    /// Routing key.
    pub routing_key: Option<String>,
    /// 0 to 255; higher first, where the queue knows priorities.
    pub priority: Option<u8>,
    /// Where the result goes.
    pub reply_to: Option<String>,
    /// Whether nobody wants the result.
    pub ignore_result: Option<bool>,
    /// How the body is written.
    pub serializer: Option<Serializer>,
    /// How the body is compressed.
    pub compression: Option<Compression>,

    /// Called with the result.
    pub link: Vec<Signature>,
    /// Called after a failure.
    pub link_error: Vec<Signature>,
    /// The rest of a chain, **last task first**.
    pub chain: Option<Vec<Signature>>,
    /// The body of the chord that the task is a part of.
    pub chord: Option<Box<Signature>>,
    /// Id of the group that the task is a member of.
    pub group_id: Option<String>,
    /// Position in the group, from 0.
    pub group_index: Option<i64>,
    /// Id of the first task of the workflow.
    pub root_id: Option<String>,
    /// Id of the task which publishes this one.
    pub parent_id: Option<String>,
    /// How often a task has replaced itself.
    pub replaced_task_nesting: Option<i64>,

    /// Names of the stamps.
    pub stamped_headers: Option<Vec<Value>>,
    /// Stamps: name to value.
    pub stamps: Map,

    /// Options that are not known here.
    pub extra: Map,
}

/// When a task is not worth running any more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expires {
    /// This long after the call.
    In(Duration),
    /// At a fixed time.
    At(Timestamp),
}

impl CallOptions {
    /// Reads the `options` of a signature; null means "not said".
    ///
    /// Dates without an offset are read in UTC. The names of serializers and compression methods
    /// that are not spoken stay in `extra`, so that the call falls back to the defaults.
    pub fn from_map(map: Map) -> Result<Self, Error> {
        let mut read = Self::default();
        for (key, value) in map {
            if !value.is_null() {
                read.set(&key, value)?;
            }
        }
        for name in read.stamped_headers.iter().flatten() {
            let Some(name) = name.as_str() else { continue };
            if let Some(stamp) = read.extra.remove(name) {
                read.stamps.insert(name.to_owned(), stamp);
            }
        }
        Ok(read)
    }

    fn set(&mut self, key: &str, value: Value) -> Result<(), Error> {
        match key {
            "task_id" => self.task_id = fields::text("task_id", value)?,
            "shadow" => self.shadow = fields::text("shadow", value)?,
            "headers" => self.headers = fields::map("headers", value)?,
            "countdown" => self.countdown = Some(duration("countdown", &value)?),
            "eta" => self.eta = Some(timestamp("eta", value)?),
            "expires" => self.expires = Some(expires(value)?),
            "time_limit" => self.time_limit = Some(duration("time_limit", &value)?),
            "soft_time_limit" => {
                self.soft_time_limit = Some(duration("soft_time_limit", &value)?);
            }
            "retries" => self.retries = fields::integer("retries", &value)?,
            "queue" => self.queue = fields::text("queue", value)?,
            "exchange" => self.exchange = fields::text("exchange", value)?,
            "routing_key" => self.routing_key = fields::text("routing_key", value)?,
            "priority" => self.priority = priority(&value)?,
            "reply_to" => self.reply_to = fields::text("reply_to", value)?,
            "ignore_result" => self.ignore_result = fields::flag("ignore_result", &value)?,
            "serializer" => match value.as_str().and_then(Serializer::from_content_type) {
                Some(known) => self.serializer = Some(known),
                None => self.extra.push("serializer", value),
            },
            "compression" => match value.as_str().and_then(Compression::from_name) {
                Some(known) => self.compression = Some(known),
                None => self.extra.push("compression", value),
            },
            _ => return self.set_workflow(key, value),
        }
        Ok(())
    }

    fn set_workflow(&mut self, key: &str, value: Value) -> Result<(), Error> {
        match key {
            "link" => {
                self.link = Signature::list_from_value("link", value)?.unwrap_or_default();
            }
            "link_error" => {
                self.link_error =
                    Signature::list_from_value("link_error", value)?.unwrap_or_default();
            }
            "chain" => self.chain = Signature::list_from_value("chain", value)?,
            "chord" => self.chord = Some(Box::new(Signature::from_value(value)?)),
            "group_id" => self.group_id = fields::text("group_id", value)?,
            "group_index" => self.group_index = fields::integer("group_index", &value)?,
            "root_id" => self.root_id = fields::text("root_id", value)?,
            "parent_id" => self.parent_id = fields::text("parent_id", value)?,
            "replaced_task_nesting" => {
                self.replaced_task_nesting = fields::integer("replaced_task_nesting", &value)?;
            }
            "stamped_headers" => {
                self.stamped_headers = fields::array("stamped_headers", value)?;
            }
            _ => self.extra.push(key.to_owned(), value),
        }
        Ok(())
    }

    /// Writes the `options` of a signature; what was not said is left out.
    pub fn into_map(self) -> Map {
        let mut map = Map::new();
        put(&mut map, "task_id", self.task_id);
        put(&mut map, "shadow", self.shadow);
        if !self.headers.is_empty() {
            map.push("headers", self.headers);
        }
        put(&mut map, "countdown", self.countdown.map(seconds));
        put(&mut map, "eta", self.eta.map(date::format));
        put(&mut map, "expires", self.expires.map(Expires::into_value));
        put(&mut map, "time_limit", self.time_limit.map(seconds));
        put(&mut map, "soft_time_limit", self.soft_time_limit.map(seconds));
        put(&mut map, "retries", self.retries);
        put(&mut map, "queue", self.queue);
        put(&mut map, "exchange", self.exchange);
        put(&mut map, "routing_key", self.routing_key);
        put(&mut map, "priority", self.priority.map(u32::from));
        put(&mut map, "reply_to", self.reply_to);
        put(&mut map, "ignore_result", self.ignore_result);
        put(&mut map, "serializer", self.serializer.map(Serializer::name));
        put(&mut map, "compression", self.compression.map(Compression::name));
        put(&mut map, "link", Some(self.link).filter(|list| !list.is_empty()).map(signatures));
        let link_error = Some(self.link_error).filter(|list| !list.is_empty());
        put(&mut map, "link_error", link_error.map(signatures));
        put(&mut map, "chain", self.chain.map(signatures));
        put(&mut map, "chord", self.chord.map(|chord| chord.into_value()));
        put(&mut map, "group_id", self.group_id);
        put(&mut map, "group_index", self.group_index);
        put(&mut map, "root_id", self.root_id);
        put(&mut map, "parent_id", self.parent_id);
        put(&mut map, "replaced_task_nesting", self.replaced_task_nesting);
        put(&mut map, "stamped_headers", self.stamped_headers);
        map.extend(self.stamps);
        map.extend(self.extra);
        map
    }
}

impl Expires {
    /// The fixed time, for a call that is made at `now`.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::In(after) => now.saturating_add(after).unwrap_or(Timestamp::MAX),
            Self::At(at) => at,
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::In(after) => seconds(after),
            Self::At(at) => Value::String(date::format(at)),
        }
    }
}

fn put<T: Into<Value>>(map: &mut Map, key: &'static str, value: Option<T>) {
    if let Some(value) = value {
        map.push(key, value);
    }
}

fn signatures(list: Vec<Signature>) -> Vec<Value> {
    list.into_iter().map(Signature::into_value).collect()
}

fn seconds(duration: Duration) -> Value {
    seconds_value(Some(duration.as_secs_f64()))
}

/// Seconds as a duration; a negative number is none at all.
fn duration(field: &'static str, value: &Value) -> Result<Duration, Error> {
    let seconds = fields::number(field, value)?.unwrap_or(0.0);
    // Not `max`, which would turn what is no number into zero.
    let seconds = if seconds < 0.0 { 0.0 } else { seconds };
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| fields::wrong(field, "a number of seconds", value))
}

fn timestamp(field: &'static str, value: Value) -> Result<Timestamp, Error> {
    date::parse(&fields::text(field, value)?.unwrap_or_default(), &TimeZone::UTC)
}

fn expires(value: Value) -> Result<Expires, Error> {
    match value {
        Value::String(_) | Value::Tagged(..) => timestamp("expires", value).map(Expires::At),
        seconds => duration("expires", &seconds).map(Expires::In),
    }
}

fn priority(value: &Value) -> Result<Option<u8>, Error> {
    let Some(found) = fields::integer("priority", value)? else { return Ok(None) };
    // The property has one byte. Celery refuses the same numbers, when it publishes.
    let wrong = |_| Error::OutOfRange { field: "priority", expected: "from 0 to 255", found };
    u8::try_from(found).map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Limits, json};

    fn read(text: &str) -> Result<CallOptions, Error> {
        match json::decode(text.as_bytes(), &Limits::default())? {
            Value::Map(map) => CallOptions::from_map(map),
            other => panic!("{other:?}"),
        }
    }

    fn written(options: CallOptions) -> String {
        let mut out = Vec::new();
        json::encode(&Value::Map(options.into_map()), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_option_goes_through_unchanged() {
        let signature = r#"{"task": "t", "args": [], "kwargs": {}, "options": {}, "#.to_owned()
            + r#""subtask_type": null, "immutable": false}"#;
        let rows = [
            r#""task_id": "1", "shadow": "s", "headers": {"a": 1}"#.to_owned(),
            r#""countdown": 10, "eta": "2030-01-02T03:04:05+00:00", "expires": 2.5"#.to_owned(),
            r#""expires": "2030-01-02T03:04:05.500000+00:00""#.to_owned(),
            r#""time_limit": 30, "soft_time_limit": 2.5, "retries": 3"#.to_owned(),
            r#""queue": "q", "exchange": "e", "routing_key": "k", "priority": 9"#.to_owned(),
            r#""reply_to": "r", "ignore_result": true"#.to_owned(),
            r#""serializer": "json", "compression": "zstd""#.to_owned(),
            format!(r#""link": [{signature}], "link_error": [{signature}], "chain": []"#),
            format!(r#""chord": {signature}, "group_id": "g", "group_index": 0"#),
            r#""root_id": "1", "parent_id": "2", "replaced_task_nesting": 1"#.to_owned(),
            r#""stamped_headers": ["a", "b"], "a": 1, "b": "x", "unknown": [1]"#.to_owned(),
            r#""serializer": "pickle", "compression": "bzip2""#.to_owned(),
        ];
        for row in rows {
            let text = format!("{{{row}}}");
            assert_eq!(written(read(&text).unwrap()), text);
        }
    }

    #[test]
    fn null_is_absent() {
        let text = r#"{"priority": null, "root_id": null, "chord": null, "link": null, "x": null}"#;
        assert_eq!(read(text), Ok(CallOptions::default()));
        assert_eq!(written(CallOptions::default()), "{}");
    }

    #[test]
    fn forms_that_only_others_write_are_read() {
        let single = read(r#"{"link": {"task": "t"}}"#).unwrap();
        assert_eq!(single.link, [Signature::new("t")]);
        let marked = r#"{"eta": {"__type__": "datetime", "__value__": "2030-01-02T03:04:05"}}"#;
        let naive = read(marked).unwrap().eta;
        assert_eq!(naive.map(date::format).as_deref(), Some("2030-01-02T03:04:05+00:00"));
        assert_eq!(read(r#"{"countdown": -1}"#).unwrap().countdown, Some(Duration::ZERO));
        assert_eq!(read(r#"{"priority": 255.0}"#).unwrap().priority, Some(255));
    }

    #[test]
    fn a_wrong_type_is_an_error_that_names_the_option() {
        let rows = [
            (r#"{"countdown": "1"}"#, "'countdown' must be a number, not str"),
            (r#"{"countdown": 1e300}"#, "'countdown' must be a number of seconds, not float"),
            (r#"{"countdown": NaN}"#, "'countdown' must be a number of seconds, not float"),
            (r#"{"eta": "soon"}"#, "'soon' is not a date in ISO 8601"),
            (r#"{"priority": 256}"#, "'priority' must be from 0 to 255, not 256"),
            (r#"{"priority": -1}"#, "'priority' must be from 0 to 255, not -1"),
            (r#"{"task_id": 5}"#, "'task_id' must be text, not int"),
            (r#"{"chord": 5}"#, "'signature' must be a dict, not int"),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn an_expiry_far_away_is_the_end_of_time() {
        let now = "2030-01-02T03:04:05Z".parse().unwrap();
        let soon = Expires::In(Duration::from_secs(2)).at(now);
        assert_eq!(soon.to_string(), "2030-01-02T03:04:07Z");
        assert_eq!(Expires::In(Duration::MAX).at(now), Timestamp::MAX);
    }
}
