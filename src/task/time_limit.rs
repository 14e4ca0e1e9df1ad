//! The error of a task that was told to end because its soft time limit has passed.

use super::{IntoTaskError, TaskError};
use crate::protocol::{Exception, Value};

/// The soft time limit has passed; as a task's error, it becomes the exception of that name which
/// Celery's callers know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SoftTimeLimitExceeded;

impl SoftTimeLimitExceeded {
    pub(super) fn exception() -> Exception {
        let mut exception =
            Exception::new("billiard.exceptions", "SoftTimeLimitExceeded", Value::Null);
        exception.exc_message.clear();
        exception
    }
}

impl std::fmt::Display for SoftTimeLimitExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the soft time limit has passed")
    }
}

// Not a `std::error::Error`, so that its conversion keeps the name of the exception.
impl From<SoftTimeLimitExceeded> for TaskError {
    fn from(_: SoftTimeLimitExceeded) -> Self {
        Self::from(SoftTimeLimitExceeded::exception())
    }
}

impl IntoTaskError for SoftTimeLimitExceeded {
    fn into_task_error(self) -> TaskError {
        self.into()
    }
}
