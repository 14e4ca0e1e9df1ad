//! Tasks with `isolate = process`: each runs in a child process of the same program, so that a
//! segfault, an abort, an exit, an endless loop or the kernel's out-of-memory killer costs that
//! task alone.
//!
//! ```text
//! parent: pool ── run ──┐ job, cancel, updated            socket in the place of the
//!                       ├────────────────────────────     child's standard input
//! child:        serve ──┘ begun, update, ended
//! ```
//!
//! `frame` is the protocol, `facts` and `verdict` what goes over it. Does not know queues, slots
//! or limits: whoever drops the future of a run kills its process.
//!
//! **Invariant:** a child runs one task at a time, is killed rather than given another one when
//! its last run was not seen to its end, and never outlives its parent. A task that no child has
//! begun may run elsewhere. Nothing of a task is written after its end.

mod facts;
mod frame;
mod pool;
mod run;
mod serve;
mod verdict;

pub(super) use pool::Pool;
pub(super) use run::attempt;
pub use serve::serve_isolated;

/// Marks a child that runs isolated tasks: the value is its parent's process id.
const MARK: &str = "CELERIAC_ISOLATE";

/// Whether this program has a way in for such children.
pub(super) fn is_served() -> bool {
    serve::SERVED.load(std::sync::atomic::Ordering::Acquire)
}
