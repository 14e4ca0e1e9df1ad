//! What one case cost: time, CPU, memory; and the median of several rounds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

/// The figures of one case in one process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Tasks, messages or calls.
    pub(crate) count: usize,
    /// Wall clock time.
    pub(crate) seconds: f64,
    /// User and system time of the process.
    pub(crate) cpu_seconds: f64,
    /// Round trips in microseconds, sorted; empty for throughput cases.
    pub(crate) latencies_us: Vec<f64>,
}

impl Figures {
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }

    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.count as f64
    }

    /// The round trip that a share `part` of all calls did not exceed.
    pub(crate) fn percentile_us(&self, part: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get((last as f64 * part) as usize).copied().unwrap_or(f64::NAN)
    }
}

/// Measures from its start to its end.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    started: Instant,
    /// What had been used by then, if it could be read.
    cpu: Result<Duration>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { cpu: cpu(), started: Instant::now() }
    }

    pub(crate) fn stop(&self, count: usize) -> Result<Figures> {
        let before = self.cpu.as_ref().map_err(|error| anyhow!("{error:#}"))?;
        Ok(Figures {
            count,
            seconds: self.started.elapsed().as_secs_f64(),
            cpu_seconds: (cpu()? - *before).as_secs_f64(),
            latencies_us: Vec::new(),
        })
    }
}

/// User and system time of this process so far, in steps of 10 ms.
fn cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    // The command name, in parentheses, may hold spaces.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}

/// Resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib = line.split_whitespace().nth(1).context("no figure in VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// The round with the median rate.
pub(crate) fn median(mut rounds: Vec<Figures>) -> Figures {
    rounds.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    let middle = rounds.len() / 2;
    rounds.into_iter().nth(middle).unwrap_or_default()
}
