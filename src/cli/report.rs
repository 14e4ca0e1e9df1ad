//! Errors as one sentence for people.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// `error` and its sources in one line, with colons between them; a source that its error has
/// told already is left out.
///
/// ```
/// let error = celeriac::Config::from_file("/no/such/file").unwrap_err();
/// assert_eq!(
///     celeriac::cli::sentence(&error),
///     "failed to read the settings file /no/such/file: No such file or directory (os error 2)",
/// );
/// ```
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !sentence.ends_with(&text) {
            // Writing to a String does not fail.
            let _ = write!(sentence, ": {text}");
        }
        source = error.source();
    }
    sentence.replace('\n', " ")
}

/// Writes `error: …` to standard error.
pub fn complain(error: &(dyn Error + 'static)) {
    // If standard error is gone, there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "error: {}", sentence(error));
}
