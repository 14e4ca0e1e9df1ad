//! The tasks of the tests; every worker of this binary knows all of them.

use celeriac::protocol::{Exception, Map, Value};
use celeriac::{Context, State, TaskError, group, task};

use crate::probe::Probe;
use crate::workflow::shown;

#[task(name = "tests.add")]
pub(crate) async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[task(name = "tests.echo")]
pub(crate) async fn echo(value: Value) -> Value {
    value
}

/// Says what it got, and as which task.
#[task(name = "tests.total")]
pub(crate) async fn total(cx: Context, values: Value, probe: State<Probe>) -> Value {
    probe.record(format!("{} {}", cx.id(), shown(&values)));
    values
}

/// Adds, and says that it runs.
#[task(name = "tests.both")]
pub(crate) async fn both(x: i64, y: i64, probe: State<Probe>) -> i64 {
    probe.record("both");
    x + y
}

/// So many bytes.
#[task(name = "tests.bytes")]
pub(crate) async fn bytes(len: usize, probe: State<Probe>) -> celeriac::protocol::Bytes {
    probe.record("bytes");
    celeriac::protocol::Bytes(vec![7; len])
}

/// Says that it runs.
#[task(name = "tests.note")]
pub(crate) async fn note(label: String, probe: State<Probe>) -> String {
    probe.record(&*label);
    label
}

/// Says that it runs, and waits at the gate.
#[task(name = "tests.hold")]
pub(crate) async fn hold(label: String, probe: State<Probe>) -> String {
    probe.record(&*label);
    probe.pass().await;
    label
}

#[task(name = "tests.hold_early", acks = early)]
pub(crate) async fn hold_early(probe: State<Probe>) {
    probe.record("early");
    probe.pass().await;
}

/// The name of the thread that it blocks.
#[task(name = "tests.block")]
pub(crate) fn block(cx: Context, probe: State<Probe>) -> Result<i64, TaskError> {
    cx.progress_blocking(1, 2)?;
    probe.record("block");
    tokio::runtime::Handle::current().block_on(probe.pass());
    Ok(4)
}

#[task(name = "tests.block_panics")]
pub(crate) fn block_panics() {
    panic!("a thread panics");
}

#[task(name = "tests.now")]
pub(crate) async fn now(probe: State<Probe>) -> i64 {
    probe.record("now");
    jiff::Timestamp::now().as_millisecond()
}

/// Says by how many milliseconds it runs later than it was to.
#[task(name = "tests.due")]
pub(crate) async fn due(number: usize, at_ms: i64, probe: State<Probe>) {
    let late_ms = jiff::Timestamp::now().as_millisecond() - at_ms;
    probe.record(format!("{number} {late_ms}"));
}

/// Two reports of progress, a gate after each.
#[task(name = "tests.steps")]
pub(crate) async fn steps(cx: Context, probe: State<Probe>) -> Result<i64, TaskError> {
    for step in 1..=2 {
        cx.progress(step, 2).await?;
        probe.pass().await;
    }
    Ok(2)
}

#[task(name = "tests.python_error")]
pub(crate) async fn python_error() -> Result<(), TaskError> {
    Err(TaskError::python("ValueError", "builtins", ["kaboom"]))
}

#[derive(Debug, thiserror::Error)]
#[error("payment declined")]
pub(crate) struct Declined(#[source] std::io::Error);

#[task(name = "tests.declined")]
pub(crate) async fn declined() -> Result<(), Declined> {
    Err(Declined(std::io::Error::other("connection reset")))
}

#[task(name = "tests.panics")]
pub(crate) async fn panics(probe: State<Probe>) -> i64 {
    probe.record("panics");
    tokio::task::yield_now().await;
    panic!("lost {}", "it");
}

#[task(name = "tests.reject")]
pub(crate) async fn reject() -> Result<(), TaskError> {
    Err(TaskError::reject("not mine", false))
}

/// Gives its message back, again and again.
#[task(name = "tests.gives_back")]
pub(crate) async fn gives_back(probe: State<Probe>) -> Result<(), TaskError> {
    probe.record("gives back");
    Err(TaskError::reject("later", true))
}

/// Wants to run on a second delivery only.
#[task(name = "tests.second_time")]
pub(crate) async fn second_time(cx: Context, probe: State<Probe>) -> Result<bool, TaskError> {
    let redelivered = cx.request().delivery_info.redelivered;
    probe.record("second_time");
    if redelivered { Ok(true) } else { Err(TaskError::reject("later", true)) }
}

#[task(name = "tests.ignores")]
pub(crate) async fn ignores(probe: State<Probe>) -> Result<(), TaskError> {
    probe.record("ignores");
    Err(TaskError::ignore())
}

/// What a task sees of its request.
#[task(name = "tests.facts")]
pub(crate) async fn facts(cx: Context) -> Map {
    let request = cx.request();
    let mut facts = Map::new();
    facts.push("id", request.id.as_str());
    facts.push("root_id", request.root_id.clone());
    facts.push("parent_id", request.parent_id.clone());
    facts.push("priority", request.delivery_info.priority.map(i64::from));
    facts.push("queue", request.delivery_info.queue.as_str());
    facts.push("headers", Value::Map(request.headers.clone()));
    facts
}

/// Calls `facts` and waits for it.
#[task(name = "tests.parent")]
pub(crate) async fn parent(cx: Context, priority: Option<u8>) -> Result<Map, TaskError> {
    let mut call = facts::s();
    if let Some(priority) = priority {
        call = call.priority(priority);
    }
    Ok(cx.client().send(call).await?.get(crate::bundle::PATIENCE).await?)
}

/// The same with a workflow.
#[task(name = "tests.parent_of_workflow")]
pub(crate) async fn parent_of_workflow(cx: Context, own: Option<u8>) -> Result<Map, TaskError> {
    let mut call = facts::s();
    if let Some(priority) = own {
        call = call.priority(priority);
    }
    Ok(cx.client().apply(call).await?.get(crate::bundle::PATIENCE).await?)
}

#[task(name = "tests.multiply")]
pub(crate) async fn multiply(x: i64, y: i64) -> i64 {
    x * y
}

#[task(name = "tests.power")]
pub(crate) async fn power(x: i64, exponent: u32) -> i64 {
    x.pow(exponent)
}

#[task(name = "tests.square")]
pub(crate) async fn square(x: i64) -> i64 {
    x * x
}

#[task(name = "tests.double")]
pub(crate) async fn double(x: i64) -> i64 {
    2 * x
}

#[task(name = "tests.gives")]
pub(crate) async fn gives(text: String) -> String {
    text
}

/// An errback that gets the id.
#[task(name = "tests.on_failure_id")]
pub(crate) async fn on_failure_id(task_id: String, probe: State<Probe>) {
    probe.record(format!("told of {task_id}"));
}

/// An errback that is called in the failing worker.
#[task(name = "tests.on_failure")]
pub(crate) async fn on_failure(
    request: Map,
    error: Exception,
    _traceback: Option<String>,
    probe: State<Probe>,
) {
    let id = request.get("id").and_then(Value::as_str).unwrap_or_default();
    probe.record(format!("called for {id} with {error}"));
}

/// Doubles, by a task that takes its place.
#[task(name = "tests.replaces")]
pub(crate) async fn replaces(cx: Context, x: i64) -> Result<i64, TaskError> {
    cx.replace(double::s(x))
}

/// Calls other tasks, and goes back after the first time.
#[task(name = "tests.calls_and_comes_back")]
pub(crate) async fn calls_and_comes_back(
    cx: Context,
    probe: State<Probe>,
) -> Result<(), TaskError> {
    let client = cx.client();
    for call in [add::s(1, 1), add::s(2, 2), add::s(1, 1)] {
        probe.record(client.send(call).await?.id());
    }
    let redelivered = cx.request().delivery_info.redelivered;
    if redelivered { Ok(()) } else { Err(TaskError::reject("later", true)) }
}

#[task(name = "tests.sum")]
pub(crate) async fn sum(numbers: Vec<i64>) -> i64 {
    numbers.into_iter().sum()
}

#[task(name = "tests.sums")]
pub(crate) async fn sums(lists: Vec<Vec<i64>>) -> Vec<i64> {
    lists.into_iter().map(|list| list.into_iter().sum()).collect()
}

/// The squares of the numbers below `count`, by a group that takes its place.
#[task(name = "tests.replaces_by_group")]
pub(crate) async fn replaces_by_group(cx: Context, count: i64) -> Result<Vec<i64>, TaskError> {
    cx.replace(group((0..count).map(square::s).collect::<Vec<_>>()))
}
