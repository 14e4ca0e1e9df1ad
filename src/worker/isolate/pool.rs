//! The children that run isolated tasks: started when one is needed, kept warm, and replaced.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tracing::debug;

use super::MARK;
use super::frame::Channel;
use crate::process;

/// How long a child that is not needed any more may take to clean up after itself.
const PARTING: Duration = Duration::from_secs(5);

/// One child. Killed when dropped.
#[derive(Debug)]
pub(super) struct Isolate {
    pub(super) child: Child,
    pub(super) channel: Channel,
    pub(super) pid: u32,
    served: usize,
}

/// The warm children of one worker; as many as ran tasks at once at most.
#[derive(Debug)]
pub(in crate::worker) struct Pool {
    idle: Mutex<Vec<Isolate>>,
    tasks_max: Option<usize>,
    memory_max_kib: Option<usize>,
}

impl Pool {
    pub(in crate::worker) fn new(tasks_max: Option<usize>, memory_max_kib: Option<usize>) -> Self {
        Self { idle: Mutex::default(), tasks_max, memory_max_kib }
    }

    /// A child that is waiting for a task.
    pub(super) fn take(&self) -> io::Result<Isolate> {
        loop {
            let idle = self.lock().pop();
            let Some(mut isolate) = idle else { return start() };
            // One that died while nobody looked is no task's concern.
            if matches!(isolate.child.try_wait(), Ok(None)) {
                return Ok(isolate);
            }
        }
    }

    /// Takes back a child whose task has ended, unless it has served its time.
    pub(super) fn give_back(&self, mut isolate: Isolate) {
        isolate.served += 1;
        let kib = self.memory_max_kib.and_then(|max| {
            let kib = process::resident_kib(isolate.pid)?;
            (kib > max as u64).then_some(kib)
        });
        let is_spent = self.tasks_max.is_some_and(|max| isolate.served >= max);
        if !is_spent && kib.is_none() {
            self.lock().push(isolate);
            return;
        }
        debug!(pid = isolate.pid, served = isolate.served, kib, "the child is to be replaced");
        let Isolate { mut child, channel, .. } = isolate;
        // The end of its channel is its sign to go.
        drop(channel);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PARTING, child.wait()).await;
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Isolate>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts this program once more, with a socket in the place of its standard input.
fn start() -> io::Result<Isolate> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(process::this_program()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(MARK, std::process::id().to_string());
    command.stdin(Stdio::from(OwnedFd::from(theirs)));
    // Ctrl-C is for the worker, which knows what to do with its tasks.
    command.process_group(0).kill_on_drop(true);
    let child = command.spawn()?;
    let pid = child.id().unwrap_or_default();
    debug!(pid, "started a child for isolated tasks");
    let channel = Channel::new(UnixStream::from_std(ours)?);
    Ok(Isolate { child, channel, pid, served: 0 })
}
