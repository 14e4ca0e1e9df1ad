//! A parent of child processes: it starts them, looks after them at least once a second, replaces
//! those that died, and stops them in order.
//!
//! `machine` decides and is pure; [`Supervisor`] starts, waits and sends signals; `orphans` is
//! what a process with the id 1 owes the others. The children may be any program. A child that is
//! a program of your own calls [`end_with_parent`], so that it does not outlive a parent that was
//! killed with -9.
//!
//! Knows processes and signals only, nothing of queues and tasks.
//!
//! **Invariant:** there are never more children than places, and a place is not taken again before
//! its last child was waited for.

mod machine;
mod orphans;
mod parent;
mod rules;
#[expect(clippy::module_inception, reason = "the folder's main type is the supervisor")]
mod supervisor;

pub use parent::end_with_parent;
pub use rules::{RECYCLE, RETIRE};
pub use supervisor::{Report, Supervisor, SupervisorHandle};
