//! The same chords by Celery with Redis, run from its PyPI package.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xtask::python::{CHORDS_REQUIREMENTS, Python};
use xtask::{Redis, Spawned, TestVhost};

/// Celery with as many processes as the machine has processors, which is its default.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest that one chord may take.
pub(crate) const LONGEST: Duration = Duration::from_secs(180);

/// How long chords of these sizes take, by a worker that has run one before; the first that takes
/// longer than [`LONGEST`] has no figure and is the last.
pub(crate) fn measure(sizes: &[i64]) -> Result<Vec<Option<Duration>>> {
    let redis = Redis::start()?;
    let vhost = TestVhost::create("bench-celery-chords")?;
    let python = Python::with(&[CHORDS_REQUIREMENTS])?;
    let environment = [("PEER_BROKER", vhost.url()), ("PEER_BACKEND", &redis.url())];
    let peers = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");
    let mut worker = python.module("celery");
    worker.args(["-A", "celery_chords", "worker", "-l", "info", "--without-mingle"]);
    worker.args(["--without-gossip", "--without-heartbeat", "-n", "peer@%h"]);
    let worker = Spawned::start(worker.current_dir(peers).envs(environment))?;
    worker.wait_for_line(" ready.", PATIENCE)?;
    let mut client = python.command("benches/peers/celery_chords.py");
    client.arg(LONGEST.as_secs().to_string()).args(sizes.iter().map(i64::to_string));
    client.envs(environment).stderr(Stdio::inherit());
    let output = client.output().context("start Celery's client")?;
    ensure!(output.status.success(), "Celery's client failed: {}", output.status);
    let seconds: Vec<Option<f64>> =
        serde_json::from_slice(&output.stdout).context("its figures")?;
    Ok(seconds.into_iter().map(|it| it.map(Duration::from_secs_f64)).collect())
}
