//! `call NAME`: one task, sent and perhaps awaited.

use std::time::{Duration, Instant};

use celeriac::client::RouteRequest;
use celeriac::protocol::{Map, Value};
use celeriac::{AsyncResult, Config, ResultError};

use crate::args::{CallArgs, Common};
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::input::Call;
use crate::output::{Output, for_people};

/// Sends the call of the command line.
pub(crate) async fn run(common: &Common, args: &CallArgs) -> Result<Exit, Failure> {
    let output = Output::new(common.json);
    let config = connect::config(common)?;
    let name = args.name.as_deref().unwrap_or_default();
    let call = Call::from_args(name, args).map_err(Failure::usage)?;
    let address = address(&call, &config);
    let sent = Sent::new(&call);
    let signature = call.into_signature(&config).map_err(Failure::usage)?;

    let client = connect::client(&config).await?;
    let started = Instant::now();
    let result = client.send(signature).await.map_err(|error| connect::not_sent(&error))?;
    let sentence = || format!("sent {}[{}] to {address}", sent.task, result.id());
    let exit = if args.wait {
        output.show_to_people(sentence);
        let outcome = Outcome::wait(&result, args.timeout, started).await;
        outcome.check_client()?;
        output.show(|| outcome.to_text(), || outcome.to_object(&sent, result.id()));
        outcome.exit()
    } else {
        output.show(sentence, || sent.to_object(result.id(), "SENT"));
        Exit::Success
    };
    client.close().await;
    Ok(exit)
}

/// Where a call goes, in words.
fn address(call: &Call, config: &Config) -> String {
    let option = |key| call.options.get(key).and_then(Value::as_str).map(str::to_owned);
    let (mut exchange, mut key, mut queue) =
        (option("exchange"), option("routing_key"), option("queue"));
    if exchange.is_none() && key.is_none() && queue.is_none() {
        let request = RouteRequest::new(&call.task, &call.args, &call.kwargs);
        if let Some(route) = config.task_routes.find(&request) {
            (exchange, key, queue) = (route.exchange, route.routing_key, route.queue);
        }
    }
    let key = key.or(queue).unwrap_or_else(|| config.task_default_queue.clone());
    match exchange.filter(|exchange| !exchange.is_empty()) {
        Some(exchange) => format!("exchange {exchange} with key {key}"),
        None => format!("queue {key}"),
    }
}

/// What is told of a call that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) task: String,
    args: Vec<Value>,
    kwargs: Map,
}

impl Sent {
    pub(crate) fn new(call: &Call) -> Self {
        Self { task: call.task.clone(), args: call.args.clone(), kwargs: call.kwargs.clone() }
    }

    /// The call for programs.
    pub(crate) fn to_object(&self, id: &str, status: &str) -> Map {
        let mut object = Map::new();
        object.push("task_id", id);
        object.push("task", self.task.as_str());
        object.push("args", self.args.clone());
        object.push("kwargs", self.kwargs.clone());
        object.push("status", status);
        object
    }
}

/// What came of a call that was awaited.
#[derive(Debug)]
pub(crate) struct Outcome {
    result: Result<Value, ResultError>,
    waited: Duration,
}

impl Outcome {
    /// Waits for the result; `started` is when the call was sent.
    pub(crate) async fn wait(
        result: &AsyncResult<Value>,
        timeout: Duration,
        started: Instant,
    ) -> Self {
        Self::new(result.get(timeout).await, started.elapsed())
    }

    /// What was waited for, and how long.
    pub(crate) fn new(result: Result<Value, ResultError>, waited: Duration) -> Self {
        Self { result, waited }
    }

    /// The end of the whole run, if nothing can be awaited any more.
    pub(crate) fn check_client(&self) -> Result<(), Failure> {
        match &self.result {
            Err(error @ ResultError::Closed { .. }) => Err(Failure::new(Exit::Unreachable, error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match &self.result {
            Ok(_) => Exit::Success,
            Err(ResultError::Timeout { .. }) => Exit::Timeout,
            Err(_) => Exit::TaskFailed,
        }
    }

    /// `SUCCESS in 0.012 s: 4`.
    pub(crate) fn to_text(&self) -> String {
        let seconds = self.waited.as_secs_f64();
        match &self.result {
            Ok(value) => format!("SUCCESS in {seconds:.3} s: {}", for_people(value)),
            Err(ResultError::Failed(failure)) => {
                let mut text =
                    format!("{} in {seconds:.3} s: {}", failure.state, failure.exception);
                let traceback = failure.traceback.as_deref().unwrap_or_default().trim_end();
                // Of an error without sources it is the same sentence again.
                if !traceback.is_empty() && *traceback != failure.exception.to_string() {
                    text.push('\n');
                    text.push_str(traceback);
                }
                text
            }
            Err(ResultError::Timeout { .. }) => format!("TIMEOUT after {seconds:.3} s"),
            Err(error) => celeriac::cli::sentence(error),
        }
    }

    /// The call and what came of it, for programs.
    pub(crate) fn to_object(&self, sent: &Sent, id: &str) -> Map {
        let mut object = sent.to_object(id, self.status());
        self.add_to(&mut object);
        object
    }

    /// The state, or what stands for it.
    pub(crate) fn status(&self) -> &str {
        match &self.result {
            Ok(_) => "SUCCESS",
            Err(ResultError::Failed(failure)) => failure.state.as_str(),
            Err(ResultError::Timeout { .. }) => "TIMEOUT",
            Err(_) => "UNKNOWN",
        }
    }

    /// Adds value or error, and the time, for programs.
    pub(crate) fn add_to(&self, object: &mut Map) {
        match &self.result {
            Ok(value) => object.push("result", value.clone()),
            Err(ResultError::Failed(failure)) => {
                object.push("exception", failure.exception.clone().into_value());
                object.push("traceback", failure.traceback.clone());
            }
            Err(error) => object.push("error", celeriac::cli::sentence(error)),
        }
        object.push("runtime_s", self.waited.as_secs_f64());
    }
}
