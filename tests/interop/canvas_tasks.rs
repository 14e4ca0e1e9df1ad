//! The tasks of which Python's workflows are made.

use std::sync::Mutex;

use celeriac::client::canvas::Step;
use celeriac::protocol::{Exception, Map, Signature};
use celeriac::{Context, TaskError, TaskResult, Value, Workflow, task};

use crate::tasks::add;

#[task(name = "rs.mul")]
async fn mul(x: i64, y: i64) -> i64 {
    x * y
}

#[task(name = "rs.power")]
async fn power(x: i64, exponent: u32) -> i64 {
    x.pow(exponent)
}

#[task(name = "rs.double")]
fn double(x: i64) -> i64 {
    2 * x
}

#[task(name = "rs.sum")]
async fn sum(numbers: Vec<i64>) -> i64 {
    numbers.iter().sum()
}

#[task(name = "rs.fail")]
async fn fail(argument: Value) -> TaskResult<()> {
    Err(TaskError::python("ValueError", "builtins", [argument]))
}

/// What the task sees of its request and of its first argument, if there is one.
#[task(name = "rs.facts")]
async fn facts(context: Context, #[default(Value::Null)] argument: Value) -> Map {
    let request = context.request();
    let mut facts = Map::new();
    facts.insert("id", request.id.as_str());
    facts.insert("root_id", request.root_id.as_deref());
    facts.insert("parent_id", request.parent_id.as_deref());
    facts.insert("group", request.group.as_deref());
    facts.insert("group_index", request.group_index);
    facts.insert("priority", request.delivery_info.priority.map(u32::from));
    facts.insert("args", vec![argument]);
    facts
}

#[task(name = "rs.stamps")]
async fn stamps(context: Context, _value: Value) -> Map {
    context.request().stamps.clone()
}

#[task(name = "rs.on_error")]
async fn on_error(task_id: String) -> String {
    task_id
}

static FAILURES: Mutex<Vec<(String, Map)>> = Mutex::new(Vec::new());

/// An errback that is called with everything about the failure.
#[task(name = "rs.on_failure")]
async fn on_failure(request: Map, error: Exception, traceback: Option<String>, label: String) {
    let mut seen = Map::new();
    seen.insert("id", request.get("id").cloned().unwrap_or_default());
    seen.insert("task", request.get("task").cloned().unwrap_or_default());
    seen.insert("error", error.to_string());
    seen.insert("traceback", traceback);
    FAILURES.lock().expect("no task panics with it").push((label, seen));
}

#[task(name = "rs.on_failure_panics")]
fn on_failure_panics(_request: Map, error: Exception, _traceback: Option<String>) {
    panic!("{error}");
}

#[task(name = "rs.failures")]
async fn failures(label: String) -> Vec<Map> {
    let failures = FAILURES.lock().expect("no task panics with it");
    let of_label = failures.iter().filter(|(whose, _)| *whose == label);
    of_label.map(|(_, seen)| seen.clone()).collect()
}

static REMEMBERED: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[task(name = "rs.remember")]
async fn remember(label: String) {
    REMEMBERED.lock().expect("no task panics with it").push(label);
}

fn times(label: &str) -> usize {
    let seen = REMEMBERED.lock().expect("no task panics with it");
    seen.iter().filter(|other| *other == label).count()
}

/// How often a label was remembered, once that is `count` times.
#[task(name = "rs.remembered")]
async fn remembered(label: String, count: usize) -> usize {
    loop {
        let times = times(&label);
        if times >= count {
            return times;
        }
        tokio::task::yield_now().await;
    }
}

/// Replaces itself by its last argument, which gets the other one, if there is one.
#[task(name = "rs.replace_by")]
async fn replace_by(
    context: Context,
    first: Value,
    #[default(Value::Null)] second: Value,
) -> TaskResult<Value> {
    let (given, by) = if second.is_null() { (None, first) } else { (Some(first), second) };
    let mut by = Signature::from_value(by).map_err(TaskError::permanent)?;
    by.args.splice(0..0, given);
    context.replace(by)
}

/// Calls other tasks, and tells their ids.
#[task(name = "rs.calls")]
async fn calls(context: Context, count: i64) -> TaskResult<Vec<String>> {
    let client = context.client();
    let mut ids = Vec::new();
    for number in 0..count {
        let call = celeriac::Signature::<i64>::new("rs.double").arg(number);
        ids.push(client.send(call).await?.id().to_owned());
    }
    Ok(ids)
}

/// Sends a workflow of its own, and tells its id.
#[task(name = "rs.applies")]
async fn applies(context: Context, workflow: Workflow) -> TaskResult<String> {
    Ok(context.client().apply(workflow).await?.id().to_owned())
}

/// A workflow that Rust builds, for who asks for it.
#[task(name = "rs.builds")]
async fn builds(kind: String) -> TaskResult<Workflow> {
    let step =
        |name: &str, args: &[i64]| Workflow::task(name, args.iter().copied().map(Value::Int));
    let sum = |n| step("rs.add", &[n, n]);
    Ok(match &*kind {
        "chain" => sum(2) | step("py.mul", &[3]) | step("rs.add", &[1]),
        "group" => {
            Workflow::group([sum(1), sum(2) | step("py.mul", &[2]), step("py.add", &[3, 3])])
        }
        "chain of group" => sum(1) | Workflow::group([step("rs.add", &[1]), step("py.mul", &[5])]),
        "partial" => step("rs.add", &[1]) | step("py.mul", &[10]),
        "chord" => Workflow::chord([sum(1), sum(2)], step("py.total", &[])),
        "map" => double::partial().map([1, 2, 3]).dynamic(),
        "chunks" => add::chunks([(1, 1), (2, 2), (3, 3)], 2).dynamic(),
        "stamped" => (sum(1) | step("py.stamps", &[])).stamp("job", "j1"),
        other => Err(TaskError::permanent(format!("there is no workflow {other}")))?,
    })
}

#[task(name = "rs.signature")]
async fn signature(number: i64) -> Signature {
    Signature { args: vec![number.into()], ..Signature::new("rs.add") }
}
