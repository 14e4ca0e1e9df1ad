//! A body whose list has references gets its values before it runs, and lets go of them when it
//! has ended.
//!
//! ```text
//! intake: celeriac:gather -> the task     executor: list with references -> list of values
//! settle: effects confirmed -> "it has ended" declared -> values deleted -> ack
//! ```
//!
//! Reading puts everything back: the channel is closed before the body runs, so that whoever runs
//! it again finds the same.
//!
//! **Invariant:** a body runs with all of its values, or not at all; where they are gone because it
//! has ended, it does not run again, and nobody is told twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use super::active::Cancel;
use super::dead_letter::Reason;
use super::intake::Job;
use super::place::{cancelled, lost};
use super::running::Crew;
use super::unsettled::{Ending, Finished, Unsettled};
use crate::amqp::{self, Connection, Session, SessionEvent, SessionOptions, topology};
use crate::client::Config;
use crate::protocol::join::{ArgsRef, GATHER, Hole, Manifest, ParkedValue};
use crate::protocol::{Exception, Limits, Map, Message, TaskHeaders, Value};
use crate::task::{Outcome, Request};

/// How long the broker may take between two values.
const VALUE_WITHIN: Duration = Duration::from_secs(60);

/// How many values a body may have: all of them are unacked at the end, and the broker hands out
/// 65,535 at most. What is left is room for those of runs that do not count.
const VALUES_MAX: usize = 60_000;

/// What the budget is counted in: more bytes than a permit can count would be too many.
const KIB: u64 = 1024;

/// How many bytes of parked values this worker may hold at a time.
#[derive(Debug)]
pub(super) struct Budget {
    kib: Arc<Semaphore>,
    bytes_max: u64,
}

/// Why a body does not run.
#[derive(Debug)]
pub(super) enum NoList {
    /// It was revoked, or its connection was lost.
    Cancelled(Cancel),
    /// It goes back to the broker, for a reason to be logged.
    GoesBack(String),
    /// It has ended before.
    Over,
    /// It can never run.
    Refused(&'static str, Exception),
}

impl Budget {
    pub(super) fn of(config: &Config) -> Self {
        let bytes_max = u64::try_from(config.join_max_parked).unwrap_or(u64::MAX);
        let kib = bytes_max.div_ceil(KIB).min(u32::MAX.into());
        let kib = usize::try_from(kib).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self { kib: Arc::new(Semaphore::new(kib)), bytes_max }
    }

    /// Waits for room for `bytes`; an error if there is never as much.
    async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, NoList> {
        if bytes > self.bytes_max {
            let max = self.bytes_max;
            let text =
                format!("the parked results need {bytes} bytes, and join_max_parked is {max}");
            return Err(refused("ResultTooLarge", text));
        }
        let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.kib).acquire_many_owned(kib).await;
        permit.map_err(|_| NoList::GoesBack("the worker ends".to_owned()))
    }
}

fn refused(exc_type: &str, text: String) -> NoList {
    let word = if exc_type == "ResultsLost" { "results-lost" } else { "results" };
    NoList::Refused(word, Exception::new("celeriac", exc_type, text))
}

/// Gives a call with references the name of its task. What cannot be read keeps its name, which is
/// that of no task.
pub(super) fn name_task(headers: &mut TaskHeaders) {
    if headers.task == GATHER
        && let Some(Ok(it)) = headers.extra.get(ArgsRef::HEADER).map(ArgsRef::from_value)
    {
        headers.task = it.task;
    }
}

/// The name under which the message of `request` was sent.
pub(super) fn name_on_wire(request: &Request) -> String {
    match args_ref(request) {
        Some(_) => GATHER.to_owned(),
        None => request.task.clone(),
    }
}

fn args_ref(request: &Request) -> Option<ArgsRef> {
    let header = ArgsRef::from_value(request.headers.get(ArgsRef::HEADER)?).ok()?;
    // A header of that name which the application has made up is none.
    (header.task == request.task).then_some(header)
}

/// Makes the call of a body one with references to the values of `chord`.
pub(super) fn refer(message: &mut Message, chord: &str) {
    let headers = message.properties.headers.get_or_insert_default();
    let task = headers.get("task").and_then(Value::as_str).unwrap_or_default().to_owned();
    headers.insert("task", GATHER);
    let header = ArgsRef { task, chord: chord.to_owned() };
    headers.insert(ArgsRef::HEADER, header.into_value());
}

/// Undoes [`refer`] for a call that has other arguments now.
pub(super) fn refer_no_more(headers: &mut TaskHeaders) {
    name_task(headers);
    headers.extra.remove(ArgsRef::HEADER);
}

/// Puts parked values into the first argument of a job that refers to some. What comes back is to
/// be kept as long as they are.
pub(super) async fn values(
    job: &mut Job,
    crew: &Crew,
) -> Result<Option<OwnedSemaphorePermit>, NoList> {
    match args_ref(&job.unsettled.request) {
        None => Ok(None),
        // Boxed is what few jobs need.
        Some(header) => Box::pin(gather(job, header.chord, crew)).await.map(Some),
    }
}

async fn gather(job: &mut Job, chord: String, crew: &Crew) -> Result<OwnedSemaphorePermit, NoList> {
    let list = job.args.first_mut().map(std::mem::take).unwrap_or_default();
    let manifest = Manifest::from_value(list).map_err(|failed| {
        refused("ResultsLost", format!("the list of results cannot be read: {failed}"))
    })?;
    let count = manifest.parked.len();
    if count > VALUES_MAX {
        let text = format!("{count} results are parked where {VALUES_MAX} can be gathered");
        return Err(refused("ResultTooLarge", text));
    }
    let fetching = async {
        let permit = crew.gathering.take(manifest.bytes()).await?;
        let list = fetch(crew.client.connection(), &chord, manifest, &crew.limits).await?;
        Ok((permit, list))
    };
    let (permit, list) = tokio::select! {
        biased;
        () = crew.stop.warm.cancelled() => Err(NoList::GoesBack("the worker stops".to_owned())),
        why = cancelled(job) => Err(NoList::Cancelled(why)),
        fetched = fetching => fetched,
        () = lost(job) => Err(NoList::GoesBack("its connection was lost".to_owned())),
    }?;
    if let Some(first) = job.args.first_mut() {
        *first = Value::Array(list);
    }
    Ok(permit)
}

/// Reads the queue of `chord` until nothing is missing, and puts everything back.
async fn fetch(
    connection: &Connection,
    chord: &str,
    mut manifest: Manifest,
    limits: &Limits,
) -> Result<Vec<Value>, NoList> {
    let options = SessionOptions {
        queue: topology::park_queue(chord),
        // All of it is unacked at the end.
        prefetch: u16::MAX,
        tag: "gather".to_owned(),
        arguments: Map::new(),
    };
    let mut session = match Session::open(connection, &options).await {
        Ok(session) => session,
        Err(error) if error.is_no_queue() => return Err(gone(connection, chord).await),
        Err(error) => return Err(again(&error)),
    };
    let holes = std::mem::take(&mut manifest.parked);
    let mut holes: HashMap<String, Hole> =
        holes.into_iter().map(|hole| (hole.reference.execution.clone(), hole)).collect();
    let (mut events, mut has_read) = (Vec::new(), false);
    while !holes.is_empty() {
        match tokio::time::timeout(VALUE_WITHIN, session.next(&mut events)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(again(&error)),
            // Until another reader has put it back there is nothing to read.
            Err(_) if !has_read => return Err(NoList::GoesBack("others read it".to_owned())),
            Err(_) => {
                let missing = holes.len();
                let text = format!("{missing} parked results of chord {chord} are gone");
                return Err(refused("ResultsLost", text));
            }
        }
        has_read = true;
        for event in events.drain(..) {
            if let SessionEvent::Delivered(delivery) = event {
                fill(&mut manifest, &mut holes, &delivery.message, limits)?;
            }
        }
    }
    // The broker puts everything back, at once or when it sees that the channel is gone.
    let _ = session.close().await;
    Ok(manifest.list)
}

/// Puts one value into its place. Those of runs that do not count have none.
fn fill(
    manifest: &mut Manifest,
    holes: &mut HashMap<String, Hole>,
    message: &Message,
    limits: &Limits,
) -> Result<(), NoList> {
    let Some(execution) = ParkedValue::execution(message) else { return Ok(()) };
    let counts = |hole: &Hole| hole.reference.bytes == message.body.len() as u64;
    if !holes.get(execution).is_some_and(counts) {
        return Ok(());
    }
    if let Some(hole) = holes.remove(execution) {
        let value = ParkedValue::value(message, limits).map_err(|failed| {
            refused("ResultsLost", format!("a parked result cannot be read: {failed}"))
        })?;
        manifest.fill(&hole, value);
    }
    Ok(())
}

/// What it means that a chord has no values.
async fn gone(connection: &Connection, chord: &str) -> NoList {
    match connection.queue_depth(&topology::park_end_queue(chord)).await {
        Ok(Some(_)) => NoList::Over,
        Ok(None) => {
            let text = format!("the queue with the parked results of chord {chord} is gone");
            refused("ResultsLost", text)
        }
        Err(error) => again(&error),
    }
}

fn again(error: &amqp::Error) -> NoList {
    match error.is_permanent() {
        true => refused("ResultsLost", format!("the parked results cannot be read: {error}")),
        false => NoList::GoesBack(error.to_string()),
    }
}

/// The end of a job that has not got its list, if it has one here.
pub(super) fn without_list(
    unsettled: Box<Unsettled>,
    reason: &'static str,
    exception: Exception,
) -> Finished {
    warn!(task_id = unsettled.request.id, error = %exception, "a body cannot run");
    let reason = Reason { word: reason, error: exception.to_string() };
    Finished { unsettled, ending: Ending::Refused { reason, exception } }
}

/// Acks a job that has ended before.
pub(super) fn ended_before(mut unsettled: Box<Unsettled>) {
    let task_id = unsettled.request.id.as_str();
    info!(task_id, "the body of a chord has run before, it is not run again");
    if let Some(token) = unsettled.token.take() {
        token.ack();
    }
}

/// The chord whose values are of no more use once a request has ended like this: it has run, or is
/// not to run any more, and its message does not come again.
pub(super) fn let_go(request: &Request, ending: &Ending) -> Option<String> {
    let Ending::Ended(outcome) = ending else { return None };
    let is_over = match outcome {
        Outcome::Success(_)
        | Outcome::Failure(_)
        | Outcome::Ignore
        | Outcome::Replaced { .. }
        | Outcome::Revoked { .. }
        | Outcome::TimedOut { .. }
        | Outcome::Panicked { .. }
        | Outcome::Lost { .. } => true,
        Outcome::Retry { changed, .. } => changed.as_ref().is_some_and(|it| it.args.is_some()),
        Outcome::Reject { .. } => false,
    };
    is_over.then(|| args_ref(request)).flatten().map(|it| it.chord)
}
