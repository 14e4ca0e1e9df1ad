//! Resident memory of the real worker binary: idle, and with many tasks asleep; and the bound that
//! it must keep. No test has it, because a future of a build for tests is larger than that of a
//! release.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use celeriac::{Client, Config, Signature};
use xtask::process::{Spawned, binary};

use crate::load::Broker;
use crate::measure::resident_bytes;

/// Sleeping tasks, all of them running at once.
const SLEEPING: usize = 10_000;
/// What a worker with so many may take at most.
const SLEEPING_MAX_BYTES: u64 = 64_000_000;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Memory {
    pub(crate) idle_bytes: u64,
    pub(crate) sleeping: usize,
    pub(crate) sleeping_bytes: u64,
}

impl Memory {
    /// Fails if it is more than it may be.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { sleeping, sleeping_bytes, .. } = self;
        ensure!(
            *sleeping_bytes <= SLEEPING_MAX_BYTES,
            "{sleeping} sleeping tasks take {sleeping_bytes} bytes: more than {SLEEPING_MAX_BYTES}"
        );
        Ok(())
    }
}

pub(crate) fn measure(broker: &Broker) -> Result<Memory> {
    let vhost = broker.vhost("memory")?;
    let slots = SLEEPING.to_string();
    let mut command = Command::new(binary("celeriac-worker")?);
    command.args(["--broker", vhost.url(), "-c", &slots, "-l", "info"]);
    command.args(["--prefetch-multiplier", "1", "-n", "memory@%h"]);
    let mut worker = Spawned::start(&mut command)?;
    worker.wait_for_line(" ready.", PATIENCE)?;
    let idle_bytes = resident_bytes(worker.pid())?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(put_to_sleep(vhost.url()))?;
    let all_asleep = || {
        let depth = vhost.queue_depth("celeriac").ok()?;
        (depth.unacked >= SLEEPING as u64 && depth.ready == 0).then_some(())
    };
    vhost.wait_until("all tasks are asleep", all_asleep)?;
    let sleeping_bytes = resident_bytes(worker.pid())?;
    worker.kill_9()?;
    Ok(Memory { idle_bytes, sleeping: SLEEPING, sleeping_bytes })
}

async fn put_to_sleep(url: &str) -> Result<()> {
    let client = Client::connect(Config::builder().broker_url([url.parse()?]).build()).await?;
    let calls = (0..SLEEPING).map(|_| Signature::<f64>::new("sleep").arg(600).ignore_result(true));
    for sent in client.send_all(calls).await {
        sent?;
    }
    client.close().await;
    Ok(())
}
