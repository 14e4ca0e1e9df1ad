//! The `celeriac` binary, as people and scripts run it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod calls;
mod chords;
mod control;
mod dlq;
mod endurance;
mod events;
mod graphs;
mod run;
mod setup;
mod steering;
mod unique;
mod workflows;
