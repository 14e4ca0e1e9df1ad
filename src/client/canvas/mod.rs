//! Workflows as programs build them: [`chain`], [`group`], [`chord`] and `|`, checked by the
//! compiler.
//!
//! ```
//! use celeriac::{chain, chord, group, task};
//!
//! #[task]
//! async fn add(x: i64, y: i64) -> i64 {
//!     x + y
//! }
//!
//! #[task]
//! async fn total(numbers: Vec<i64>) -> i64 {
//!     numbers.into_iter().sum()
//! }
//!
//! // ((2 + 2) + 3) + 4
//! let steps = add::s(2, 2) | add::partial(3) | add::partial(4);
//! let same = chain((add::s(2, 2), add::partial(3), add::partial(4)));
//! // The list [2, 4, 6], and its sum.
//! let side_by_side = group([add::s(1, 1), add::s(2, 2), add::s(3, 3)]);
//! let sum = chord([add::s(1, 1), add::s(2, 2)], total::partial());
//! let same = group([add::s(1, 1), add::s(2, 2)]) | total::partial();
//! # let _ = (steps, same, side_by_side, sum);
//! ```
//!
//! A step that does not fit the one before does not compile:
//!
//! ```compile_fail,E0277
//! use celeriac::task;
//!
//! #[task]
//! async fn length(text: String) -> i64 {
//!     text.len() as i64
//! }
//!
//! let twice = length::s("abc".to_owned()) | length::partial();
//! ```
//!
//! What is known only at run time (names, JSON, signatures that came as arguments) is a
//! [`Workflow`]; [`dynamic`](Step::dynamic) makes one of any other.
//!
//! Does not lower and does not send: see [`protocol::canvas`](crate::protocol::canvas) and
//! [`Client::apply`](super::Client::apply).
//!
//! **Invariant:** values have the types that signatures say. A group is a list whatever its size,
//! also where Celery would make a single value of a group of one.

mod compound;
mod dynamic;
mod fit;
mod items;
mod joining;
mod members;
mod step;
mod steps;

pub use compound::{Chain, Chord, Group, chord, group};
pub use dynamic::Workflow;
pub use fit::{Complete, Dynamic, Fits, Immutable, Ready, Takes};
pub(crate) use items::{chunked, starmap};
pub use members::Members;
pub(crate) use step::sealed::FromAny;
pub use step::{Handle, Step, WorkflowError};
pub use steps::{Steps, chain};
