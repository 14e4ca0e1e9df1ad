//! The processes that are killed: this program itself, as a worker with a joiner.

use std::process::Command;
use std::time::Duration;

use celeriac::{App, Config, Value, Worker, task};
use xtask::Spawned;

const URL: &str = "CELERIAC_TEST_CHAOS_WORKER";

/// The broker, if this process is to be a worker.
pub(crate) fn url() -> Option<String> {
    std::env::var(URL).ok()
}

/// Starts this program as a worker.
pub(crate) fn spawn(url: &str) -> Spawned {
    let program = std::env::current_exe().unwrap();
    Spawned::start(Command::new(program).env(URL, url)).unwrap()
}

/// Settings of the workers and of the client.
pub(crate) fn config(url: &str) -> Config {
    Config::builder()
        .broker_url([url.parse().unwrap()])
        .broker_connection_retry_delay_max(Duration::from_secs(1))
        .worker_concurrency(8)
        .worker_prefetch_multiplier(2)
        .join_shards(4)
        .join_t_tomb(Duration::from_secs(3))
        .join_orphan_grace(Duration::from_secs(3))
        .build()
}

/// Works until it is killed.
pub(crate) fn run(url: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let name = format!("{}@chaos", std::process::id());
        let worker = Worker::new(App::new(config(url))).hostname(name);
        worker.start().await.unwrap().wait().await.unwrap();
    });
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
