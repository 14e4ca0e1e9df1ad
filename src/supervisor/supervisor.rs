//! Starts children, waits for their ends, and sends the signals that the machine decides on.

use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::machine::{Action, Ended, Event, Machine, Stop};
use super::orphans;
use super::rules::{RECYCLE, RETIRE, Rules};
use crate::process;

/// How long the children go unseen at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Starts a fixed number of child processes and keeps them running.
///
/// ```no_run
/// use std::process::Command;
/// use celeriac::supervisor::Supervisor;
///
/// # async fn example() -> std::io::Result<()> {
/// let supervisor = Supervisor::new(2, |place| {
///     let mut command = Command::new("/usr/local/bin/importer");
///     command.arg(format!("--part={place}"));
///     command
/// });
/// let handle = supervisor.handle();
/// tokio::spawn(async move {
///     if tokio::signal::ctrl_c().await.is_ok() {
///         handle.stop();
///     }
/// });
/// supervisor.run().await?;
/// # Ok(()) }
/// ```
///
/// A child that ends is replaced: at once the first time and after it has lived for ten seconds,
/// else after half a second, doubled up to thirty. Exit codes [`RECYCLE`] and [`RETIRE`] are
/// wishes: to be replaced at once, or not at all.
///
/// Each child is a process group of its own, so that Ctrl-C reaches only the parent, which stops
/// the others. Its standard input is a pipe that ends with the parent: most programs that read it
/// end then, and one of your own calls [`end_with_parent`](super::end_with_parent).
pub struct Supervisor {
    places: usize,
    rules: Rules,
    command: Box<dyn FnMut(usize) -> Command + Send>,
    memory_max_kib: Option<u64>,
    orders: watch::Sender<Option<Stop>>,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { places, rules, memory_max_kib, .. } = self;
        f.debug_struct("Supervisor")
            .field("places", places)
            .field("rules", rules)
            .field("memory_max_kib", memory_max_kib)
            .finish_non_exhaustive()
    }
}

/// Stops a supervisor from anywhere in the program. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SupervisorHandle(watch::Sender<Option<Stop>>);

impl SupervisorHandle {
    /// Sends SIGTERM to the children and waits for them.
    pub fn stop(&self) {
        self.order(Stop::Warm);
    }

    /// Sends SIGQUIT to the children, and kills those that do not end in time.
    pub fn terminate(&self) {
        self.order(Stop::Cold);
    }

    /// Kills the children.
    pub fn kill(&self) {
        self.order(Stop::Kill);
    }

    fn order(&self, stop: Stop) {
        self.0.send_if_modified(|last| {
            let is_harder = last.is_none_or(|last| last < stop);
            if is_harder {
                *last = Some(stop);
            }
            is_harder
        });
    }
}

/// How a supervisor has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Children that took the place of another one.
    pub replaced: u64,
    /// Children of the stop that ended otherwise than with exit code 0, or of the SIGTERM that
    /// told them to, as a program does that has not begun to listen.
    pub unclean: u64,
    /// The exit code of the last child, 1 if it had none, when the children were given up because
    /// none of them got anywhere; see [`Supervisor::give_up_after`].
    pub given_up: Option<i32>,
}

impl Supervisor {
    /// Keeps `places` children; `command` makes the one of a place, counted from 0.
    ///
    /// Standard input and process group of the command are set by the supervisor.
    pub fn new(places: usize, command: impl FnMut(usize) -> Command + Send + 'static) -> Self {
        let (orders, _) = watch::channel(None);
        let command = Box::new(command);
        Self { places, rules: Rules::default(), command, memory_max_kib: None, orders }
    }

    /// A warm stop turns cold after this time; by default it takes as long as the children want.
    #[must_use]
    pub fn cold_after(mut self, limit: Duration) -> Self {
        self.rules.cold_after = Some(limit);
        self
    }

    /// A cold stop kills after this time; by default ten seconds.
    #[must_use]
    pub fn kill_after(mut self, limit: Duration) -> Self {
        self.rules.kill_after = limit;
        self
    }

    /// A child with more memory in RAM is sent SIGTERM, and replaced when it has ended. Only where
    /// there is a `/proc`.
    #[must_use]
    pub fn memory_max_kib(mut self, kib: u64) -> Self {
        self.memory_max_kib = Some(kib);
        self
    }

    /// Gives up when children of every place have died so many times in a row within ten seconds,
    /// and none has ever lived longer; by default it never does.
    #[must_use]
    pub fn give_up_after(mut self, deaths: u32) -> Self {
        self.rules.give_up_after = Some(deaths);
        self
    }

    /// A handle to stop it with.
    pub fn handle(&self) -> SupervisorHandle {
        SupervisorHandle(self.orders.clone())
    }

    /// Starts the children and looks after them until all have ended after a stop, have retired,
    /// or were given up.
    ///
    /// In the process with the id 1 it also waits for orphans, which fall to that one. Dropping
    /// the future kills the children.
    ///
    /// # Errors
    /// If the system gives no notice of children, before any is started. A command that cannot be
    /// started is logged and tried again like a child that died.
    pub async fn run(self) -> io::Result<Report> {
        let mut children_ended = signal(SignalKind::child())?;
        let mut orders = self.orders.subscribe();
        let now = Instant::now();
        let mut watched = Watched {
            machine: Machine::new(self.places, self.rules, now),
            children: std::iter::repeat_with(|| None).take(self.places).collect(),
            command: self.command,
            memory_max_kib: self.memory_max_kib,
            report: Report::default(),
            last_code: 1,
        };
        let is_init = std::process::id() == 1;
        let mut looked = now;
        loop {
            watched.happen(Event::Tick);
            let order = *orders.borrow_and_update();
            if let Some(stop) = order {
                watched.happen(Event::Stop(stop));
            }
            watched.look();
            if watched.machine.is_over() {
                return Ok(watched.report);
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                watched.weigh();
                if is_init {
                    orphans::reap(&watched.pids());
                }
            }
            let next = watched.machine.next_tick();
            let rest = next.map(|at| at.saturating_duration_since(Instant::now()));
            tokio::select! {
                _ = children_ended.recv() => {}
                // The sender is our own and never goes.
                _ = orders.changed() => {}
                () = tokio::time::sleep(rest.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)) => {}
            }
        }
    }
}

/// The children and what decides over them. Kills them when dropped.
struct Watched {
    machine: Machine,
    children: Vec<Option<Child>>,
    command: Box<dyn FnMut(usize) -> Command + Send>,
    memory_max_kib: Option<u64>,
    report: Report,
    /// The exit code of the child that ended last, 1 if it had none.
    last_code: i32,
}

impl Watched {
    /// Tells the machine, and does what it says.
    fn happen(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.machine.handle(event, Instant::now()) {
                match action {
                    Action::Start(at) => events.push(self.start(at)),
                    Action::Tell(at, how) => self.tell(at, how),
                    Action::Wait(at, delay) => {
                        let delay_s = delay.as_secs_f64();
                        warn!(place = at + 1, delay_s, "the child dies at once, waiting");
                    }
                }
            }
            if self.machine.has_given_up() && self.report.given_up.is_none() {
                error!("no child gets anywhere: giving up");
                self.report.given_up = Some(self.last_code);
            }
        }
    }

    fn start(&mut self, at: usize) -> Event {
        let mut command = (self.command)(at);
        let Some(place) = self.children.get_mut(at) else { return Event::NotStarted(at) };
        match command.stdin(Stdio::piped()).process_group(0).spawn() {
            Ok(child) => {
                info!(place = at + 1, pid = child.id(), "child started");
                *place = Some(child);
                Event::Started(at)
            }
            Err(failed) => {
                let failed: &dyn std::error::Error = &failed;
                error!(place = at + 1, error = failed, "failed to start a child");
                Event::NotStarted(at)
            }
        }
    }

    fn tell(&self, at: usize, how: Stop) {
        let Some(Some(child)) = self.children.get(at) else { return };
        let (pid, place) = (child.id(), at + 1);
        let signal = match how {
            Stop::Warm => Signal::TERM,
            Stop::Cold => Signal::QUIT,
            Stop::Kill => Signal::KILL,
        };
        if how == Stop::Kill {
            warn!(place, pid, "the child did not end in time, killing it");
        } else {
            debug!(place, pid, ?how, "telling the child to stop");
        }
        process::send(pid, signal);
    }

    /// Finds out who has ended.
    fn look(&mut self) {
        for at in 0..self.children.len() {
            let Some(place) = self.children.get_mut(at) else { continue };
            let Some(child) = place else { continue };
            let pid = child.id();
            let status = match child.try_wait() {
                Ok(None) => continue,
                Ok(Some(status)) => Some(status),
                // Somebody else has waited for it, so it is gone.
                Err(_) => None,
            };
            *place = None;
            self.ended(at, pid, status);
        }
    }

    fn ended(&mut self, at: usize, pid: u32, status: Option<ExitStatus>) {
        let (code, is_stopping) = (status.and_then(|it| it.code()), self.machine.is_stopping());
        let why = status.map_or_else(|| "unknown".to_owned(), process::ending);
        let ended = match code {
            Some(code) if code == i32::from(RECYCLE) => Ended::Recycle,
            Some(code) if code == i32::from(RETIRE) => Ended::Retire,
            _ => Ended::Died,
        };
        if is_stopping {
            info!(place = at + 1, pid, "child stopped: {why}");
            let of_term = status.and_then(|it| it.signal()) == Some(Signal::TERM.as_raw());
            let is_clean = code == Some(0) || of_term || ended != Ended::Died;
            self.report.unclean += u64::from(!is_clean);
        } else if ended == Ended::Retire {
            info!(place = at + 1, pid, "child retired");
        } else if ended == Ended::Recycle {
            info!(place = at + 1, pid, "child wants to be replaced");
            self.report.replaced += 1;
        } else {
            error!(place = at + 1, pid, "child died: {why}");
            self.report.replaced += 1;
        }
        if !is_stopping {
            self.last_code = code.filter(|code| *code != 0).unwrap_or(1);
        }
        self.happen(Event::Ended(at, ended));
    }

    /// Finds out who has become too large.
    fn weigh(&mut self) {
        let Some(max) = self.memory_max_kib else { return };
        for (at, pid) in self.pids_by_place() {
            if let Some(kib) = process::resident_kib(pid).filter(|kib| *kib > max) {
                debug!(place = at + 1, pid, kib, max, "the child is too large");
                self.happen(Event::TooLarge(at));
            }
        }
    }

    fn pids_by_place(&self) -> Vec<(usize, u32)> {
        let pid = |(at, child): (usize, &Option<Child>)| Some((at, child.as_ref()?.id()));
        self.children.iter().enumerate().filter_map(pid).collect()
    }

    fn pids(&self) -> Vec<u32> {
        self.pids_by_place().into_iter().map(|(_, pid)| pid).collect()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // Whoever is gone already needs nothing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    /// The children of this thread.
    fn children() -> Vec<u32> {
        let list = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    fn is_dead(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('Z')
    }

    /// By a clock that stands still while anybody has something to do: what is measured is how long
    /// the supervisor looks away, on a machine that is as fast as can be.
    #[tokio::test(start_paused = true)]
    async fn a_child_that_is_killed_is_replaced_within_a_second() {
        let (told, mut starts) = mpsc::unbounded_channel();
        let supervisor = Supervisor::new(1, move |_| {
            let _ = told.send(Instant::now());
            // It ends with its standard input.
            Command::new("cat")
        });
        let handle = supervisor.handle();
        let running = tokio::spawn(supervisor.run());
        starts.recv().await.unwrap();
        let [first] = *children() else { panic!("one child") };
        process::send(first, Signal::KILL);
        // Nothing else happens in this thread until then.
        let gone = || is_dead(first).then_some(());
        xtask::wait_until("the child is dead", Duration::from_secs(120), gone).unwrap();
        let killed = Instant::now();
        let replaced = starts.recv().await.unwrap();
        assert!(replaced - killed <= Duration::from_secs(1), "{:?}", replaced - killed);
        assert!(!children().contains(&first), "it was waited for");
        handle.stop();
        assert_eq!(running.await.unwrap().unwrap().replaced, 1);
    }
}
