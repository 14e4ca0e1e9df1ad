//! The join protocol of chords as data: what the parts, the producer and the joiner write.
//!
//! A chord lives in one shard, a queue that is used as a log. The producer appends an [`Open`],
//! every part carries a [`Link`] and appends its result, and one joiner for each shard reads the
//! log and publishes the outcome. `docs/chords.md` describes it for other languages.
//!
//! Does not know queues or clocks, and does not decide anything: see `results/join`.
//!
//! **Invariant:** decoding is total and bounded, as everywhere in `protocol`.

mod failure;
mod ids;
mod inspection;
mod link;
mod open;
mod pack;
mod parked;
mod place;
mod record;
mod reference;
mod salvage;

pub use failure::Failure;
pub use ids::{body_id, derived_id, errback_id, header_id, route, shard_route};
pub use inspection::{ChordState, Inspection};
pub use link::Link;
pub(crate) use open::ERRBACKS_MAX;
pub use open::{Mode, Open, Parent};
pub(crate) use pack::{Entitled, PackWriter};
pub use pack::{Entry, EntryKind};
pub use parked::{ArgsRef, GATHER, ParkedValue};
pub use place::Place;
pub(crate) use record::Reason;
pub use record::{Pack, Record};
pub use reference::{Hole, Manifest, Reference};
