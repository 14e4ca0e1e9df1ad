//! The worker: takes messages from queues, runs their tasks, and settles what came of them.
//!
//! The way of one message: `consume` takes a burst of deliveries, `intake` reads each into a
//! `Request` or finds the reason why it cannot, `admission` judges its dates, `executor` runs it
//! in a slot, `plan` lists what follows from its `Outcome` (`follow` after a success, `downfall`
//! after a failure), and `settle` publishes that, waits for the confirms and acks the delivery.
//!
//! Does not handle signals or command lines (see `cli`), nor processes.
//!
//! **Invariant:** a delivery is acked only after the broker has confirmed everything that follows
//! from it. A worker that dies at any point leaves the message with the broker.

mod admission;
mod consume;
mod dead_letter;
mod downfall;
mod effect;
mod errback;
mod error;
mod executor;
mod follow;
mod guard;
mod intake;
mod join;
mod journal;
mod original;
mod part;
mod plan;
mod report;
mod running;
mod scribe;
mod sequel;
mod settle;
mod unsent;
mod unsettled;
mod updates;
#[expect(clippy::module_inception, reason = "the folder's main type is the worker")]
mod worker;

pub use error::Error;
pub use running::{RunningWorker, Stopped, WorkerHandle, WorkerInfo};
pub use worker::Worker;
