//! Why a delivery is not a task that can be run, with everything that could be read nevertheless.

use std::fmt;

use super::{Error, Serializer, TaskHeaders};

/// A message that is no runnable task.
///
/// It keeps what is needed to tell the caller, and to find the message again.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeError(Box<Inner>);

#[derive(Clone, Debug, PartialEq)]
struct Inner {
    kind: DecodeErrorKind,
    source: Error,
    known: Known,
}

/// The part of a message that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The content type is missing, or one that is not spoken.
    ContentType,
    /// The compression method is not spoken, or the compressed bytes are broken.
    Compression,
    /// The body is not what its content type says, or has another shape than a task's.
    Body,
    /// A standard header has a wrong type or a wrong text.
    Headers,
    /// There is a task name, but no id.
    NoId,
    /// Neither the headers nor the body name a task.
    NotATask,
}

/// What could be read before the decoding failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) id: Option<String>,
    pub(super) task: Option<String>,
    pub(super) reply_to: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) serializer: Option<Serializer>,
    pub(super) headers: Option<Box<TaskHeaders>>,
}

impl DecodeErrorKind {
    /// A short word for headers, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContentType => "content-type",
            Self::Compression => "compression",
            Self::Body => "body",
            Self::Headers => "headers",
            Self::NoId => "no-id",
            Self::NotATask => "not-a-task",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::ContentType => "unusable content type",
            Self::Compression => "unusable compression",
            Self::Body => "undecodable body",
            Self::Headers => "undecodable headers",
            Self::NoId => "task without an id",
            Self::NotATask => "message without a task",
        }
    }
}

impl DecodeError {
    pub(super) fn new(kind: DecodeErrorKind, source: Error, known: Known) -> Self {
        Self(Box::new(Inner { kind, source, known }))
    }

    /// Which part failed.
    pub fn kind(&self) -> DecodeErrorKind {
        self.0.kind
    }

    /// Which part failed, as a short word: `content-type`, `compression`, `body`, `headers`,
    /// `no-id` or `not-a-task`.
    pub fn reason(&self) -> &'static str {
        self.0.kind.as_str()
    }

    /// What was wrong with it.
    pub fn error(&self) -> &Error {
        &self.0.source
    }

    /// The task id, if it could be read.
    pub fn id(&self) -> Option<&str> {
        self.0.known.id.as_deref()
    }

    /// The task name, if it could be read.
    pub fn task(&self) -> Option<&str> {
        self.0.known.task.as_deref()
    }

    /// Where the caller waits for an answer.
    pub fn reply_to(&self) -> Option<&str> {
        self.0.known.reply_to.as_deref()
    }

    /// What the caller wants on the answer.
    pub fn correlation_id(&self) -> Option<&str> {
        self.0.known.correlation_id.as_deref()
    }

    /// The encoding that the caller speaks, if it is one that is spoken here.
    pub fn serializer(&self) -> Option<Serializer> {
        self.0.known.serializer
    }

    /// The headers, if they were readable and only the rest was not.
    pub fn headers(&self) -> Option<&TaskHeaders> {
        self.0.known.headers.as_deref()
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind.description())
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0.source)
    }
}
