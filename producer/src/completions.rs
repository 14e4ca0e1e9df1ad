//! Completion scripts for shells.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;

/// Writes the script to standard output.
pub(crate) fn write(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "celeriac", &mut script);
    // A reader that went away has what it wanted.
    let _ = io::stdout().lock().write_all(&script);
}
