//! Confirms, as they come from the client library, until they can be relied on.
//!
//! When one confirm covers many messages, lapin attaches a returned message to any of them, and
//! resolves them one by one while it holds a lock. So a confirm counts only after that lock was
//! free once more and everything that was resolved by then has been looked at.
//!
//! **Invariant:** a confirm is handed out after every returned message that came with it or before
//! it was laid to the publish that it is.

use std::future::Future;
use std::task::{Context, Poll};

use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::Confirmation;

use super::envelope;
use super::error::Error;
use super::flight::{Flight, Holds};

/// The number of a publish, and what became of it.
pub(super) type Outcome = (u64, Result<Confirmation, lapin::Error>);

/// Confirms that were seen, but whose batch may not be complete yet.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    unripe: Vec<Outcome>,
}

impl Confirms {
    /// Whether some are held back, so that [`ripen`](Self::ripen) has to be called again.
    pub(super) fn are_held_back(&self) -> bool {
        !self.unripe.is_empty()
    }

    /// Polls `pending` until nothing in it is ready, and gives what counts from now on. With it
    /// comes the error that has ended the channel, if one has; nothing is held back then.
    pub(super) fn ripen<T: Holds, F: Future<Output = Outcome>>(
        &mut self,
        first: Option<Outcome>,
        pending: &mut FuturesUnordered<F>,
        channel: &lapin::Channel,
        flight: &mut Flight<T>,
        cx: &mut Context<'_>,
    ) -> (Vec<Outcome>, Option<Error>) {
        let mut ripe = std::mem::take(&mut self.unripe);
        ripe.extend(first);
        take_ready(pending, &mut ripe, cx);
        if ripe.is_empty() {
            return (ripe, None);
        }
        // Takes the lock when it is first polled; what it would wait for is of no interest.
        let _ = channel.wait_for_confirms().now_or_never();
        take_ready(pending, &mut self.unripe, cx);
        let mut broken = None;
        for (_, outcome) in ripe.iter_mut().chain(&mut self.unripe) {
            match outcome {
                Ok(confirmation) => envelope::attribute(flight, confirmation),
                Err(error) => broken = worse(broken, Error::from(error.clone())),
            }
        }
        if broken.is_some() {
            ripe.append(&mut self.unripe);
        }
        (ripe, broken)
    }
}

/// Also what gets new publishes going, in their order.
fn take_ready<F: Future<Output = Outcome>>(
    pending: &mut FuturesUnordered<F>,
    into: &mut Vec<Outcome>,
    cx: &mut Context<'_>,
) {
    while let Poll::Ready(Some(outcome)) = pending.poll_next_unpin(cx) {
        into.push(outcome);
    }
}

/// Of all errors of a channel, the one in which the broker says why.
fn worse(known: Option<Error>, new: Error) -> Option<Error> {
    match known {
        Some(known) if known.is_refused() || !new.is_refused() => Some(known),
        _ => Some(new),
    }
}
