//! What a call made inside a task inherits from that task.

use std::sync::Arc;

/// The task on whose behalf calls are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// The running task; becomes `parent_id` of what it calls.
    pub(crate) task_id: Arc<str>,
    /// The first task of the workflow.
    pub(crate) root_id: Arc<str>,
    /// Priority of the running task's message, inherited by what it calls.
    pub(crate) priority: Option<u8>,
}
