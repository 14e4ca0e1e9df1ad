//! The processes that are killed: this program itself, as a worker with a joiner.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use celeriac::{App, Config, Context, TaskResult, Value, task};
use xtask::Spawned;

use crate::marks;

const URL: &str = "CELERIAC_TEST_CHAOS_WORKER";
const MARKS: &str = "CELERIAC_TEST_CHAOS_MARKS";
/// Slots of each process for async tasks.
const SLOTS: usize = 8;
/// Slots of each process for blocking tasks, which are prefetched for as well.
const BLOCKING_SLOTS: usize = 2;
/// Messages that are prefetched for each slot.
const MULTIPLIER: u32 = 2;
/// Messages that a process holds at most, those that it runs included.
pub(crate) const PREFETCH: usize = (SLOTS + BLOCKING_SLOTS) * MULTIPLIER as usize;

/// The broker, if this process is to be a worker.
pub(crate) fn url() -> Option<String> {
    std::env::var(URL).ok()
}

/// Starts this program as a worker.
pub(crate) fn spawn(url: &str) -> Spawned {
    let program = std::env::current_exe().unwrap();
    Spawned::start(named(&mut Command::new(program)).env(URL, url)).unwrap()
}

/// The same, of `processes` processes if that is not 0; its [`mark`]s go to the file `marks`.
pub(crate) fn spawn_marking(url: &str, marks: &Path, processes: usize) -> Spawned {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    if processes > 0 {
        command.args(["--processes", &processes.to_string()]);
    }
    Spawned::start(named(&mut command).env(URL, url).env(MARKS, marks)).unwrap()
}

fn named(command: &mut Command) -> &mut Command {
    // Every line is kept until the end.
    let log = "warn,celeriac::cli=info";
    command.args(["-n", &format!("{}@chaos", uuid::Uuid::new_v4())]).env("CELERIAC_LOG", log)
}

/// Settings of the workers and of the client.
pub(crate) fn config(url: &str) -> Config {
    Config::builder()
        .broker_url([url.parse().unwrap()])
        .broker_connection_retry_delay_max(Duration::from_secs(1))
        .broker_heartbeat(4)
        .worker_concurrency(SLOTS)
        .worker_blocking_slots(BLOCKING_SLOTS)
        .worker_prefetch_multiplier(MULTIPLIER)
        .join_shards(4)
        .join_t_tomb(Duration::from_secs(3))
        .join_orphan_grace(Duration::from_secs(3))
        .build()
}

/// Works until it is stopped or killed.
pub(crate) fn run(url: &str) -> ExitCode {
    celeriac::cli::main(App::new(config(url)))
}

/// Leaves its marks.
#[task(name = "chaos.mark")]
pub(crate) async fn mark(cx: Context, number: u64) -> TaskResult<u64> {
    let path = PathBuf::from(std::env::var_os(MARKS).unwrap_or_default());
    let redelivered = cx.request().delivery_info.redelivered;
    marks::leave(&path, number, true, redelivered)?;
    tokio::time::sleep(Duration::from_millis(number * 7 % 40)).await;
    marks::leave(&path, number, false, redelivered)?;
    Ok(number)
}

/// Its position, and what no other run of it returns.
#[task(name = "chaos.part")]
async fn part(index: i64) -> (i64, String) {
    tokio::time::sleep(Duration::from_millis(uuid::Uuid::new_v4().as_u128() as u64 % 30)).await;
    (index, uuid::Uuid::new_v4().to_string())
}

#[task(name = "chaos.body")]
async fn body(values: Value) -> Value {
    values
}
