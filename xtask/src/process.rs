//! Child processes whose output a test can wait on, and signals to them.
//!
//! Invariant: a [`Spawned`] child never outlives the process that started it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result, note, wait_until};

// Ends the child when our end of the pipe closes without a word, i.e. when this process dies.
const GUARD: &str = "read -r word || kill -9 \"$1\"";

/// A running child with its output, line by line; killed when dropped.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    guard: Child,
    output: Arc<Output>,
}

/// The lines so far, standard output and standard error in the order of their arrival.
#[derive(Debug, Default)]
struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OutputState {
    lines: Vec<String>,
    streams_ended: usize,
}

const STREAMS: usize = 2;

impl Spawned {
    /// Starts a command; its standard input is empty unless the command says otherwise.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::start_inner(command.stdin(Stdio::null()))
    }

    /// Starts a command that is written to.
    pub fn start_with_input(command: &mut Command) -> Result<(Self, ChildStdin)> {
        let mut spawned = Self::start_inner(command.stdin(Stdio::piped()))?;
        let input = spawned.child.stdin.take();
        input.map(|input| (spawned, input)).ok_or_else(|| Error::new("the child has no input"))
    }

    fn start_inner(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::while_doing(format!("failed to run {program}"), error))?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Error::while_doing("failed to run sh", error))?;
        let output = Arc::new(Output::default());
        output.collect(child.stdout.take());
        output.collect(child.stderr.take());
        Ok(Self { child, guard, output })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the child printed so far.
    pub fn output(&self) -> String {
        self.output.lock().lines.join("\n")
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().lines.clone()
    }

    /// Waits until a line contains `pattern`, and returns it. Earlier lines count.
    pub fn wait_for_line(&self, pattern: &str, within: Duration) -> Result<String> {
        self.wait_for_line_from(0, pattern, within).map(|(_, line)| line)
    }

    /// The same from the line with number `from` on; also returns the number after the line.
    pub fn wait_for_line_from(
        &self,
        from: usize,
        pattern: &str,
        within: Duration,
    ) -> Result<(usize, String)> {
        let deadline = Instant::now() + within;
        let mut state = self.output.lock();
        loop {
            let found = state.lines.iter().enumerate().skip(from);
            if let Some((number, line)) = found.into_iter().find(|(_, line)| line.contains(pattern))
            {
                return Ok((number + 1, line.clone()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = state.streams_ended == STREAMS;
            if ended || left.is_zero() {
                let why = if ended {
                    "the output ended".to_owned()
                } else {
                    format!("{within:?} passed")
                };
                let output = state.lines.join("\n");
                return Err(Error::new(format!("{why} without a line {pattern:?} in:\n{output}")));
            }
            let waited = self.output.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a signal by name, e.g. `TERM`.
    pub fn signal(&self, name: &str) -> Result<()> {
        signal(self.pid(), name)
    }

    /// Kills the child with -9 and waits until it is gone.
    pub fn kill_9(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Waits for the end of the child; its output is complete then.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let status = wait_child(&mut self.child, within).map_err(|error| {
            Error::new(format!("{error}; its output:\n{}", self.output.lock().lines.join("\n")))
        })?;
        self.output.wait_ended(Duration::from_secs(5));
        Ok(status)
    }

    /// Whether the child still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A word before the pipe closes: the guard must not kill a later process of this id.
        if let Some(mut pipe) = self.guard.stdin.take() {
            let _ = pipe.write_all(b"ended\n");
        }
        let _ = self.guard.wait();
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(self: &Arc<Self>, stream: Option<impl Read + Send + 'static>) {
        let Some(stream) = stream else { return };
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(std::result::Result::ok) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                output.lock().lines.push(text);
                output.changed.notify_all();
            }
            output.lock().streams_ended += 1;
            output.changed.notify_all();
        });
    }

    /// A grandchild may hold the pipes open for ever, hence the limit.
    fn wait_ended(&self, within: Duration) {
        let ended = self
            .changed
            .wait_timeout_while(self.lock(), within, |state| state.streams_ended < STREAMS);
        drop(ended);
    }
}

/// The path of a program of this workspace, next to the running one.
pub fn binary(name: &str) -> Result<PathBuf> {
    let running = std::env::current_exe()?;
    let mut directory = running.parent().unwrap_or(&running);
    if directory.file_name().is_some_and(|name| name == "deps" || name == "examples") {
        directory = directory.parent().unwrap_or(directory);
    }
    let path = directory.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(format!(
        "{} is missing: build it with `cargo build --workspace`, or run `cargo xtask test`",
        path.display()
    )))
}

/// Sends a signal by name, e.g. `TERM`.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    // The shell's own `kill`: a program of that name is not on every machine.
    let script = format!("kill -{name} {pid}");
    let output = Command::new("sh").args(["-c", &script]).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::while_doing(script, String::from_utf8_lossy(&output.stderr).trim()))
}

/// Whether a process runs; one that ended and was not yet waited for does not.
pub fn is_alive(pid: u32) -> bool {
    // "PID (name) STATE …": the name may hold anything, but no later field holds a bracket.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}

/// The only child of a process, where `/proc` tells.
pub fn only_child(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The beginning of a command whose program is the process with the id 1 of its own world, as in a
/// container, and the [`only_child`] of the command.
///
/// `None` only where `CELERIAC_TEST_WITHOUT_NAMESPACES` says that there are none.
///
/// # Panics
/// On a machine that gives no process namespace, so that no test passes there by doing nothing.
pub fn as_process_1() -> Option<Command> {
    let alone = ["-Urpf", "--mount-proc", "--kill-child"];
    let tried = Command::new("unshare").args(alone).arg("true").output();
    if tried.as_ref().is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("unshare");
        command.args(alone);
        return Some(command);
    }
    let is_known = std::env::var_os("CELERIAC_TEST_WITHOUT_NAMESPACES").is_some();
    assert!(
        is_known,
        "this machine gives no process namespace (set CELERIAC_TEST_WITHOUT_NAMESPACES=1 to do \
         without the tests that need one): {tried:?}"
    );
    note("no process namespace, so nothing is tested here");
    None
}

/// Runs a command silently and says whether it succeeded within the time; it is killed otherwise.
pub(crate) fn succeeds(program: impl AsRef<OsStr>, arguments: &[&str], within: Duration) -> bool {
    let quiet = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = quiet else { return false };
    let status = wait_child(&mut child, within);
    if status.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    status.is_ok_and(|status| status.success())
}

/// Waits for a child with a deadline; it goes on running when that passes.
pub(crate) fn wait_child(child: &mut Child, within: Duration) -> Result<ExitStatus> {
    let pid = child.id();
    wait_until(&format!("process {pid} ends"), within, || child.try_wait().transpose())?
        .map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(120);

    fn shell(script: &str) -> Spawned {
        Spawned::start(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_line_is_seen_while_the_child_runs() {
        let child = shell("echo one; echo two ready. >&2; exec sleep 60");
        assert_eq!(child.wait_for_line(" ready.", SOON).unwrap(), "two ready.");
    }

    #[test]
    fn the_end_of_the_output_ends_the_wait() {
        let error = shell("echo only").wait_for_line("never", SOON).unwrap_err();
        assert!(error.to_string().contains("the output ended"), "{error}");
        assert!(error.to_string().contains("only"), "{error}");
    }

    #[test]
    fn signals_arrive_and_the_exit_status_is_told() {
        let mut child = shell("trap 'exit 7' TERM; echo set; while :; do sleep 0.05; done");
        child.wait_for_line("set", SOON).unwrap();
        child.signal("TERM").unwrap();
        assert_eq!(child.wait(SOON).unwrap().code(), Some(7));
    }

    #[test]
    fn dropping_ends_the_child() {
        let child = shell("exec sleep 60");
        let pid = child.pid();
        drop(child);
        assert!(!is_alive(pid));
    }

    #[test]
    fn a_child_ends_when_its_starter_is_killed() {
        // What a Spawned is to us, the guard's shell is to this sleep; closing the pipe stands
        // for the death of this process.
        let mut sleep = Command::new("sleep").arg("60").spawn().unwrap();
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard", &sleep.id().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        drop(guard.stdin.take());
        assert!(!wait_child(&mut sleep, SOON).unwrap().success());
        guard.wait().unwrap();
    }
}
