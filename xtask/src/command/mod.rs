//! The subcommands. Each has a `run` that says whether all went well; an error is a sentence on
//! why it could not even try.

pub(crate) mod bench;
pub(crate) mod broker;
pub(crate) mod chaos;
pub(crate) mod demo;
pub(crate) mod fuzz;
pub(crate) mod test;

use std::process::Command;

use xtask::{Broker, paths};

/// A cargo command in the root of the checkout.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(paths::root());
    // `cargo run` describes this package to its child; a cargo below would pass it on.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_")) {
            command.env_remove(name);
        }
    }
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
    command
}

/// Finds a broker and says which.
fn provision() -> xtask::Result<Broker> {
    let broker = Broker::provision()?;
    println!("broker: {} ({})", broker.url, broker.origin.describe());
    Ok(broker)
}
