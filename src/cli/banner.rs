//! What a worker says about itself at its start.

use std::fmt;

use tracing::info;

/// The facts of the banner.
#[derive(Debug)]
pub(super) struct Banner<'a> {
    pub(super) hostname: &'a str,
    /// With the password hidden.
    pub(super) brokers: Vec<String>,
    /// `None` for one without a parent.
    pub(super) processes: Option<usize>,
    /// In each of them, like the numbers below.
    pub(super) concurrency: usize,
    pub(super) blocking_slots: usize,
    pub(super) prefetch_multiplier: u32,
    /// Whether events of tasks are sent without being asked for.
    pub(super) task_events: bool,
    pub(super) queues: &'a [String],
    pub(super) tasks: &'a [&'static str],
}

impl Banner<'_> {
    /// Says the same as one log event.
    pub(super) fn log(&self) {
        info!(
            hostname = self.hostname,
            version = env!("CARGO_PKG_VERSION"),
            broker = self.brokers.join(", "),
            processes = self.processes.unwrap_or(1),
            concurrency = self.concurrency,
            blocking_slots = self.blocking_slots,
            prefetch_multiplier = self.prefetch_multiplier,
            task_events = self.task_events,
            queues = self.queues.join(", "),
            tasks = self.tasks.join(", "),
            "starting"
        );
    }
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n {} · celeriac {}\n", self.hostname, env!("CARGO_PKG_VERSION"))?;
        writeln!(f, " [config]")?;
        for broker in &self.brokers {
            writeln!(f, " .> broker:      {broker}")?;
        }
        if let Some(processes) = self.processes {
            writeln!(f, " .> processes:   {processes}")?;
        }
        let (slots, blocking) = (self.concurrency, self.blocking_slots);
        writeln!(f, " .> concurrency: {slots} async, {blocking} blocking")?;
        writeln!(f, " .> prefetch:    {} a slot", self.prefetch_multiplier)?;
        let events = if self.task_events { "on" } else { "off until somebody asks (-E: on)" };
        writeln!(f, " .> task events: {events}")?;
        writeln!(f, "\n [queues]")?;
        for queue in self.queues {
            writeln!(f, " .> {queue}")?;
        }
        writeln!(f, "\n [tasks]")?;
        for task in self.tasks {
            writeln!(f, " . {task}")?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_all_that_an_operator_asks_first() {
        let queues = ["celeriac".to_owned(), "mail".to_owned()];
        let banner = Banner {
            hostname: "celeriac@box",
            brokers: vec!["amqp://me:***@rabbit:5672//".to_owned()],
            processes: Some(4),
            concurrency: 100,
            blocking_slots: 2,
            prefetch_multiplier: 4,
            task_events: true,
            queues: &queues,
            tasks: &["add", "multiply"],
        };
        let text = banner.to_string();
        for line in [
            " celeriac@box · celeriac ",
            " .> broker:      amqp://me:***@rabbit:5672//",
            " .> processes:   4",
            " .> concurrency: 100 async, 2 blocking",
            " .> prefetch:    4 a slot",
            " .> task events: on",
            " .> mail",
            " . multiply",
        ] {
            assert!(text.contains(line), "{line} is not in:{text}");
        }
    }
}
