//! The stock worker: the demo tasks with the command line of every worker.

mod number;
mod tasks;

use std::process::ExitCode;

use celeriac::{App, Config};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    celeriac::cli::main(App::new(Config::default()))
}
