//! How far a run over many lines is: a bar where a person looks at it, and counts.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use celeriac::protocol::Map;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) not_sent: u64,
    pub(crate) malformed: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) timed_out: u64,
}

/// The bar, hidden unless standard error is a terminal, and the clock of the run.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// `bytes_total` is the size of the input, if it is known.
    pub(crate) fn start(bytes_total: Option<u64>) -> Self {
        let target = if stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let template = match bytes_total {
            Some(_) => "{bar:30} {percent:>3} %  {msg}",
            None => "{spinner} {msg}",
        };
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(bytes_total, target).with_style(style);
        Self { bar, started: Instant::now() }
    }

    /// Shows how far the run is after `bytes` more of its input.
    pub(crate) fn advance(&self, bytes: u64, counts: &Counts) {
        self.bar.inc(bytes);
        self.bar.set_message(format!("{} sent, {:.0}/s", counts.sent, self.rate(counts)));
    }

    /// Runs `print` without the bar getting into the way.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// The counts as a sentence.
    pub(crate) fn summary(&self, counts: &Counts, is_waiting: bool) -> String {
        let seconds = self.elapsed().as_secs_f64();
        let mut summary =
            format!("{} sent in {seconds:.1} s ({:.0}/s)", counts.sent, self.rate(counts));
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                summary.push_str(&format!(", {count} {what}"));
            }
        };
        add(counts.not_sent, "not sent");
        add(counts.malformed, "malformed");
        if is_waiting {
            summary.push_str(&format!(
                ": {} succeeded, {} failed, {} timed out",
                counts.succeeded, counts.failed, counts.timed_out
            ));
        }
        summary
    }

    /// The counts for programs.
    pub(crate) fn object(&self, counts: &Counts) -> Map {
        let mut object = Map::new();
        object.push("sent", counts.sent);
        object.push("not_sent", counts.not_sent);
        object.push("malformed", counts.malformed);
        object.push("succeeded", counts.succeeded);
        object.push("failed", counts.failed);
        object.push("timed_out", counts.timed_out);
        object.push("elapsed_s", self.elapsed().as_secs_f64());
        object.push("sent_per_s", self.rate(counts));
        object
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tasks sent in a second.
    fn rate(&self, counts: &Counts) -> f64 {
        counts.sent as f64 / self.elapsed().as_secs_f64().max(0.001)
    }
}
