//! What a joiner counts.

/// Numbers of one session; they begin at zero with every subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct JoinStats {
    /// Chords that the shard holds records of.
    pub(crate) chords: usize,
    /// Deliveries of single records that are unacked.
    pub(crate) raws: usize,
    /// Packs in the shard.
    pub(crate) packs: usize,
    /// `done` records in the shard.
    pub(crate) dones: usize,
    /// Records that were taken over from the session before.
    pub(crate) replayed: u64,

    /// Outcomes, by kind.
    pub(crate) complete: u64,
    /// Chords that failed.
    pub(crate) failed: u64,
    /// Chords whose time was over.
    pub(crate) expired: u64,
    /// Chords that were revoked.
    pub(crate) cancelled: u64,

    /// Records for an index that had one already.
    pub(crate) duplicates: u64,
    /// Records of chords that had ended.
    pub(crate) late: u64,
    /// Records of chords that were never heard of.
    pub(crate) orphans: u64,
    /// Packs that a lost session wrote behind its successor's mark.
    pub(crate) stale_packs: u64,
    /// Messages that are no records.
    pub(crate) poison: u64,
    /// Times that records were packed.
    pub(crate) compactions: u64,
    /// Records that were packed.
    pub(crate) packed: u64,
}
