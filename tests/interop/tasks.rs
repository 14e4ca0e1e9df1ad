//! The tasks that Python calls.

use celeriac::protocol::DateTime;
use celeriac::{Context, TaskError, TaskResult, Value, task};
use jiff::{SignedDuration, Timestamp};

#[task(name = "rs.add")]
pub(crate) async fn add(x: i64, y: i64) -> i64 {
    x + y
}

#[task(name = "rs.echo")]
async fn echo(value: Value) -> Value {
    value
}

#[task(name = "rs.greet")]
async fn greet(name: String, #[default("hello".to_owned())] greeting: String) -> String {
    format!("{greeting}, {name}")
}

#[task(name = "rs.an_hour_later")]
async fn an_hour_later(moment: DateTime) -> DateTime {
    DateTime(moment.0.saturating_add(SignedDuration::from_hours(1)).expect("in range"))
}

#[task(name = "rs.boom")]
async fn boom(message: String) -> TaskResult<()> {
    Err(TaskError::python("ValueError", "builtins", [message]))
}

#[task(name = "rs.parse")]
fn parse(number: String) -> Result<i64, std::num::ParseIntError> {
    number.parse()
}

#[task(name = "rs.panic")]
async fn panic() {
    panic!("out of cheese");
}

#[task(name = "rs.now")]
async fn now() -> String {
    celeriac::protocol::date::format(Timestamp::now())
}

#[task(name = "rs.flaky", max_retries = 2, retry_delay = "200ms", retry_for("ConnectionError"))]
async fn flaky(context: Context, value: i64) -> TaskResult<i64> {
    match context.retries() {
        2 => Ok(value),
        tries => Err(TaskError::python("ConnectionError", "builtins", [format!("try {tries}")])),
    }
}

#[task(name = "rs.asks_again")]
async fn asks_again(context: Context, word: String) -> TaskResult<String> {
    if context.retries() == 0 {
        let again = context.retry().countdown(std::time::Duration::from_millis(2500));
        Err(again.arg(format!("{word} again")))?;
    }
    Ok(word)
}

#[task(name = "rs.progress")]
async fn progress(context: Context, count: u64) -> TaskResult<u64> {
    for done in 1..=count {
        context.progress(done, count).await?;
    }
    Ok(count)
}

#[task(name = "rs.tells")]
async fn tells(context: Context, done: u64) -> TaskResult<u64> {
    let fields = celeriac::protocol::Map::from_iter([("done", done), ("of", 10)]);
    context.send_event("task-progress", fields)?;
    Ok(done)
}

#[task(name = "rs.request")]
async fn request(context: Context, x: Value, y: Value) -> Value {
    let request = context.request();
    let mut facts = celeriac::protocol::Map::new();
    facts.insert("id", request.id.as_str());
    facts.insert("root_id", request.root_id.as_deref());
    facts.insert("headers", request.headers.clone());
    facts.insert("priority", request.delivery_info.priority.map(u32::from));
    facts.insert("routing_key", request.delivery_info.routing_key.as_str());
    facts.insert("args", vec![x, y]);
    Value::Map(facts)
}
