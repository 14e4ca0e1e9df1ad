//! The figures of the faults, as a table that can be put into a page.

use std::time::Duration;

use crate::fault::Fault;
use crate::strike::Reruns;

/// What became of the tasks of one fault.
pub(crate) struct Row {
    pub(crate) fault: Fault,
    pub(crate) times: u64,
    pub(crate) tasks: u64,
    /// Sends that ended without a confirm and were made again by the producer.
    pub(crate) sent_again: usize,
    /// Why tasks ran more than once, and how often.
    pub(crate) reruns: Reruns,
    /// The longest time without a result after each fault.
    pub(crate) pauses: Vec<Duration>,
    /// From the beginning and from the end of each fault until all who were struck worked again.
    pub(crate) recoveries: Vec<(Duration, Duration)>,
    pub(crate) took: Duration,
}

pub(crate) fn print(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!(
        "\n| fault | times | tasks | lost | ran again | had been running | had ended | began cut \
         off | were sent twice | sends repeated | longest pause | works again after its beginning \
         | after its end | in all |"
    );
    println!("|---|{}", "---:|".repeat(13));
    for row in rows {
        let Row { times, tasks, reruns, sent_again, .. } = row;
        let longest = |times: &mut dyn Iterator<Item = Duration>| {
            times.max().map_or(0.0, |time| time.as_secs_f64())
        };
        println!(
            "| {} | {times} | {tasks} | 0 | {} | {} | {} | {} | {} | {sent_again} | {:.1} s \
             | {:.1} s | {:.1} s | {:.1} s |",
            row.fault.name(),
            reruns.all(),
            reruns.running,
            reruns.ended,
            reruns.later,
            reruns.sent_twice,
            longest(&mut row.pauses.iter().copied()),
            longest(&mut row.recoveries.iter().map(|(begun, _)| *begun)),
            longest(&mut row.recoveries.iter().map(|(_, ended)| *ended)),
            row.took.as_secs_f64()
        );
    }
}
