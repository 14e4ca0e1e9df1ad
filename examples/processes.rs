//! A parent that starts two child processes and looks after them, without any queue.
//!
//! Each child prints its own word every second. Kill one with `kill -9` and another takes its
//! place at once; kill the parent with `kill -9` and the children end; Ctrl-C ends all.
//!
//! ```text
//! cargo run --example processes
//! ```

use std::process::Command;
use std::time::Duration;

use celeriac::supervisor::{Supervisor, end_with_parent};

const WORDS: [&str; 2] = ["ping", "pong"];

fn main() -> std::io::Result<()> {
    match std::env::args().nth(1) {
        Some(word) => child(&word),
        None => parent(),
    }
}

#[expect(clippy::print_stdout, reason = "that is all it is for")]
fn child(word: &str) -> std::io::Result<()> {
    end_with_parent()?;
    loop {
        println!("{word} from {}", std::process::id());
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn parent() -> std::io::Result<()> {
    let program = std::env::current_exe()?;
    let supervisor = Supervisor::new(WORDS.len(), move |place| {
        let mut command = Command::new(&program);
        command.args(WORDS.get(place));
        command
    });
    let handle = supervisor.handle();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            handle.stop();
        }
    });
    supervisor.run().await?;
    Ok(())
}
