//! What can be wrong with settings, each as one sentence that names the place.

use std::fmt;
use std::path::PathBuf;

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// In a TOML text or file.
    Toml {
        /// The file, if the text came from one.
        path: Option<PathBuf>,
        /// The line, counted from 1.
        line: Option<usize>,
    },
    /// In an environment variable.
    Environment {
        /// The variable's name.
        variable: String,
    },
    /// Through [`Config::set`](super::Config::set) or a command line.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toml { path, line } => {
                match path {
                    Some(path) => write!(f, "{}", path.display())?,
                    None => f.write_str("settings")?,
                }
                line.map_or(Ok(()), |line| write!(f, ", line {line}"))
            }
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::Program => f.write_str("settings"),
        }
    }
}

/// Why settings were refused.
///
/// Every variant reads as one sentence for the person who wrote the setting. Values are quoted
/// except those of secret settings (`broker_url`).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Nobody knows the key.
    #[error("{origin}: unknown setting '{key}'{}", did_you_mean(suggestion.as_deref()))]
    Unknown {
        /// Where it was given.
        origin: Origin,
        /// The key as it was given.
        key: String,
        /// The known key that looks most like it.
        suggestion: Option<String>,
    },
    /// Celery knows the key, celeriac does without.
    #[error("{origin}: celeriac has no setting '{key}': {reason}")]
    NotCeleriac {
        /// Where it was given.
        origin: Origin,
        /// The key as it was given.
        key: String,
        /// What celeriac does instead.
        reason: &'static str,
    },
    /// The value does not fit the key.
    #[error("{origin}: {key} must be {expected}, but is {found}")]
    Invalid {
        /// Where it was given.
        origin: Origin,
        /// The key, with the path inside tables: `task_routes."billing.*".queue`.
        key: String,
        /// What would fit.
        expected: String,
        /// What was there.
        found: String,
    },
    /// The value does not fit the key, in words that do not quote a secret.
    #[error("{origin}: {key}: {reason}")]
    Refused {
        /// Where it was given.
        origin: Origin,
        /// The key, with the path inside tables.
        key: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// The text is not TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// Where the reader stopped.
        origin: Origin,
        /// What it says.
        message: String,
    },
    /// The file could not be read.
    #[error("failed to read the settings file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |key| format!("; did you mean '{key}'?"))
}

/// The known name that looks most like `unknown`, if one is near enough to be a slip.
pub(crate) fn nearest<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(likeness, _)| *likeness > 0.84)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}
