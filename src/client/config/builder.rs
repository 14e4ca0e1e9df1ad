//! Settings from the program itself, one setter each.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::{Config, QueueSetting};
use crate::amqp::{BrokerUrl, QueueKind, TlsOptions};
use crate::client::route::Routes;
use crate::protocol::join::Mode;
use crate::protocol::{Compression, Serializer};

/// Builds a [`Config`]; every setting is documented there.
///
/// ```
/// use celeriac::Config;
///
/// let config = Config::builder()
///     .broker_url(["amqp://user:secret@rabbit1//".parse()?])
///     .worker_concurrency(500)
///     .build();
/// assert_eq!(config.worker_concurrency, 500);
/// # Ok::<(), celeriac::amqp::UrlError>(())
/// ```
#[derive(Debug, Default)]
pub struct ConfigBuilder {
    config: Config,
}

macro_rules! setters {
    ($($name:ident: $type:ty;)*) => {$(
        #[doc = concat!("Sets [`Config::", stringify!($name), "`].")]
        #[must_use]
        pub fn $name(mut self, value: $type) -> Self {
            self.config.$name = value;
            self
        }
    )*};
}

impl ConfigBuilder {
    /// Sets [`Config::broker_url`]: the brokers, tried in turn.
    #[must_use]
    pub fn broker_url(mut self, urls: impl IntoIterator<Item = BrokerUrl>) -> Self {
        self.config.broker_url = urls.into_iter().collect();
        self
    }

    /// Sets [`Config::task_default_queue`].
    #[must_use]
    pub fn task_default_queue(mut self, name: impl Into<String>) -> Self {
        self.config.task_default_queue = name.into();
        self
    }

    setters! {
        broker_heartbeat: u16;
        broker_connection_timeout: Duration;
        broker_connection_retry: bool;
        broker_connection_retry_on_startup: bool;
        broker_connection_max_retries: Option<u32>;
        broker_connection_retry_delay_max: Duration;
        broker_use_ssl: TlsOptions;
        broker_native_delayed_delivery_queue_type: QueueKind;
        broker_max_message_size: usize;
        task_default_queue_type: QueueKind;
        task_queues: Vec<QueueSetting>;
        task_routes: Routes;
        task_default_priority: Option<u8>;
        task_serializer: Serializer;
        task_compression: Option<Compression>;
        task_ignore_result: bool;
        task_store_errors_even_if_ignored: bool;
        task_acks_late: bool;
        task_track_started: bool;
        task_time_limit: Option<Duration>;
        task_soft_time_limit: Option<Duration>;
        result_serializer: Option<Serializer>;
        result_expires: Duration;
        result_persistent: bool;
        result_extended: bool;
        accept_content: Vec<Serializer>;
        worker_concurrency: usize;
        worker_blocking_slots: usize;
        worker_prefetch_multiplier: u32;
        worker_cancel_long_running_tasks_on_connection_loss: bool;
        worker_consumer_priority: Option<i32>;
        worker_liveness_timeout: Duration;
        worker_recovery_limit: Option<Duration>;
        worker_enable_remote_control: bool;
        worker_revokes_max: usize;
        worker_revoke_expires: Duration;
        control_exchange: String;
        worker_send_task_events: bool;
        task_send_sent_event: bool;
        worker_heartbeat_interval: Option<Duration>;
        event_exchange: String;
        worker_processes: Option<usize>;
        worker_max_tasks_per_child: Option<usize>;
        worker_max_memory_per_child: Option<usize>;
        worker_soft_shutdown_timeout: Duration;
        worker_delivery_limit: u32;
        chord_expires: Duration;
        chord_mode: Mode;
        join_enabled: bool;
        join_shards: u32;
        join_queue_type: QueueKind;
        join_prefetch: u16;
        join_u_max: usize;
        join_pack_max: usize;
        join_max_body: usize;
        join_max_message: Option<usize>;
        join_max_parked: usize;
        join_done_batch: Duration;
        join_t_refresh: Duration;
        join_t_tomb: Duration;
        join_orphan_grace: Duration;
        join_write_ahead: bool;
        join_rebalance: Duration;
        timezone: TimeZone;
    }

    /// The settings.
    pub fn build(self) -> Config {
        self.config
    }
}
