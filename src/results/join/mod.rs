//! The joiner of one shard: a deterministic state machine over the shard's log.
//!
//! ```text
//! deliveries, confirms, ticks ──> Joiner::handle ──> publishes, outcomes, acks
//! ```
//!
//! Does no IO and has no clock: the driver hands in what happened and when, carries out the
//! [`Effect`]s in their order over one channel, and wakes the joiner at its next deadline. A
//! joiner lives as long as its channel; its durable state is what is unacked in the shard.
//!
//! | file | duty |
//! |---|---|
//! | `joiner` | the state, and who handles which event |
//! | `replay` | what a predecessor left, up to the barrier |
//! | `chord` | what decides a chord |
//! | `added` | parts that were added by parts |
//! | `intake` | records after the barrier |
//! | `contradiction` | records that cannot be right beside others |
//! | `commit` | outcomes, `done` records, acks |
//! | `tombs` | when a `done` may go |
//! | `compact` | packs |
//! | `marks` | the session's own marks |
//!
//! **Invariants:** nothing is decided or acked before the barrier, except what an own pack covers.
//! A record is acked only when a confirmed pack covers it, when a confirmed `done` names its
//! chord, or when its chord is long gone. The rules are described, with their reasons, in
//! `docs/chords.md`.

mod added;
mod chord;
mod commit;
mod compact;
mod contradiction;
mod event;
mod intake;
mod joiner;
mod list;
mod marks;
mod recent;
mod replay;
mod settings;
mod stats;
mod tombs;

#[cfg(test)]
mod tests;

pub(crate) use event::{Delivery, Effect, Event, Outcome, Part, PublishId};
pub(crate) use joiner::Joiner;
pub(crate) use list::{has_references, list_of_results};
pub(crate) use settings::JoinSettings;
