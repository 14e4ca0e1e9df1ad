//! Settings, with Celery's names where Celery has one.
//!
//! They come from, each over the one before: the documented defaults, a TOML file, environment
//! variables, and the program itself (builder or command line). An unknown key is an error with a
//! suggestion, because a setting that is silently ignored is found out in production.
//!
//! ```toml
//! broker_url = ["amqp://user:secret@rabbit1//", "amqp://user:secret@rabbit2//"]
//! task_default_queue = "celeriac"
//! result_expires = "1h"             # durations: seconds or text
//!
//! [task_routes]
//! "images.*" = { queue = "images", priority = 3 }
//!
//! [[task_queues]]                   # queues that are declared in a special way
//! name = "images"
//! queue_type = "classic"
//! max_priority = 9
//!
//! [broker_use_ssl]
//! ca_certs = "/etc/ssl/rabbit.pem"
//! ```
//!
//! The variable of a setting is its name in capitals after `CELERIAC_`, such as
//! `CELERIAC_BROKER_URL`; lists are separated by commas, and tables are written as in TOML
//! (`CELERIAC_TASK_ROUTES='{ "images.*" = { queue = "images" } }'`). `CELERIAC_CONFIG` names the
//! file. Empty variables count as absent.
//!
//! **Invariant:** a [`Config`] never shows a password, neither in `Debug` nor in errors.

mod builder;
mod duration;
mod env;
mod error;
mod file;
mod keys;
mod raw;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::route::Routes;
use crate::amqp::{BrokerUrl, QueueKind, TlsOptions};
use crate::protocol::join::Mode;
use crate::protocol::{Compression, Serializer};

pub use builder::ConfigBuilder;
pub use duration::{InvalidDuration, parse_duration};
pub use error::{ConfigError, Origin};

/// All settings of a program.
///
/// ```
/// use celeriac::Config;
///
/// let config = Config::from_toml(r#"
///     task_default_queue = "orders"
///     result_expires = "1h"
/// "#)?;
/// assert_eq!(config.task_default_queue, "orders");
/// assert_eq!(config.result_expires.as_secs(), 3600);
///
/// let error = Config::from_toml(r#"task_default_que = "orders""#).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "settings, line 1: unknown setting 'task_default_que'; \
///      did you mean 'task_default_queue'?",
/// );
/// # Ok::<(), celeriac::client::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    // The broker.
    /// The brokers, tried in turn; `amqps://` for TLS.
    /// Default: `amqp://guest:guest@localhost:5672//`.
    pub broker_url: Vec<BrokerUrl>,
    /// Heartbeat in seconds; 0 turns it off. Default: 60 (Celery: 120).
    pub broker_heartbeat: u16,
    /// How long one attempt to connect may take. Default: 4 s. (A broker that then leaves a
    /// request without an answer for as long, and at least for 20 s, is left for the next one.)
    pub broker_connection_timeout: Duration,
    /// Whether a connection that was lost is made again. Default: true.
    pub broker_connection_retry: bool,
    /// Whether the first connection is tried again, too. Default: true.
    pub broker_connection_retry_on_startup: bool,
    /// After how many failed attempts in a row to give up. Default: none, which is never
    /// (Celery: 100).
    pub broker_connection_max_retries: Option<u32>,
    /// The longest delay between two attempts; delays double up to it, with jitter. It also bounds
    /// how long a broker may be back before this program is. Default: 30 s.
    pub broker_connection_retry_delay_max: Duration,
    /// CA and client certificate for `amqps://`, with Celery's keys `ca_certs`, `certfile` and
    /// `keyfile` (PEM files). Default: the system's CAs, no client certificate.
    pub broker_use_ssl: TlsOptions,
    /// How the queues are declared in which delayed tasks wait, which all programs of a virtual
    /// host share: `quorum` or `classic`. Default: quorum.
    pub broker_native_delayed_delivery_queue_type: QueueKind,
    /// How large the body of a call may be, in bytes: a larger one is refused before it is sent,
    /// and before anything else of its workflow is. Workers hand on what others have sent, and send
    /// results, as far as the broker takes them. At most the broker's own `max_message_size`.
    /// Default: 16 MiB, which is what RabbitMQ takes from 4.0 on; before, it takes 128 MiB.
    pub broker_max_message_size: usize,

    // Where tasks go.
    /// The queue of tasks without a route. Default: `celeriac` (Celery: `celery`).
    pub task_default_queue: String,
    /// How queues are declared that do not exist yet: `quorum` or `classic`. Default: quorum
    /// (Celery: classic).
    pub task_default_queue_type: QueueKind,
    /// Queues that are declared in a special way. Default: none. Unlike in Celery, this does not
    /// change which queues a worker consumes: that is its `-Q` option.
    pub task_queues: Vec<QueueSetting>,
    /// Which tasks go to which queue. Default: none.
    pub task_routes: Routes,
    /// The priority of messages, 0 to 255. Default: none.
    pub task_default_priority: Option<u8>,

    // How tasks are sent and run; most of them a task can set for itself.
    /// How arguments are written: `msgpack` or `json`. Default: msgpack (Celery: json).
    pub task_serializer: Serializer,
    /// How arguments are compressed: `gzip` or `zstd`. Default: not at all.
    pub task_compression: Option<Compression>,
    /// Whether results are thrown away. Default: false.
    pub task_ignore_result: bool,
    /// Whether failures are reported even so. Default: false.
    pub task_store_errors_even_if_ignored: bool,
    /// Whether a message is acked after its task ran, so that a crash runs it again, or before.
    /// Default: true (Celery: false).
    pub task_acks_late: bool,
    /// Whether the caller is told when a task starts. Default: false.
    pub task_track_started: bool,
    /// After how long a task is stopped. Default: none.
    pub task_time_limit: Option<Duration>,
    /// After how long a task is asked to stop. Default: none.
    pub task_soft_time_limit: Option<Duration>,

    // Results.
    /// How results are written. Default: none, which answers in the serializer of the request
    /// (Celery: json).
    pub result_serializer: Option<Serializer>,
    /// How long a result waits for its caller, and how long the caller's reply queue outlives a
    /// lost connection. Default: 1 day.
    pub result_expires: Duration,
    /// Whether results survive a restart of the broker. Default: true (Celery's rpc: false).
    pub result_persistent: bool,
    /// Whether results carry the task's name, arguments and worker. Default: false.
    pub result_extended: bool,
    /// Which serializers a worker accepts. Default: msgpack and json (Celery: json).
    pub accept_content: Vec<Serializer>,

    // Workers.
    /// How many async tasks a worker runs at once. Default: 100 (Celery: one process for each
    /// processor).
    pub worker_concurrency: usize,
    /// How many blocking tasks a worker runs at once, each on a thread. Default: the number of
    /// processors.
    pub worker_blocking_slots: usize,
    /// How many messages a worker holds for each slot. Default: 4.
    pub worker_prefetch_multiplier: u32,
    /// Whether tasks that ack late are stopped when the connection of their message is lost, since
    /// they will be delivered again. Default: false, and then this worker knows a message again
    /// that comes back to it.
    pub worker_cancel_long_running_tasks_on_connection_loss: bool,
    /// The priority of this worker's consumers: the broker gives messages to those with a lower
    /// one only while all with a higher one are busy. Default: none, which is 0.
    pub worker_consumer_priority: Option<i32>,
    /// For how long a worker counts as healthy after the broker's last answer. It asks three times
    /// as often. Default: 30 s.
    pub worker_liveness_timeout: Duration,
    /// After how long without health a worker ends with an error, so that whoever has started it
    /// starts another one. Default: 1 h; `false` is never.
    pub worker_recovery_limit: Option<Duration>,
    /// How many processes a worker's command line starts, each a whole worker with all its slots,
    /// under a parent that looks after them. Default: none, the worker is one process.
    pub worker_processes: Option<usize>,
    /// After how many tasks a child process is replaced: one of `worker_processes`, or one that
    /// runs `isolate = process` tasks. Default: never.
    pub worker_max_tasks_per_child: Option<usize>,
    /// Beyond how many KiB of memory in RAM a child process is replaced. Default: never.
    pub worker_max_memory_per_child: Option<usize>,
    /// How long a cold shutdown lets tasks finish before it cancels them, so that they run again
    /// elsewhere. Default: 0.
    pub worker_soft_shutdown_timeout: Duration,
    /// How often a message may come back to its queue from workers that did not settle it, before
    /// it fails as `WorkerLostError` and is parked; what they give back when they stop counts, too.
    /// 0 is no limit. Quorum queues may have a limit of their own, by which the broker gives up:
    /// this one should not be above it. Default: 20, that of RabbitMQ 4.
    pub worker_delivery_limit: u32,

    // Remote control.
    /// Whether a worker takes commands. Default: true.
    pub worker_enable_remote_control: bool,
    /// How many revoked ids, workflows, groups and stamps a worker remembers; the oldest are
    /// forgotten first. Default: 50,000.
    pub worker_revokes_max: usize,
    /// How long it is remembered that something was revoked; the broker keeps it for 7 days, and
    /// a stamp counts for 3 h at most. Default: 7 days.
    pub worker_revoke_expires: Duration,
    /// What the exchanges of remote control are called, before `.pidbox`. Default: `celery`.
    pub control_exchange: String,

    // Events.
    /// Whether workers send the events of tasks from the start; else until they are asked for with
    /// the command `enable_events`. Default: false.
    pub worker_send_task_events: bool,
    /// Whether `task-sent` events are sent for calls. Default: false.
    pub task_send_sent_event: bool,
    /// How often a worker tells that it is there, with events of its own; `false` is never, as
    /// Celery's `--without-heartbeat`. Default: 2 s.
    pub worker_heartbeat_interval: Option<Duration>,
    /// The exchange of events. Default: `celeryev`.
    pub event_exchange: String,

    // Chords; `docs/chords.md` tells what the numbers are for.
    /// After how long a chord is given up whose parts do not all end. Default: 1 day.
    pub chord_expires: Duration,
    /// When a chord ends: `fail_fast` at the first part that fails, `collect` when all parts have
    /// ended, and the body gets values and errors. Default: fail_fast.
    pub chord_mode: Mode,
    /// Whether workers join chords, besides running tasks. Default: true.
    pub join_enabled: bool,
    /// Over how many shards chords are spread; clients and workers must agree. To raise it, begin
    /// with the workers. Default: 8.
    pub join_shards: u32,
    /// How the queues of the shards are declared: `quorum` or `classic`. Default: quorum.
    pub join_queue_type: QueueKind,
    /// How many records of one shard may be unacked. Default: 20,000.
    pub join_prefetch: u16,
    /// Above how many unacked records of one shard they are packed. Default: 500.
    pub join_u_max: usize,
    /// How large a pack may be, in bytes. Default: 512 KiB.
    pub join_pack_max: usize,
    /// How large the list of a chord's results may be, in bytes. Default: 8 MiB.
    pub join_max_body: usize,
    /// How large a message may be that follows from a chord, in bytes: the list may be longer as it
    /// is sent, with arguments beside it. No more than `broker_max_message_size` in any case.
    /// Default: twice `join_max_body`.
    pub join_max_message: Option<usize>,
    /// How many bytes of parked values the bodies that a worker runs at a time may have together,
    /// and so one of them at most. As they are sent: in memory, lists of small numbers need many
    /// times as much. Default: 128 MiB.
    pub join_max_parked: usize,
    /// How long outcomes are collected until their records are cleared. Default: 20 ms.
    pub join_done_batch: Duration,
    /// How long a record may stay unacked until it is written anew. Must stay below half of the
    /// broker's `consumer_timeout`. Default: 5 min.
    pub join_t_refresh: Duration,
    /// How long it is remembered in the shard that a chord is over. Default: 1 min.
    pub join_t_tomb: Duration,
    /// How long records of unknown chords are kept. Default: 30 s.
    pub join_orphan_grace: Duration,
    /// Whether an outcome waits until everything that it is based on was written once more.
    /// Of use with classic queues only, which hand out what is not on disk yet. Default: false.
    pub join_write_ahead: bool,
    /// How often a worker that joins more than its share of the shards gives one to a worker that
    /// waits for it; 0 is never. Default: 1 min.
    pub join_rebalance: Duration,

    /// The time zone of dates without an offset. Default: UTC.
    pub timezone: TimeZone,
}

/// A queue that is declared in a special way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSetting {
    /// The queue's name.
    pub name: String,
    /// `quorum` or `classic`; `None` is [`Config::task_default_queue_type`].
    pub queue_type: Option<QueueKind>,
    /// The highest priority that the queue tells apart. Makes the queue a classic one, because
    /// only those take it.
    pub max_priority: Option<u8>,
}

impl QueueSetting {
    /// A queue with nothing special yet.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), queue_type: None, max_priority: None }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            broker_url: vec![BrokerUrl::default()],
            broker_heartbeat: 60,
            broker_connection_timeout: Duration::from_secs(4),
            broker_connection_retry: true,
            broker_connection_retry_on_startup: true,
            broker_connection_max_retries: None,
            broker_connection_retry_delay_max: Duration::from_secs(30),
            broker_use_ssl: TlsOptions::default(),
            broker_native_delayed_delivery_queue_type: QueueKind::Quorum,
            broker_max_message_size: 16 << 20,
            task_default_queue: "celeriac".to_owned(),
            task_default_queue_type: QueueKind::Quorum,
            task_queues: Vec::new(),
            task_routes: Routes::new(),
            task_default_priority: None,
            task_serializer: Serializer::Msgpack,
            task_compression: None,
            task_ignore_result: false,
            task_store_errors_even_if_ignored: false,
            task_acks_late: true,
            task_track_started: false,
            task_time_limit: None,
            task_soft_time_limit: None,
            result_serializer: None,
            result_expires: Duration::from_secs(24 * 60 * 60),
            result_persistent: true,
            result_extended: false,
            accept_content: vec![Serializer::Msgpack, Serializer::Json],
            worker_concurrency: 100,
            worker_blocking_slots: thread::available_parallelism().map_or(1, usize::from),
            worker_enable_remote_control: true,
            worker_revokes_max: 50_000,
            worker_revoke_expires: Duration::from_secs(7 * 24 * 60 * 60),
            control_exchange: "celery".to_owned(),
            worker_send_task_events: false,
            task_send_sent_event: false,
            worker_heartbeat_interval: Some(Duration::from_secs(2)),
            event_exchange: "celeryev".to_owned(),
            worker_prefetch_multiplier: 4,
            worker_cancel_long_running_tasks_on_connection_loss: false,
            worker_consumer_priority: None,
            worker_liveness_timeout: Duration::from_secs(30),
            worker_recovery_limit: Some(Duration::from_secs(60 * 60)),
            worker_processes: None,
            worker_max_tasks_per_child: None,
            worker_max_memory_per_child: None,
            worker_soft_shutdown_timeout: Duration::ZERO,
            worker_delivery_limit: 20,
            chord_expires: Duration::from_secs(24 * 60 * 60),
            chord_mode: Mode::FailFast,
            join_enabled: true,
            join_shards: 8,
            join_queue_type: QueueKind::Quorum,
            join_prefetch: 20_000,
            join_u_max: 500,
            join_pack_max: 512 << 10,
            join_max_body: 8 << 20,
            join_max_message: None,
            join_max_parked: 128 << 20,
            join_done_batch: Duration::from_millis(20),
            join_t_refresh: Duration::from_secs(5 * 60),
            join_t_tomb: Duration::from_secs(60),
            join_orphan_grace: Duration::from_secs(30),
            join_write_ahead: false,
            join_rebalance: Duration::from_secs(60),
            timezone: TimeZone::UTC,
        }
    }
}

impl Config {
    /// How large a message may be that follows from a chord.
    pub(crate) fn joined_message_max(&self) -> usize {
        let twice = self.join_max_body.saturating_mul(2);
        self.join_max_message.unwrap_or(twice).min(self.broker_max_message_size)
    }

    /// Starts from the defaults, to be set field by field.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Defaults, then the TOML `text`.
    ///
    /// # Errors
    /// If the text is not TOML, or has an unknown key or a value that does not fit.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        file::apply(&mut config, text, None)?;
        Ok(config)
    }

    /// Defaults, then the TOML file at `path`.
    ///
    /// # Errors
    /// If the file cannot be read, and as [`from_toml`](Self::from_toml).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.apply_file(path.as_ref())?;
        Ok(config)
    }

    /// Defaults, then the file that `CELERIAC_CONFIG` names, then the other variables.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file), and for unknown variables that start with `CELERIAC_`.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::load(None)
    }

    /// Defaults, then a file, then the environment: how the command lines load their settings.
    ///
    /// The file is `path`, else the one that `CELERIAC_CONFIG` names, else none.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.apply(path)?;
        Ok(config)
    }

    /// Puts a file and the environment, as in [`load`](Self::load), over these settings.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env); the settings are then partly applied.
    pub fn apply(&mut self, path: Option<&Path>) -> Result<(), ConfigError> {
        let named = std::env::var_os(env::FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = path.map(Path::to_path_buf).or(named) {
            self.apply_file(&path)?;
        }
        env::apply(self, std::env::vars_os())
    }

    /// Sets one setting by its name from text, as an environment variable would.
    ///
    /// ```
    /// # use celeriac::Config;
    /// let mut config = Config::default();
    /// config.set("broker_url", "amqp://rabbit1//;amqp://rabbit2//")?;
    /// assert_eq!(config.broker_url.len(), 2);
    /// assert!(config.set("worker_concurrency", "many").is_err());
    /// # Ok::<(), celeriac::client::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// If nobody knows the name, or the text does not fit.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let origin = Origin::Program;
        keys::set(self, name, &env::raw(name, text, &origin)?, origin)
    }

    fn apply_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        file::apply(self, &text, Some(path))
    }
}
