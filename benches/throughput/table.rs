//! The table that is printed: rates, CPU, and their ratio to the bare loop of the same run.

use std::fmt::Write as _;

use crate::measure::Figures;
use crate::memory::Memory;

#[derive(Default)]
pub(crate) struct Table(String);

impl Table {
    /// Begins a comparison; the one before it is printed, whatever becomes of the others.
    pub(crate) fn section(&mut self, title: &str, count: usize) {
        self.print();
        let _ = writeln!(self.0, "\n### {title} ({count})\n");
        let head = if title.starts_with("round trip") {
            "| | p50 µs | p99 µs | to bare | CPU µs |\n|---|---:|---:|---:|---:|"
        } else {
            "| | tasks/s | to bare | CPU µs/task |\n|---|---:|---:|---:|"
        };
        let _ = writeln!(self.0, "{head}");
    }

    pub(crate) fn row(&mut self, who: &str, figures: &Figures, bare: &Figures) {
        let ratio = figures.rate() / bare.rate();
        let _ = writeln!(
            self.0,
            "| {who} | {:.0} | {ratio:.2} | {:.1} |",
            figures.rate(),
            figures.cpu_us()
        );
    }

    pub(crate) fn latency(&mut self, who: &str, figures: &Figures, bare: &Figures) {
        let (p50, p99) = (figures.percentile_us(0.5), figures.percentile_us(0.99));
        let ratio = p50 / bare.percentile_us(0.5);
        let cpu = figures.cpu_us();
        let _ = writeln!(self.0, "| {who} | {p50:.0} | {p99:.0} | {ratio:.2} | {cpu:.0} |");
    }

    pub(crate) fn memory(&mut self, memory: &Memory) {
        self.print();
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let _ = writeln!(self.0, "\n### resident memory of celeriac-worker\n");
        let _ = writeln!(self.0, "| | MB |\n|---|---:|");
        let _ = writeln!(self.0, "| idle | {:.1} |", mb(memory.idle_bytes));
        let _ = writeln!(
            self.0,
            "| {} sleeping async tasks | {:.1} |",
            memory.sleeping,
            mb(memory.sleeping_bytes)
        );
    }

    pub(crate) fn note(&mut self, note: &str) {
        let _ = writeln!(self.0, "| {note} | | | |");
    }

    /// Prints what was not printed yet.
    pub(crate) fn print(&mut self) {
        print!("{}", std::mem::take(&mut self.0));
    }
}
