//! What can be wrong with a workflow.

use crate::protocol;

/// Why a workflow cannot be read, built or sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CanvasError {
    /// A signature that is no workflow, or whose parts are no signatures.
    #[error("malformed {task}")]
    Malformed {
        /// Name of the signature's task.
        task: String,
        /// What is wrong with it.
        source: protocol::Error,
    },
    /// A `subtask_type` that Celery does not define.
    #[error("unknown workflow type '{0}': use chain, group, chord, chunks, xmap or xstarmap")]
    UnknownType(String),
    /// Workflows inside one another beyond what readers take.
    #[error("workflows are nested deeper than {max} levels")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// A group or a header with too many members.
    #[error("a {what} of {size} is larger than the limit of {max}: split it")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// A chain without steps.
    #[error("a chain needs at least one step")]
    EmptyChain,
    /// A chord without a body.
    #[error("a chord needs a body: without one it is a group")]
    NoBody,
    /// A setting of a join for what has none.
    #[error("{key} says how a chord is joined, or a group that a step follows: set it on that one")]
    NoJoin {
        /// The setting.
        key: &'static str,
    },
    /// Two tasks, groups or chords of the workflow with the same id: one that was frozen is used
    /// twice, or is a part of itself.
    #[error("the id {id} occurs twice in the workflow: freeze and use each part of it once")]
    Repeated {
        /// The id.
        id: String,
    },
    /// Chunks of no items.
    #[error("chunks need at least one item each")]
    EmptyChunks,
}

impl CanvasError {
    pub(super) fn malformed(task: &str) -> impl FnOnce(protocol::Error) -> Self {
        let task = protocol::error::excerpt(task);
        move |source| Self::Malformed { task, source }
    }
}
