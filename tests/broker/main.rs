//! Client and worker together on a real RabbitMQ, each test in a virtual host of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod blocking;
mod bundle;
mod dates;
mod dead_letters;
mod failures;
mod faults;
mod faults_node;
mod lineage;
mod probe;
mod results;
mod round_trip;
mod send;
mod shutdown;
mod start;
mod states;
mod tasks;
