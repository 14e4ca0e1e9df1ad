//! What a part of a workflow is to the workflow around it.

use super::Workflow;
use crate::client::Signature;
use crate::protocol::ValueError;
use crate::protocol::canvas::{Canvas, CanvasError};
use crate::results::{AnyResult, AsyncResult, GroupResult};

/// A part of a workflow: a signature, a chain, a group, a chord, or a dynamic workflow.
pub trait Step: Sized {
    /// How it begins: what it takes from the step before.
    type In;
    /// What it yields.
    type Out;
    /// What its caller waits on.
    type Handle: Handle;

    /// The workflow as data.
    ///
    /// # Errors
    /// The first mistake that was made in building it.
    fn into_canvas(self) -> Result<Canvas, WorkflowError>;

    /// The same workflow without its types, to be mixed with ones known only at run time.
    fn dynamic(self) -> Workflow {
        Workflow::from_built(self.into_canvas())
    }
}

/// What can be wrong with a workflow that was built.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    /// An argument could not be turned into a value of the wire.
    #[error("failed to serialize the arguments of {task}")]
    Arguments {
        /// Name of the task.
        task: String,
        /// Which value, and why.
        source: ValueError,
    },
    /// The workflow cannot be run.
    #[error(transparent)]
    Canvas(#[from] CanvasError),
}

/// A handle on the result of a workflow.
pub trait Handle: sealed::FromAny {}

impl<T> Handle for AsyncResult<T> {}
impl<Out> Handle for GroupResult<Out> {}
impl Handle for AnyResult {}

pub(crate) mod sealed {
    use super::{AnyResult, AsyncResult, GroupResult};

    pub trait FromAny {
        fn from_any(result: AnyResult) -> Self;
    }

    impl<T> FromAny for AsyncResult<T> {
        fn from_any(result: AnyResult) -> Self {
            result.into_task().typed()
        }
    }

    impl<Out> FromAny for GroupResult<Out> {
        fn from_any(result: AnyResult) -> Self {
            result.into_group().typed()
        }
    }

    impl FromAny for AnyResult {
        fn from_any(result: AnyResult) -> Self {
            result
        }
    }
}

impl<Out, In> Step for Signature<Out, In> {
    type In = In;
    type Out = Out;
    type Handle = AsyncResult<Out>;

    fn into_canvas(self) -> Result<Canvas, WorkflowError> {
        let task = self.task.clone();
        let data = self.into_data();
        data.map(Canvas::Task)
            .map_err(|source| WorkflowError::Arguments { task: task.into_owned(), source })
    }
}
