//! Which shards this worker gives to others, so that the first one to start does not keep them all.
//!
//! The broker hands a shard to whoever subscribed first, and to the next in line when that one's
//! channel is closed. A worker that reads more shards than its share closes the channel of one and
//! subscribes again, behind all others: for the protocol this is what the death of a joiner is.
//! Workers count one another by the consumers of a queue that is for nothing else.
//!
//! **Invariant:** a worker with its share or less keeps what it has, so that all is quiet once
//! every worker has it; a shard is given away at most once in [`REST`] rounds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::amqp::topology::joiners_queue;
use crate::amqp::{Connection, Error, Session, SessionOptions, layout};

/// Rounds until a shard may be given away again.
const REST: u32 = 10;

/// How long a session that is asked for its shard may take to hear of it; it does not listen while
/// an outcome is stuck, which may be for hours.
const ASKED_FOR: Duration = Duration::from_secs(5);

/// What the parts of a worker tell one another about one shard.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Whether this worker reads the shard.
    reads: AtomicBool,
    asked: Notify,
    asked_at: Mutex<Option<Instant>>,
}

impl Seat {
    /// A session has got its first delivery, or has ended.
    pub(super) fn set_reads(&self, reads: bool) {
        self.reads.store(reads, Ordering::Relaxed);
        // It was meant for the session before.
        self.set_asked(None);
    }

    /// Completes when the shard is to be given away.
    pub(super) async fn asked(&self) {
        loop {
            self.asked.notified().await;
            // Who could not hear of it in time is not to be surprised by it later.
            if self.set_asked(None).is_some_and(|at| at.elapsed() < ASKED_FOR) {
                return;
            }
        }
    }

    fn ask(&self) {
        self.set_asked(Some(Instant::now()));
        self.asked.notify_one();
    }

    fn set_asked(&self, at: Option<Instant>) -> Option<Instant> {
        std::mem::replace(&mut *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner), at)
    }
}

/// Gives shards away, one in each `interval`, until it is stopped.
pub(super) async fn balance(
    seats: Vec<Arc<Seat>>,
    connection: Connection,
    interval: Duration,
    stop: CancellationToken,
) {
    let mut rests: Vec<u32> = vec![0; seats.len()];
    let mut presence = None;
    loop {
        let round = async {
            let joiners = count(&mut presence, &connection).await;
            tokio::time::sleep(interval).await;
            joiners
        };
        let joiners = match stop.run_until_cancelled(round).await {
            None => return,
            Some(Ok(joiners)) => joiners,
            Some(Err(error)) => {
                debug!(%error, "nobody knows how many workers join");
                continue;
            }
        };
        rests.iter_mut().for_each(|rest| *rest = rest.saturating_sub(1));
        let reads = |seat: &Seat| seat.reads.load(Ordering::Relaxed);
        let read = seats.iter().filter(|seat| reads(seat)).count();
        if read <= share(seats.len(), joiners) {
            continue;
        }
        let rested = seats.iter().zip(&mut rests).find(|(seat, rest)| **rest == 0 && reads(seat));
        if let Some((seat, rest)) = rested {
            info!(read, joiners, "a shard is given to another worker");
            *rest = REST;
            seat.ask();
        }
    }
}

/// Sees to it that this worker is counted, and counts.
async fn count(presence: &mut Option<Session>, connection: &Connection) -> Result<u32, Error> {
    if let Some(session) = presence
        && let Some(Err(_)) = session.next(&mut Vec::new()).now_or_never()
    {
        *presence = None;
    }
    if presence.is_none() {
        connection.declare_for_now(&layout::joiners()).await?;
        let queue = joiners_queue().to_owned();
        let options = SessionOptions { queue, prefetch: 1, ..SessionOptions::default() };
        *presence = Some(Session::open(connection, &options).await?);
    }
    connection.consumers(joiners_queue()).await
}

/// How many of so many shards one of `consumers` workers keeps.
fn share(shards: usize, consumers: u32) -> usize {
    shards.div_ceil(usize::try_from(consumers).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_could_not_hear_of_it_in_time_keeps_its_shard() {
        let seat = Seat::default();
        let is_asked = || seat.asked().now_or_never().is_some();
        seat.ask();
        assert!(is_asked() && !is_asked());
        seat.ask();
        tokio::time::advance(ASKED_FOR).await;
        assert!(!is_asked(), "that was long ago");
        seat.ask();
        seat.set_reads(false);
        seat.set_reads(true);
        assert!(!is_asked(), "that was another session");
    }

    #[test]
    fn all_shards_have_room_in_the_shares_of_all_workers() {
        for (shards, consumers, expected) in [(8, 1, 8), (8, 2, 4), (8, 3, 3), (8, 9, 1), (8, 0, 8)]
        {
            assert_eq!(share(shards, consumers), expected);
            assert!(expected * usize::try_from(consumers.max(1)).unwrap() >= shards);
        }
    }
}
