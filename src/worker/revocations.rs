//! Shares what was revoked over a stream in the broker, so that it reaches workers that start
//! later and survives a restart of them all.
//!
//! A worker reads the stream from where old marks begin, up to a bookmark that it appends itself,
//! before it takes tasks; then it follows. What comes by remote control and is not in the stream
//! is appended by whoever is first: each worker waits for a random moment, and looks again. What
//! joiners revoke in order to spare work has a stream of its own.
//!
//! **Invariants:** without the stream, or while it is out of reach, a worker goes on with what it
//! has in memory. Reading again what was read changes nothing; what has expired stops nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::active::Cancel;
use super::neighbours;
use super::revoked::{Revoked, covering};
use super::running::Crew;
use crate::amqp::{
    self, Connection, Consumer, ConsumerHandle, ConsumerOptions, Deliveries, Publish, Topology,
    layout, topology,
};
use crate::backoff::Backoff;
use crate::protocol::control::{Mark, Record, Revocation};
use crate::protocol::{Map, Message, Tag, Value, date};

/// How long a worker that starts waits for the end of the stream.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);

/// Records that may be on their way to this worker.
const PREFETCH: u32 = 250;

/// Appends that may wait; what comes on top is kept in memory only.
const WAITING_MAX: usize = 1000;

/// Marks in one record.
const MARKS_MAX: usize = 1000;

/// How far the clocks of workers may be apart for what spares work to be new.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

/// Until a worker looks whether another one has appended a mark.
const LOOK_AGAIN: Backoff =
    Backoff { base: Duration::from_millis(800), cap: Duration::from_millis(800), jitter: true };

/// This worker's end of the stream; `None` if there is none, or none any more.
#[derive(Debug)]
pub(super) struct Revocations(Mutex<Option<Stream>>);

#[derive(Debug)]
struct Stream {
    handle: ConsumerHandle,
    append: mpsc::Sender<Revocation>,
    appending: JoinHandle<()>,
}

impl Revocations {
    /// Reads what was revoked, and follows the stream from then on.
    pub(super) async fn start(connection: &Connection, crew: &Arc<Crew>) -> Self {
        let stream = Box::pin(Stream::start(connection, crew));
        let (stream, told) = tokio::join!(stream, Box::pin(neighbours::ask(crew)));
        let stream = stream.inspect_err(|failed| {
            let error: &dyn std::error::Error = failed;
            warn!(error, "revocations are kept in memory only: there is no stream for them");
        });
        let revocations = Self(Mutex::new(stream.ok()));
        revocations.adopt(told, crew);
        revocations
    }

    /// Takes over the ids of tasks that another worker has revoked, if they are new.
    pub(super) fn adopt(&self, ids: Vec<String>, crew: &Crew) {
        let marks = ids.into_iter().map(Mark::Task).filter(|mark| mark.check().is_ok());
        // What is known keeps its date: workers that tell each other would keep it for ever.
        let marks = crew.revoked.unknown(marks.collect());
        if marks.is_empty() {
            return;
        }
        let revocation = Revocation::now(marks);
        crew.revoked.add(&revocation.marks, revocation.at, false);
        let why = Cancel::revoked(false, None);
        crew.active.cancel_if(covering(&revocation.marks), why);
        info!(marks = revocation.marks.len(), "other workers know of revoked tasks");
        self.share(revocation);
    }

    /// Appends marks unless another worker does.
    pub(super) fn share(&self, revocation: Revocation) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stream) = &*held else { return };
        if stream.append.try_send(revocation).is_err() {
            warn!("too many revocations at once: some are kept in memory only");
        }
    }

    /// Appends what waits, and reads no more. What is shared from then on stays in memory.
    pub(super) async fn stop(&self) {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Stream { handle, append, appending }) = stream else { return };
        drop(append);
        // It ends when it has appended all, or with the connection.
        let _ = tokio::time::timeout(REPLAY_TIMEOUT, appending).await;
        handle.close().await;
    }
}

impl Stream {
    async fn start(connection: &Connection, crew: &Arc<Crew>) -> Result<Self, amqp::Error> {
        let queues = vec![layout::revocations(), layout::revocations_of_rest()];
        let topology = Topology { queues: queues.clone(), ..Topology::default() };
        crew.client.connection().declare(&topology).await?;
        let options = ConsumerOptions::new(queues)
            .prefetch(PREFETCH)
            .tag_prefix(format!("{} revoked", crew.info.hostname))
            .arguments(from(crew.client.config().worker_revoke_expires));
        let (deliveries, handle) = Consumer::start(connection, options).await?;
        let bookmark = uuid::Uuid::new_v4().to_string();
        let (read, replayed) = oneshot::channel();
        let replay = Replay(Some((bookmark.clone(), read)));
        tokio::spawn(follow(deliveries, Arc::clone(crew), replay));
        let publish = publish(&Record::Bookmark(bookmark));
        let replay = async {
            if let Some(publish) = publish
                && let Err(error) = crew.client.publisher().publish(publish).await
            {
                warn!(%error, "failed to find the end of the stream of revocations");
                return;
            }
            // The reader ends only with the worker.
            let _ = replayed.await;
        };
        if tokio::time::timeout(REPLAY_TIMEOUT, replay).await.is_err() {
            warn!("not all revocations could be read in time, the rest follows");
        }
        let (append, waiting) = mpsc::channel(WAITING_MAX);
        let appending = tokio::spawn(append_all(waiting, Arc::clone(crew)));
        Ok(Self { handle, append, appending })
    }
}

/// Where reading begins: somewhat before the oldest mark that counts.
fn from(expires: Duration) -> Map {
    let expires = SignedDuration::try_from(expires).unwrap_or(SignedDuration::MAX);
    let begin = Timestamp::now().checked_sub(expires).unwrap_or(Timestamp::UNIX_EPOCH);
    let begin = begin.max(Timestamp::UNIX_EPOCH);
    let offset = Value::Tagged(Tag::DateTime, date::format(begin));
    Map::from_iter([("x-stream-offset", offset)])
}

fn publish(record: &Record) -> Option<Publish> {
    match record.encode() {
        Ok(message) => Some(Publish::new("", topology::revocation_stream(), message)),
        Err(error) => {
            warn!(%error, "a revocation cannot be shared");
            None
        }
    }
}

/// The bookmark up to which the stream is read before tasks come, and whom to tell.
#[derive(Debug)]
struct Replay(Option<(String, oneshot::Sender<()>)>);

impl Replay {
    /// Whether no task has come yet: the worker waits for the bookmark.
    fn is_on(&mut self) -> bool {
        self.0.take_if(|(_, read)| read.is_closed());
        self.0.is_some()
    }

    fn has_read(&mut self, bookmark: &str) {
        if let Some((_, read)) = self.0.take_if(|(own, _)| own == bookmark) {
            // Who starts may have run out of patience.
            let _ = read.send(());
        }
    }
}

/// How far a stream was read, by its offsets.
#[derive(Debug, Default)]
struct Progress(Option<i64>);

impl Progress {
    /// When a record comes; after a lost connection the stream is read again from where it was
    /// read first.
    fn moment(&mut self, offset: Option<i64>, is_replay: bool) -> Moment {
        let is_again = offset.is_some() && offset <= self.0;
        self.0 = self.0.max(offset);
        match (is_replay, is_again) {
            (true, _) => Moment::Replay,
            (false, true) => Moment::Again,
            (false, false) => Moment::News,
        }
    }
}

/// When a record of the stream comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Before the first task.
    Replay,
    /// For the first time.
    News,
    /// After it was carried out.
    Again,
}

/// Takes a record in, and gives the marks whose tasks are to be stopped here.
fn take_in(revocation: &Revocation, revoked: &Revoked, moment: Moment) -> Vec<Mark> {
    let Revocation { marks, at, terminate, .. } = revocation;
    let marks = revoked.current(marks, *at);
    let added = revoked.add(&marks, *at, true);
    match (moment, terminate) {
        (Moment::Replay, _) => Vec::new(),
        // By command it may have come without an end for what runs.
        (Moment::News, true) => marks,
        (Moment::News, false) | (Moment::Again, _) => added,
    }
}

/// The place of a record in the stream, as the broker says it.
fn offset(message: &Message) -> Option<i64> {
    message.header("x-stream-offset")?.as_i64()
}

/// Reads the stream until the consumer ends; tells when it has come to the bookmark.
async fn follow(mut deliveries: Deliveries, crew: Arc<Crew>, mut replay: Replay) {
    let (mut burst, mut asked, mut rest) = (Vec::new(), Progress::default(), Progress::default());
    let mut spared = Spared::since(Timestamp::now().saturating_sub(SKEW).unwrap_or(Timestamp::MIN));
    while deliveries.next_burst(&mut burst).await {
        for delivery in burst.drain(..) {
            let of_rest = &*delivery.queue == topology::rest_stream();
            let progress = if of_rest { &mut rest } else { &mut asked };
            let moment = progress.moment(offset(&delivery.message), replay.is_on());
            let record = Record::decode(&delivery.message);
            delivery.token.ack();
            match record {
                Ok(Record::Revoke(revocation)) => {
                    let marks = take_in(&revocation, &crew.revoked, moment);
                    if of_rest && !revocation.terminate {
                        spared.gather(marks, revocation.at);
                    } else if !marks.is_empty() {
                        stop(marks, revocation, &crew);
                    }
                }
                Ok(Record::Bookmark(whose)) => replay.has_read(&whose),
                Err(error) => debug!(%error, "not a revocation"),
            }
        }
        let marks = spared.take();
        if !marks.is_empty() {
            debug!(marks = marks.len(), "the rest of chords is spared");
            crew.active.cancel_if(covering(&marks), Cancel::revoked(false, None));
        }
    }
}

/// What a burst of records spares. There may be tens of thousands of these when a worker starts,
/// and its whole register is searched for what it holds of them.
#[derive(Debug)]
struct Spared {
    /// What was spared before needs no search: a job that has come since was compared with it, and
    /// one that has slipped through only does what nobody needs.
    since: Timestamp,
    marks: Vec<Mark>,
}

impl Spared {
    fn since(since: Timestamp) -> Self {
        Self { since, marks: Vec::new() }
    }

    fn gather(&mut self, marks: Vec<Mark>, at: Timestamp) {
        if at >= self.since {
            self.marks.extend(marks);
        }
    }

    /// What is to be searched for.
    fn take(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.marks)
    }
}

/// Stops what is here of the tasks that `marks` mean.
fn stop(marks: Vec<Mark>, revocation: Revocation, crew: &Crew) {
    let Revocation { terminate, signal, .. } = revocation;
    info!(marks = marks.len(), terminate, "revoked by the stream");
    let why = Cancel::revoked(terminate, signal);
    let stopped = crew.active.cancel_if(covering(&marks), why);
    if terminate && !stopped.is_empty() {
        crew.revoked.has_ended(marks, stopped);
    }
}

/// Appends what is shared, until nobody can share any more.
async fn append_all(mut waiting: mpsc::Receiver<Revocation>, crew: Arc<Crew>) {
    while let Some(first) = waiting.recv().await {
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN.delay(0)) => {}
            () = crew.stop.warm.cancelled() => {}
        }
        let mut revocations = vec![first];
        while let Ok(next) = waiting.try_recv() {
            revocations.push(next);
        }
        for revocation in revocations {
            append(revocation, &crew.revoked, &crew).await;
        }
    }
}

async fn append(revocation: Revocation, revoked: &Revoked, crew: &Crew) {
    let marks = revoked.not_durable(revocation.marks);
    for marks in marks.chunks(MARKS_MAX) {
        let signal = revocation.signal.clone();
        let part = Revocation { marks: marks.to_vec(), signal, ..revocation };
        let Some(publish) = publish(&Record::Revoke(part)) else { return };
        if let Err(error) = crew.client.publisher().publish(publish).await {
            warn!(%error, "a revocation is kept in memory only");
            return;
        }
        revoked.add(marks, revocation.at, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_has_expired_stops_nothing_when_the_stream_is_read_again() {
        let revoked = Revoked::new(10, HOUR);
        let ago = |minutes| Timestamp::now() - SignedDuration::from_mins(minutes);
        let record = |minutes, terminate| {
            let marks = [Mark::Task("1".to_owned())];
            Revocation { at: ago(minutes), terminate, ..Revocation::now(marks) }
        };
        let stopped = |record: &Revocation, moment| take_in(record, &revoked, moment).len();
        assert_eq!(stopped(&record(61, true), Moment::News), 0, "it has expired");
        assert_eq!(stopped(&record(50, true), Moment::Replay), 0, "nothing runs yet");
        assert_eq!(stopped(&record(40, false), Moment::News), 0, "it is known");
        assert_eq!(stopped(&record(30, true), Moment::News), 1, "what runs is to end");
        assert_eq!(stopped(&record(30, true), Moment::Again), 0, "that has been done");
        let other = Revocation::now([Mark::Task("2".to_owned())]);
        assert_eq!(stopped(&other, Moment::News), 1, "what waits is not to start");
    }

    #[test]
    fn what_was_spared_before_a_worker_started_is_not_searched_for() {
        let began = Timestamp::now();
        let mut spared = Spared::since(began);
        let mark = |id: &str| Mark::Task(id.to_owned());
        spared.gather(vec![mark("old")], began - SignedDuration::from_secs(1));
        assert_eq!(spared.take(), []);
        spared.gather(vec![mark("1"), mark("2")], began);
        spared.gather(vec![mark("3")], began + SignedDuration::from_secs(1));
        assert_eq!(spared.take(), ["1", "2", "3"].map(mark), "one search for a burst");
        assert_eq!(spared.take(), []);
    }

    #[test]
    fn a_stamp_that_has_expired_ends_nothing_that_runs() {
        let revoked = Revoked::new(10, HOUR * 24);
        let then = Timestamp::now() - SignedDuration::from_hours(4);
        let stamp = Mark::Stamp { name: "tenant".to_owned(), value: "a".into() };
        let marks = [stamp, Mark::Task("1".to_owned())];
        let record = Revocation { at: then, terminate: true, ..Revocation::now(marks) };
        assert_eq!(take_in(&record, &revoked, Moment::News), [Mark::Task("1".to_owned())]);
    }

    #[test]
    fn what_is_read_again_is_told_by_its_offset() {
        let mut progress = Progress::default();
        let mut read = |offset, is_replay| progress.moment(offset, is_replay);
        assert_eq!(read(Some(7), true), Moment::Replay);
        assert_eq!(read(Some(8), false), Moment::News);
        assert_eq!(read(Some(7), false), Moment::Again);
        assert_eq!(read(Some(8), false), Moment::Again);
        assert_eq!(read(Some(9), false), Moment::News);
        assert_eq!(read(None, false), Moment::News, "what has none is taken as it comes");
        assert_eq!(read(Some(10), false), Moment::News);
    }

    #[test]
    fn a_worker_that_gives_up_on_its_bookmark_takes_records_as_they_come() {
        let (read, replayed) = oneshot::channel();
        let mut patient = Replay(Some(("mine".to_owned(), read)));
        patient.has_read("another's");
        assert!(patient.is_on());
        drop(replayed);
        assert!(!patient.is_on());
        let (read, mut replayed) = oneshot::channel();
        let mut replay = Replay(Some(("mine".to_owned(), read)));
        replay.has_read("mine");
        assert!(!replay.is_on() && replayed.try_recv().is_ok());
    }

    #[test]
    fn reading_begins_at_a_date_that_the_broker_takes() {
        for expires in [Duration::ZERO, Duration::from_secs(3600), Duration::MAX] {
            let Some(Value::Tagged(Tag::DateTime, text)) =
                from(expires).get("x-stream-offset").cloned()
            else {
                panic!("a date");
            };
            assert!(date::parse(&text, &jiff::tz::TimeZone::UTC).unwrap() >= Timestamp::UNIX_EPOCH);
        }
    }

    #[test]
    fn a_mark_that_cannot_be_written_is_left_out() {
        let value = Value::BigInt("1".repeat(40));
        let mark = Mark::Stamp { name: "n".to_owned(), value };
        assert!(publish(&Record::Revoke(Revocation::now([mark]))).is_none());
    }
}
