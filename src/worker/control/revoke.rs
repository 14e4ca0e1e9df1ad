//! Commands that revoke.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracing::info;

use super::Bridge;
use super::arguments::{Arguments, Fault};
use crate::protocol::control::{Mark, Reply, Request, Revocation};
use crate::protocol::excerpt;
use crate::protocol::{Map, Value, repr};
use crate::worker::active::Cancel;
use crate::worker::revoked::covering;

/// Marks that one command makes; the broker has no room for more in one message either.
const MARKS_MAX: usize = 100_000;

/// `revoke(task_id, terminate=False, signal=None)`. `root_id` and `group_id`, each a text or a
/// list, revoke whole workflows; Python's workers pass over them.
pub(super) fn revoke(
    arguments: &Arguments<'_>,
    request: &Request,
    bridge: &Bridge,
) -> Result<Value, Fault> {
    let ids = if arguments.get("root_id").is_some() || arguments.get("group_id").is_some() {
        arguments.texts("task_id")?
    } else {
        arguments.required("task_id")?;
        arguments.texts("task_id")?
    };
    let mut marks: Vec<Mark> = ids.iter().cloned().map(Mark::Task).collect();
    marks.extend(arguments.texts("root_id")?.into_iter().map(Mark::Root));
    marks.extend(arguments.texts("group_id")?.into_iter().map(Mark::Group));
    let how = How::read(arguments)?;
    if how.terminate {
        let stopped = mark(marks, how, request, bridge)?;
        return Ok(Reply::ok(match stopped.is_empty() {
            true => "terminate: tasks unknown".to_owned(),
            false => format!("terminate: {}", stopped.join(", ")),
        }));
    }
    let named = marks.len() - ids.len();
    mark(marks, how, request, bridge)?;
    Ok(Reply::ok(match (ids.is_empty(), named) {
        (true, 1) => "1 workflow flagged as revoked".to_owned(),
        (true, _) => format!("{named} workflows flagged as revoked"),
        (false, _) => format!("tasks {} flagged as revoked", set(&ids)),
    }))
}

/// `terminate(signal, task_id)`: revoke with terminate.
pub(super) fn terminate(
    arguments: &Arguments<'_>,
    request: &Request,
    bridge: &Bridge,
) -> Result<Value, Fault> {
    arguments.required("signal")?;
    let mut values = arguments.values.clone();
    values.insert("terminate", true);
    revoke(&Arguments { method: "terminate", values: &values }, request, bridge)
}

/// `revoke_by_stamped_headers(headers, terminate=False, signal=None)`.
pub(super) fn by_stamps(
    arguments: &Arguments<'_>,
    request: &Request,
    bridge: &Bridge,
) -> Result<Value, Fault> {
    let headers = headers(arguments.required("headers")?)?;
    let mut marks = Vec::new();
    for (name, values) in headers.iter() {
        let stamp = |value: &Value| Mark::Stamp { name: name.to_owned(), value: value.clone() };
        match values {
            Value::Array(values) => marks.extend(values.iter().map(stamp)),
            value => marks.push(stamp(value)),
        }
    }
    let how = How::read(arguments)?;
    let (shown, terminate) = (repr::value(&Value::Map(headers)), how.terminate);
    let stopped = mark(marks, how, request, bridge)?;
    Ok(Reply::ok(match (terminate, stopped.is_empty()) {
        (false, _) => format!("headers {shown} flagged as revoked, but not terminated"),
        (true, true) => format!("headers {shown} were not terminated"),
        (true, false) => format!("headers {shown} revoked"),
    }))
}

/// Stamps as a map, or as a list of `name=value`.
fn headers(given: &Value) -> Result<Map, Fault> {
    let wrong = || {
        let text = "headers must be a dict of stamps, or a list of texts such as 'name=value'";
        Fault::exception("ValueError", text)
    };
    let listed = match given {
        Value::Map(map) => return Ok(map.clone()),
        Value::Array(items) => items,
        _ => return Err(wrong()),
    };
    let mut stamps: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for item in listed {
        let (name, value) = item.as_str().and_then(|it| it.split_once('=')).ok_or_else(wrong)?;
        stamps.entry(name).or_default().push(value.into());
    }
    let one_or_many = |mut values: Vec<Value>| match values.len() {
        1 => values.pop().unwrap_or_default(),
        _ => Value::Array(values),
    };
    Ok(stamps.into_iter().map(|(name, it)| (name.to_owned(), one_or_many(it))).collect())
}

struct How {
    terminate: bool,
    signal: Option<String>,
}

impl How {
    fn read(arguments: &Arguments<'_>) -> Result<Self, Fault> {
        let signal = match arguments.get("signal") {
            None => None,
            Some(Value::Int(number)) if is_signal(&number.to_string()) => Some(number.to_string()),
            Some(Value::String(name)) if is_signal(name) => Some(name.clone()),
            Some(other) => {
                let text = format!("unknown signal {}", excerpt(&repr::value(other)));
                return Err(Fault::exception("ValueError", &text));
            }
        };
        Ok(Self { terminate: arguments.truthy("terminate"), signal })
    }
}

/// `SIGTERM`, `term`, `KILL`, or a number.
fn is_signal(name: &str) -> bool {
    #[cfg(unix)]
    {
        crate::process::signal_named(name).is_some()
    }
    // Nothing runs in a process of its own.
    #[cfg(not(unix))]
    {
        !name.is_empty()
    }
}

/// Revokes, stops what is here, and shares it; gives the ids of the tasks that were stopped.
fn mark(
    marks: Vec<Mark>,
    how: How,
    request: &Request,
    bridge: &Bridge,
) -> Result<Vec<String>, Fault> {
    if marks.len() > MARKS_MAX {
        let text = format!("more than {MARKS_MAX} revocations in one command");
        return Err(Fault::exception("ValueError", &text));
    }
    if let Err(error) = marks.iter().try_for_each(Mark::check) {
        return Err(Fault::exception("ValueError", &error.to_string()));
    }
    let How { terminate, signal } = how;
    let at = Timestamp::now();
    bridge.crew.revoked.add(&marks, at, false);
    let why = Cancel::revoked(terminate, signal.clone());
    // After they were added: what arrives meanwhile sees them.
    let mut stopped = bridge.crew.active.cancel_if(covering(&marks), why);
    // The stream may have been faster than the command.
    let ended = bridge.crew.revoked.ended_lately(&marks);
    stopped.extend(ended);
    stopped.sort();
    stopped.dedup();
    info!(marks = marks.len(), terminate, stopped = stopped.len(), "revoked by remote control");
    // What some workers only were told is theirs alone.
    if request.is_for_all() {
        bridge.revocations.share(Revocation { marks, at, terminate, signal });
    }
    Ok(stopped)
}

/// As Python shows a set.
fn set(ids: &[String]) -> String {
    if ids.is_empty() {
        return "set()".to_owned();
    }
    let mut seen = std::collections::HashSet::new();
    let unique = ids.iter().filter(|id| seen.insert(*id)).map(|id| Value::from(id.as_str()));
    let shown = repr::value(&Value::Array(unique.collect()));
    let inner = shown.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(&shown);
    format!("{{{inner}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shown_as_a_python_set() {
        let ids = ["id-a", "id-b", "id-a"].map(str::to_owned);
        assert_eq!(set(&ids), "{'id-a', 'id-b'}");
        assert_eq!(set(&[]), "set()");
    }

    #[test]
    fn stamps_are_given_as_a_map_or_as_assignments() {
        let listed = |items: &[&str]| {
            headers(&Value::Array(items.iter().map(|it| Value::from(*it)).collect()))
        };
        let stamps = listed(&["tenant=a", "tenant=b", "run=x=y"]).ok().map(Value::Map);
        let shown = stamps.map(|it| repr::value(&it));
        assert_eq!(shown.as_deref(), Some("{'run': 'x=y', 'tenant': ['a', 'b']}"));
        assert!(listed(&["tenant"]).is_err());
        assert!(headers(&Value::from(3)).is_err());
        assert!(headers(&Value::Array(vec![Value::Null])).is_err());
    }

    #[test]
    fn signals_are_known_by_name_or_number() {
        for name in ["SIGTERM", "sigkill", "KILL", "9"] {
            assert!(is_signal(name), "{name}");
        }
        for name in ["", "SIG", "SIGPONY", "0", "65", "-9", "9x"] {
            assert!(!is_signal(name), "{name}");
        }
    }
}
