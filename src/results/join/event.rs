//! What a joiner hears and what it wants done.
//!
//! Does not say how: the driver owns the channel, the clock and the publishing of outcomes.

use std::sync::Arc;

use crate::protocol::Error;
use crate::protocol::join::{Failure, Inspection, Open, Place, Record, Reference};

/// Number of a publish of one session; later publishes have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PublishId(pub(crate) u64);

/// What happened on the channel of the shard, or in time.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are deliveries")]
pub(crate) enum Event {
    /// The broker delivered a message.
    Delivered(Delivery),
    /// The broker confirmed an [`Effect::Publish`].
    Confirmed {
        /// Which one.
        publish: PublishId,
    },
    /// Everything that an [`Effect::Fire`] asks for was published and confirmed.
    OutcomePublished {
        /// Id of the chord.
        chord: Arc<str>,
    },
    /// Time has passed; see [`Joiner::next_deadline`](super::Joiner::next_deadline).
    Tick,
}

/// One message of the shard.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// The channel's delivery tag: ascending within a session.
    pub(crate) tag: u64,
    /// Whether the broker says that it delivered the message before.
    pub(crate) redelivered: bool,
    /// The header `x-delivery-count`, 0 without it.
    pub(crate) count: u64,
    /// The message, or why it is none of the protocol's.
    pub(crate) record: Result<Record, Error>,
    /// The chord that a message was to open which cannot be read.
    pub(crate) unopened: Option<Arc<str>>,
}

/// What the driver has to do, in this order and on the channel of the shard.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Publish to the shard itself, persistent and mandatory; report the confirm.
    Publish {
        /// What the confirm is reported by.
        id: PublishId,
        /// The message.
        record: Record,
    },
    /// Publish everything that follows from the outcome; report when all of it is confirmed.
    Fire {
        /// Id of the chord.
        chord: Arc<str>,
        /// How it ended.
        outcome: Box<Outcome>,
    },
    /// Ack these deliveries, which are in ascending order.
    Ack {
        /// Their tags.
        tags: Vec<u64>,
    },
    /// Publish the message to the dead letters with the reason; ack it when that is confirmed.
    Poison {
        /// Its tag.
        tag: u64,
        /// What was read in it; `None` if it is none of the protocol's records.
        record: Option<Box<Record>>,
        /// What is wrong with it.
        reason: String,
        /// Whether it is an `open` of which those who wait for the chord have to be told.
        untold: bool,
    },
    /// Answer an `inspect`: best effort, nothing waits for it.
    Reply {
        /// The queue that the answer goes to.
        reply_to: String,
        /// Its correlation id.
        correlation: String,
        /// The answer.
        inspection: Box<Inspection>,
    },
    /// Tell people. After a restart, the joiner is of no use any more: close the channel, drop the
    /// joiner, subscribe again.
    Alarm {
        /// What happened.
        text: String,
        /// Whether the session has to be restarted.
        restart: bool,
    },
    /// The shard holds chords of a newer protocol: close the channel, and leave the shard to
    /// others for so long.
    StandBack {
        /// What was found.
        text: String,
        /// Milliseconds.
        for_ms: u64,
    },
}

/// How one part of a chord ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    /// With a value in MessagePack.
    Ok(Arc<[u8]>),
    /// With a value that is parked.
    Parked(Arc<Reference>),
    /// For good, without a value.
    Err(Arc<Failure>),
}

/// How a chord ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// All parts have ended: the body runs.
    Complete {
        /// The chord.
        open: Arc<Open>,
        /// Its parts in the order of the header, all of them, and then those that were added.
        parts: Vec<Part>,
    },
    /// A part has failed, or the list of results is too large.
    Failed {
        /// The chord.
        open: Arc<Open>,
        /// The part that decided it.
        index: Place,
        /// What failed.
        failure: Arc<Failure>,
        /// Number of parts that were missing.
        missing: u64,
    },
    /// The chord's time was over, or it was given up.
    Expired {
        /// The chord.
        open: Arc<Open>,
        /// Number of parts that were missing.
        missing: u64,
        /// The first runs of places of the header that were missing.
        places: Vec<(u32, u32)>,
        /// Number of parts, with those that were added.
        size: u64,
        /// Why it was given up, if not because its time was over.
        reason: Option<String>,
    },
    /// The chord was revoked.
    Cancelled {
        /// The chord.
        open: Arc<Open>,
        /// Why, for people.
        reason: String,
        /// Whether errbacks are to be called.
        errbacks: bool,
    },
}

impl Outcome {
    /// The chord that ended.
    pub(crate) fn open(&self) -> &Arc<Open> {
        match self {
            Self::Complete { open, .. }
            | Self::Failed { open, .. }
            | Self::Expired { open, .. }
            | Self::Cancelled { open, .. } => open,
        }
    }

    /// The word for logs and counters.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Complete { .. } => "complete",
            Self::Failed { .. } => "failed",
            Self::Expired { .. } => "expired",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// Whether parts that have not begun are to be revoked: if the chord asks for that, and always
    /// if it was revoked itself.
    pub(crate) fn revokes_rest(&self) -> bool {
        match self {
            Self::Complete { .. } => false,
            Self::Failed { open, missing, .. } | Self::Expired { open, missing, .. } => {
                open.revoke_rest && *missing > 0
            }
            Self::Cancelled { .. } => true,
        }
    }
}

#[cfg(test)]
impl std::hash::Hash for Part {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        match self {
            Self::Ok(value) => value.hash(hasher),
            Self::Parked(reference) => reference.hash(hasher),
            Self::Err(failure) => failure.task_id.hash(hasher),
        }
    }
}
