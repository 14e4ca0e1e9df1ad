//! The one error of the harness: a sentence for the person who started it.
//!
//! Nobody reacts to the kind of a harness error, so there are no kinds: what matters is that the
//! sentence says what was tried and what to do.

use std::fmt;

/// What went wrong, in words that can be printed as they are.
pub struct Error {
    message: String,
}

/// The result of everything fallible here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    /// An error that says what was being done when `cause` happened.
    pub fn while_doing(what: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {cause}") }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

// Tests see errors through `unwrap`, which prints Debug: the sentence is worth more than quotes.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}
