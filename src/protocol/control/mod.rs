//! Remote control as Celery speaks it ("pidbox"), and the records of revocations, as data.
//!
//! ```text
//! caller ── Request ──> fanout celery.pidbox ──> one queue for each worker
//!        <── Reply ──── direct reply.celery.pidbox <── every worker that it concerns
//! ```
//!
//! Does not run commands and does no IO. **Invariant:** decoding is total and bounded by
//! [`LIMITS`]; a pattern that a stranger wrote is bounded in size, and matching it takes time
//! linear in the host name.

mod matcher;
mod reply;
mod request;
mod revocation;

pub use matcher::Matcher;
pub use reply::Reply;
pub use request::{ReplyTo, Request};
pub use revocation::{Mark, Record, Revocation};

use super::Limits;

/// What one message of remote control may ask of its reader: 4 MiB, 32 levels, 200,000 values.
pub const LIMITS: Limits = Limits { bytes_max: 4 << 20, depth_max: 32, items_max: 200_000 };
