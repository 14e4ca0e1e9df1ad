//! `chain`, `group`, `chord` and `run`: a workflow, sent and perhaps awaited.

use std::collections::HashMap;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use celeriac::protocol::canvas::{Canvas, Ids, JoinDefaults};
use celeriac::protocol::{Map, Signature, Value};
use celeriac::{AnyResult, AsyncResult, Client, ResultError, Workflow};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{ChainArgs, ChordArgs, Common, GroupArgs, RunArgs, WorkflowArgs};
use crate::call::Outcome;
use crate::connect;
use crate::exit::{Exit, Failure};
use crate::graph;
use crate::headers::Headers;
use crate::output::Output;
use crate::workflow::{self, expression, words};

/// How often a bar is drawn.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// `chain STEP...`.
pub(crate) async fn chain(common: &Common, args: &ChainArgs) -> Result<Exit, Failure> {
    run(common, words::chain(all(&args.steps)?), &args.how).await
}

/// `group MEMBER...`.
pub(crate) async fn group(common: &Common, args: &GroupArgs) -> Result<Exit, Failure> {
    run(common, words::group(all(&args.members)?), &args.how).await
}

/// `chord MEMBER... --body WORKFLOW`.
pub(crate) async fn chord(common: &Common, args: &ChordArgs) -> Result<Exit, Failure> {
    let body = expression::parse(&args.body).map_err(Failure::usage)?;
    run(common, words::chord(all(&args.header)?, body), &args.how).await
}

/// `run FILE`.
pub(crate) async fn file(common: &Common, args: &RunArgs) -> Result<Exit, Failure> {
    run(common, workflow::open(&args.file)?, &args.how).await
}

fn all(texts: &[String]) -> Result<Vec<Signature>, Failure> {
    texts.iter().map(|text| expression::parse(text).map_err(Failure::usage)).collect()
}

async fn run(common: &Common, workflow: Signature, how: &WorkflowArgs) -> Result<Exit, Failure> {
    let output = Output::new(common.json);
    let config = connect::config(common)?;
    // Who waits sees each task end; otherwise the parts of a chord report to the chord alone.
    let workflow = if how.wait { words::watched(workflow) } else { workflow };
    let usage = |error| Failure::new(Exit::Usage, &error);
    let mut canvas = Canvas::from_signature(workflow).map_err(usage)?;
    canvas.freeze(&mut Ids::Random, &JoinDefaults::default()).map_err(usage)?;
    let frozen = canvas.into_signature();
    let client = connect::client(&config).await?;
    let started = Instant::now();
    let sent = Workflow::from_signature(frozen.clone()).apply_async(&client).await;
    let result = sent.map_err(|error| connect::not_sent(&error))?;
    let (tasks, headers) = tasks(&result);
    let kind = match &result {
        AnyResult::Task(_) => "task",
        AnyResult::Group(_) => "group",
    };
    let sentence = || {
        let of = chord_of(&result).map(|id| format!(", of chord {id}")).unwrap_or_default();
        format!("sent a workflow; its result is that of {kind} {}{of}", result.id())
    };
    let states = || -> HashMap<_, _> {
        tasks.iter().map(|task| (task.id().to_owned(), task.state())).collect()
    };
    let drawing = |format| graph::draw(&frozen, how.wait.then(states).as_ref(), format);
    let mut exit = Exit::Success;
    if how.wait {
        output.show_to_people(sentence);
        let ends = Ends { tasks: &tasks, headers: &headers };
        let waited = wait(&client, &result, ends, how.timeout).await;
        let outcome = Outcome::new(waited, started.elapsed());
        outcome.check_client()?;
        output.show(
            || outcome.to_text(),
            || {
                let mut object = object(&result, outcome.status());
                outcome.add_to(&mut object);
                object.push("tasks", tasks.iter().map(task_object).collect::<Vec<_>>());
                add_drawing(&mut object, how.graph.map(drawing));
                object
            },
        );
        exit = outcome.exit();
    } else {
        output.show(sentence, || {
            let mut object = object(&result, "SENT");
            add_drawing(&mut object, how.graph.map(drawing));
            object
        });
    }
    if let Some(format) = how.graph.filter(|_| !common.json) {
        graph::show(&drawing(format));
    }
    client.close().await;
    Ok(exit)
}

/// What a bar counts.
#[derive(Clone, Copy, Debug)]
struct Ends<'a> {
    tasks: &'a [AsyncResult],
    headers: &'a Headers,
}

impl Ends<'_> {
    fn total(&self) -> usize {
        self.tasks.len() + self.headers.len()
    }

    fn seen(&self) -> usize {
        self.tasks.iter().filter(|task| task.ready()).count() + self.headers.ended()
    }
}

/// Waits for the result, behind a bar that counts the tasks that have ended.
async fn wait(
    client: &Client,
    result: &AnyResult,
    ends: Ends<'_>,
    timeout: Duration,
) -> Result<Value, ResultError> {
    let bar = bar(ends.total());
    let counting = async {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            bar.set_position(ends.seen() as u64);
        }
    };
    let counting = async { tokio::join!(counting, ends.headers.follow(client)) };
    let result = tokio::select! {
        result = result.get(timeout) => result,
        ((), ()) = counting, if !bar.is_hidden() => std::future::pending().await,
    };
    bar.finish_and_clear();
    result
}

/// Hidden unless standard error is a terminal.
fn bar(total: usize) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let target = ProgressDrawTarget::stderr_with_hz(10);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} tasks have ended ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total as u64), target).with_style(style)
}

/// The tasks that report to this process, the earliest first, and the headers that do not.
fn tasks(result: &AnyResult) -> (Vec<AsyncResult>, Headers) {
    let (mut found, mut headers) = (Vec::new(), Headers::default());
    let mut open = vec![result];
    while let Some(result) = open.pop() {
        open.extend(result.parent());
        if let Some(AnyResult::Group(header)) = result.parent() {
            headers.add(header, result);
        }
        match result {
            AnyResult::Task(task) if !task.ignored() => found.push(task.clone()),
            AnyResult::Task(_) => {}
            AnyResult::Group(group) => open.extend(group.results()),
        }
    }
    found.reverse();
    (found, headers)
}

fn object(result: &AnyResult, status: &str) -> Map {
    let mut object = Map::new();
    let key = match result {
        AnyResult::Task(_) => "task_id",
        AnyResult::Group(_) => "group_id",
    };
    object.push(key, result.id());
    object.push("status", status);
    if let Some(chord) = chord_of(result) {
        object.push("chord_id", chord);
    }
    object
}

/// Standard output has one object in each line then, and nothing else.
fn add_drawing(object: &mut Map, drawing: Option<Value>) {
    if let Some(drawing) = drawing {
        object.push("graph", drawing);
    }
}

/// The id of the chord that the result is the body's of.
fn chord_of(result: &AnyResult) -> Option<&str> {
    match result.parent() {
        Some(AnyResult::Group(header)) => Some(header.id()),
        _ => None,
    }
}

fn task_object(task: &AsyncResult) -> Value {
    let mut object = Map::new();
    object.push("task_id", task.id());
    object.push("status", task.state().as_str());
    Value::Map(object)
}
