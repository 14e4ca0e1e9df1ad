//! The channels that one consumer has had: which of them are still open.
//!
//! Knows nothing of what happens on them. **Invariant:** the number of a channel is never used
//! again, and grows with every connection and every channel.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::connection::lock;

/// Bits of a channel's number below those of its connection.
const CONNECTION_SHIFT: u32 = 40;

/// The channels of one consumer.
#[derive(Debug, Default)]
pub(super) struct Channels {
    opened: AtomicU64,
    open: Mutex<BTreeSet<u64>>,
    /// Verdicts that came too late.
    stale: AtomicU64,
}

impl Channels {
    /// Numbers a new channel of the connection `epoch`.
    pub(super) fn opened(&self, epoch: u64) -> u64 {
        let number = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
        let channel = (epoch << CONNECTION_SHIFT) | number;
        lock(&self.open).insert(channel);
        channel
    }

    pub(super) fn closed(&self, channel: u64) {
        lock(&self.open).remove(&channel);
    }

    /// Whether the broker has taken back what was delivered on `older`, if something new comes on
    /// `newer`. That a connection is gone may be known here later than there is a new one.
    pub(super) fn is_gone(&self, older: u64, newer: u64) -> bool {
        older >> CONNECTION_SHIFT < newer >> CONNECTION_SHIFT || !lock(&self.open).contains(&older)
    }

    /// Counts verdicts that came too late.
    pub(super) fn add_stale(&self, count: u64) {
        self.stale.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn stale_total(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_gone_with_its_connection_or_when_it_was_closed() {
        let channels = Channels::default();
        let (first, second) = (channels.opened(1), channels.opened(1));
        assert!(!channels.is_gone(first, second));
        channels.closed(first);
        assert!(channels.is_gone(first, second));
        let third = channels.opened(2);
        assert!(channels.is_gone(second, third), "although nobody has said so yet");
        assert!(!channels.is_gone(third, third));
    }
}
