//! The numbers of the join protocol, and the rules that tests may take away.

use std::time::Duration;

/// How one shard is joined. The defaults are those of the protocol's description.
#[derive(Clone, Debug)]
pub(crate) struct JoinSettings {
    /// Raw records that are unacked before they are packed (`join.u_max`).
    pub(crate) raws_max: usize,
    /// Raw records that are read before the barrier until they are packed as they are.
    pub(crate) buffered_max: usize,
    /// Bytes of one pack (`join.pack_max`); a larger record has a pack of its own.
    pub(crate) pack_max: usize,
    /// Packs in the shard before small ones are merged.
    pub(crate) packs_max: usize,
    /// Deliveries of a message after which it is written anew.
    pub(crate) deliveries_max: u64,

    /// How long a delivery may stay unacked before it is written anew (`join.t_refresh`), in ms.
    pub(crate) refresh_ms: u64,
    /// How long outcomes are collected for one `done` (`join.done_batch`), in ms.
    pub(crate) done_batch_ms: u64,
    /// Outcomes in one `done`.
    pub(crate) done_batch_max: usize,
    /// `done` records in the shard before they are merged.
    pub(crate) dones_max: usize,
    /// How long a `done` outlives the last ack of what it is about (`join.t_tomb`), in ms.
    pub(crate) tomb_ms: u64,
    /// How long records of unknown chords are kept (`join.orphan_grace`), in ms.
    pub(crate) orphan_grace_ms: u64,
    /// How long a shard is left alone that needs a newer joiner, in ms.
    pub(crate) stand_back_ms: u64,

    /// Bytes of a list of results (`join.max_body`).
    pub(crate) body_max: usize,
    /// Ids of finished chords that are remembered.
    pub(crate) recent_max: usize,
    /// Whether an outcome waits until all that it is based on was confirmed in a pack
    /// (`join.write_ahead`).
    pub(crate) write_ahead: bool,

    /// The rules that this joiner breaks.
    #[cfg(test)]
    pub(crate) broken: Vec<Rule>,
}

/// A rule of the protocol without which it would be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// Records are kept unacked until their chord is done.
    AckAfterDone,
    /// Parts are told apart by their index, not counted.
    DedupByIndex,
    /// Nothing is decided before the own mark came back.
    Barrier,
    /// A `done` is written before records are acked.
    WriteDone,
    /// The outcome is confirmed before its `done` is written.
    OutcomeBeforeDone,
    /// A `done` outlives acks that a crash can undo.
    TombTime,
    /// A `done` outlives the packs that hold its chords.
    TombPacks,
    /// Packs behind the mark of another session are void.
    StalePacks,
    /// A mark that only renews its session's mark does not begin a session.
    Renewals,
    /// A pack is relied on when it has come back, not as soon as it is confirmed.
    PackBack,
    /// Old marks go one after another, when the ack of the one before cannot be undone.
    MarkOrder,
    /// An own mark that was renewed goes after all old marks.
    OwnMarkLast,
    /// Packed records win over raw ones.
    PacksFirst,
    /// Records are acked after the pack that covers them is confirmed.
    PackBeforeAck,
    /// Packs are written after the own mark is confirmed.
    MarkBeforePack,
    /// A predecessor's `done` is written again before it is relied on.
    RepeatDone,
    /// Duplicates are kept until their chord is done, or their part is in a confirmed pack.
    KeepDuplicates,
    /// Deadlines are decided by a record in the log.
    ExpireByRecord,
}

impl JoinSettings {
    /// Whether a test has taken `rule` away, to see that it is needed.
    #[cfg(test)]
    pub(super) fn breaks(&self, rule: Rule) -> bool {
        self.broken.contains(&rule)
    }

    /// Rules are kept.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests ask the settings")]
    pub(super) const fn breaks(&self, _: Rule) -> bool {
        false
    }

    /// Sets how long a delivery may stay unacked. It must stay below half of the broker's
    /// `consumer_timeout`.
    pub(crate) fn refresh(mut self, after: Duration) -> Self {
        self.refresh_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1);
        self
    }
}

impl Default for JoinSettings {
    fn default() -> Self {
        Self {
            raws_max: 500,
            buffered_max: 10_000,
            pack_max: 512 << 10,
            packs_max: 64,
            deliveries_max: 5,
            refresh_ms: 300_000,
            done_batch_ms: 20,
            done_batch_max: 256,
            dones_max: 64,
            tomb_ms: 60_000,
            orphan_grace_ms: 30_000,
            stand_back_ms: 60_000,
            body_max: 8 << 20,
            recent_max: 20_000,
            write_ahead: false,
            #[cfg(test)]
            broken: Vec::new(),
        }
    }
}
