//! Client and worker together on a real RabbitMQ, each test in a virtual host of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod blocking;
mod bundle;
mod canvas;
mod chords;
mod chords_faults;
mod dates;
mod dead_letters;
mod failures;
mod faults;
mod faults_node;
mod fleet;
mod lineage;
mod probe;
mod results;
mod round_trip;
mod send;
mod sending;
mod shutdown;
mod start;
mod states;
mod tasks;
#[path = "../canvas/tree.rs"]
mod tree;
mod workflow;
