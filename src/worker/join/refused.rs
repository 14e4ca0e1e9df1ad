//! Records that a queue would not store, which has no room, say: they are published again, after a
//! pause that grows, and not for ever.
//!
//! A record may come later than the session meant it to, which is as if the broker had been slow:
//! nothing counts before it is confirmed. **Invariant:** what is given up here ends the session, so
//! that the next one begins with what the queue has stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::session::End;
use crate::amqp::{Publish, PublishError};
use crate::backoff::Backoff;

/// How often a record is published again: for about a minute.
const NACKS_MAX: u32 = 16;

const PAUSE: Backoff =
    Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5), jitter: true };

/// A record that may have to be published again.
#[derive(Clone, Debug)]
pub(super) struct Again {
    pub(super) publish: Arc<Publish>,
    pub(super) nacks: u32,
}

impl Again {
    pub(super) fn new(publish: Publish) -> Self {
        Self { publish: Arc::new(publish), nacks: 0 }
    }

    /// The record after one more refusal, or the end of the session.
    pub(super) fn counted(self, error: &PublishError) -> Result<Self, End> {
        if matches!(error, PublishError::Nacked) && self.nacks < NACKS_MAX {
            return Ok(Self { nacks: self.nacks + 1, ..self });
        }
        Err(End::Broken(format!("a record is not stored: {error}")))
    }

    /// When it is published again.
    pub(super) fn at(&self) -> Instant {
        Instant::now() + PAUSE.delay(self.nacks.saturating_sub(1))
    }
}

/// What waits to be published again.
#[derive(Debug)]
pub(super) struct Refused<T> {
    waiting: BTreeMap<(Instant, u64), T>,
    next: u64,
}

impl<T> Default for Refused<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), next: 0 }
    }
}

impl<T> Refused<T> {
    pub(super) fn push(&mut self, at: Instant, refused: T) {
        self.waiting.insert((at, self.next), refused);
        self.next += 1;
    }

    /// Takes what is due.
    pub(super) fn due(&mut self) -> Vec<T> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let later = self.waiting.split_off(&(Instant::now(), u64::MAX));
        std::mem::replace(&mut self.waiting, later).into_values().collect()
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message;

    #[test]
    fn a_record_is_tried_again_for_a_while_if_it_was_refused_for_want_of_room() {
        let again = || Again::new(Publish::new("", "q", Message::default()));
        let large = PublishError::TooLarge { size: 2, max: 1 };
        assert!(again().counted(&large).is_err());
        let tries = std::iter::successors(again().counted(&PublishError::Nacked).ok(), |it| {
            it.clone().counted(&PublishError::Nacked).ok()
        });
        let pauses: Vec<Duration> = tries.map(|it| it.at() - Instant::now()).collect();
        assert_eq!(pauses.len(), NACKS_MAX as usize);
        assert!(pauses.iter().all(|pause| *pause <= PAUSE.cap));
    }

    #[test]
    fn what_is_due_comes_in_its_order_and_once() {
        let (mut refused, now) = (Refused::default(), Instant::now());
        refused.push(now + Duration::from_secs(3600), "later");
        refused.push(now, "first");
        refused.push(now, "second");
        assert_eq!(refused.next_due(), Some(now));
        assert_eq!(refused.due(), ["first", "second"]);
        assert!(refused.due().is_empty() && refused.next_due() > Some(now));
    }
}
