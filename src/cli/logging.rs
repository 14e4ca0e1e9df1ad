//! Where log lines go and how they look.
//!
//! **Invariant:** the AMQP client's own log never gets beyond errors, whatever the filter says: it
//! prints whole messages, with what tasks were called with. Even its errors are shown only where
//! debugging is on, because every one of them is reported by this library in its own words.

use std::io::{IsTerminal, stderr};

use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry, fmt};

/// The least severe messages that are logged, in Celery's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What helps to find mistakes.
    Debug,
    /// What happens.
    Info,
    /// What may need attention.
    Warning,
    /// What failed.
    Error,
    /// The same as [`Error`](Self::Error): there is nothing above.
    Critical,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON object a line, for collectors.
    Json,
}

/// The filter did not parse.
#[derive(Debug, thiserror::Error)]
#[error(
    "environment variable {variable}: '{filter}' is not a log filter such as 'info' or \
         'info,celeriac=debug'"
)]
pub struct InvalidFilter {
    variable: &'static str,
    filter: String,
}

/// Starts logging to standard error for the whole process.
///
/// The filter is `level` if given, else that of `CELERIAC_LOG` or `RUST_LOG`, else `default`. A
/// program that has set up a subscriber of its own keeps it.
///
/// # Errors
/// If the filter in the environment cannot be read.
pub fn start(
    level: Option<LogLevel>,
    default: LogLevel,
    format: LogFormat,
) -> Result<(), InvalidFilter> {
    let filter = match level {
        Some(level) => EnvFilter::new(level.directive()),
        None => from_environment()?.unwrap_or_else(|| EnvFilter::new(default.directive())),
    };
    let is_debugging = filter.max_level_hint().is_none_or(|level| level >= LevelFilter::DEBUG);
    let quiet_client = filter_fn(move |metadata| {
        let is_shown = is_debugging && *metadata.level() == Level::ERROR;
        is_shown || !is_amqp_client(metadata.target())
    });
    let filter = filter.and(quiet_client);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Human => {
            let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            fmt::layer().with_writer(stderr).with_ansi(colours).with_filter(filter).boxed()
        }
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_writer(stderr).with_filter(filter).boxed()
        }
    };
    // Fails only if there is a subscriber already, which is then the program's choice.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    Ok(())
}

fn from_environment() -> Result<Option<EnvFilter>, InvalidFilter> {
    for variable in ["CELERIAC_LOG", "RUST_LOG"] {
        let Some(filter) = std::env::var(variable).ok().filter(|filter| !filter.is_empty()) else {
            continue;
        };
        return match EnvFilter::builder().parse(&filter) {
            Ok(filter) => Ok(Some(filter)),
            Err(_) => Err(InvalidFilter { variable, filter }),
        };
    }
    Ok(None)
}

fn is_amqp_client(target: &str) -> bool {
    target.starts_with("lapin") || target.starts_with("amq_protocol")
}

impl LogLevel {
    fn directive(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warn",
            Self::Error | Self::Critical => "error",
        }
    }
}
