//! The figures of the faults, as a table that can be put into a page.

use std::time::Duration;

use crate::fault::Fault;

/// What became of the tasks of one fault.
pub(crate) struct Row {
    pub(crate) fault: Fault,
    pub(crate) times: u64,
    pub(crate) tasks: u64,
    /// Sends that ended without a confirm and were made again by the producer.
    pub(crate) sent_again: usize,
    /// Tasks that ran more than once.
    pub(crate) duplicates: usize,
    /// The longest time without a result after each fault.
    pub(crate) pauses: Vec<Duration>,
    /// The time from the end of each fault, when the broker is there again, to the next result.
    pub(crate) recoveries: Vec<Duration>,
    pub(crate) took: Duration,
}

pub(crate) fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!(
        "\n| fault | times | tasks | lost | run twice | sent again | longest pause | recovery \
         | in all |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for row in rows {
        let longest = |times: &[Duration]| times.iter().max().map_or(0.0, Duration::as_secs_f64);
        println!(
            "| {} | {} | {} | 0 | {} | {} | {:.1} s | {:.1} s | {:.1} s |",
            row.fault.name(),
            row.times,
            row.tasks,
            row.duplicates,
            row.sent_again,
            longest(&row.pauses),
            longest(&row.recoveries),
            row.took.as_secs_f64()
        );
    }
}
