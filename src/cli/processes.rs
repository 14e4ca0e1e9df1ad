//! The parent of several worker processes: it starts this program again, once for each place, and
//! passes on what it is told. Consumes nothing itself.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use tracing::{info, warn};

use super::child;
use super::signals::{REMAP, Signals};
use super::stopping::{Listener, Step};
use crate::process;
use crate::supervisor::{Report, Supervisor};

/// How long children may take to close their connections before they are killed.
const CLOSING: Duration = Duration::from_secs(10);

/// Children of each place that may die at their start before all are given up: some seconds.
const TRIES: u32 = 5;

/// Runs `places` children until they were told to stop and have ended.
///
/// `soft` is how long each of them lets its tasks finish in a cold shutdown.
pub(super) fn run(places: usize, soft: Duration) -> io::Result<Report> {
    let first = process::this_program()?;
    let command = move |place| {
        // Asked each time: when its file was replaced, this still is the program that runs here.
        let mut command = Command::new(process::this_program().unwrap_or_else(|_| first.clone()));
        // The signals that a child gets are ours.
        let mut arguments = std::env::args_os();
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments).env(child::MARK, child::mark(place));
        command.env_remove(REMAP);
        command
    };
    // This thread starts the children and lives as long as the process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let supervisor = Supervisor::new(places, command).kill_after(soft + CLOSING);
    runtime.block_on(look_after(supervisor.give_up_after(TRIES)))
}

async fn look_after(supervisor: Supervisor) -> io::Result<Report> {
    let mut signals = Signals::listen()?;
    let handle = supervisor.handle();
    let mut ended = std::pin::pin!(supervisor.run());
    let mut asked = None;
    loop {
        let signal = tokio::select! {
            report = &mut ended => return report,
            signal = signals.next() => signal,
        };
        let Some(step) = Listener::default().next(asked, signal) else { continue };
        asked = Some(step);
        match step {
            Step::Warm => {
                info!("worker: Warm shutdown ({signal}): the children finish what runs");
                handle.stop();
            }
            Step::Soft | Step::Cold => {
                warn!("worker: Cold shutdown ({signal}): what runs will be delivered again");
                handle.terminate();
            }
            Step::Leave => handle.kill(),
        }
    }
}
