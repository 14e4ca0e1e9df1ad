//! The command line of workers: of the stock `celeriac-worker` and of binaries of your own.

mod args;
mod banner;
mod hostname;
mod logging;
mod pidfile;
mod report;
mod run;
mod signals;

pub use logging::{InvalidFilter, LogFormat, LogLevel, start as start_logging};
pub use report::{complain, sentence};
pub use run::main;
