//! When a publishing channel is exchanged for another one, because of what queues refuse over it.
//!
//! A quorum queue tells each channel that it is full, which then refuses by itself, until the queue
//! tells it that there is room. But a queue that has room because its limit was taken away tells
//! nobody: a channel that has heard of the limit refuses as long as it lives, while another one
//! would be taken from. Seen on RabbitMQ 3.10.
//!
//! Pure. **Invariant:** a channel is given up when nothing is under way on it, so that nothing is
//! sent twice because of that; and what is sent does not wait long for such a moment.

use std::time::Duration;

use tokio::time::Instant;

/// How long a queue may refuse before that is put down to the channel.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing more is sent, so that the channel becomes empty.
const HOLD: Duration = Duration::from_millis(500);

/// How long a channel that did not become empty is kept: some queue confirms nothing on it.
const KEEP: Duration = Duration::from_secs(30);

/// What is known of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Nothing was refused on it.
    #[default]
    Sound,
    /// Something was; what is refused from then on is put down to the channel.
    Refusing(Instant),
    /// Nothing more is sent until then.
    Held(Instant),
}

impl Renewal {
    /// A queue has refused what is meant for it.
    pub(super) fn refused(&mut self, now: Instant) {
        *self = match *self {
            Self::Sound => Self::Refusing(now + PATIENCE),
            Self::Refusing(until) if until <= now => Self::Held(now + HOLD),
            unchanged => unchanged,
        };
    }

    /// Until when nothing is to be sent, if so: a channel that is empty by then is to be given up.
    pub(super) fn held_until(self) -> Option<Instant> {
        match self {
            Self::Held(until) => Some(until),
            Self::Sound | Self::Refusing(_) => None,
        }
    }

    /// The channel did not become empty in time.
    pub(super) fn let_go(&mut self, now: Instant) {
        *self = Self::Refusing(now + KEEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_given_up_when_queues_refuse_for_a_while_and_not_for_a_moment() {
        let (mut renewal, begin) = (Renewal::default(), Instant::now());
        for ms in [0, 500, 4999] {
            renewal.refused(begin + Duration::from_millis(ms));
            assert_eq!(renewal.held_until(), None, "{ms}");
        }
        renewal.refused(begin + PATIENCE);
        assert_eq!(renewal.held_until(), Some(begin + PATIENCE + HOLD));
        renewal.refused(begin + PATIENCE + HOLD);
        assert_eq!(renewal.held_until(), Some(begin + PATIENCE + HOLD), "it is not put off");
    }

    #[test]
    fn a_channel_on_which_something_is_never_confirmed_is_held_up_seldom() {
        let (mut renewal, begin) = (Renewal::default(), Instant::now());
        let mut held = 0;
        for ms in (0..60_000).step_by(100) {
            let now = begin + Duration::from_millis(ms);
            renewal.refused(now);
            if renewal.held_until().is_some_and(|until| until <= now) {
                renewal.let_go(now);
                held += 1;
            }
        }
        assert_eq!(held, 2);
    }
}
