//! The actor behind [`Publisher`](super::Publisher): one confirm channel, fed in bursts.
//!
//! Frames that are handed to the client library together share one wake-up of its thread, so
//! publishes are gathered and polled together, and nobody waits for one confirm at a time.
//!
//! **Invariant:** a publish leaves this file only with an answer; until then it is in exactly one
//! of `waiting`, `suspects` and `flight`.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::poll_fn;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::PublisherConfirm;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::confirms::{Confirmed, Confirming, Confirms, Outcome};
use super::connection::Connection;
use super::dial::CLOSE_TIMEOUT;
use super::envelope::{self, Envelope};
use super::error::Error;
use super::flight::Flight;
use super::live::Live;
use super::publisher::{
    Job, Parcel, Publish, PublishError, PublisherOptions, WhenUnknown, WhenUnroutable,
};
use super::renewal::Renewal;
use crate::backoff::Backoff;
use crate::protocol::delay;

/// Publishes that are handed over before confirms are looked at.
const BURST_MAX: usize = 256;

/// The delay after a channel could not be opened on a connection that looks sound.
const REOPEN: Backoff =
    Backoff { base: Duration::from_millis(20), cap: Duration::from_secs(5), jitter: true };

pub(super) struct Pipeline {
    connection: Connection,
    options: PublisherOptions,
    jobs: mpsc::Receiver<Job>,
    /// Jobs just received; kept for its memory.
    received: Vec<Job>,
    /// Not sent on this channel yet, in order.
    waiting: VecDeque<Parcel>,
    /// One of these made the broker close the channel; they are sent alone, before all others.
    suspects: VecDeque<Parcel>,
    flight: Flight<Parcel>,
    confirms: Confirms,
    renewal: Renewal,
    flushes: Vec<oneshot::Sender<()>>,
    closing: bool,
}

/// The number of a publish, and whom to ask for its confirm.
type Written = (u64, Result<PublisherConfirm, lapin::Error>);

/// Why a channel is no longer served.
enum End {
    /// Everything is answered and no more will come.
    Closed,
    /// Another channel is to be opened; nothing was under way.
    Renewed,
    /// The channel or the connection under it is gone.
    Lost(Error),
    /// There will be no further connection.
    Failed(Error),
}

impl Pipeline {
    pub(super) fn new(
        connection: Connection,
        options: PublisherOptions,
        jobs: mpsc::Receiver<Job>,
    ) -> Self {
        Self {
            connection,
            options,
            jobs,
            received: Vec::with_capacity(BURST_MAX),
            waiting: VecDeque::new(),
            suspects: VecDeque::new(),
            flight: Flight::default(),
            confirms: Confirms::default(),
            renewal: Renewal::default(),
            flushes: Vec::new(),
            closing: false,
        }
    }

    /// Runs until all handles are dropped or it is closed, and everything is answered.
    pub(super) async fn run(mut self) {
        let backoff = REOPEN;
        let mut failures = 0;
        loop {
            match self.serve(&mut failures).await {
                End::Closed => return,
                End::Renewed => debug!("publisher has given up a channel that refuses"),
                End::Failed(Error::GivenUp { source }) => return self.fail(&source).await,
                End::Failed(error) => return self.fail(&Arc::new(error)).await,
                End::Lost(error) => {
                    debug!(%error, in_flight = self.flight.len(), "publisher lost its channel");
                    self.sort_out(error);
                    if failures > 0 {
                        tokio::time::sleep(backoff.delay(failures)).await;
                    }
                }
            }
        }
    }

    /// Opens one channel and works on it to its end.
    async fn serve(&mut self, failures: &mut u32) -> End {
        let live = loop {
            tokio::select! {
                live = self.connection.live(0) => match live {
                    Ok(live) => break live,
                    Err(error) => return End::Failed(error),
                },
                count = self.jobs.recv_many(&mut self.received, BURST_MAX), if self.accepts() => {
                    self.accept(count);
                }
            }
            if self.closing && self.is_idle() {
                return End::Closed;
            }
        };
        match open(&live).await {
            Ok(channel) => {
                *failures = 0;
                self.renewal = Renewal::default();
                self.drive(&live, &channel).await
            }
            Err(error) => {
                *failures += 1;
                End::Lost(error)
            }
        }
    }

    async fn drive(&mut self, live: &Live, channel: &lapin::Channel) -> End {
        // Not boxed: each publish of the program passes here.
        let mut writing = FuturesUnordered::new();
        let mut confirming = FuturesUnordered::new();
        let frame_max = live.frame_max();
        let mut gone = pin!(live.gone());
        loop {
            self.hand_over(&mut writing, frame_max, |number, publish, envelope| {
                write(channel, number, publish, envelope)
            });
            if self.is_idle() {
                self.flushes.drain(..).for_each(|flush| {
                    // Whoever waited may have gone.
                    let _ = flush.send(());
                });
                if self.closing {
                    close(channel).await;
                    return End::Closed;
                }
            }
            let held_until = self.renewal.held_until();
            if held_until.is_some() && self.flight.is_empty() {
                close(channel).await;
                return End::Renewed;
            }
            let accepts = self.accepts();
            let first = tokio::select! {
                biased;
                outcome = poll_fn(|cx| {
                    poll_under_way(&mut writing, &mut confirming, &mut self.confirms, cx)
                }), if !(writing.is_empty() && confirming.is_empty()) => outcome,
                count = self.jobs.recv_many(&mut self.received, BURST_MAX), if accepts => {
                    self.accept(count);
                    continue;
                }
                () = std::future::ready(()), if self.confirms.are_held_back() => None,
                // Nothing could be sent, and more is waiting.
                () = std::future::ready(()), if writing.is_empty() && confirming.is_empty()
                    && !accepts => continue,
                () = until(held_until), if held_until.is_some() => {
                    self.renewal.let_go(Instant::now());
                    continue;
                }
                () = &mut gone => return End::Lost(Error::lost()),
            };
            if let Err(error) = self.settle(first, channel, &mut writing, &mut confirming).await {
                return End::Lost(error);
            }
        }
    }

    /// Whether further jobs should be taken now.
    fn accepts(&self) -> bool {
        !self.closing && self.waiting.len() < BURST_MAX && self.suspects.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.suspects.is_empty() && self.flight.is_empty()
    }

    fn has_room(&self) -> bool {
        self.flight.is_empty()
            || (self.flight.len() < self.options.in_flight_max
                && self.flight.bytes() < self.options.in_flight_bytes_max)
    }

    fn accept(&mut self, count: usize) {
        self.closing |= count == 0;
        for job in self.received.drain(..) {
            match job {
                Job::One(parcel) => self.waiting.push_back(parcel),
                Job::Many(parcels) => self.waiting.extend(parcels),
                Job::Flush(flush) => self.flushes.push(flush),
                Job::Close => {
                    self.closing = true;
                    self.jobs.close();
                }
            }
        }
    }

    /// Starts sending as much as there is room for, up to one burst.
    fn hand_over<F: Future<Output = Written>>(
        &mut self,
        writing: &mut FuturesUnordered<F>,
        frame_max: usize,
        write: impl Fn(u64, Arc<Publish>, Envelope) -> F,
    ) {
        for _ in 0..BURST_MAX {
            if self.renewal.held_until().is_some() || !self.has_room() {
                return;
            }
            let next = match self.suspects.is_empty() {
                true => self.waiting.pop_front(),
                false if self.flight.is_empty() => self.suspects.pop_front(),
                false => None,
            };
            let Some(mut parcel) = next else { return };
            match Envelope::of(&parcel.publish, frame_max) {
                Ok(envelope) => {
                    parcel.sent = true;
                    let publish = parcel.publish.clone();
                    let number = self.flight.push(parcel);
                    writing.push(write(number, publish, envelope));
                }
                Err(error) => parcel.reply.send(Err(error)),
            }
        }
    }

    /// Answers all publishes whose confirm has come.
    async fn settle<F: Future<Output = Written>>(
        &mut self,
        first: Option<Outcome>,
        channel: &lapin::Channel,
        writing: &mut FuturesUnordered<F>,
        confirming: &mut FuturesUnordered<Confirming>,
    ) -> Result<(), Error> {
        let (confirms, flight) = (&mut self.confirms, &mut self.flight);
        let mut first = Some(first);
        let ripening = poll_fn(|cx| {
            write_on(writing, confirming, confirms, cx);
            Poll::Ready(confirms.ripen(first.take().flatten(), confirming, channel, flight, cx))
        });
        let (mut ripe, broken) = ripening.await;
        let (flight, renewal) = (&mut self.flight, &mut self.renewal);
        let again = ripe.drain(..).filter_map(|(at, it)| answer(flight, renewal, at, it));
        self.waiting.extend(again);
        self.confirms.recycle(ripe);
        broken.map_or(Ok(()), Err)
    }

    /// Decides about everything that was in flight when the channel was lost.
    fn sort_out(&mut self, error: Error) {
        let left = self.flight.drain();
        let blame = error.blame().map(|(code, text)| (code, text.to_owned()));
        let alone = left.len() == 1;
        let guilty = |parcel: &Parcel| {
            blame.as_ref().is_some_and(|(code, text)| {
                let named = text.contains(&format!("exchange '{}'", parcel.publish.exchange));
                // Only publishes can make the broker close this channel, but what ended the
                // connection may be somebody else's doing, unless it happens again.
                named || (alone && (is_of_channel(*code) || parcel.suspect))
            })
        };
        let suspicious = blame.is_some() && !left.iter().any(&guilty);
        let mut again = Vec::with_capacity(left.len());
        let error = Arc::new(error);
        for mut parcel in left {
            match &blame {
                Some((404, _)) if guilty(&parcel) && reroute(&mut parcel) => again.push(parcel),
                Some((code, text)) if guilty(&parcel) => {
                    let (code, text) = (*code, text.clone());
                    parcel.reply.send(Err(PublishError::Refused { code, text }));
                }
                _ if parcel.publish.when_unknown == WhenUnknown::Report => {
                    parcel.reply.send(Err(PublishError::Unknown { source: error.clone() }));
                }
                _ => {
                    parcel.suspect |= suspicious;
                    again.push(parcel);
                }
            }
        }
        if suspicious {
            warn!(%error, count = again.len(), "the broker refused one of these messages");
        }
        let target = if suspicious { &mut self.suspects } else { &mut self.waiting };
        for parcel in again.into_iter().rev() {
            target.push_front(parcel);
        }
    }

    /// Answers everything, now and later, with the end of the connection.
    async fn fail(mut self, error: &Arc<Error>) {
        loop {
            let parcels = self.flight.drain().into_iter();
            for parcel in parcels.chain(self.suspects.drain(..)).chain(self.waiting.drain(..)) {
                let source = error.clone();
                parcel.reply.send(Err(match (parcel.sent, &**error) {
                    (true, _) => PublishError::Unknown { source },
                    (false, Error::Closed) => PublishError::Closed,
                    (false, _) => PublishError::Failed(source),
                }));
            }
            self.flushes.clear();
            if self.closing {
                return;
            }
            let count = self.jobs.recv_many(&mut self.received, BURST_MAX).await;
            self.accept(count);
        }
    }
}

/// Whether the broker closes a channel, and not the connection, with this code.
fn is_of_channel(code: u16) -> bool {
    matches!(code, 311..=313 | 403..=406)
}

/// Closes a channel on which nothing is outstanding, so that it does not matter how this ends.
async fn close(channel: &lapin::Channel) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, channel.close(200, "bye".into())).await;
}

async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

async fn open(live: &Live) -> Result<lapin::Channel, Error> {
    let channel = live.answer(live.connection.create_channel()).await?;
    live.answer(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// Ready when the frames are written. Large, so it does not live as long as the confirm takes.
async fn write(
    channel: &lapin::Channel,
    number: u64,
    publish: Arc<Publish>,
    envelope: Envelope,
) -> Written {
    (number, envelope.send(channel, &publish.message.body).await)
}

/// Writes publishes, in their order, until nothing moves; false if one could not be written.
fn write_on<F: Future<Output = Written>>(
    writing: &mut FuturesUnordered<F>,
    confirming: &mut FuturesUnordered<Confirming>,
    confirms: &mut Confirms,
    cx: &mut Context<'_>,
) -> bool {
    let mut sound = true;
    while let Poll::Ready(Some((number, written))) = writing.poll_next_unpin(cx) {
        match written {
            Ok(confirm) => confirming.push(Confirming { number, confirm }),
            Err(error) => {
                confirms.add_failure(number, error);
                sound = false;
            }
        }
    }
    sound
}

/// Writes publishes, and is ready with the first of all confirms; with none when a publish could
/// not be written.
fn poll_under_way<F: Future<Output = Written>>(
    writing: &mut FuturesUnordered<F>,
    confirming: &mut FuturesUnordered<Confirming>,
    confirms: &mut Confirms,
    cx: &mut Context<'_>,
) -> Poll<Option<Outcome>> {
    let sound = write_on(writing, confirming, confirms, cx);
    match confirming.poll_next_unpin(cx) {
        Poll::Ready(Some(outcome)) => Poll::Ready(Some(outcome)),
        Poll::Ready(None) | Poll::Pending if !sound => Poll::Ready(None),
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    }
}

/// Ends one publish as its confirm says, unless it is given back to be sent another way. An error
/// leaves it in flight, to be sorted out.
fn answer(
    flight: &mut Flight<Parcel>,
    renewal: &mut Renewal,
    number: u64,
    outcome: Result<Confirmed, Box<lapin::Error>>,
) -> Option<Parcel> {
    let confirmed = outcome.ok()?;
    let (mut parcel, returned) = flight.take(number)?;
    if returned.is_some() && reroute(&mut parcel) {
        return Some(parcel);
    }
    let result = envelope::verdict(&parcel.publish, returned, &confirmed);
    // Who sends something at most once may be asking for nothing else.
    let is_meant = parcel.publish.when_unknown == WhenUnknown::Resend;
    if is_meant && matches!(result, Err(PublishError::Nacked)) {
        renewal.refused(Instant::now());
    }
    parcel.reply.send(result);
    None
}

/// Addresses a publish that its exchange did not take straight to its queue; false if its sender
/// does not want that, or it was tried.
fn reroute(parcel: &mut Parcel) -> bool {
    let publish = &parcel.publish;
    if publish.when_unroutable == WhenUnroutable::Report || publish.exchange.is_empty() {
        return false;
    }
    debug!(%publish.exchange, publish.routing_key, "unroutable, so sent straight to the queue");
    let publish = Arc::make_mut(&mut parcel.publish);
    publish.exchange = Cow::Borrowed("");
    if let Some((_, queue)) = delay::split(&publish.routing_key) {
        publish.routing_key = queue.to_owned();
    }
    parcel.suspect = false;
    true
}
