//! The Python peers, run from their PyPI packages by the scripts in `benches/peers`.
//!
//! A worker of theirs takes a second or more to start. Its figures are the difference between a
//! long and a short run, so that starting counts for nothing.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use xtask::python::{BENCH_REQUIREMENTS, Python};

use crate::load::Broker;
use crate::measure::Figures;

/// Tasks of the short run.
const SHORT: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Celery,
    Dramatiq,
}

pub(crate) const ALL: [Peer; 2] = [Peer::Celery, Peer::Dramatiq];

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Celery => "celery 5.7, prefork 2",
            Self::Dramatiq => "dramatiq, 2 processes × 4 threads",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Self::Celery => "celery_peer.py",
            Self::Dramatiq => "dramatiq_peer.py",
        }
    }
}

/// Measures one case; `None` if the peer has no such thing without another server.
pub(crate) fn measure(
    broker: &Broker,
    peer: Peer,
    case: &str,
    count: usize,
) -> Result<Option<Figures>> {
    if peer == Peer::Dramatiq && case == "drain-results" {
        return Ok(None);
    }
    if !case.starts_with("drain") {
        return run(broker, peer, case, count).map(Some);
    }
    let short = run(broker, peer, case, SHORT)?;
    let long = run(broker, peer, case, count + SHORT)?;
    ensure!(long.seconds > short.seconds, "the long run was not longer than the short one");
    Ok(Some(Figures {
        count,
        seconds: long.seconds - short.seconds,
        cpu_seconds: long.cpu_seconds - short.cpu_seconds,
        latencies_us: Vec::new(),
    }))
}

fn run(broker: &Broker, peer: Peer, case: &str, count: usize) -> Result<Figures> {
    let vhost = broker.vhost(case)?;
    let python = Python::with(&[BENCH_REQUIREMENTS])?;
    let script = format!("{}/benches/peers/{}", env!("CARGO_MANIFEST_DIR"), peer.script());
    let output = python
        .command(&script)
        .args([case, vhost.url(), &count.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {script}"))?;
    ensure!(output.status.success(), "{script} {case} failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().last().unwrap_or_default();
    serde_json::from_str(figures).with_context(|| format!("figures of {script}: {text}"))
}
