//! The words of Celery's canvas as signatures.

use celeriac::protocol::{Map, Signature, Value};

/// Steps one after the other.
pub(crate) fn chain(steps: Vec<Signature>) -> Signature {
    composite("chain", [("tasks", values(steps))])
}

/// Members side by side.
pub(crate) fn group(members: Vec<Signature>) -> Signature {
    composite("group", [("tasks", values(members))])
}

/// A body that gets the results of the header.
pub(crate) fn chord(header: Vec<Signature>, body: Signature) -> Signature {
    let kwargs = Value::Map(Map::new());
    composite(
        "chord",
        [("header", values(header)), ("body", body.into_value()), ("kwargs", kwargs)],
    )
}

/// `map` or `starmap`: one task that runs over the items.
pub(crate) fn over(word: &str, task: Signature, items: Vec<Value>) -> Signature {
    let kwargs = [("task", task.into_value()), ("it", Value::Array(items))];
    let subtask_type = format!("x{word}");
    let signature = composite(word, kwargs);
    Signature { immutable: true, subtask_type: Some(subtask_type), ..signature }
}

/// Tasks that run over `size` items each.
pub(crate) fn chunks(task: Signature, items: Vec<Value>, size: i64) -> Signature {
    let kwargs = [("task", task.into_value()), ("it", Value::Array(items)), ("n", size.into())];
    Signature { immutable: true, ..composite("chunks", kwargs) }
}

/// The same workflow, with the parts of its chords reporting to the caller, too.
pub(crate) fn watched(mut workflow: Signature) -> Signature {
    if !matches!(&*workflow.task, "celery.chain" | "celery.group" | "celery.chord") {
        return workflow;
    }
    if workflow.task != "celery.chain" {
        let mut join = match workflow.options.remove("join") {
            Some(Value::Map(join)) => join,
            _ => Map::new(),
        };
        if join.get("header_results").is_none() {
            join.insert("header_results", true);
        }
        workflow.options.insert("join", join);
    }
    let inner = |value: Value| match Signature::from_value(value.clone()) {
        Ok(signature) => watched(signature).into_value(),
        Err(_) => value,
    };
    for key in ["tasks", "header", "body"] {
        match workflow.kwargs.remove(key) {
            Some(Value::Array(parts)) => {
                workflow.kwargs.insert(key, parts.into_iter().map(inner).collect::<Vec<_>>());
            }
            Some(part) => workflow.kwargs.insert(key, inner(part)),
            None => {}
        }
    }
    workflow
}

fn composite(word: &str, kwargs: impl IntoIterator<Item = (&'static str, Value)>) -> Signature {
    Signature {
        kwargs: kwargs.into_iter().collect(),
        subtask_type: Some(word.to_owned()),
        ..Signature::new(format!("celery.{word}"))
    }
}

fn values(signatures: Vec<Signature>) -> Value {
    Value::Array(signatures.into_iter().map(Signature::into_value).collect())
}

/// Text for an error message, shortened.
pub(crate) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARS_MAX).chain(std::iter::once('…')).collect()
}

/// The workflow as an expression, which tests compare.
#[cfg(test)]
pub(crate) fn brief(signature: &Signature) -> String {
    let inner = |value: &Value| match Signature::from_value(value.clone()) {
        Ok(signature) => brief(&signature),
        Err(_) => crate::output::to_json(value),
    };
    let word = signature.task.strip_prefix("celery.");
    let mut parts = Vec::new();
    for (name, value) in signature.kwargs.iter() {
        match (word, name, value) {
            (Some(_), "tasks" | "header", Value::Array(tasks)) => {
                parts.extend(tasks.iter().map(inner));
            }
            (Some(_), "kwargs", _) => {}
            (Some(_), ..) => parts.push(inner(value)),
            (None, ..) => parts.push(format!("{name}={}", crate::output::to_json(value))),
        }
    }
    let args = signature.args.iter().map(crate::output::to_json);
    let parts: Vec<_> = args.chain(parts).collect();
    let suffix = if signature.immutable && word.is_none() { ".si" } else { "" };
    format!("{}{suffix}({})", word.unwrap_or(&signature.task), parts.join(", "))
}
