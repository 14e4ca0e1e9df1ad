//! How far a channel's frames are ahead of its queues, and how long it has to stay open for that.
//!
//! RabbitMQ's channels send a quorum queue 32 commands ahead (`quorum_commands_soft_limit`), one
//! for each frame that settles something, and keep the verdicts of further ones until those are
//! written. A channel that is closed forgets what it keeps, so that what was acked is delivered
//! again. AMQP has no answer to an ack which would tell; but the answer to a cancel comes when
//! everything before it was written.
//!
//! **Invariant:** few frames are closed upon at once; after many, as much time passes as a broker
//! that works needs for them.

use std::time::Duration;

use tokio::time::Instant;

/// Frames that may be on their way when the channel is closed.
const AHEAD_MAX: usize = 24;

/// The time in which they are taken in.
const LINGER: Duration = Duration::from_secs(1);

/// The frames of one channel that its queues may not have taken in.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    frames: usize,
    /// When the last ones were sent.
    last: Option<Instant>,
}

impl Ahead {
    /// So many frames are sent now.
    pub(super) fn send(&mut self, frames: usize, now: Instant) {
        if frames == 0 {
            return;
        }
        if self.last.is_some_and(|last| now.saturating_duration_since(last) >= LINGER) {
            self.frames = 0;
        }
        self.frames = self.frames.saturating_add(frames);
        self.last = Some(now);
    }

    /// The queues have taken in all that was sent.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Waits until the channel may be closed.
    pub(super) async fn linger(&self) {
        if let Some(until) = self.until() {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Until when the channel has to stay open.
    fn until(&self) -> Option<Instant> {
        self.last.filter(|_| self.frames > AHEAD_MAX).map(|last| last + LINGER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_stays_open_after_many_frames_only() {
        let (mut ahead, start) = (Ahead::default(), Instant::now());
        assert_eq!(ahead.until(), None);
        ahead.send(AHEAD_MAX, start);
        assert_eq!(ahead.until(), None);
        ahead.send(1, start + LINGER / 2);
        assert_eq!(ahead.until(), Some(start + LINGER / 2 + LINGER));
        ahead.send(0, start + LINGER);
        assert_eq!(ahead.until(), Some(start + LINGER / 2 + LINGER), "nothing was sent");
    }

    #[test]
    fn what_was_sent_long_ago_or_was_answered_does_not_count() {
        let (mut ahead, start) = (Ahead::default(), Instant::now());
        ahead.send(1000, start);
        ahead.send(1, start + LINGER);
        assert_eq!(ahead.until(), None);
        ahead.send(1000, start + LINGER);
        ahead.clear();
        assert_eq!(ahead.until(), None);
    }
}
