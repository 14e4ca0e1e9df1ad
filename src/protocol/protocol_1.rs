//! Task messages of protocol version 1, which old clients send: no headers, one map as the body.
//!
//! ```text
//! {"task", "id", "args", "kwargs", "group", "group_index", "retries", "eta", "expires", "utc",
//!  "callbacks", "errbacks", "timelimit", "taskset", "chord"}
//! ```
//!
//! Only read, never written. There is no field for chains: they are nested callbacks.

use super::body::required_args;
use super::decode_error::Known;
use super::headers::TimeLimit;
use super::task_message::Failure;
use super::{
    Date, DecodeErrorKind, Error, Map, Signature, TaskBody, TaskHeaders, Value, fields, repr,
};

/// Reads the body; also notes id and task name, for the case that the rest is broken.
pub(super) fn from_value(
    value: Value,
    known: &mut Known,
) -> Result<(TaskHeaders, TaskBody), Failure> {
    let not_a_task = (DecodeErrorKind::NotATask, Error::Missing { field: "task" });
    let Value::Map(map) = value else { return Err(not_a_task) };
    let text = |key| map.get(key).and_then(Value::as_str).map(str::to_owned);
    known.task = text("task");
    known.id = text("id");
    match (&known.task, &known.id) {
        (None, _) => Err(not_a_task),
        (_, None) => Err((DecodeErrorKind::NoId, Error::Missing { field: "id" })),
        _ => read(map).map_err(|error| (DecodeErrorKind::Body, error)),
    }
}

fn read(map: Map) -> Result<(TaskHeaders, TaskBody), Error> {
    let mut headers = TaskHeaders::new("", "");
    let mut body = TaskBody::default();
    let mut args = Value::Null;
    let is_utc = map.get("utc").is_none_or(|utc| *utc != Value::Bool(false));
    let date = |field, value| -> Result<Option<Date>, Error> {
        let date = fields::text(field, value)?.as_deref().map(Date::parse).transpose()?;
        Ok(if is_utc { date.map(Date::or_utc) } else { date })
    };
    for (key, value) in map {
        match &*key {
            "task" => headers.task = fields::text("task", value)?.unwrap_or_default(),
            "id" => headers.id = fields::text("id", value)?.unwrap_or_default(),
            "args" => args = value,
            "kwargs" => body.kwargs = fields::map("kwargs", value)?,
            "group" => headers.group = fields::text("group", value)?.or(headers.group),
            "taskset" => headers.group = headers.group.or(fields::text("taskset", value)?),
            "group_index" => headers.group_index = fields::integer("group_index", &value)?,
            "retries" => headers.retries = fields::integer("retries", &value)?.unwrap_or(0),
            "eta" => headers.eta = date("eta", value)?,
            "expires" => headers.expires = date("expires", value)?,
            "timelimit" => headers.timelimit = TimeLimit::from_value(&value)?,
            "callbacks" => {
                body.embed.callbacks = Signature::list_from_value("callbacks", value)?;
            }
            "errbacks" => body.embed.errbacks = Signature::list_from_value("errbacks", value)?,
            "chord" if !value.is_null() => {
                body.embed.chord = Some(Box::new(Signature::from_value(value)?));
            }
            _ => {}
        }
    }
    body.args = required_args(args)?;
    headers.argsrepr = repr::args(&body.args);
    headers.kwargsrepr = repr::kwargs(&body.kwargs);
    Ok((headers, body))
}
