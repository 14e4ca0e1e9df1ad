//! What can be said to workers on the command line: the words of `celery control` and
//! `celery inspect`.

use std::time::Duration;

use celeriac::client::config::parse_duration;
use clap::{Args, Subcommand, ValueEnum};

pub(crate) const CONTROL_MORE: &str = "\
Examples:
  celeriac control rate_limit tasks.mail 100/m
  celeriac control -d worker1@host pool_grow 10
  celeriac control --pattern 'gpu*' --matcher glob add_consumer training
  celeriac control -d worker1@host shutdown

Exit codes:
  0  every worker that replied has done it
  1  a worker replied with an error
  3  the broker cannot be reached
  4  no worker replied within the timeout";

pub(crate) const INSPECT_MORE: &str = "\
Examples:
  celeriac inspect ping
  celeriac inspect active --json | jq
  celeriac inspect -d worker1@host query_task 8f3c1b1e-3a0c-4f3c-9c0a-0d7a1c8f5e21

Exit codes:
  0  a worker replied
  1  a worker replied with an error
  3  the broker cannot be reached
  4  no worker replied within the timeout";

pub(crate) const REVOKE_MORE: &str = "\
A revoked task does not start any more; its caller gets REVOKED. What runs goes on, unless
--terminate ends it. The broker keeps what is revoked for workers that start later, unless it is
for some workers only: they have to reply.

Examples:
  celeriac revoke 8f3c1b1e-3a0c-4f3c-9c0a-0d7a1c8f5e21
  celeriac revoke --terminate --signal SIGKILL ID1 ID2
  celeriac revoke --root ID          whatever is left of a workflow, by its first task's id
  celeriac revoke --group ID         the tasks of a group, or of the header of a chord
  celeriac revoke --chord ID         a chord: its parts, and its body, whose caller gets REVOKED
  celeriac revoke --stamp tenant=acme

Exit codes:
  0  revoked, whether a worker replied or not
  1  a worker replied with an error
  3  the broker cannot be reached
  4  it is for some workers only, and none of them replied within the timeout
  5  the broker does not keep it, and no worker replied";

/// Which workers, and how long to wait for them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Workers")]
pub(crate) struct Target {
    /// Only these workers, by node name; repeated or with commas. [default: all]
    #[arg(short, long, value_name = "HOST", value_delimiter = ',', global = true)]
    pub(crate) destination: Vec<String>,

    /// Only workers whose node name matches.
    #[arg(long, requires = "matcher", conflicts_with = "destination", global = true)]
    pub(crate) pattern: Option<String>,

    /// The language of the pattern: a shell pattern, or a regular expression.
    #[arg(long, value_enum, requires = "pattern", global = true)]
    pub(crate) matcher: Option<MatcherName>,

    /// How long to wait for the next reply.
    #[arg(short, long, value_name = "DURATION", default_value = "1s", global = true)]
    #[arg(value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

/// Languages of patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MatcherName {
    /// Shell pattern for the whole name.
    Glob,
    /// Regular expression for the beginning of the name.
    Pcre,
}

/// A command that changes workers.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) command: ControlCommand,
}

/// Celery's names.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub(crate) enum ControlCommand {
    /// Consume one queue more.
    AddConsumer {
        /// The queue; it is declared if it does not exist.
        queue: String,
        /// An exchange to bind it to.
        exchange: Option<String>,
        /// The exchange's type. [default: direct]
        exchange_type: Option<String>,
        /// The routing key. [default: the queue's name]
        routing_key: Option<String>,
    },
    /// Consume a queue no more.
    CancelConsumer {
        /// The queue.
        queue: String,
    },
    /// Other bounds for workers that scale by themselves.
    Autoscale {
        /// The most slots.
        max: u32,
        /// The fewest slots.
        min: u32,
    },
    /// More slots.
    PoolGrow {
        /// How many.
        #[arg(default_value_t = 1)]
        n: u32,
    },
    /// Fewer slots; what runs is not disturbed.
    PoolShrink {
        /// How many.
        #[arg(default_value_t = 1)]
        n: u32,
    },
    /// How often a task may start in each worker.
    RateLimit {
        /// The task's name.
        task_name: String,
        /// Such as 10/s, 100/m or 1000/h; 0 for no limit.
        rate_limit: String,
    },
    /// How long a task may run.
    TimeLimit {
        /// The task's name.
        task_name: String,
        /// Seconds until it is asked to end.
        soft_secs: f64,
        /// Seconds until it is ended.
        hard_secs: Option<f64>,
    },
    /// Revoke tasks; see also: celeriac revoke.
    Revoke {
        /// Ids of tasks.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Revoke tasks, and end those that run.
    Terminate {
        /// The signal for tasks in processes of their own, such as SIGKILL.
        signal: String,
        /// Ids of tasks.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Revoke tasks by their stamps.
    RevokeByStampedHeaders {
        /// Stamps, NAME=VALUE.
        #[arg(required = true)]
        stamps: Vec<String>,
    },
    /// Send the events of tasks from now on; see also: celeriac events.
    EnableEvents,
    /// Send the events of tasks no more.
    DisableEvents,
    /// Send a heartbeat event now.
    Heartbeat,
    /// Restart the pool of Celery's workers.
    PoolRestart,
    /// Finish what runs, and exit. Nobody replies to it.
    Shutdown,
}

/// A question to workers.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) command: InspectCommand,
}

/// Celery's names.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub(crate) enum InspectCommand {
    /// Who is there?
    Ping,
    /// Tasks that run.
    Active,
    /// Tasks that wait for a slot.
    Reserved,
    /// Tasks that wait for their date.
    Scheduled,
    /// Ids of revoked tasks.
    Revoked,
    /// Names of the tasks that a worker knows.
    Registered {
        /// Attributes to show, such as `rate_limit`.
        attributes: Vec<String>,
    },
    /// Where tasks are.
    QueryTask {
        /// Ids of tasks.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Queues that are consumed.
    ActiveQueues,
    /// Figures of the worker.
    Stats,
    /// Settings, without secrets.
    Conf,
    /// The worker described in some lines.
    Report,
    /// The logical clock.
    Clock,
    /// Memory in use.
    Memsample,
}

/// What to revoke, and how.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// Ids of tasks, or of what --root, --group and --chord say.
    #[arg(required_unless_present = "stamps")]
    pub(crate) ids: Vec<String>,

    /// End what runs as well.
    #[arg(long)]
    pub(crate) terminate: bool,

    /// The signal for tasks in processes of their own. [default: SIGTERM]
    #[arg(long, requires = "terminate")]
    pub(crate) signal: Option<String>,

    /// The ids are those of the first tasks of workflows.
    #[arg(long, conflicts_with = "group")]
    pub(crate) root: bool,

    /// The ids are those of groups, or of the headers of chords.
    #[arg(long)]
    pub(crate) group: bool,

    /// The ids are those of chords, which `celeriac chord` tells. No worker needs to run.
    #[arg(long, conflicts_with_all = ["root", "group", "terminate", "stamps", "destination",
        "pattern"])]
    pub(crate) chord: bool,

    /// Whatever has this stamp, NAME=VALUE; repeatable.
    #[arg(long = "stamp", value_name = "NAME=VALUE", value_parser = stamp)]
    pub(crate) stamps: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) target: Target,
}

fn stamp(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a stamp is written NAME=VALUE".to_owned()),
    }
}
