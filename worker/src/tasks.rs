//! The demo tasks. Their names and parameters are those that examples and tests call, also from
//! Python.

use std::time::Duration;

use celeriac::protocol::{Exception, Map, Value};
use celeriac::{Context, TaskError, task};

use crate::number::Number;

/// `x + y`.
#[task(name = "add")]
async fn add(x: Number, y: Number) -> Result<Number, TaskError> {
    x.add(y)
}

/// `x * y`.
#[task(name = "multiply")]
async fn multiply(x: Number, y: Number) -> Result<Number, TaskError> {
    x.multiply(y)
}

/// `base ** exponent`.
#[task(name = "power")]
async fn power(base: Number, exponent: Number) -> Result<Number, TaskError> {
    base.power(exponent)
}

/// `x * x`.
#[task(name = "square")]
async fn square(x: Number) -> Result<Number, TaskError> {
    x.multiply(x)
}

/// `x + x`.
#[task(name = "double")]
async fn double(x: Number) -> Result<Number, TaskError> {
    x.add(x)
}

/// The sum of a list, on an async slot.
#[task(name = "sum_task")]
async fn sum_task(numbers: Vec<Number>) -> Result<Number, TaskError> {
    sum(numbers)
}

/// The sum of a list, on a thread: the way for tasks that compute or block.
#[task(name = "calculate_sum")]
fn calculate_sum(numbers: Vec<Number>) -> Result<Number, TaskError> {
    sum(numbers)
}

fn sum(numbers: Vec<Number>) -> Result<Number, TaskError> {
    numbers.into_iter().try_fold(Number::Int(0), Number::add)
}

/// Gives any data back with its number of items: `{"processed": data, "count": n}`.
#[task(name = "process_data")]
async fn process_data(data: Value) -> Map {
    let count = match &data {
        Value::Array(items) => items.len(),
        Value::Map(map) => map.len(),
        Value::Null => 0,
        _ => 1,
    };
    let mut processed = Map::new();
    processed.push("processed", data);
    processed.push("count", count as u64);
    processed
}

/// Pretends to send a mail: `{"to": …, "subject": …, "status": "sent"}`. No mail is sent.
#[task(name = "send_email")]
async fn send_email(to: String, subject: String, #[default] body: String) -> Map {
    tracing::info!(to, subject, body_bytes = body.len(), "pretending to send a mail");
    let mut report = Map::new();
    report.push("to", to);
    report.push("subject", subject);
    report.push("status", "sent");
    report
}

/// Fails with Python's `RuntimeError`; nothing is retried.
#[task(name = "fail")]
async fn fail(
    #[default("this task always fails".to_owned())] message: String,
) -> Result<(), TaskError> {
    Err(TaskError::permanent(Exception::new("builtins", "RuntimeError", message)))
}

/// Sleeps for so many seconds and returns them; stops early when it is cancelled.
#[task(name = "sleep")]
async fn sleep(seconds: Number, context: Context) -> Result<Number, TaskError> {
    let duration = Duration::try_from_secs_f64(seconds.to_f64()).map_err(|_| {
        TaskError::python("ValueError", "builtins", ["sleep length must be non-negative"])
    })?;
    tokio::select! {
        () = tokio::time::sleep(duration) => Ok(seconds),
        () = context.cancelled() => Err(TaskError::new("cancelled while sleeping")),
    }
}
