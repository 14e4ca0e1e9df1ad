//! What can be wrong with bytes or values that come from, or go to, the wire.

/// A failure to read or to write Celery's protocol.
///
/// No variant quotes more of the input than one short word, so that an error is safe to log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes end inside a value, or announce more values than they can hold.
    #[error("unexpected end of {format}")]
    Truncated {
        /// The encoding that was read.
        format: &'static str,
    },
    /// The bytes are not what the encoding allows.
    #[error("invalid {format} at byte {at}: {problem}")]
    Syntax {
        /// The encoding that was read.
        format: &'static str,
        /// Offset from the start of the body, after decompression.
        at: usize,
        /// What was found, in a few words.
        problem: &'static str,
    },
    /// One of the [`Limits`](super::Limits) was passed.
    #[error("more {what} than the limit of {max}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A JSON map with a `__type__` that Celery does not define.
    #[error("unknown __type__ '{0}'")]
    UnknownType(String),
    /// Text that is not what its place asks for, for example a date.
    #[error("'{text}' is not {expected}")]
    Malformed {
        /// What was expected, with its article.
        expected: &'static str,
        /// The beginning of the text.
        text: String,
    },
    /// A value that the serializer has no form for.
    #[error("{format} cannot carry {what}")]
    Unsupported {
        /// The encoding that was written.
        format: &'static str,
        /// The value, described.
        what: &'static str,
    },
    /// A required header or key is not there.
    #[error("'{field}' is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A header or key holds another type than the protocol says.
    #[error("'{field}' must be {expected}, not {found}")]
    Field {
        /// Its name.
        field: &'static str,
        /// The type that was expected, with its article.
        expected: &'static str,
        /// The type that was found, in Python's words.
        found: &'static str,
    },
    /// A number that its place has no room for.
    #[error("'{field}' must be {expected}, not {found}")]
    OutOfRange {
        /// Its name.
        field: &'static str,
        /// The range that was expected.
        expected: &'static str,
        /// The number that was found.
        found: i64,
    },
    /// A text does not fit the place that AMQP gives it.
    #[error("'{field}' has {length} bytes, but at most {max} fit")]
    TooLong {
        /// Its name.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The largest length in bytes.
        max: usize,
    },
    /// A content type that is not spoken; pickle and yaml are refused on purpose.
    #[error("content type '{0}' is not accepted")]
    ContentType(String),
    /// A compression method that is not spoken.
    #[error("unknown compression '{0}'")]
    UnknownCompression(String),
    /// A compressed body that cannot be unpacked, or a body that cannot be packed.
    #[error("broken {method} data")]
    Compressed {
        /// The method's name.
        method: &'static str,
    },
    /// A chord of another version of the join protocol; a newer joiner can read it.
    #[error("version {0} of the join protocol is not spoken here, only versions 1 and 2")]
    JoinVersion(i64),
    /// A Rust value without a form on the wire, or a value that does not fit a Rust type.
    #[error("{0}")]
    Convert(String),
}

impl Error {
    /// [`Error::Malformed`] with no more of `text` than an error should show.
    pub(super) fn malformed(expected: &'static str, text: &str) -> Self {
        Self::Malformed { expected, text: excerpt(text) }
    }

    /// [`Error::ContentType`], shortened.
    pub(super) fn content_type(name: &str) -> Self {
        Self::ContentType(excerpt(name))
    }
}

/// The first characters of a text that a stranger chose.
pub(crate) fn excerpt(text: &str) -> String {
    const SHOWN_MAX: usize = 64;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
