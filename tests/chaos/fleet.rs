//! The workers that faults befall; they reach the broker through a proxy.

use xtask::{Proxy, Spawned};

use crate::dice::Dice;
use crate::marks::{Marks, Moment, now};
use crate::strike::Struck;
use crate::{PATIENCE, worker};

/// Workers at any time.
pub(crate) const WORKERS: usize = 3;

pub(crate) struct Fleet {
    pub(crate) proxy: Proxy,
    url: String,
    marks: Marks,
    /// Of each worker.
    processes: usize,
    workers: Vec<Spawned>,
}

impl Fleet {
    /// Starts the workers, of as many processes each; every task that runs leaves a mark in
    /// `marks`.
    pub(crate) fn start(broker: &str, marks: &Marks, processes: usize) -> Self {
        let (proxy, url) = Proxy::for_url(broker).unwrap();
        let mut fleet = Self { proxy, url, marks: marks.clone(), processes, workers: Vec::new() };
        fleet.workers = (0..WORKERS).map(|_| fleet.worker()).collect();
        fleet
    }

    /// The queue from which they consume.
    pub(crate) fn queue(&self) -> &'static str {
        "celeriac"
    }

    fn worker(&self) -> Spawned {
        worker::spawn_marking(&self.url, self.marks.path(), self.processes)
    }

    /// Every worker, of one process each, as it is struck together with the others.
    pub(crate) fn all(&self) -> Vec<Struck> {
        let pids = self.workers.iter().map(Spawned::pid);
        pids.map(|pid| Struck { held: Some(pid), again: pid }).collect()
    }

    /// Kills one with -9, and starts another one. Tells when, and which.
    pub(crate) fn kill(&mut self, dice: &mut Dice) -> (Moment, Struck) {
        let victim = &mut self.workers[dice.below(WORKERS as u64) as usize];
        let (killed, held) = (now(), victim.pid());
        victim.kill_9().unwrap();
        *victim = worker::spawn_marking(&self.url, self.marks.path(), self.processes);
        (killed, Struck { held: Some(held), again: victim.pid() })
    }

    /// Kills a child of one with -9, and waits until its parent has started another one.
    pub(crate) fn kill_child(&mut self, dice: &mut Dice) -> (Moment, Struck) {
        let parent = self.workers[dice.below(WORKERS as u64) as usize].pid();
        let all = || Some(children(parent)).filter(|all| all.len() == self.processes);
        let before = xtask::wait_until("all children live", PATIENCE, all).unwrap();
        let victim = before[dice.below(before.len() as u64) as usize];
        let killed = now();
        xtask::process::signal(victim, "KILL").unwrap();
        let new = || children(parent).into_iter().find(|child| !before.contains(child));
        let again = xtask::wait_until("a new child", PATIENCE, new).unwrap();
        (killed, Struck { held: Some(victim), again })
    }

    /// Replaces each as an operator does: the next one first, and then the signal. None of them
    /// leaves anything behind.
    pub(crate) fn restart_each(&mut self) -> Vec<Struck> {
        for index in 0..WORKERS {
            let next = self.worker();
            next.wait_for_line(" ready.", PATIENCE).unwrap();
            let mut old = std::mem::replace(&mut self.workers[index], next);
            old.signal("TERM").unwrap();
            let status = old.wait(PATIENCE).unwrap();
            assert!(status.success(), "{status}: {}", old.output());
        }
        self.all().into_iter().map(|struck| Struck { held: None, ..struck }).collect()
    }

    /// Stops all of them, which must end well.
    pub(crate) fn stop(mut self) {
        for worker in &self.workers {
            worker.signal("TERM").unwrap();
        }
        for worker in &mut self.workers {
            let status = worker.wait(PATIENCE).unwrap();
            assert!(status.success(), "{status}: {}", worker.output());
        }
    }
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // pid (name) state parent ...; the name may hold anything.
        let after = stat.rsplit(')').next().unwrap_or_default();
        after.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_child).collect()
}
