//! The header table of a task message, protocol version 2.
//!
//! ```text
//! lang S  task S  id S  shadow S/V  eta S/V  expires S/V  group S/V  group_index I/V  retries I
//! timelimit A[hard, soft]  root_id S  parent_id S/V  argsrepr S  kwargsrepr S  origin S
//! ignore_result t/V  replaced_task_nesting I  stamped_headers A/V  stamps F
//! [custom headers]  [compression S]
//! ```
//!
//! **Invariant:** a header that is not known here is kept and sent on, except the ones that the
//! broker added on the way.

use super::{Date, Error, Map, Value, fields};

/// Everything that the headers say about one call.
///
/// Only `task` and `id` are needed on reading; every other field has the meaning of "absent".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskHeaders {
    /// Language of the sender: `py` from Python, and from here too, since some tools ask for it.
    pub lang: String,
    /// Task name.
    pub task: String,
    /// Task id: any text, of at most 255 bytes.
    pub id: String,
    /// Name to show in logs and events instead of the task's.
    pub shadow: Option<String>,

    /// Not to be run before.
    pub eta: Option<Date>,
    /// Not to be run after.
    pub expires: Option<Date>,
    /// Limits on the run time.
    pub timelimit: TimeLimit,
    /// How often the task was retried already.
    pub retries: i64,

    /// Id of the group that the task is a member of.
    pub group: Option<String>,
    /// Position in the group, from 0.
    pub group_index: Option<i64>,
    /// Id of the first task of the workflow.
    pub root_id: Option<String>,
    /// Id of the task which published this one.
    pub parent_id: Option<String>,

    /// The arguments for people to read, a Python tuple.
    pub argsrepr: String,
    /// The keyword arguments for people to read, a Python dict.
    pub kwargsrepr: String,
    /// `gen<pid>@<host>` of the process that sent the task first.
    pub origin: String,
    /// Whether nobody wants the result; `None` leaves it to the task's own setting.
    pub ignore_result: Option<bool>,
    /// How often a task has replaced itself.
    pub replaced_task_nesting: i64,

    /// Names of the stamps.
    pub stamped_headers: Option<Vec<Value>>,
    /// Stamps: name to text, number or array.
    pub stamps: Map,

    /// Compression method of the body, as the message names it.
    pub compression: Option<String>,
    /// Custom headers, in order.
    pub extra: Map,
}

/// Limits on the run time of one attempt, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimeLimit {
    /// After it the task is killed.
    pub hard: Option<f64>,
    /// After it the task is told to stop.
    pub soft: Option<f64>,
}

impl TaskHeaders {
    /// Headers of a new call, with the language set and everything else absent.
    pub fn new(task: impl Into<String>, id: impl Into<String>) -> Self {
        Self { lang: "py".to_owned(), task: task.into(), id: id.into(), ..Self::default() }
    }

    /// Reads a header table.
    ///
    /// Missing headers and nulls are absent values. Texts for people are taken as they are, also
    /// if they are no text; a wrong type elsewhere is an error.
    pub fn decode(headers: &Map) -> Result<Self, Error> {
        let mut read = Self::default();
        for (key, value) in headers.iter() {
            read.set(key, value)?;
        }
        read.extra.keep_last();
        if read.task.is_empty() {
            return Err(Error::Missing { field: "task" });
        }
        if read.id.is_empty() {
            return Err(Error::Missing { field: "id" });
        }
        Ok(read)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), Error> {
        match key {
            "lang" => self.lang = shown(value),
            "task" => self.task = text("task", value)?.unwrap_or_default(),
            "id" => self.id = text("id", value)?.unwrap_or_default(),
            "shadow" => self.shadow = some_shown(value),
            "eta" => self.eta = date("eta", value)?,
            "expires" => self.expires = date("expires", value)?,
            "group" => self.group = text("group", value)?,
            "group_index" => self.group_index = fields::integer("group_index", value)?,
            "retries" => self.retries = fields::integer("retries", value)?.unwrap_or(0),
            "timelimit" => self.timelimit = TimeLimit::from_value(value)?,
            "root_id" => self.root_id = text("root_id", value)?,
            "parent_id" => self.parent_id = text("parent_id", value)?,
            "argsrepr" => self.argsrepr = shown(value),
            "kwargsrepr" => self.kwargsrepr = shown(value),
            "origin" => self.origin = shown(value),
            "ignore_result" => self.ignore_result = fields::flag("ignore_result", value)?,
            "replaced_task_nesting" => {
                self.replaced_task_nesting =
                    fields::integer("replaced_task_nesting", value)?.unwrap_or(0);
            }
            "stamped_headers" => {
                self.stamped_headers = fields::array("stamped_headers", value.clone())?;
            }
            "stamps" => self.stamps = fields::map("stamps", value.clone())?,
            "compression" => self.compression = text("compression", value)?,
            _ if is_added_by_the_broker(key) => {}
            _ => self.extra.push(key.to_owned(), value.clone()),
        }
        Ok(())
    }

    /// Writes the header table: all nineteen standard headers in Celery's order, then the rest.
    pub fn encode(&self) -> Map {
        self.clone().into_map()
    }

    /// [`encode`](Self::encode) without a copy.
    pub fn into_map(self) -> Map {
        let overwrites = !self.extra.is_empty();
        let mut map = Map::with_capacity(20 + self.extra.len());
        map.push("lang", self.lang);
        map.push("task", self.task);
        map.push("id", self.id);
        map.push("shadow", self.shadow);
        map.push("eta", self.eta.map(Date::into_text));
        map.push("expires", self.expires.map(Date::into_text));
        map.push("group", self.group);
        map.push("group_index", self.group_index);
        map.push("retries", self.retries);
        map.push("timelimit", self.timelimit.to_value());
        map.push("root_id", self.root_id);
        map.push("parent_id", self.parent_id);
        map.push("argsrepr", self.argsrepr);
        map.push("kwargsrepr", self.kwargsrepr);
        map.push("origin", self.origin);
        map.push("ignore_result", self.ignore_result);
        map.push("replaced_task_nesting", self.replaced_task_nesting);
        map.push("stamped_headers", self.stamped_headers);
        map.push("stamps", self.stamps);
        map.extend(self.extra);
        if overwrites {
            // A custom header overwrites a standard one, as it does in Celery.
            map.keep_last();
        }
        if let Some(compression) = self.compression {
            map.push("compression", compression);
        }
        map
    }
}

impl TimeLimit {
    /// Reads `[hard, soft]`; a limit that is no positive number is none.
    pub(super) fn from_value(value: &Value) -> Result<Self, Error> {
        let limit = |at: usize, items: &[Value]| {
            let number = items.get(at).map_or(Ok(None), |item| fields::number("timelimit", item));
            number.map(|number| number.filter(|seconds| seconds.is_finite() && *seconds > 0.0))
        };
        match value {
            Value::Null => Ok(Self::default()),
            Value::Array(items) => Ok(Self { hard: limit(0, items)?, soft: limit(1, items)? }),
            other => Err(fields::wrong("timelimit", "a list", other)),
        }
    }

    fn to_value(self) -> Value {
        Value::Array(vec![seconds_value(self.hard), seconds_value(self.soft)])
    }
}

/// Seconds as Python programs write them: an integer, unless there is a fraction.
pub(super) fn seconds_value(seconds: Option<f64>) -> Value {
    match seconds {
        None => Value::Null,
        // The bounds are exact in a double, and what lies between them fits.
        Some(whole) if whole.fract() == 0.0 && whole.abs() < 9.0e15 => Value::Int(whole as i64),
        Some(seconds) => Value::Float(seconds),
    }
}

/// Dead-lettering and redelivery leave their traces in headers; they belong to one delivery only.
fn is_added_by_the_broker(key: &str) -> bool {
    key == "x-death"
        || key == "x-delivery-count"
        || key == "x-acquired-count"
        || key.starts_with("x-first-death-")
        || key.starts_with("x-last-death-")
}

fn text(field: &'static str, value: &Value) -> Result<Option<String>, Error> {
    match value {
        Value::String(text) => Ok(Some(text.clone())),
        other => fields::text(field, other.clone()),
    }
}

fn date(field: &'static str, value: &Value) -> Result<Option<Date>, Error> {
    text(field, value)?.as_deref().map(Date::parse).transpose()
}

fn shown(value: &Value) -> String {
    some_shown(value).unwrap_or_default()
}

fn some_shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) | Value::Tagged(_, text) => Some(text.clone()),
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        other => Some(super::repr::value(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_nineteen_headers_are_written_in_celerys_order() {
        let mut headers = TaskHeaders::new("t", "1");
        headers.extra.push("x-tenant", "acme");
        headers.compression = Some("application/zstd".to_owned());
        let written = headers.encode();
        let names: Vec<_> = written.iter().map(|(name, _)| name).collect();
        let expected = "lang task id shadow eta expires group group_index retries timelimit \
            root_id parent_id argsrepr kwargsrepr origin ignore_result replaced_task_nesting \
            stamped_headers stamps x-tenant compression";
        assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
        assert_eq!(written.get("lang"), Some(&Value::from("py")));
    }

    #[test]
    fn a_custom_header_overwrites_a_standard_one_as_in_celery() {
        let mut headers = TaskHeaders::new("t", "1");
        headers.extra.push("shadow", "other");
        let written = headers.encode();
        assert_eq!(written.len(), 19);
        assert_eq!(written.get("shadow"), Some(&Value::from("other")));
    }

    #[test]
    fn traces_of_the_broker_are_not_sent_on() {
        let names = [
            "x-death",
            "x-first-death-queue",
            "x-last-death-reason",
            "x-delivery-count",
            "x-acquired-count",
            "x-deathly",
        ];
        let mut map = Map::from_iter([("task", "t"), ("id", "1")]);
        names.iter().for_each(|name| map.push(*name, 1));
        let read = TaskHeaders::decode(&map).unwrap();
        assert_eq!(read.extra, Map::from_iter([("x-deathly", 1)]));
    }

    #[test]
    fn limits_that_are_no_positive_number_are_none() {
        let limit = |hard: Value, soft: Value| {
            TimeLimit::from_value(&Value::Array(vec![hard, soft])).unwrap()
        };
        let none = TimeLimit::default();
        assert_eq!(limit(f64::NAN.into(), f64::INFINITY.into()), none);
        assert_eq!(limit(0.into(), (-1).into()), none);
        assert_eq!(limit(30.into(), 2.5.into()), TimeLimit { hard: Some(30.0), soft: Some(2.5) });
    }

    #[test]
    fn whole_limits_are_written_as_integers() {
        let limit = TimeLimit { hard: Some(30.0), soft: Some(2.5) };
        assert_eq!(limit.to_value(), Value::Array(vec![30.into(), 2.5.into()]));
    }
}
