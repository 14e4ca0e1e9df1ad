//! What can be said on the command line of a worker.
//!
//! Only syntax and help texts: settings are put together in [`Args::apply`], everything else is
//! done by the siblings.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::logging::{LogFormat, LogLevel};
use crate::client::{Config, ConfigError};

const EXAMPLES: &str = "\
Examples:
  Consume the default queue of a local broker:
      celeriac-worker

  Consume two queues of a broker elsewhere, 500 async tasks at once:
      celeriac-worker -b amqps://user:secret@rabbit/prod -Q images,mail -c 500

  Join the queue of an existing Celery deployment:
      celeriac-worker -Q celery

  Two workers on one machine, told apart by their names:
      celeriac-worker -n one@%h --pidfile /run/one.pid
      celeriac-worker -n two@%h --pidfile /run/two.pid

Settings:
  Everything that has no option here is a setting, with Celery's name where Celery has it. Settings
  come from the program, then a TOML file (--config, CELERIAC_CONFIG), then the environment
  (CELERIAC_ and the name in capitals, such as CELERIAC_BROKER_URL or CELERIAC_RESULT_EXPIRES),
  then the options here. A password in an option can be seen in the list of processes; in a file
  or in the environment it cannot.

Signals:
  TERM, INT   Stop consuming, give waiting messages back, finish what runs, exit with 0.
              The second one stops at once; what was running is delivered again elsewhere.
  QUIT        Stop at once. With the setting worker_soft_shutdown_timeout, what runs may finish
              within that time first; this holds for a second TERM or INT, too.
  With REMAP_SIGTERM=SIGQUIT in the environment, TERM means QUIT. With --processes, signals go to
  the parent, which stops its children, and the third one kills them.

Exit codes:
  0    stopped as told
  1    failed, or stopped at once
  2    wrong options or settings
  3    the broker cannot be reached
  110  a child of --processes is to be replaced (only its parent sees it)
  111  a child of --processes was shut down by remote control and is not to be replaced";

/// Runs tasks from RabbitMQ.
#[derive(Debug, Parser)]
#[command(name = "celeriac-worker", version, after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// The broker's URL; several, with commas or repeated, are tried in turn.
    ///
    /// Setting broker_url. [default: amqp://guest:guest@localhost:5672//]
    #[arg(short, long, value_name = "URL", help_heading = "Connection")]
    pub(super) broker: Vec<String>,

    /// Give messages to this worker only while those of a higher priority are busy.
    ///
    /// Setting worker_consumer_priority. [default: 0]
    #[arg(long, value_name = "NUMBER", help_heading = "Work", allow_negative_numbers = true)]
    pub(super) consumer_priority: Option<i32>,

    /// A TOML file with settings.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(super) config: Option<PathBuf>,

    /// The queues to consume, with commas or repeated. [default: celeriac]
    ///
    /// Queues that do not exist are created. The default is the setting task_default_queue.
    #[arg(short = 'Q', long, value_name = "QUEUES", value_delimiter = ',')]
    #[arg(help_heading = "Work", value_parser = name)]
    pub(super) queues: Vec<String>,

    /// How many async tasks run at once. [default: 100]
    ///
    /// Async tasks cost memory, not threads. Setting worker_concurrency.
    #[arg(short, long, value_name = "SLOTS", help_heading = "Work", value_parser = slots)]
    pub(super) concurrency: Option<usize>,

    /// How many blocking tasks run at once. [default: the number of processors]
    ///
    /// Each runs on a thread of its own. Setting worker_blocking_slots.
    #[arg(long, value_name = "SLOTS", help_heading = "Work", value_parser = slots)]
    pub(super) blocking_slots: Option<usize>,

    /// Start this many processes, each a whole worker with all its slots, under a parent.
    ///
    /// The parent replaces those that die, the first time at once. Their names are NAME-1@HOST,
    /// NAME-2@HOST and so on. Setting worker_processes. [default: one process without a parent]
    #[arg(long, value_name = "NUMBER", help_heading = "Processes", value_parser = slots)]
    pub(super) processes: Option<usize>,

    /// After how many tasks a child process stops warmly and is replaced. [default: never]
    ///
    /// For the children of --processes and those that run tasks with isolate = process. Setting
    /// worker_max_tasks_per_child.
    #[arg(long, value_name = "TASKS", help_heading = "Processes", value_parser = slots)]
    pub(super) max_tasks_per_child: Option<usize>,

    /// Beyond how much memory in RAM a child process is replaced. [default: never]
    ///
    /// Setting worker_max_memory_per_child.
    #[arg(long, value_name = "KIB", help_heading = "Processes", value_parser = slots)]
    pub(super) max_memory_per_child: Option<usize>,

    /// Let the slots follow the load: this many async ones, and as many blocking ones, at once.
    ///
    /// In place of --concurrency and --blocking-slots; with --processes, in each of them. Without
    /// MIN, and for 0, one slot of each kind stays.
    #[arg(long, value_name = "MAX,MIN", help_heading = "Work", value_parser = bounds)]
    #[arg(conflicts_with_all = ["concurrency", "blocking_slots"])]
    pub(super) autoscale: Option<(usize, usize)>,

    /// How many messages are held for each slot. [default: 4]
    ///
    /// More makes short tasks faster, less spreads long tasks better over workers. Setting
    /// worker_prefetch_multiplier.
    #[arg(long, value_name = "FACTOR", help_heading = "Work")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) prefetch_multiplier: Option<u32>,

    /// Send the events of tasks, for monitors such as Flower, which else ask for them.
    ///
    /// Setting worker_send_task_events.
    #[arg(short = 'E', long, help_heading = "Events")]
    pub(super) task_events: bool,

    /// Do not tell monitors that this worker is there.
    ///
    /// Setting worker_heartbeat_interval = false.
    #[arg(long, help_heading = "Events", conflicts_with = "heartbeat_interval")]
    pub(super) without_heartbeat: bool,

    /// How many seconds pass between two heartbeats for monitors. [default: 2]
    ///
    /// Setting worker_heartbeat_interval.
    #[arg(long, value_name = "SECONDS", help_heading = "Events", value_parser = seconds)]
    pub(super) heartbeat_interval: Option<Duration>,

    /// The worker's name in the fleet. [default: celeriac@%h]
    ///
    /// %h is this machine's full host name, %n its first part, %d the rest.
    #[arg(short = 'n', long, value_name = "NAME@HOST", help_heading = "Work", value_parser = name)]
    pub(super) hostname: Option<String>,

    /// The least severe messages that are logged. [default: info]
    ///
    /// The variables CELERIAC_LOG and RUST_LOG take finer filters, such as
    /// "info,celeriac::worker=debug"; this option wins over them.
    #[arg(short, long, value_name = "LEVEL", help_heading = "Log", ignore_case = true)]
    pub(super) loglevel: Option<LogLevel>,

    /// How the log is written, to standard error.
    #[arg(long, value_name = "FORMAT", help_heading = "Log", default_value = "human")]
    pub(super) log_format: LogFormat,

    /// A file that holds the process id while the worker runs.
    ///
    /// The worker refuses to start when another living process is in it.
    #[arg(long, value_name = "FILE", help_heading = "Work")]
    pub(super) pidfile: Option<PathBuf>,

    /// A file that is touched every ten seconds while the worker can do its work.
    ///
    /// For probes: find FILE -mmin -1 | grep -q . fails a minute after the last time. With
    /// --processes, each of them has its own, FILE-1, FILE-2 and so on. It is removed at the end.
    /// A third of the setting worker_liveness_timeout is how often.
    #[arg(long, value_name = "FILE", help_heading = "Work")]
    pub(super) health_file: Option<PathBuf>,
}

impl Args {
    /// Puts files, the environment and these options over the program's own settings.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        config.apply(self.config.as_deref())?;
        if !self.broker.is_empty() {
            config.set("broker_url", &self.broker.join(";"))?;
        }
        if let Some(slots) = self.concurrency {
            config.worker_concurrency = slots;
        }
        if let Some(slots) = self.blocking_slots {
            config.worker_blocking_slots = slots;
        }
        if let Some((_, min)) = self.autoscale {
            config.worker_concurrency = min.max(1);
            config.worker_blocking_slots = min.max(1);
        }
        config.worker_consumer_priority =
            self.consumer_priority.or(config.worker_consumer_priority);
        config.worker_processes = self.processes.or(config.worker_processes);
        let (tasks, kib) = (self.max_tasks_per_child, self.max_memory_per_child);
        config.worker_max_tasks_per_child = tasks.or(config.worker_max_tasks_per_child);
        config.worker_max_memory_per_child = kib.or(config.worker_max_memory_per_child);
        if let Some(factor) = self.prefetch_multiplier {
            config.worker_prefetch_multiplier = factor;
        }
        config.worker_send_task_events |= self.task_events;
        if self.without_heartbeat {
            config.worker_heartbeat_interval = None;
        }
        config.worker_heartbeat_interval =
            self.heartbeat_interval.or(config.worker_heartbeat_interval);
        Ok(())
    }
}

/// Reads a number of slots: one at least.
fn slots(text: &str) -> Result<usize, String> {
    let slots = text.parse().ok().filter(|slots| *slots > 0);
    slots.ok_or_else(|| "a whole number from 1 on is needed".to_owned())
}

/// Reads a time of some seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds >= 0.1);
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "a number of seconds from 0.1 on is needed".to_owned())
}

/// Reads `MAX,MIN` or `MAX`.
fn bounds(text: &str) -> Result<(usize, usize), String> {
    let (max, min) = text.split_once(',').unwrap_or((text, "0"));
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let wrong = || "two whole numbers are needed, such as 10,2".to_owned();
    let (max, min) = (number(max).ok_or_else(wrong)?, number(min).ok_or_else(wrong)?);
    if max == 0 || min > max {
        return Err(format!("at most {max} slots cannot be at least {}", min.max(1)));
    }
    Ok((max, min))
}

/// Reads a name that must not be empty.
fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("the name is empty".to_owned()) } else { Ok(text.to_owned()) }
}

impl ValueEnum for LogLevel {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self {
            Self::Trace => "trace".into(),
            Self::Debug => "debug".into(),
            Self::Info => "info".into(),
            Self::Warning => clap::builder::PossibleValue::new("warning").alias("warn"),
            Self::Error => "error".into(),
            Self::Critical => clap::builder::PossibleValue::new("critical").alias("fatal"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("worker").chain(line.split_whitespace()))
    }

    #[test]
    fn the_options_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn queues_and_brokers_are_repeated_or_separated_by_commas() {
        let args = parse("-Q a,b -Q c -b amqp://one,amqp://two -b amqp://three").unwrap();
        assert_eq!(args.queues, ["a", "b", "c"]);
        let mut config = Config::default();
        args.apply(&mut config).unwrap();
        assert_eq!(config.broker_url.len(), 3);
    }

    #[test]
    fn levels_are_taken_in_the_spelling_of_celery_too() {
        for (text, level) in [
            ("INFO", LogLevel::Info),
            ("WARNING", LogLevel::Warning),
            ("warn", LogLevel::Warning),
            ("CRITICAL", LogLevel::Critical),
            ("trace", LogLevel::Trace),
        ] {
            assert_eq!(parse(&format!("-l {text}")).unwrap().loglevel, Some(level));
        }
        assert!(parse("-l loud").is_err());
    }

    #[test]
    fn the_bounds_of_autoscale_are_the_most_and_the_least() {
        assert_eq!(parse("--autoscale 10,2").unwrap().autoscale, Some((10, 2)));
        assert_eq!(parse("--autoscale=10").unwrap().autoscale, Some((10, 0)));
        for line in ["2,10", "0,0", "a,b", "10,", "1,2,3", "10,2 -c 4"] {
            assert!(parse(&format!("--autoscale {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn events_are_switched_as_in_celery() {
        let config = |line: &str| {
            let mut config = Config::default();
            parse(line).unwrap().apply(&mut config).unwrap();
            (config.worker_send_task_events, config.worker_heartbeat_interval)
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(config(""), (false, seconds(2)));
        assert_eq!(config("-E --without-heartbeat"), (true, None));
        assert_eq!(config("--task-events --heartbeat-interval 5"), (true, seconds(5)));
    }

    #[test]
    fn zero_slots_and_empty_names_are_refused() {
        for line in [
            "-c 0",
            "--blocking-slots 0",
            "--prefetch-multiplier 0",
            "-c many",
            "-Q ,",
            "--processes 0",
            "--autoscale 1,2",
            "--heartbeat-interval 0",
            "--heartbeat-interval often",
            "--heartbeat-interval 2 --without-heartbeat",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
