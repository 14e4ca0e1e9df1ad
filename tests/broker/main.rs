//! Client and worker together on a real RabbitMQ, each test in a virtual host of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod added;
mod adding;
mod balance;
mod blocking;
mod bundle;
mod canvas;
mod chord_progress;
mod chords;
mod chords_cost;
mod chords_faults;
mod chords_order;
mod chords_timeout;
mod control;
mod dates;
mod dead_letters;
mod delays;
mod events;
mod examples;
mod failover;
mod failures;
#[path = "../canvas/fallible.rs"]
mod fallible;
mod faults;
mod faults_node;
mod fleet;
mod half_open;
mod lineage;
mod liveness;
mod parked;
mod parking;
mod permits;
mod priorities;
mod probe;
mod rates;
mod reaper;
mod recycling;
mod redelivery;
mod results;
mod retries;
mod revoke;
mod round_trip;
mod send;
mod sending;
mod shutdown;
mod silent_queues;
#[expect(dead_code, reason = "the tests of what is published need more of it")]
#[path = "../canvas/simulator.rs"]
mod simulator;
mod stamps;
mod start;
mod starts;
mod states;
mod tasks;
mod time_limits;
#[expect(dead_code, reason = "the simulator's own tests need more of it")]
#[path = "../canvas/tree.rs"]
mod tree;
mod unique;
mod unlucky;
mod workflow;
