//! `cargo xtask broker`: the private node that tests share, by hand.

use clap::Subcommand;
use xtask::{Broker, broker, shared};

/// What to do with the node.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start the node, if it does not run, and keep it until `down`.
    Up,
    /// Stop the node, whoever uses it.
    Down,
    /// Say whether the node runs, and where.
    Status,
    /// Print the node's URL and nothing else: export CELERIAC_BROKER_URL=$(cargo xtask broker url)
    Url,
}

/// Runs one action.
pub(crate) fn run(args: &Args) -> xtask::Result<bool> {
    match args.action {
        Action::Up => up(),
        Action::Down => {
            shared::down()?;
            println!("the private node is stopped");
            Ok(true)
        }
        Action::Status => Ok(status()),
        Action::Url => match shared::running() {
            Some(state) => {
                println!("{}", state.url);
                Ok(true)
            }
            None => Err(xtask::Error::new(
                "the private node does not run: start it with `cargo xtask broker up`",
            )),
        },
    }
}

fn up() -> xtask::Result<bool> {
    let _running = Broker::private_node()?;
    shared::pin()?;
    Ok(status())
}

fn status() -> bool {
    let Some(state) = shared::running() else {
        println!("the private node does not run");
        return false;
    };
    let until = if shared::is_pinned() { "until `down`" } else { "until its last user is gone" };
    println!("the private node runs {until}");
    println!("  url         {}", state.url);
    println!("  management  {} (guest, guest)", state.management_url);
    println!("  use it      export {}={}", broker::BROKER_URL, state.url);
    println!("              export {}={}", broker::MANAGEMENT_URL, state.management_url);
    true
}
