//! The command line of workers: of the stock `celeriac-worker` and of binaries of your own.

mod args;
mod banner;
#[cfg(unix)]
mod child;
mod hostname;
mod logging;
mod pidfile;
#[cfg(unix)]
mod processes;
mod report;
mod run;
mod signals;
mod stopping;

pub use logging::{InvalidFilter, LogFormat, LogLevel, start as start_logging};
pub use report::{complain, sentence};
pub use run::main;
