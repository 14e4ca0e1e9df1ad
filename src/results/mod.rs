//! Results: how the end of a task travels back to its caller.
//!
//! A worker publishes a [`ResultMeta`](crate::protocol::ResultMeta) to the address that `reply`
//! derives from the request; a client has one reply queue for all its calls, read by its `Inbox`,
//! which wakes the [`AsyncResult`] that waits for that task id.
//!
//! Does not send tasks and does not know what a task is.
//!
//! **Invariant:** memory is bounded by the [`AsyncResult`]s that the program holds. What nobody
//! waits for (late, duplicate or forgotten results) is acked and dropped.

mod any;
mod error;
mod group;
mod handle;
mod inbox;
pub(crate) mod join;
pub(crate) mod reply;
mod revoke;
mod slot;

pub use any::AnyResult;
pub use error::{ResultError, TaskFailure};
pub use group::{GroupProgress, GroupResult};
pub use handle::{AsyncResult, Updates};
pub(crate) use inbox::{Inbox, InboxOptions};
pub use revoke::RevokeError;
pub(crate) use revoke::Revokes;
