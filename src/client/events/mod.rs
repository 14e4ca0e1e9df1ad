//! Events: what programs tell monitors, and how a monitor listens.
//!
//! `dispatcher` sends what `writer` writes, for clients and workers alike; `sent` tells of calls;
//! `receiver` listens.
//!
//! **Invariant:** events may be lost, and nothing else waits for them or is lost with them; what
//! waits to be sent or read is bounded.

mod dispatcher;
mod receiver;
mod sent;
mod writer;

pub(crate) use dispatcher::Dispatcher;
pub use receiver::Events;
