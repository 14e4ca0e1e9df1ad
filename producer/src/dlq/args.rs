//! What can be said behind `celeriac dlq`.

use std::path::PathBuf;
use std::time::Duration;

use celeriac::client::config::parse_duration;
use clap::{Args, Subcommand};

pub(crate) const MORE: &str = "\
What cannot be run is parked in the queue <queue>.dead, with the reason in its headers:
  unknown-task, content-type, body, ...   a worker could not read or run it
  rejected                                a task or a consumer has rejected it
  delivery-limit                          its workers were lost again and again
  expired, maxlen                         it fell to a limit of its queue
What is no task is in celeriac.dead-letters.dead: --queue celeriac.dead-letters

Examples:
  celeriac dlq list --reason unknown-task --newer-than 1h
  celeriac dlq show 5f0c1c2e-...
  celeriac dlq requeue --task 'proj.mail.*'
  celeriac dlq export --queue celery --output dead.jsonl &&
    celeriac dlq drop --queue celery --older-than 1h     (not what was parked since the export)

Whoever looks at a message holds it for as long as the command runs, so that of two commands at
once each message is handled by one, and the other does not see it. A command that is killed while
it sends messages again can leave one of them in both places; none is lost.

Exit codes:
  0  success, also if nothing matches
  1  no such message (show), or not confirmed (drop)
  2  wrong options or settings
  3  the broker cannot be reached, or was lost: some of what was dropped may still be parked
  5  no such queue, some messages could not be sent and are still parked, or some could not be
     looked at, because others hold them or there are too many";

#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List parked messages, oldest first.
    List {
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Show everything about one message.
    Show {
        /// The task's id.
        id: String,
        /// The queue that it was in. [default: all queues of the settings]
        #[arg(short = 'Q', long, value_name = "QUEUE")]
        queue: Vec<String>,
    },
    /// Send messages to the queues that they were in, for another try.
    Requeue {
        #[command(flatten)]
        which: WhichArgs,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// Send them to this queue instead.
        #[arg(long, value_name = "QUEUE")]
        to: Option<String>,
    },
    /// Delete messages.
    Drop {
        #[command(flatten)]
        which: WhichArgs,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Write messages as one JSON object a line, without removing them.
    Export {
        #[command(flatten)]
        which: WhichArgs,
        /// The file. [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Which messages are meant.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which messages")]
pub(crate) struct WhichArgs {
    /// The queue that they were in; repeatable. [default: all queues of the settings]
    #[arg(short = 'Q', long, value_name = "QUEUE")]
    pub(crate) queue: Vec<String>,

    /// Parked for this reason; repeatable.
    #[arg(long, value_name = "WORD")]
    pub(crate) reason: Vec<String>,

    /// Calls of this task, or of all that begin like it: 'proj.*'; repeatable.
    #[arg(long, value_name = "NAME")]
    pub(crate) task: Vec<String>,

    /// The task's id; repeatable.
    #[arg(long, value_name = "ID")]
    pub(crate) id: Vec<String>,

    /// Parked longer ago than this, such as 1h.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) older_than: Option<Duration>,

    /// Parked not so long ago.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) newer_than: Option<Duration>,

    /// At most so many, the oldest. [default: no limit; for list, 100]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}
