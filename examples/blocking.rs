//! A program without async code calls tasks, too.
//!
//! Needs a worker with the demo tasks: `cargo run -p celeriac-worker`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use celeriac::{Config, Signature, blocking};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = blocking::Client::connect(Config::from_env()?)?;
    let result = client.send(Signature::<i64>::new("add").arg(2).arg(2))?;
    println!("2 + 2 = {}", result.get(Duration::from_secs(10))?);
    client.close();
    Ok(())
}
