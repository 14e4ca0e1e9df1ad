//! The result of a task as a message: the map that Celery calls "meta".
//!
//! ```text
//! {"status": "SUCCESS", "result": 5, "traceback": null, "children": [],
//!  "date_done": "2026-11-22T08:06:57.147425+00:00", "task_id": "bddf0ca4-..."}
//! ```
//!
//! Does not say where a result goes: that is the `reply_to` of the request.

use std::fmt;

use super::task_message::{compression, serializer, unpack};
use super::{
    Error, Exception, Limits, Map, Message, Properties, Serializer, Value, fields, json, msgpack,
};

/// What is known about a task: its state, and its result or exception.
///
/// ```
/// use celeriac::protocol::{Limits, ResultMeta, Serializer, TaskState};
///
/// let meta = ResultMeta {
///     task_id: "0d6ad1c6".to_owned(),
///     status: TaskState::Success,
///     result: 5.into(),
///     ..ResultMeta::default()
/// };
/// let message = meta.encode(Serializer::Json, "0d6ad1c6", false)?;
/// assert!(message.body.starts_with(br#"{"status": "SUCCESS", "result": 5, "#));
/// assert_eq!(ResultMeta::decode(&message, &Limits::default())?, meta);
/// # Ok::<(), celeriac::protocol::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResultMeta {
    /// Task id, by which clients match.
    pub task_id: String,
    /// The state.
    pub status: TaskState,
    /// The returned value, the exception, or what the task said about its progress.
    pub result: Value,
    /// Free text, for failures and retries.
    pub traceback: Option<String>,
    /// References to the tasks that this one has published.
    pub children: Option<Vec<Value>>,
    /// When the task was done, in ISO 8601.
    pub date_done: Option<String>,
    /// Id of the task's group.
    pub group_id: Option<String>,
    /// Id of the task which published this one.
    pub parent_id: Option<String>,
    /// What Celery adds with `result_extended`, and keys that are not known here.
    pub extra: Map,
}

/// The state of a task, under Celery's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Nothing is known.
    #[default]
    Pending,
    /// A worker has the message.
    Received,
    /// The task runs.
    Started,
    /// The task will run again.
    Retry,
    /// The task returned.
    Success,
    /// The task failed for good.
    Failure,
    /// The task was not run, or stopped, on purpose.
    Revoked,
    /// A state that the task has given itself, for example `PROGRESS`.
    Custom(String),
}

impl TaskState {
    /// Celery's name of the state.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "PENDING",
            Self::Received => "RECEIVED",
            Self::Started => "STARTED",
            Self::Retry => "RETRY",
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Revoked => "REVOKED",
            Self::Custom(name) => name,
        }
    }

    /// Whether this is the end.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Revoked)
    }

    /// Whether the result of this state is an exception.
    pub fn is_exception(&self) -> bool {
        matches!(self, Self::Failure | Self::Retry | Self::Revoked)
    }
}

impl From<&str> for TaskState {
    fn from(name: &str) -> Self {
        match name {
            "PENDING" => Self::Pending,
            "RECEIVED" => Self::Received,
            "STARTED" => Self::Started,
            "RETRY" => Self::Retry,
            "SUCCESS" => Self::Success,
            "FAILURE" => Self::Failure,
            "REVOKED" => Self::Revoked,
            custom => Self::Custom(custom.to_owned()),
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ResultMeta {
    /// A report that a task is in `status`.
    pub fn new(task_id: impl Into<String>, status: TaskState, result: Value) -> Self {
        Self { task_id: task_id.into(), status, result, ..Self::default() }
    }

    /// The report that a task returned `value`.
    pub fn success(task_id: impl Into<String>, value: Value) -> Self {
        Self::new(task_id, TaskState::Success, value)
    }

    /// The report that a task failed.
    pub fn failure(task_id: impl Into<String>, exception: Exception) -> Self {
        Self::new(task_id, TaskState::Failure, exception.into_value())
    }

    /// The report that a task was not run, or was stopped: `revoked`, `terminated`, `expired`.
    pub fn revoked(task_id: impl Into<String>, reason: &str) -> Self {
        let exception = Exception::task_revoked(reason);
        Self::new(task_id, TaskState::Revoked, exception.into_value())
    }

    /// Reads a result message. `task_id` and `status` are needed; the correlation id is not
    /// looked at, since it may be missing or wrong.
    pub fn decode(message: &Message, limits: &Limits) -> Result<Self, Error> {
        let Message { properties, body } = message;
        let serializer = serializer(properties)?;
        let plain = unpack(body, compression(properties)?, limits)?;
        Self::from_value(serializer.decode(&plain, limits)?)
    }

    /// Reads the map of a result.
    pub fn from_value(value: Value) -> Result<Self, Error> {
        let map = match value {
            Value::Map(map) => map,
            other => return Err(fields::wrong("result", "a dict", &other)),
        };
        let mut read = Self::default();
        let (mut task_id, mut status) = (None, None);
        for (key, value) in map {
            match &*key {
                "task_id" => task_id = fields::text("task_id", value)?,
                "status" => status = fields::text("status", value)?,
                "result" => read.result = value,
                "traceback" => read.traceback = fields::text("traceback", value)?,
                "children" => read.children = fields::array("children", value)?,
                "date_done" => read.date_done = fields::text("date_done", value)?,
                "group_id" => read.group_id = fields::text("group_id", value)?,
                "parent_id" => read.parent_id = fields::text("parent_id", value)?,
                _ => read.extra.push(key, value),
            }
        }
        read.task_id = task_id.ok_or(Error::Missing { field: "task_id" })?;
        let status = status.ok_or(Error::Missing { field: "status" })?;
        read.status = TaskState::from(&*status);
        Ok(read)
    }

    /// Writes the message that tells the caller: priority 0, an empty header table.
    ///
    /// Callers match by the id in the body; `correlation_id` is the one of their request.
    pub fn encode(
        &self,
        serializer: Serializer,
        correlation_id: &str,
        persistent: bool,
    ) -> Result<Message, Error> {
        fields::short("correlation_id", correlation_id)?;
        let entries = self.entries();
        let mut body = Vec::with_capacity(192);
        match serializer {
            Serializer::Msgpack => msgpack::encode_entries(&entries, &mut body)?,
            Serializer::Json => json::encode_entries(&entries, &mut body)?,
        }
        let properties = Properties {
            content_type: Some(serializer.content_type().to_owned()),
            content_encoding: Some(serializer.content_encoding().to_owned()),
            headers: Some(Map::new()),
            delivery_mode: Some(Properties::delivery_mode(persistent)),
            priority: Some(0),
            correlation_id: Some(correlation_id.to_owned()),
            ..Properties::default()
        };
        Ok(Message { properties, body })
    }

    /// The entries of the map in Celery's order, without a copy of anything.
    fn entries(&self) -> Vec<(&str, Part<'_>)> {
        let mut entries = Vec::with_capacity(8 + self.extra.len());
        entries.push(("status", Part::Text(self.status.as_str())));
        entries.push(("result", Part::Value(&self.result)));
        entries.push(("traceback", Part::text(self.traceback.as_deref())));
        entries.push(("children", self.children.as_deref().map_or(Part::Null, Part::Array)));
        entries.push(("date_done", Part::text(self.date_done.as_deref())));
        if self.group_id.is_some() {
            entries.push(("group_id", Part::text(self.group_id.as_deref())));
        }
        if self.parent_id.is_some() {
            entries.push(("parent_id", Part::text(self.parent_id.as_deref())));
        }
        entries.extend(self.extra.iter().map(|(key, value)| (key, Part::Value(value))));
        entries.push(("task_id", Part::Text(&self.task_id)));
        entries
    }
}

/// A value that is written from where it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    Null,
    Text(&'a str),
    Array(&'a [Value]),
    Value(&'a Value),
}

impl<'a> Part<'a> {
    fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_result_needs_is_its_id_and_its_status() {
        let meta = |text: &str| {
            let value = json::decode(text.as_bytes(), &Limits::default());
            value.and_then(ResultMeta::from_value)
        };
        let least = meta(r#"{"task_id": "1", "status": "PROGRESS"}"#).unwrap();
        assert_eq!(least.status, TaskState::Custom("PROGRESS".to_owned()));
        assert_eq!((least.result, least.children), (Value::Null, None));
        assert_eq!(meta(r#"{"status": "SUCCESS"}"#), Err(Error::Missing { field: "task_id" }));
        assert_eq!(meta(r#"{"task_id": "1"}"#), Err(Error::Missing { field: "status" }));
        assert!(meta("[]").is_err());
    }

    #[test]
    fn states_know_what_they_are() {
        for name in "PENDING RECEIVED STARTED RETRY SUCCESS FAILURE REVOKED OWN".split(' ') {
            let state = TaskState::from(name);
            assert_eq!(state.as_str(), name);
            assert_eq!(state.is_ready(), ["SUCCESS", "FAILURE", "REVOKED"].contains(&name));
            assert_eq!(state.is_exception(), ["RETRY", "FAILURE", "REVOKED"].contains(&name));
        }
    }

    #[test]
    fn a_correlation_id_that_amqp_cannot_carry_is_refused() {
        let error = ResultMeta::default().encode(Serializer::Json, &"x".repeat(256), false);
        let expected = Error::TooLong { field: "correlation_id", length: 256, max: 255 };
        assert_eq!(error, Err(expected));
    }
}
