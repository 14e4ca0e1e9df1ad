//! Celery's events as data: what workers and clients tell monitors, without being asked.
//!
//! ```text
//! worker, client ── Event ──> topic celeryev ──> one queue for each monitor
//! ```
//!
//! A message is one event, or a list of them under the routing key [`MULTI`]; always JSON. Events
//! may be lost, and nothing relies on them.
//!
//! Does not send or receive. **Invariant:** decoding is total and bounded by [`LIMITS`]; an event
//! of a type that nobody knows here is kept as it is.

#[expect(clippy::module_inception, reason = "the folder's main type is the event")]
mod event;
mod kind;
mod message;

pub use event::Event;
pub use kind::{EventKind, TaskInfo, TaskSent, WorkerFacts};
pub use message::{decode, encode, encode_all};

use super::Limits;

/// The routing key of messages that hold a list of task events.
pub const MULTI: &str = "task.multi";

/// What one message of events may ask of its reader: 4 MiB, 32 levels, 200,000 values.
pub const LIMITS: Limits = Limits { bytes_max: 4 << 20, depth_max: 32, items_max: 200_000 };
