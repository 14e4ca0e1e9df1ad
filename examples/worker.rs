//! A worker binary of your own: tasks, and the command line of the stock worker.
//!
//! ```sh
//! cargo run --example worker --features cli -- --queues greetings
//! ```

use std::process::ExitCode;

use celeriac::{App, Config, task};

#[task(name = "greet")]
async fn greet(name: String) -> String {
    format!("Hello, {name}!")
}

fn main() -> ExitCode {
    celeriac::cli::main(App::new(Config::default()))
}
