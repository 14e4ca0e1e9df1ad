//! Many tasks with random delays and one worker, a process of its own: each runs once and none
//! early, it never holds more than it prefetches, and its memory does not grow with what waits.
//!
//! A test program without a harness, because it runs itself as the worker. `CELERIAC_DELAYED_TASKS`
//! and `CELERIAC_DELAYED_SECONDS` make it larger; 20,000 tasks and 60 seconds is the size for which
//! the delay queues are meant to hold without effort.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the figures are what somebody runs this for")]

use std::collections::HashMap;
use std::process::{Command, ExitCode};
use std::time::Duration;

use celeriac::{App, Client, Config, task};
use jiff::Timestamp;
use xtask::{Spawned, TestVhost};

/// The broker, if this process is to be the worker.
const URL: &str = "CELERIAC_TEST_DELAYED_WORKER";
const TASKS: &str = "CELERIAC_DELAYED_TASKS";
const SECONDS: &str = "CELERIAC_DELAYED_SECONDS";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);
const SLOTS: usize = 50;
const BLOCKING_SLOTS: usize = 2;
const MULTIPLIER: u32 = 2;
const PREFETCH: usize = (SLOTS + BLOCKING_SLOTS) * MULTIPLIER as usize;
/// What the memory of the worker may grow by, in KiB: little of what 20,000 messages would take.
const GROWTH_MAX: u64 = 16 * 1024;

/// Tells by how many milliseconds it runs later than it was to.
#[task(name = "delayed.due")]
async fn due(at_ms: i64) -> i64 {
    Timestamp::now().as_millisecond() - at_ms
}

fn main() -> ExitCode {
    if let Ok(url) = std::env::var(URL) {
        return celeriac::cli::main(App::new(config(&url)));
    }
    const NAME: &str = "a_worker_does_not_grow_with_what_waits";
    let filters: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |filter: &String| filter.starts_with('-') || NAME.contains(&**filter);
    if !filters.iter().all(wanted) || filters.iter().any(|it| it == "--list" || it == "--ignored") {
        println!("running 0 tests\n");
        return ExitCode::SUCCESS;
    }
    println!("running 1 test");
    tokio::runtime::Runtime::new().unwrap().block_on(run());
    println!("test {NAME} ... ok\n");
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n");
    ExitCode::SUCCESS
}

fn config(url: &str) -> Config {
    Config::builder()
        .broker_url([url.parse().unwrap()])
        .worker_concurrency(SLOTS)
        .worker_blocking_slots(BLOCKING_SLOTS)
        .worker_prefetch_multiplier(MULTIPLIER)
        .build()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What the log of the worker tells of one task.
#[derive(Default)]
struct Seen {
    received: Vec<Timestamp>,
    ended: Vec<(Timestamp, i64)>,
}

impl Seen {
    /// When it came to run. Before, the worker may have handed it on, because it held enough.
    fn taken(&self) -> Timestamp {
        *self.received.last().unwrap()
    }

    fn held_ms(&self) -> i64 {
        self.ended[0].0.as_millisecond() - self.taken().as_millisecond()
    }
}

async fn run() {
    let count = setting(TASKS, 1000);
    let seconds = setting(SECONDS, 6);
    let vhost = TestVhost::create("delayed").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(URL, vhost.url()).env("CELERIAC_LOG", "info");
    // It would take them for settings.
    command.env_remove(TASKS).env_remove(SECONDS);
    let worker = Spawned::start(&mut command).unwrap();
    worker.wait_for_line(" ready.", PATIENCE).unwrap();
    let client = Client::connect(config(vhost.url())).await.unwrap();
    let at = |delay_ms: u64| Timestamp::now() + Duration::from_millis(delay_ms);
    let call = |at: Timestamp| due::s(at.as_millisecond()).eta(at);
    // So that what is declared at first, and the first of everything, is not counted.
    let first: Vec<_> = (0..PREFETCH).map(|_| call(at(3000))).collect();
    for sent in client.send_all(first).await {
        sent.unwrap().get(PATIENCE).await.unwrap();
    }
    let (before, begun) = (memory_kib(worker.pid()), Timestamp::now());
    let random = || uuid::Uuid::new_v4().as_u128() as u64;
    let calls = (0..count).map(|_| call(at(random() % (seconds * 1000 + 1))).ignore_result(true));
    let calls: Vec<_> = calls.collect();
    let mut ids = Vec::new();
    for sent in client.send_all(calls).await {
        ids.push(sent.unwrap().id().to_owned());
    }
    let (sent, sending) = (memory_kib(worker.pid()), Timestamp::now().duration_since(begun));
    let (mut peak, mut seen) = (before.max(sent), HashMap::new());
    // The worker logs as it goes, and its memory is looked at each time.
    let done = || {
        peak = peak.max(memory_kib(worker.pid()));
        seen = read(&worker.lines());
        ids.iter()
            .all(|id| seen.get(id).is_some_and(|it: &Seen| !it.ended.is_empty()))
            .then_some(())
    };
    let patience = PATIENCE + Duration::from_secs(seconds);
    tokio::task::block_in_place(|| xtask::wait_until("all have run", patience, done)).unwrap();
    let after = memory_kib(worker.pid());
    drop(worker);
    client.close().await;
    let runs: Vec<&Seen> = ids.iter().map(|id| &seen[id]).collect();
    assert!(runs.iter().all(|run| run.ended.len() == 1), "each runs once");
    let mut late: Vec<i64> = runs.iter().map(|run| run.ended[0].1).collect();
    late.sort_unstable();
    let mut held: Vec<i64> = runs.iter().map(|run| run.held_ms()).collect();
    held.sort_unstable();
    let share = |list: &[i64], share: f64| list[((list.len() - 1) as f64 * share) as usize];
    let most = at_once(&runs);
    let handed_on = runs.iter().map(|run| run.received.len() - 1).sum::<usize>();
    println!(
        "{count} tasks over {seconds} s, sent in {sending:#}: late by {} ms in the middle, {} ms \
         in 99 of 100, {} ms at most; held by the worker for {} ms in the middle, {} ms at most, \
         {most} at a time with a prefetch of {PREFETCH}, {handed_on} handed on; its memory \
         {before} KiB before, {sent} KiB when all were sent, {peak} KiB at most, {after} KiB after",
        share(&late, 0.5),
        share(&late, 0.99),
        share(&late, 1.0),
        share(&held, 0.5),
        share(&held, 1.0),
    );
    assert!(late[0] >= 0, "one was early by {} ms", -late[0]);
    assert!(most <= PREFETCH, "{most} were held at a time");
    assert!(peak <= before + GROWTH_MAX, "{before} KiB became {peak} KiB");
}

/// Reads the log of the worker: when it received each task, and when each returned what.
fn read(lines: &[String]) -> HashMap<String, Seen> {
    let mut seen: HashMap<String, Seen> = HashMap::new();
    for line in lines {
        let Some((_, task)) = line.split_once("Task delayed.due[") else { continue };
        let Some((id, rest)) = task.split_once(']') else { continue };
        let time = || line.split(' ').next().unwrap().parse::<Timestamp>().unwrap();
        let of = seen.entry(id.to_owned()).or_default();
        if rest.starts_with(" received") {
            of.received.push(time());
        } else if let Some((_, late)) = rest.split_once("s: ") {
            let late = late.split(' ').next().unwrap_or_default();
            of.ended.push((time(), late.parse().unwrap()));
        }
    }
    seen
}

/// How many tasks were held at the same time: received and not ended.
fn at_once(runs: &[&Seen]) -> usize {
    let received = runs.iter().map(|run| (run.taken(), 1));
    let ended = runs.iter().map(|run| (run.ended[0].0, -1));
    let mut changes: Vec<(Timestamp, i64)> = received.chain(ended).collect();
    // An end before a beginning in the same moment, which is its cause.
    changes.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, change) in changes {
        now += change;
        most = most.max(now);
    }
    usize::try_from(most).unwrap()
}

/// The resident memory of a process.
fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
