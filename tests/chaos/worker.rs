//! The processes that are killed: this program itself, as a worker with a joiner.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use celeriac::{App, Config, Context, TaskResult, task};
use xtask::Spawned;

use crate::{effects, marks};

const URL: &str = "CELERIAC_TEST_CHAOS_WORKER";
const MARKS: &str = "CELERIAC_TEST_CHAOS_MARKS";
const LEDGER: &str = "CELERIAC_TEST_CHAOS_LEDGER";
const JOINS: &str = "CELERIAC_TEST_CHAOS_JOINS";
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

/// What a worker does of what is to do for chords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It runs their parts and bodies.
    Works,
    /// It joins them, and consumes a queue to which nobody sends.
    Joins,
    Both,
}

/// Starts this program as a worker; the bodies take their effects in `ledger`.
pub(crate) fn spawn(url: &str, role: Role, ledger: &Path) -> Spawned {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    if role == Role::Joins {
        command.args(["-Q", "chaos.nobody"]);
    }
    let joins = if role == Role::Works { "no" } else { "yes" };
    command.env(URL, url).env(LEDGER, ledger).env(JOINS, joins);
    Spawned::start(named(&mut command)).unwrap()
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
    let mut config = config(url);
    config.join_enabled = std::env::var(JOINS).as_deref() != Ok("no");
    celeriac::cli::main(App::new(config))
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
pub(crate) async fn part(index: i64) -> (i64, String) {
    tokio::time::sleep(Duration::from_millis(uuid::Uuid::new_v4().as_u128() as u64 % 30)).await;
    (index, uuid::Uuid::new_v4().to_string())
}

/// Takes its effect once, however often it is called.
#[task(name = "chaos.body")]
pub(crate) async fn body(
    cx: Context,
    values: Vec<(i64, String)>,
) -> TaskResult<Vec<(i64, String)>> {
    let ledger = PathBuf::from(std::env::var_os(LEDGER).unwrap_or_default());
    let request = cx.request();
    effects::take(&ledger, &request.id, request.delivery_info.redelivered, &values)?;
    Ok(values)
}
