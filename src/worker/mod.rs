//! The worker: takes messages from queues, runs their tasks, and settles what came of them.
//!
//! The way of one message: `consume` takes a burst of deliveries, `intake` reads each into a
//! `Request` or finds the reason why it cannot, `admission` judges its dates, `executor` runs it
//! in a slot, and `settle` publishes what follows from the `Outcome`, waits for the confirms and
//! acks the delivery.
//!
//! Does not handle signals or command lines (see `cli`), nor processes.
//!
//! **Invariant:** a delivery is acked only after the broker has confirmed everything that follows
//! from it. A worker that dies at any point leaves the message with the broker.

mod admission;
mod consume;
mod dead_letter;
mod error;
mod executor;
mod guard;
mod intake;
mod journal;
mod report;
mod running;
mod settle;
mod unsettled;
mod updates;
#[expect(clippy::module_inception, reason = "the folder's main type is the worker")]
mod worker;

pub use error::Error;
pub use running::{RunningWorker, Stopped, WorkerHandle, WorkerInfo};
pub use worker::Worker;
