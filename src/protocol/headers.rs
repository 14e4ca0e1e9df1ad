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
    /// Headers that are always written.
    const STANDARD_COUNT: usize = 19;

    /// Headers of a new call, with the language set and everything else absent.
    pub fn new(task: impl Into<String>, id: impl Into<String>) -> Self {
        Self { lang: "py".to_owned(), task: task.into(), id: id.into(), ..Self::default() }
    }

    /// Reads a header table.
    ///
    /// Missing headers and nulls are absent values. Texts for people are taken as they are, also
    /// if they are no text; a wrong type elsewhere is an error.
    pub fn decode(headers: &Map) -> Result<Self, Error> {
        match Self::take(headers.clone()) {
            Ok((read, _)) => Ok(read),
            Err(failed) => Err(failed.0),
        }
    }

    /// [`decode`](Self::decode) without a copy of the texts, and what is needed to put the table
    /// together again. An error comes with the table as it was.
    pub(super) fn take(headers: Map) -> Result<(Self, Remains), Box<(Error, Map)>> {
        let (mut read, mut remains) = (Self::default(), Remains::default());
        let mut entries = headers.into_iter();
        for (key, mut value) in entries.by_ref() {
            match read.set(&key, &mut value) {
                Ok(Place::Known(place)) => remains.taken |= 1 << place,
                Ok(Place::Extra) => read.extra.push(key, value),
                Ok(Place::Odd) => remains.odd.push(key, value),
                Err(error) => {
                    remains.odd.push(key, value);
                    remains.odd.extend(entries);
                    return Err(Box::new((error, remains.restore(read))));
                }
            }
        }
        read.extra.keep_last();
        let needed = [("task", read.task.is_empty()), ("id", read.id.is_empty())];
        match needed.into_iter().find(|(_, missing)| *missing) {
            Some((field, _)) => Err(Box::new((Error::Missing { field }, remains.restore(read)))),
            None => Ok((read, remains)),
        }
    }

    /// Takes one header. The numbers are the places at which `into_map` writes it.
    fn set(&mut self, key: &str, value: &mut Value) -> Result<Place, Error> {
        let (place, same) = match key {
            "argsrepr" => (0, shown(&mut self.argsrepr, value)),
            "eta" => (1, date("eta", &mut self.eta, value)?),
            "expires" => (2, date("expires", &mut self.expires, value)?),
            "group" => (3, text("group", &mut self.group, value)?),
            "group_index" => {
                self.group_index = fields::integer("group_index", value)?;
                (4, matches!(value, Value::Int(_) | Value::Null))
            }
            "id" => (5, needed_text("id", &mut self.id, value)?),
            "ignore_result" => {
                self.ignore_result = fields::flag("ignore_result", value)?;
                (6, matches!(value, Value::Bool(_) | Value::Null))
            }
            "kwargsrepr" => (7, shown(&mut self.kwargsrepr, value)),
            "lang" => (8, shown(&mut self.lang, value)),
            "origin" => (9, shown(&mut self.origin, value)),
            "parent_id" => (10, text("parent_id", &mut self.parent_id, value)?),
            "replaced_task_nesting" => {
                let nesting = fields::integer("replaced_task_nesting", value)?;
                self.replaced_task_nesting = nesting.unwrap_or(0);
                (11, matches!(value, Value::Int(_)))
            }
            "retries" => {
                self.retries = fields::integer("retries", value)?.unwrap_or(0);
                (12, matches!(value, Value::Int(_)))
            }
            "root_id" => (13, text("root_id", &mut self.root_id, value)?),
            "shadow" => (14, some_shown(&mut self.shadow, value)),
            "stamped_headers" => {
                let same = matches!(value, Value::Array(_) | Value::Null);
                self.stamped_headers = fields::array("stamped_headers", owned(value, same))?;
                (15, same)
            }
            "stamps" => {
                let same = matches!(value, Value::Map(_));
                self.stamps = fields::map("stamps", owned(value, same))?;
                (16, same)
            }
            "task" => (17, needed_text("task", &mut self.task, value)?),
            "timelimit" => {
                self.timelimit = TimeLimit::from_value(value)?;
                (18, self.timelimit.is_written_as(value))
            }
            // Written only if there is one.
            "compression" => {
                let same = text("compression", &mut self.compression, value)?;
                (19, same && self.compression.is_some())
            }
            _ if is_added_by_the_broker(key) => return Ok(Place::Odd),
            _ => return Ok(Place::Extra),
        };
        Ok(if same { Place::Known(place) } else { Place::Odd })
    }

    /// Writes the header table: all nineteen standard headers, then the rest.
    ///
    /// They are sorted, as AMQP tables are kept by the client library, which sorts them otherwise.
    pub fn encode(&self) -> Map {
        self.clone().into_map()
    }

    /// [`encode`](Self::encode) without a copy.
    pub fn into_map(self) -> Map {
        let overwrites = !self.extra.is_empty();
        let mut map = Map::with_capacity(20 + self.extra.len());
        map.push("argsrepr", self.argsrepr);
        map.push("eta", self.eta.map(Date::into_text));
        map.push("expires", self.expires.map(Date::into_text));
        map.push("group", self.group);
        map.push("group_index", self.group_index);
        map.push("id", self.id);
        map.push("ignore_result", self.ignore_result);
        map.push("kwargsrepr", self.kwargsrepr);
        map.push("lang", self.lang);
        map.push("origin", self.origin);
        map.push("parent_id", self.parent_id);
        map.push("replaced_task_nesting", self.replaced_task_nesting);
        map.push("retries", self.retries);
        map.push("root_id", self.root_id);
        map.push("shadow", self.shadow);
        map.push("stamped_headers", self.stamped_headers);
        map.push("stamps", self.stamps);
        map.push("task", self.task);
        map.push("timelimit", self.timelimit.to_value());
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

/// Where a header went when it was read.
enum Place {
    /// Into the field that is written again at this place, as it was.
    Known(u32),
    /// Among the custom headers.
    Extra,
    /// Nowhere, or into a field that is written otherwise.
    Odd,
}

/// What decoded headers do not tell about the table that they came from: with it they can be
/// turned into the same table again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Remains {
    /// One bit for the place of each header that the fields give back as it was.
    taken: u32,
    /// All that the fields would give back otherwise, or not at all.
    odd: Map,
}

impl Remains {
    /// The headers that are kept nowhere else, those of the broker among them.
    pub(crate) fn odd(&self) -> &Map {
        &self.odd
    }

    /// The table from which `headers` were taken, in another order.
    pub(crate) fn restore(self, headers: TaskHeaders) -> Map {
        let Self { taken, odd } = self;
        let compression = headers.compression.is_some();
        let mut map = headers.into_map();
        let standard = TaskHeaders::STANDARD_COUNT;
        let last = map.len().saturating_sub(1);
        map.retain_at(|at| match at {
            _ if at < standard => taken & 1 << at != 0,
            _ if at == last && compression => taken & 1 << standard != 0,
            _ => true,
        });
        map.extend(odd);
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

    /// Whether `to_value` gives this value.
    fn is_written_as(self, value: &Value) -> bool {
        match value {
            // The usual one, without an allocation.
            Value::Array(limits) if matches!(limits[..], [Value::Null, Value::Null]) => true,
            other => self.to_value() == *other,
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
pub(crate) fn is_added_by_the_broker(key: &str) -> bool {
    key == "x-death"
        || key == "x-delivery-count"
        || key == "x-acquired-count"
        || key.starts_with("x-first-death-")
        || key.starts_with("x-last-death-")
}

/// The value itself if it may be taken, or a copy of it.
fn owned(value: &mut Value, take: bool) -> Value {
    if take { std::mem::take(value) } else { value.clone() }
}

// Each of these reads `value` into `slot`, and tells whether the slot is written as the same value.
// Then the value was taken; after an error it never was.

fn text(field: &'static str, slot: &mut Option<String>, value: &mut Value) -> Result<bool, Error> {
    let same = matches!(value, Value::String(_) | Value::Null);
    *slot = fields::text(field, owned(value, same))?;
    Ok(same)
}

fn needed_text(field: &'static str, slot: &mut String, value: &mut Value) -> Result<bool, Error> {
    let same = matches!(value, Value::String(_));
    *slot = fields::text(field, owned(value, same))?.unwrap_or_default();
    Ok(same)
}

fn date(field: &'static str, slot: &mut Option<Date>, value: &mut Value) -> Result<bool, Error> {
    let text = match &*value {
        Value::String(text) => Some(text.clone()),
        other => fields::text(field, other.clone())?,
    };
    *slot = text.as_deref().map(Date::parse).transpose()?;
    Ok(matches!(value, Value::String(_) | Value::Null))
}

fn shown(slot: &mut String, value: &mut Value) -> bool {
    let mut text = None;
    let same = some_shown(&mut text, value) && text.is_some();
    *slot = text.unwrap_or_default();
    same
}

fn some_shown(slot: &mut Option<String>, value: &mut Value) -> bool {
    *slot = match *value {
        Value::Null => None,
        Value::String(ref mut text) => Some(std::mem::take(text)),
        Value::Tagged(_, ref text) => Some(text.clone()),
        Value::Bytes(ref bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ref other => Some(super::repr::value(other)),
    };
    matches!(value, Value::Null | Value::String(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_nineteen_headers_are_written_and_sorted() {
        let mut headers = TaskHeaders::new("t", "1");
        headers.extra.push("x-tenant", "acme");
        headers.compression = Some("application/zstd".to_owned());
        let written = headers.encode();
        let names: Vec<_> = written.iter().map(|(name, _)| name).collect();
        let expected = "argsrepr eta expires group group_index id ignore_result kwargsrepr lang \
            origin parent_id replaced_task_nesting retries root_id shadow stamped_headers stamps \
            task timelimit x-tenant compression";
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
    fn a_table_that_was_taken_apart_is_put_together_again() {
        let odd = Value::Tagged(crate::protocol::Tag::DateTime, "2030-01-02T03:04:05".into());
        let limits = Value::Array(vec![30.into(), 2.5.into()]);
        let long_limits = Value::Array(vec![30.0.into(), Value::Null, Value::Null]);
        let all = TaskHeaders::new("t", "1").encode();
        let rows: Vec<Vec<(&str, Value)>> = vec![
            vec![],
            vec![("shadow", Value::Null), ("group", Value::Null), ("lang", Value::Null)],
            vec![("lang", b"py".to_vec().into()), ("argsrepr", 5.into()), ("origin", "".into())],
            vec![("eta", odd.clone()), ("expires", "2030-01-02T03:04:05Z".into())],
            vec![("retries", Value::Null), ("replaced_task_nesting", true.into())],
            vec![("timelimit", limits), ("ignore_result", 1.into()), ("group_index", 1.0.into())],
            vec![("timelimit", long_limits), ("stamps", Value::Null), ("root_id", odd)],
            vec![("compression", Value::Null), ("x-death", 1.into()), ("tenant", "a".into())],
            vec![("compression", "gzip".into()), ("stamped_headers", Value::Array(vec![]))],
            all.into_iter().map(|(key, value)| (&*key.into_owned().leak(), value)).collect(),
        ];
        for row in rows {
            let mut map = Map::from_iter([("task", "t"), ("id", "1")]);
            row.into_iter().for_each(|(key, value)| map.insert(key.to_owned(), value));
            let (read, remains) = TaskHeaders::take(map.clone()).unwrap();
            assert_eq!(sorted(remains.restore(read)), sorted(map.clone()));
            map.insert("group", 5);
            let failed = TaskHeaders::take(map.clone()).unwrap_err();
            assert_eq!(sorted(failed.1), sorted(map));
        }
    }

    fn sorted(map: Map) -> Vec<(String, Value)> {
        let mut entries: Vec<_> =
            map.into_iter().map(|(key, value)| (key.into_owned(), value)).collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries
    }

    #[test]
    fn whole_limits_are_written_as_integers() {
        let limit = TimeLimit { hard: Some(30.0), soft: Some(2.5) };
        assert_eq!(limit.to_value(), Value::Array(vec![30.into(), 2.5.into()]));
    }
}
