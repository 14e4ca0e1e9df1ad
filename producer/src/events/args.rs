//! What can be said to `celeriac events`.

use clap::Args;

pub(crate) const MORE: &str = "\
Workers tell that they are there by themselves; of tasks they tell if they run with --task-events,
or once somebody has asked for it: --enable, celeriac control enable_events, Flower.

Examples:
  celeriac events --enable
  celeriac events --type worker
  celeriac events --type task-failed,task-retried --task 'mail.*'
  celeriac events --json | jq 'select(.runtime > 1)'

Exit codes:
  0  interrupted, or --limit has been reached
  3  the broker cannot be reached
  5  the broker does not let us listen";

/// Which events to show.
#[derive(Debug, Default, Args)]
pub(crate) struct EventsArgs {
    /// Only these types, such as task-failed; task and worker stand for all of theirs. Repeated or
    /// with commas.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub(crate) types: Vec<String>,

    /// Only of these tasks, by name or id; * at the end stands for any letters. Repeated or with
    /// commas.
    #[arg(long = "task", value_name = "TASK", value_delimiter = ',')]
    pub(crate) tasks: Vec<String>,

    /// Ask the workers for the events of tasks.
    #[arg(long)]
    pub(crate) enable: bool,

    /// Stop after so many events.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit: Option<u64>,
}
