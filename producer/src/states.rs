//! States of tasks, as this program has shown them before: JSON lines of `--wait` and of `events`.
//!
//! **Invariant:** nothing is kept of a task but its id and its last state.

use std::collections::HashMap;
use std::path::Path;

use celeriac::cli;
use celeriac::protocol::{Limits, Map, TaskState, Value, json};

use crate::exit::Failure;
use crate::lines;

/// What runs that wait say of a task that has no state for them.
const NO_STATES: &[&str] = &["SENT", "TIMEOUT", "UNKNOWN"];

/// Reads a file, or standard input for "-"; later lines win, but an end stays an end.
pub(crate) fn read(path: &Path) -> Result<HashMap<String, TaskState>, Failure> {
    let unreadable = |error| {
        Failure::usage(format!("failed to read {}: {}", path.display(), cli::sentence(&error)))
    };
    let mut lines = lines::open(path).map_err(unreadable)?;
    let mut states = HashMap::new();
    while let Some(line) = lines.blocking_recv() {
        let line = line.map_err(unreadable)?;
        let Ok(Value::Map(object)) = json::decode(&line.bytes, &Limits::default()) else {
            let (path, number) = (path.display(), line.number);
            return Err(Failure::usage(format!("{path}: line {number} is not a JSON object")));
        };
        add(&object, &mut states);
    }
    Ok(states)
}

/// Adds what an object says: an event, or a run that has waited for one task or a workflow.
fn add(object: &Map, states: &mut HashMap<String, TaskState>) {
    let text = |key| object.get(key).and_then(Value::as_str);
    if let (Some(id), Some(state)) = (text("uuid"), text("type").and_then(of_event)) {
        tell(id, state, states);
    }
    let state = text("status").filter(|it| !NO_STATES.contains(it));
    if let (Some(id), Some(state)) = (text("task_id"), state) {
        tell(id, TaskState::from(state), states);
    }
    let tasks = object.get("tasks").and_then(Value::as_array).unwrap_or_default();
    tasks.iter().filter_map(Value::as_map).for_each(|task| add(task, states));
}

fn tell(id: &str, state: TaskState, states: &mut HashMap<String, TaskState>) {
    if state.is_ready() || !states.get(id).is_some_and(TaskState::is_ready) {
        states.insert(id.to_owned(), state);
    }
}

/// The state that a task is in after an event of this type.
fn of_event(name: &str) -> Option<TaskState> {
    Some(match name {
        "task-sent" => TaskState::Pending,
        "task-received" => TaskState::Received,
        "task-started" => TaskState::Started,
        "task-retried" => TaskState::Retry,
        "task-succeeded" => TaskState::Success,
        "task-failed" => TaskState::Failure,
        "task-revoked" => TaskState::Revoked,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(lines: &[&str]) -> Vec<(String, String)> {
        let mut states = HashMap::new();
        for line in lines {
            let object = json::decode(line.as_bytes(), &Limits::default()).unwrap();
            add(object.as_map().unwrap(), &mut states);
        }
        let mut states: Vec<_> =
            states.into_iter().map(|(id, state)| (id, state.as_str().to_owned())).collect();
        states.sort();
        states
    }

    fn expected(states: &[(&str, &str)]) -> Vec<(String, String)> {
        states.iter().map(|(id, state)| ((*id).to_owned(), (*state).to_owned())).collect()
    }

    #[test]
    fn a_run_that_has_waited_tells_of_all_of_its_tasks() {
        let run = r#"{"task_id": "c", "status": "TIMEOUT", "tasks": [
            {"task_id": "a", "status": "SUCCESS"}, {"task_id": "b", "status": "PROGRESS"},
            {"task_id": "c", "status": "PENDING"}]}"#;
        let told = expected(&[("a", "SUCCESS"), ("b", "PROGRESS"), ("c", "PENDING")]);
        assert_eq!(states(&[run]), told);
        assert_eq!(states(&[r#"{"task_id": "c", "status": "SENT"}"#]), expected(&[]));
    }

    #[test]
    fn events_tell_how_a_task_goes_on_and_an_end_stays_an_end() {
        let event = |name: &str, id: &str| format!(r#"{{"type": "{name}", "uuid": "{id}"}}"#);
        let names = [
            ("task-received", "a"),
            ("task-started", "a"),
            ("task-failed", "b"),
            ("task-started", "b"),
            ("task-custom", "c"),
            ("worker-online", "d"),
            ("task-retried", "e"),
            ("task-started", "e"),
        ];
        let lines = names.map(|(name, id)| event(name, id));
        let told = expected(&[("a", "STARTED"), ("b", "FAILURE"), ("e", "STARTED")]);
        assert_eq!(states(&lines.each_ref().map(String::as_str)), told);
    }
}
