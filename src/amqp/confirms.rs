//! Confirms, as they come from the client library, until they can be relied on.
//!
//! When one confirm covers many messages, lapin attaches a returned message to any of them, and
//! resolves them one by one while it holds a lock. So a confirm counts only after that lock was
//! free once more and everything that was resolved by then has been looked at.
//!
//! **Invariant:** a confirm is handed out after every returned message that came with it or before
//! it was laid to the publish that it is.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::message::BasicReturnMessage;
use lapin::{Confirmation, PublisherConfirm};

use super::envelope;
use super::error::Error;
use super::flight::{Flight, Holds};

/// The number of a publish, and what became of it.
pub(super) type Outcome = (u64, Result<Confirmed, Box<lapin::Error>>);

/// What the broker has said to one publish, in a few bytes: thousands of them come at a time.
#[derive(Debug)]
pub(super) struct Confirmed {
    pub(super) stored: bool,
    /// Not necessarily this very publish; see [`envelope::attribute`].
    pub(super) returned: Option<Box<BasicReturnMessage>>,
}

impl From<Confirmation> for Confirmed {
    fn from(confirmation: Confirmation) -> Self {
        let stored = !matches!(confirmation, Confirmation::Nack(_));
        Self { stored, returned: confirmation.take_message().map(Box::new) }
    }
}

/// Waits for one confirm.
#[derive(Debug)]
pub(super) struct Confirming {
    pub(super) number: u64,
    pub(super) confirm: PublisherConfirm,
}

impl Future for Confirming {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let number = self.number;
        Pin::new(&mut self.confirm)
            .poll(cx)
            .map(|it| (number, it.map(Into::into).map_err(Box::new)))
    }
}

/// Confirms that were seen, but whose batch may not be complete yet.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    unripe: Vec<Outcome>,
    /// Empty; kept for its memory.
    spare: Vec<Outcome>,
}

impl Confirms {
    /// Whether some are held back, so that [`ripen`](Self::ripen) has to be called again.
    pub(super) fn are_held_back(&self) -> bool {
        !self.unripe.is_empty()
    }

    /// Takes note of a publish that could not be written.
    pub(super) fn add_failure(&mut self, number: u64, error: lapin::Error) {
        self.unripe.push((number, Err(Box::new(error))));
    }

    /// Polls `pending` until nothing in it is ready, and gives what counts from now on. With it
    /// comes the error that has ended the channel, if one has; nothing is held back then.
    pub(super) fn ripen<T: Holds>(
        &mut self,
        first: Option<Outcome>,
        pending: &mut FuturesUnordered<Confirming>,
        channel: &lapin::Channel,
        flight: &mut Flight<T>,
        cx: &mut Context<'_>,
    ) -> (Vec<Outcome>, Option<Error>) {
        let mut ripe = std::mem::replace(&mut self.unripe, std::mem::take(&mut self.spare));
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
                Ok(confirmed) => envelope::attribute(flight, confirmed),
                Err(error) => broken = worse(broken, Error::from((**error).clone())),
            }
        }
        if broken.is_some() {
            ripe.append(&mut self.unripe);
        }
        (ripe, broken)
    }

    /// Takes back the memory of what was [ripe](Self::ripen).
    pub(super) fn recycle(&mut self, mut ripe: Vec<Outcome>) {
        ripe.clear();
        self.spare = ripe;
    }
}

fn take_ready(
    pending: &mut FuturesUnordered<Confirming>,
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
