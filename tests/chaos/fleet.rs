//! The workers that faults befall; they reach the broker through a proxy.

use xtask::{Proxy, Spawned};

use crate::dice::Dice;
use crate::marks::Marks;
use crate::{PATIENCE, worker};

/// Workers at any time.
const WORKERS: usize = 3;

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

    /// Kills one with -9, and starts another one.
    pub(crate) fn kill(&mut self, dice: &mut Dice) {
        let victim = dice.below(WORKERS as u64) as usize;
        // A child that is dropped is killed.
        self.workers[victim] = self.worker();
    }

    /// Kills a child of one with -9.
    pub(crate) fn kill_child(&mut self, dice: &mut Dice) {
        let parent = self.workers[dice.below(WORKERS as u64) as usize].pid();
        let children = xtask::wait_until("a child", PATIENCE, || {
            let children = children(parent);
            (!children.is_empty()).then_some(children)
        })
        .unwrap();
        let victim = children[dice.below(children.len() as u64) as usize];
        xtask::process::signal(victim, "KILL").unwrap();
    }

    /// Replaces each as an operator does: the next one first, and then the signal.
    pub(crate) fn restart_each(&mut self) {
        for index in 0..WORKERS {
            let next = self.worker();
            next.wait_for_line(" ready.", PATIENCE).unwrap();
            let mut old = std::mem::replace(&mut self.workers[index], next);
            old.signal("TERM").unwrap();
            let status = old.wait(PATIENCE).unwrap();
            assert!(status.success(), "{status}: {}", old.output());
        }
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
