//! How the process ends, for scripts.

use std::error::Error;
use std::process::ExitCode;

use celeriac::cli;

/// The exit codes; of several, the greatest in this order is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    Success,
    TaskFailed,
    Timeout,
    NotSent,
    Usage,
    Unreachable,
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::TaskFailed => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Timeout => 4,
            Exit::NotSent => 5,
            // As shells tell a death by SIGINT.
            Exit::Interrupted => 130,
        })
    }
}

/// Why there is nothing to show: one sentence and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    /// The sentence is that of `error` and its sources.
    pub(crate) fn new(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        Self { exit, message: cli::sentence(error) }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }
}
