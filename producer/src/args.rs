//! What can be said on the command line.

use std::path::PathBuf;
use std::time::Duration;

use celeriac::client::config::parse_duration;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::chord::{self, ProgressArgs};
use crate::control_args::{
    CONTROL_MORE, ControlArgs, INSPECT_MORE, InspectArgs, REVOKE_MORE, RevokeArgs,
};
use crate::dlq::{self, args::DlqCommand};
use crate::events::{self, args::EventsArgs};

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  a task failed, or a worker replied with an error
  2  wrong options, settings or input
  3  the broker cannot be reached
  4  no result, or no reply of a worker, within the timeout
  5  not sent: no such queue, too large, refused by the broker, or sent before (--unique)
  130  interrupted by Ctrl-C
  Of several, as with --from, the worst is told: 3, 2, 5, 4, 1.";

const EXAMPLES: &str = "\
Examples:
  Send a task and go on:
      celeriac call add --args '[2, 2]'

  Send it and wait for its result:
      celeriac call add --args '[2, 2]' --wait

  Keyword arguments, another queue, ten minutes from now:
      celeriac call send_email --kwargs '{\"to\": \"a@b.c\", \"subject\": \"Hi\"}' \\
          -Q mail --countdown 10m

  A task for Python workers of an existing Celery deployment:
      celeriac call proj.tasks.report -Q celery --serializer json

  Once a day, whichever machine comes first:
      celeriac call report --args '[2030]' --unique 24h

  Many, one JSON object a line:
      seq 100000 | sed 's/.*/{\"task\": \"square\", \"args\": [&]}/' | celeriac call --from -

  Tasks that build on one another:
      celeriac chain 'add(2, 2)' 'multiply(3)' 'power(2)' --wait
      celeriac chord 'square(1)' 'square(2)' --body sum_task --wait

  How far is a chord that was sent before:
      celeriac progress 0d6ad1c6-4a0c-4d3a-9c5c-0a5c2ab6a2f1

  What do the workers do, and away with a task:
      celeriac inspect active
      celeriac revoke 8f3c1b1e-3a0c-4f3c-9c0a-0d7a1c8f5e21

  What happens just now:
      celeriac events --enable

  What could not be run, and another try for it:
      celeriac dlq list
      celeriac dlq requeue --reason unknown-task

  Is the broker there?
      celeriac ping";

const CALL_MORE: &str = "\
JSON:
  Arguments are JSON as Celery speaks it: integers of any length, and objects such as
  {\"__type__\": \"datetime\", \"__value__\": \"2030-01-02T03:04:05+00:00\"} for dates, decimals,
  UUIDs and bytes.

Lines of --from:
  {\"task\": \"add\", \"args\": [2, 2]}
  {\"task\": \"report\", \"kwargs\": {\"year\": 2030}, \"options\": {\"priority\": 3}}
  \"options\" has the names of the options here with underscores; they win over the ones given here.
  A line that is wrong is told with its number and left out; the others are sent.

Exit codes:
  0  success
  1  a task failed, or a worker replied with an error
  2  wrong options, settings or input
  3  the broker cannot be reached
  4  no result, or no reply of a worker, within the timeout
  5  not sent: no such queue, too large, refused by the broker, or sent before (--unique)
  130  interrupted by Ctrl-C
  Of several, as with --from, the worst is told: 3, 2, 5, 4, 1.";

const WORKFLOW_MORE: &str = "\
Workflows:
  add(2, 2)                     a task; arguments are JSON, or name=JSON
  add(2, 2) | multiply(3)       a chain: multiply(4, 3) runs next
  report.si()                   a task that does not take the result before it
  group(square(2), square(3))   side by side; what follows a group gets the list
  chord(square(2), sum_task)    the last one is the body
  map(square, [1, 2])           one task that runs over the items; starmap spreads them
  chunks(add, [[1, 2]], 10)     tasks that run over 10 items each
  They may stand inside of one another, and parentheses group.

Examples:
  celeriac chain 'add(2, 2)' 'multiply(3)' 'power(2)' --wait
  celeriac group 'square(2)' 'square(3)' 'square(4)' 'double(5)' --wait
  celeriac chord 'square(0)' 'square(1)' 'square(2)' --body sum_task --wait
  celeriac graph 'group(square(2), square(3)) | sum_task' --format dot | dot -Tsvg > sums.svg";

const STATES_MORE: &str = "\
States:
  Those who wait for a workflow know the states of its tasks: a run with --wait --graph draws them
  at its end. They can be drawn later from what was shown: the workflow with the ids of its tasks,
  and lines that tell of them, of a run with --json --wait or of the events:
      celeriac events --enable --json > told.json &
      celeriac chord 'square(1)' 'square(2)' --body sum_task --json --graph json > sent.json
      celeriac graph --from sent.json --states told.json
  A task of which nothing is told has a question mark. Callbacks and errbacks always have one: they
  report to nobody, and get their ids from the workers that call them.";

const TREE_MORE: &str = "\
The tree, in JSON or TOML:
  \"add(2, 2) | multiply(3)\"                 an expression, see celeriac chain --help
  {\"task\": \"add\", \"args\": [2, 2]}         a task, also with kwargs, options, immutable
  {\"chain\": [..]}                          steps
  {\"group\": [..]}                          members
  {\"chord\": [..], \"body\": ..}            header and body
  {\"map\": \"square\", \"items\": [1, 2]}     also starmap, and chunks with size
  Each object may have options (queue, countdown, priority, ...), link and link_error.

Examples:
  echo '{\"chain\": [\"add(2, 2)\", \"multiply(3)\"]}' | celeriac run - --wait
  celeriac run nightly.toml";

/// Sends tasks to Celeriac and Celery workers over RabbitMQ.
#[derive(Debug, Parser)]
#[command(name = "celeriac", version, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of all commands.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The broker's URL; several, with commas or repeated, are tried in turn.
    ///
    /// [env: CELERIAC_BROKER_URL] [default: amqp://guest:guest@localhost:5672//]. A password in an
    /// option can be seen in the list of processes; in the environment or a file it cannot.
    #[arg(short, long, value_name = "URL", global = true, help_heading = "Connection")]
    pub(crate) broker: Vec<String>,

    /// A TOML file with settings. [env: CELERIAC_CONFIG]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Connection")]
    pub(crate) config: Option<PathBuf>,

    /// Keep trying while the broker cannot be reached, instead of giving up at once.
    #[arg(long, global = true, help_heading = "Connection")]
    pub(crate) retry: bool,

    /// One JSON object a line on standard output, for programs.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,

    /// Log to standard error: warnings, -vv what happens, -vvv everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Output")]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send one task, or many from a file.
    #[command(after_long_help = CALL_MORE)]
    Call(Box<CallArgs>),
    /// Send tasks that run one after the other, each with the result of the one before.
    #[command(after_long_help = WORKFLOW_MORE)]
    Chain(Box<ChainArgs>),
    /// Send tasks that run side by side.
    #[command(after_long_help = WORKFLOW_MORE)]
    Group(Box<GroupArgs>),
    /// Send tasks that run side by side, and one that gets the list of their results.
    #[command(after_long_help = WORKFLOW_MORE)]
    Chord(Box<ChordArgs>),
    /// Send a workflow from a file or from standard input.
    #[command(after_long_help = TREE_MORE)]
    Run(Box<RunArgs>),
    /// Show how far a chord is, until it is over.
    #[command(after_long_help = chord::MORE)]
    Progress(ProgressArgs),
    /// Draw a workflow without sending it.
    #[command(after_long_help = format!("{STATES_MORE}\n\n{WORKFLOW_MORE}"))]
    Graph(GraphArgs),
    /// Tell workers to change: limits, slots, queues, shutdown.
    #[command(after_long_help = CONTROL_MORE)]
    Control(Box<ControlArgs>),
    /// Ask workers what they do.
    #[command(after_long_help = INSPECT_MORE)]
    Inspect(Box<InspectArgs>),
    /// Keep tasks or whole workflows from running.
    #[command(after_long_help = REVOKE_MORE)]
    Revoke(Box<RevokeArgs>),
    /// Look at messages that could not be run, send them again, or drop them.
    #[command(after_long_help = dlq::args::MORE)]
    Dlq {
        #[command(subcommand)]
        command: DlqCommand,
    },
    /// Show what workers and clients tell, as it happens.
    #[command(after_long_help = events::args::MORE)]
    Events(EventsArgs),
    /// Ask the broker for an answer and measure how long it takes.
    Ping,
    /// Write a completion script for a shell.
    ///
    /// For bash: celeriac completions bash > /etc/bash_completion.d/celeriac
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// What to call, how, and whether to wait.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The task's name.
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    pub(crate) name: Option<String>,

    /// Positional arguments: a JSON array.
    #[arg(long, value_name = "JSON", conflicts_with = "from")]
    pub(crate) args: Option<String>,

    /// Keyword arguments: a JSON object.
    #[arg(long, value_name = "JSON", conflicts_with = "from")]
    pub(crate) kwargs: Option<String>,

    /// Many calls, one JSON object a line, from this file or, with "-", from standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,

    /// Wait for the result and show it.
    #[arg(long, conflicts_with = "ignore_result")]
    pub(crate) wait: bool,

    /// How long to wait for a result, such as 30s or 5m.
    #[arg(long, value_name = "DURATION", requires = "wait", default_value = "60s")]
    #[arg(value_parser = parse_duration)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) options: OptionArgs,
}

/// Steps of a chain.
#[derive(Debug, Args)]
pub(crate) struct ChainArgs {
    /// The steps in order, such as 'add(2, 2)' 'multiply(3)'.
    #[arg(required = true, value_name = "STEP")]
    pub(crate) steps: Vec<String>,

    #[command(flatten)]
    pub(crate) how: WorkflowArgs,
}

/// Members of a group.
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    /// The members, such as 'square(2)' 'square(3)'.
    #[arg(required = true, value_name = "MEMBER")]
    pub(crate) members: Vec<String>,

    #[command(flatten)]
    pub(crate) how: WorkflowArgs,
}

/// Header and body of a chord.
#[derive(Debug, Args)]
pub(crate) struct ChordArgs {
    /// The header: what runs side by side.
    #[arg(value_name = "MEMBER")]
    pub(crate) header: Vec<String>,

    /// What runs when all of the header has ended, with the list of its results.
    #[arg(long, value_name = "WORKFLOW")]
    pub(crate) body: String,

    #[command(flatten)]
    pub(crate) how: WorkflowArgs,
}

/// Where a workflow is written.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A file that ends in .json or .toml, or "-" for JSON from standard input.
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) how: WorkflowArgs,
}

/// What to draw, and how.
#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// The workflow, such as 'add(2, 2) | multiply(3)'.
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    pub(crate) workflow: Option<String>,

    /// A file that ends in .json or .toml, or "-" for JSON from standard input; also one that a run
    /// with --json --graph json has written.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,

    /// Draw the states of the tasks, too: a file with lines of --json, or "-" for standard input.
    #[arg(long, value_name = "FILE", requires = "from", conflicts_with = "workflow")]
    pub(crate) states: Option<PathBuf>,

    /// The language of the drawing.
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
    pub(crate) format: GraphFormat,
}

/// Languages of drawing programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GraphFormat {
    /// Mermaid, which Markdown viewers draw.
    Mermaid,
    /// DOT, for Graphviz.
    Dot,
    /// No drawing but the workflow itself, with the ids of its tasks if it was sent.
    Json,
}

/// How a workflow is sent, and whether to wait.
#[derive(Debug, Args)]
pub(crate) struct WorkflowArgs {
    /// Wait for the result and show it; on a terminal, a bar counts the tasks that have ended.
    #[arg(long)]
    pub(crate) wait: bool,

    /// How long to wait for the result, such as 30s or 5m.
    #[arg(long, value_name = "DURATION", requires = "wait", default_value = "60s")]
    #[arg(value_parser = parse_duration)]
    pub(crate) timeout: Duration,

    /// Draw the workflow at the end, with the states of its tasks if they are awaited.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) graph: Option<GraphFormat>,
}

/// Celery's call options.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Call options")]
pub(crate) struct OptionArgs {
    /// The queue. [default: the task's route, else the setting task_default_queue]
    #[arg(short = 'Q', long)]
    pub(crate) queue: Option<String>,

    /// The exchange, instead of straight to a queue.
    #[arg(long)]
    pub(crate) exchange: Option<String>,

    /// The routing key at that exchange.
    #[arg(long, value_name = "KEY")]
    pub(crate) routing_key: Option<String>,

    /// Run it after this long.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "eta")]
    pub(crate) countdown: Option<Duration>,

    /// Run it at this time, such as 2030-01-02T03:04:05Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) eta: Option<String>,

    /// Do not run it any more after this long, or after this time.
    #[arg(long, value_name = "DURATION|TIME")]
    pub(crate) expires: Option<String>,

    /// The priority, 0 to 255; the queue must know priorities.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) priority: Option<u8>,

    /// The task's id. [default: a random UUID]
    #[arg(long, value_name = "ID", conflicts_with = "from")]
    pub(crate) task_id: Option<String>,

    /// How the arguments are written: msgpack or json.
    #[arg(long, value_name = "NAME", value_parser = ["msgpack", "json"])]
    pub(crate) serializer: Option<String>,

    /// How the arguments are compressed: gzip or zstd.
    #[arg(long, value_name = "NAME", value_parser = ["gzip", "zlib", "zstd"])]
    pub(crate) compression: Option<String>,

    /// Do not send a result.
    #[arg(long)]
    pub(crate) ignore_result: bool,

    /// The name that logs and monitors show.
    #[arg(long, value_name = "NAME")]
    pub(crate) shadow: Option<String>,

    /// Stop the task after it has run for this long.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) time_limit: Option<Duration>,

    /// Ask the task to stop after it has run for this long.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) soft_time_limit: Option<Duration>,

    /// Send it only if the same call was not sent within this time before, such as 10m or 24h.
    ///
    /// The same are calls of the task with the same arguments, or with the same --unique-key.
    /// RabbitMQ alone keeps this, so it holds for all programs and machines: of a cron job on
    /// three machines one call is sent. The others end with exit code 5 and tell the id of the one
    /// that was sent. The time begins with the sending; when the task ends does not matter. To
    /// send a call again whose confirm was lost, give both the same --task-id.
    #[arg(long, value_name = "WINDOW", value_parser = parse_duration)]
    pub(crate) unique: Option<Duration>,

    /// What makes calls the same, instead of their arguments; with --unique.
    #[arg(long, value_name = "KEY", requires = "unique")]
    pub(crate) unique_key: Option<String>,

    /// A message header of your own; repeatable. The value is text.
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a header is written KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("celeriac").chain(line.iter().copied()))
    }

    #[test]
    fn the_options_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for line in [
            &["call"][..],
            &["call", "add", "--from", "-"],
            &["call", "--from", "-", "--args", "[]"],
            &["call", "--from", "-", "--task-id", "x"],
            &["call", "add", "--wait", "--ignore-result"],
            &["call", "add", "--timeout", "3s"],
            &["call", "add", "--countdown", "3s", "--eta", "2030-01-01"],
            &["call", "add", "--priority", "256"],
            &["call", "add", "--serializer", "pickle"],
            &["call", "add", "--header", "no-value"],
            &["call", "add", "--countdown", "soon"],
            &["call", "add", "--unique", "soon"],
            &["call", "add", "--unique"],
            &["call", "add", "--unique-key", "k"],
            &["chain", "add(1, 1)", "--unique", "1h"],
            &["chain"],
            &["group", "--timeout", "3s", "a"],
            &["chord", "a"],
            &["run"],
            &["graph"],
            &["graph", "a", "--format", "png"],
            &["graph", "a", "--states", "told.json"],
            &["progress"],
            &["progress", "id", "--timeout", "soon"],
            &["completions", "dos"],
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn common_options_stand_before_or_after_the_command() {
        let before = parse(&["--json", "-b", "amqp://a", "ping"]).unwrap();
        let after = parse(&["ping", "--json", "-b", "amqp://a"]).unwrap();
        assert!(before.common.json && after.common.json);
        assert_eq!(before.common.broker, after.common.broker);
    }
}
