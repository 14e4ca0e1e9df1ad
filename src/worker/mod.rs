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

mod active;
mod admission;
mod attempt;
mod autoscale;
mod binder;
#[cfg(test)]
mod captures;
mod comeback;
mod consume;
mod control;
mod dead_letter;
mod delay;
mod deletion;
mod downfall;
mod effect;
mod errback;
mod error;
mod events;
mod executor;
mod follow;
mod gather;
mod guard;
mod health_file;
mod intake;
#[cfg(unix)]
mod isolate;
mod join;
mod journal;
mod limited;
mod limits;
mod lost_threads;
mod neighbours;
mod not_run;
mod original;
mod part;
mod permits;
mod place;
mod plan;
mod prefetch;
mod pulse;
mod rate;
mod reaper;
mod recycling;
mod redelivered;
mod report;
mod retry;
mod revocations;
mod revoked;
mod running;
mod scribe;
mod sequel;
mod settle;
mod slots;
mod starts;
mod tally;
mod unsent;
mod unsettled;
mod updates;
mod watchdog;
#[expect(clippy::module_inception, reason = "the folder's main type is the worker")]
mod worker;

pub use error::Error;
#[cfg(unix)]
pub use isolate::serve_isolated;
#[cfg(feature = "cli")]
pub(crate) use lost_threads::REPLACED_PER_SLOT;
pub use pulse::Health;
pub use running::{RunningWorker, Stopped, WorkerHandle, WorkerInfo};
pub use worker::Worker;
