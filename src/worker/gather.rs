//! A body whose list has references gets its values before it runs, and lets go of them when it
//! has ended.
//!
//! ```text
//! intake:   celeriac:gather -> the task
//! executor: room for the values -> a slot -> list with references -> list of values
//! settle:   effects confirmed -> "it has ended" declared -> values deleted -> ack
//! ```
//!
//! Reading puts everything back that some place of the list needs: the channel is closed before
//! the body runs, so that whoever runs it again finds the same. Who waits for room has no slot.
//!
//! **Invariant:** a body runs with all of its values, or not at all; where they are gone because it
//! has ended, it does not run again, and nobody is told twice.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use super::active::Cancel;
use super::dead_letter::Reason;
use super::intake::Job;
use super::place::{cancelled, lost};
use super::running::Crew;
use super::unsettled::{Ending, Finished, Unsettled};
use crate::amqp::{self, Connection, Session, SessionEvent, SessionOptions, topology};
use crate::backoff::Backoff;
use crate::client::Config;
use crate::protocol::join::{ArgsRef, GATHER, Hole, Manifest, ParkedValue};
use crate::protocol::{Exception, Limits, Map, Message, TaskHeaders, Value};
use crate::task::{Outcome, Request};

/// How long the broker may take between two values.
const VALUE_WITHIN: Duration = Duration::from_secs(60);

/// How long it may take before it is looked whether the body has ended.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// How long a body waits here for room.
const ROOM_WITHIN: Duration = Duration::from_secs(30);

/// How long it then waits in the broker.
const ROOM_RETRY: Backoff =
    Backoff { base: Duration::from_secs(30), cap: Duration::from_secs(30), jitter: true };

/// Before a body goes back that the broker does not let read: it would be here again at once.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// How many values a body may have: all of them are unacked at the end, and the broker hands out
/// 65,535 at most.
const VALUES_MAX: usize = 60_000;

/// What the budget is counted in: more bytes than a permit can count would be too many.
const KIB: u64 = 1024;

/// Values are counted, too: small ones take many times their bytes. So many bytes may have one.
const BYTES_PER_ITEM: u64 = 8;

/// How much of parked values this worker may hold at a time.
#[derive(Debug)]
pub(super) struct Budget {
    kib: Arc<Semaphore>,
    bytes_max: u64,
    items: Arc<Semaphore>,
    items_max: u32,
}

/// A body's share of it, which it has as long as its values, and where those go.
#[derive(Debug)]
pub(super) struct Room {
    chord: String,
    manifest: Manifest,
    holes: HashMap<String, Hole>,
    #[expect(dead_code, reason = "it is held")]
    bytes: OwnedSemaphorePermit,
    items: Option<OwnedSemaphorePermit>,
}

/// Why a body does not run.
#[derive(Debug)]
pub(super) enum NoList {
    /// It was revoked, or its connection was lost.
    Cancelled(Cancel),
    /// It goes back to the broker, for a reason to be logged.
    GoesBack(String),
    /// It comes again then, when there may be room.
    Until(Timestamp),
    /// It has ended before.
    Over,
    /// It can never run. Boxed: all jobs hold room for this.
    Refused(&'static str, Box<Exception>),
}

impl Budget {
    pub(super) fn of(config: &Config) -> Self {
        let bytes_max = u64::try_from(config.join_max_parked).unwrap_or(u64::MAX);
        let kib = bytes_max.div_ceil(KIB).min(u32::MAX.into());
        let kib = usize::try_from(kib).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        // One value alone has never too many.
        let items_min = u32::try_from(Limits::default().items_max).unwrap_or(u32::MAX);
        let items_max = u32::try_from(bytes_max / BYTES_PER_ITEM).unwrap_or(u32::MAX);
        // As many fit a semaphore everywhere.
        let items_max = items_max.max(items_min).min(u32::MAX >> 4);
        let items = usize::try_from(items_max).unwrap_or(usize::MAX);
        let (kib, items) = (Arc::new(Semaphore::new(kib)), Arc::new(Semaphore::new(items)));
        Self { kib, bytes_max, items, items_max }
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

    /// Adds so many values to what a body `has`. Waits for nothing, because it holds some already.
    fn add(&self, has: &mut Option<OwnedSemaphorePermit>, count: usize) -> Result<(), NoList> {
        let held = has.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let max = self.items_max;
        if !usize::try_from(max).is_ok_and(|max| held.saturating_add(count) <= max) {
            let text = format!("the parked results have more values in them than {max}");
            return Err(refused("ResultTooLarge", text));
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        match (Arc::clone(&self.items).try_acquire_many_owned(count), has) {
            (Ok(more), Some(has)) => has.merge(more),
            (Ok(first), has) => *has = Some(first),
            (Err(_), _) => return Err(later()),
        }
        Ok(())
    }
}

fn later() -> NoList {
    NoList::Until(Timestamp::now() + ROOM_RETRY.delay(0))
}

fn refused(exc_type: &str, text: String) -> NoList {
    let word = if exc_type == "ResultsLost" { "results-lost" } else { "results" };
    NoList::Refused(word, Box::new(Exception::new("celeriac", exc_type, text)))
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

/// Whether a call of a body [refers](refer) to parked values.
pub(super) fn refers(message: &Message) -> bool {
    message.header(ArgsRef::HEADER).is_some()
}

/// Undoes [`refer`] for a call that has other arguments now.
pub(super) fn refer_no_more(headers: &mut TaskHeaders) {
    name_task(headers);
    headers.extra.remove(ArgsRef::HEADER);
}

/// Whether a job has to be given its list.
pub(super) fn is_needed(job: &Job) -> bool {
    job.unsettled.request.headers.get(ArgsRef::HEADER).is_some()
}

/// Waits for room for the parked values of a job that refers to some; not for long, if it may come
/// again.
pub(super) async fn room(job: &mut Job, crew: &Crew) -> Result<Option<Box<Room>>, NoList> {
    match args_ref(&job.unsettled.request) {
        None => Ok(None),
        // Boxed, here and below, is what few jobs need.
        Some(header) => Box::pin(find_room(job, header.chord, crew)).await.map(Some),
    }
}

async fn find_room(job: &mut Job, chord: String, crew: &Crew) -> Result<Box<Room>, NoList> {
    let list = job.args.first_mut().map(std::mem::take).unwrap_or_default();
    let mut manifest = Manifest::from_value(list).map_err(|failed| {
        refused("ResultsLost", format!("the list of results cannot be read: {failed}"))
    })?;
    let bytes = manifest.bytes();
    let holes = holes(&mut manifest)?;
    let (job, queue) = (&*job, &job.unsettled.request.delivery_info.queue);
    let mut taking = pin!(crew.gathering.take(bytes));
    loop {
        let bytes = tokio::select! {
            biased;
            () = crew.stop.warm.cancelled() => return Err(stops()),
            why = cancelled(job) => return Err(NoList::Cancelled(why)),
            taken = &mut taking => taken?,
            () = lost(job) => return Err(NoList::GoesBack("its connection was lost".to_owned())),
            () = tokio::time::sleep(ROOM_WITHIN) => {
                if crew.client.delays().serve(queue) {
                    return Err(later());
                }
                continue;
            }
        };
        return Ok(Box::new(Room { chord, manifest, holes, bytes, items: None }));
    }
}

/// What is parked, by the runs that have parked it.
fn holes(manifest: &mut Manifest) -> Result<HashMap<String, Hole>, NoList> {
    let parked = std::mem::take(&mut manifest.parked);
    let count = parked.len();
    if count > VALUES_MAX {
        let text = format!("{count} results are parked where {VALUES_MAX} can be gathered");
        return Err(refused("ResultTooLarge", text));
    }
    let holes: HashMap<_, _> =
        parked.into_iter().map(|hole| (hole.reference.execution.clone(), hole)).collect();
    match holes.len() == count {
        true => Ok(holes),
        // One of the two would stay empty.
        false => Err(refused("ResultsLost", "two results are parked as that of one run".into())),
    }
}

fn stops() -> NoList {
    NoList::GoesBack("the worker stops".to_owned())
}

/// Puts parked values into the first argument of a job that has `room` for them. What comes back is
/// to be kept as long as they are.
pub(super) async fn values(
    job: &mut Job,
    room: Option<Box<Room>>,
    crew: &Crew,
) -> Result<Option<Box<Room>>, NoList> {
    match room {
        None => Ok(None),
        Some(room) => Box::pin(gather(job, room, crew)).await.map(Some),
    }
}

async fn gather(job: &mut Job, mut room: Box<Room>, crew: &Crew) -> Result<Box<Room>, NoList> {
    let request = &job.unsettled.request;
    let gathered = tokio::select! {
        biased;
        () = crew.stop.warm.cancelled() => Err(stops()),
        why = cancelled(job) => Err(NoList::Cancelled(why)),
        fetched = fetch(&mut room, request.delivery_info.redelivered, crew) => fetched,
        () = lost(job) => Err(NoList::GoesBack("its connection was lost".to_owned())),
    };
    match gathered {
        Err(NoList::Until(_)) if !crew.client.delays().serve(&request.delivery_info.queue) => {
            return Err(NoList::GoesBack("other bodies hold too many values".to_owned()));
        }
        gathered => gathered?,
    }
    if let Some(first) = job.args.first_mut() {
        *first = Value::Array(std::mem::take(&mut room.manifest.list));
    }
    Ok(room)
}

/// Reads the queue of the chord until nothing is missing, and puts back what was.
async fn fetch(room: &mut Room, redelivered: bool, crew: &Crew) -> Result<(), NoList> {
    let connection = crew.client.connection();
    let options = SessionOptions {
        queue: topology::park_queue(&room.chord),
        // All of it is unacked at the end.
        prefetch: u16::MAX,
        tag: "gather".to_owned(),
        arguments: Map::new(),
    };
    let mut session = match Session::open(connection, &options).await {
        Ok(session) => session,
        Err(error) if error.is_no_queue() => return Err(gone(connection, &room.chord).await),
        Err(error) => return Err(again(&error).await),
    };
    let (mut events, mut has_looked, mut has_read) = (Vec::new(), false, false);
    while !room.holes.is_empty() {
        let within = if has_looked { VALUE_WITHIN } else { LOOK_AFTER };
        match tokio::time::timeout(within, session.next(&mut events)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(again(&error).await),
            // Somebody may have made the queue again after it has ended.
            Err(_) if has_ended(connection, &room.chord).await? => return Err(NoList::Over),
            Err(_) if !has_looked => {
                has_looked = true;
                continue;
            }
            // Until another reader has put it back there is nothing to read.
            Err(_) if !has_read => return Err(NoList::GoesBack("others read it".to_owned())),
            Err(_) => return Err(missing(connection, room, redelivered).await),
        }
        has_read = true;
        for event in events.drain(..) {
            if let SessionEvent::Delivered(delivery) = event
                && !fill(room, &delivery.message, crew)?
            {
                // All calls of the body have the same list, so that none needs it. Unacked, it
                // would keep the broker from delivering what is behind it.
                session.ack(delivery.tag);
            }
        }
        tokio::task::yield_now().await;
    }
    // The broker puts everything back, at once or when it sees that the channel is gone.
    let _ = session.close().await;
    Ok(())
}

/// Puts one value into its place, if it has one. Those of runs that do not count have none.
fn fill(room: &mut Room, message: &Message, crew: &Crew) -> Result<bool, NoList> {
    let Some(execution) = ParkedValue::execution(message) else { return Ok(false) };
    let counts = |hole: &Hole| hole.reference.bytes == message.body.len() as u64;
    if !room.holes.get(execution).is_some_and(counts) {
        return Ok(false);
    }
    let Some(hole) = room.holes.remove(execution) else { return Ok(false) };
    let value = ParkedValue::value(message, &crew.limits).map_err(|failed| {
        refused("ResultsLost", format!("a parked result cannot be read: {failed}"))
    })?;
    crew.gathering.add(&mut room.items, items(&value))?;
    room.manifest.fill(&hole, value);
    Ok(true)
}

/// How many values are in `value`, which is no deeper than a decoder reads.
fn items(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().fold(1, |sum, it| sum + items(it)),
        Value::Map(map) => map.iter().fold(1, |sum, (_, it)| sum + items(it)),
        _ => 1,
    }
}

/// What it means that a chord has no values.
async fn gone(connection: &Connection, chord: &str) -> NoList {
    match has_ended(connection, chord).await {
        Ok(true) => NoList::Over,
        Ok(false) => {
            let text = format!("the queue with the parked results of chord {chord} is gone");
            refused("ResultsLost", text)
        }
        Err(why) => why,
    }
}

/// Whether the body of a chord has ended before.
async fn has_ended(connection: &Connection, chord: &str) -> Result<bool, NoList> {
    match connection.queue_depth(&topology::park_end_queue(chord)).await {
        Ok(depth) => Ok(depth.is_some()),
        Err(error) => Err(again(&error).await),
    }
}

/// What it means that some values have not come. A broker can be slow; so they are gone only if
/// its queue is empty, and not at the first try.
async fn missing(connection: &Connection, room: &Room, redelivered: bool) -> NoList {
    let (chord, count) = (&room.chord, room.holes.len());
    match connection.queue_depth(&topology::park_queue(chord)).await {
        Ok(Some(0)) if redelivered => {
            refused("ResultsLost", format!("{count} parked results of chord {chord} are gone"))
        }
        Ok(_) => NoList::GoesBack(format!("{count} parked results have not come")),
        Err(error) => again(&error).await,
    }
}

async fn again(error: &amqp::Error) -> NoList {
    match error {
        amqp::Error::NameTooLong { .. } => {
            refused("ResultsLost", format!("the parked results cannot be read: {error}"))
        }
        amqp::Error::Refused { .. } if !error.is_connection() => {
            warn!(%error, "the broker does not let parked results be read, a body goes back");
            tokio::time::sleep(REFUSED_PAUSE).await;
            NoList::GoesBack(error.to_string())
        }
        _ => NoList::GoesBack(error.to_string()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::join::Reference;

    fn budget(bytes: usize) -> Budget {
        Budget::of(&Config { join_max_parked: bytes, ..Config::default() })
    }

    #[test]
    fn two_results_of_one_run_are_no_list() {
        let hole = |at, execution: &str| Hole {
            at,
            reference: Reference { execution: execution.to_owned(), bytes: 1 },
            is_entry: false,
        };
        let read = |parked| holes(&mut Manifest { list: vec![Value::Null; 2], parked });
        assert_eq!(read(vec![hole(0, "x"), hole(1, "y")]).unwrap().len(), 2);
        assert!(matches!(
            read(vec![hole(0, "x"), hole(1, "x")]),
            Err(NoList::Refused("results-lost", _))
        ));
    }

    #[test]
    fn small_values_are_counted_by_all_bodies_together() {
        let budget = budget(64 << 20);
        let (mut first, mut second) = (None, None);
        budget.add(&mut first, 5 << 20).unwrap();
        assert!(matches!(budget.add(&mut second, 4 << 20), Err(NoList::Until(_))), "there is less");
        assert!(matches!(budget.add(&mut first, 4 << 20), Err(NoList::Refused("results", _))));
        drop(first);
        budget.add(&mut second, 4 << 20).unwrap();
        budget.add(&mut second, 4 << 20).unwrap();
    }

    #[test]
    fn one_value_is_never_too_many() {
        budget(1).add(&mut None, Limits::default().items_max).unwrap();
    }

    #[test]
    fn values_are_counted_with_what_is_in_them() {
        let map = Map::from_iter([("a", Value::Null), ("b", Value::Array(vec![1.into()]))]);
        assert_eq!(items(&Value::Array(vec![Value::Map(map), 2.into()])), 6);
    }

    #[tokio::test]
    async fn what_will_be_there_again_is_not_lost() {
        for error in [amqp::Error::Closed, amqp::Error::Cancelled] {
            assert!(matches!(again(&error).await, NoList::GoesBack(_)), "{error}");
        }
    }
}
