//! Resident memory of a worker that does nothing but join.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use celeriac::{App, Client, Config, Worker};
use futures::{StreamExt, TryStreamExt, stream};
use xtask::TestVhost;
use xtask::process::{Spawned, binary};

use crate::sizes::with_body;
use crate::{ABREAST, PATIENCE, SMALL, small};

/// Measures and prints: a chord of `size` parts, then many small ones.
pub(crate) async fn print(size: i64) -> Result<()> {
    let vhost = TestVhost::create("bench-joiner")?;
    let mut command = Command::new(binary("celeriac-worker")?);
    command.args(["--broker", vhost.url(), "-Q", "idle", "-n", "joiner@%h", "-l", "info"]);
    let joiner = Spawned::start(&mut command)?;
    joiner.wait_for_line(" ready.", PATIENCE)?;
    let idle = resident(&joiner, "VmRSS")?;
    // Parts and bodies run here, and are not joined here.
    let mut config = Config::builder().broker_url([vhost.url().parse()?]).build();
    config.join_enabled = false;
    let worker = Worker::new(App::new(config.clone())).concurrency(200).start().await?;
    let client = Client::connect(config).await?;
    let begun = stream::iter((0..SMALL).map(|_| client.apply(small())));
    let results: Vec<_> = begun.buffered(ABREAST).try_collect().await?;
    for result in results {
        result.get(PATIENCE).await?;
    }
    let many = resident(&joiner, "VmHWM")?;
    let took: Duration = with_body(&client, size).await?;
    let one = resident(&joiner, "VmHWM")?;
    println!("memory of a joiner: idle {idle:.1} MB, {SMALL} chords of 10 at once {many:.1} MB,");
    println!("  then one of {size} parts {one:.1} MB at most ({:.1} s)", took.as_secs_f64());
    client.close().await;
    worker.handle().shutdown();
    worker.wait().await?;
    Ok(())
}

/// A figure of the kernel, in MB.
fn resident(joiner: &Spawned, what: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", joiner.pid()))?;
    let line = status.lines().find(|line| line.starts_with(what)).context("the kernel says it")?;
    let kib: f64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}
