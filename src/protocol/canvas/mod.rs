//! Canvas: workflows as data, and how they become the calls that start them.
//!
//! A [`Canvas`] is read from and written to a [`Signature`](super::Signature), the form in which
//! messages carry workflows. [`lower`] turns one into the messages with which it begins:
//!
//! ```text
//! Canvas ── freeze: every task gets its id, every chain its plain form ──> Canvas
//!        ── emit ──> opens: the joins to be logged first
//!                    calls: the first tasks, each with what follows it in its options
//!                    result: the ids that the caller waits for
//! ```
//!
//! The same lowering serves the program that sends a workflow, the worker that comes to the next
//! step of a chain, and the joiner that fires the body of a chord.
//!
//! Does not publish and does not join (see [`join`](super::join)). Does not change what a workflow
//! yields: a group of one yields a list of one. Where Celery does otherwise, a
//! dynamic workflow is rewritten before (see the client).
//!
//! **Invariant:** lowering is a function of its arguments: with [`Ids::Derived`] the same workflow
//! becomes the same messages again.

mod budget;
mod celery;
mod doomed;
mod errbacks;
mod error;
mod freeze;
mod ids;
mod lower;
mod options;
mod read;
mod repeated;
mod result_tree;
mod stamp;
mod tree;

pub use doomed::{Doomed, failed_with};
pub(crate) use errbacks::unbind;
pub use error::CanvasError;
pub use ids::Ids;
pub use lower::{Call, JoinDefaults, Lowered, lower};
pub(crate) use read::{Items, chunks, over_items};
pub use result_tree::ResultTree;
pub use stamp::StampingVisitor;
pub use tree::{Canvas, Composite, DEPTH_MAX};
