//! The table of settings: every key once, with the field it sets.
//!
//! **Invariant:** each public field of [`Config`] is here exactly once; files, the environment
//! and their errors know no other list.

use super::Config;
use super::error::{ConfigError, Origin, nearest};
use super::raw::{FromRaw, Problem, Raw, What};

/// One setting.
pub(super) struct Key {
    pub(super) name: &'static str,
    set: fn(&mut Config, &Raw) -> Result<(), Problem>,
}

macro_rules! keys {
    ($($name:ident)*) => {
        &[$(Key {
            name: stringify!($name),
            set: |config, raw| {
                config.$name = FromRaw::from_raw(raw)?;
                Ok(())
            },
        }),*]
    };
}

/// All settings, in the order of [`Config`].
pub(super) const KEYS: &[Key] = keys! {
    broker_url broker_heartbeat broker_connection_timeout broker_connection_retry
    broker_connection_retry_on_startup broker_connection_max_retries
    broker_connection_retry_delay_max broker_use_ssl broker_native_delayed_delivery_queue_type
    broker_max_message_size
    task_default_queue task_default_queue_type task_queues task_routes task_default_priority
    task_serializer task_compression task_ignore_result task_store_errors_even_if_ignored
    task_acks_late task_track_started task_time_limit task_soft_time_limit
    result_serializer result_expires result_persistent result_extended accept_content
    worker_concurrency worker_blocking_slots worker_prefetch_multiplier
    worker_cancel_long_running_tasks_on_connection_loss worker_consumer_priority
    worker_liveness_timeout worker_recovery_limit
    worker_enable_remote_control worker_revokes_max worker_revoke_expires control_exchange
    worker_send_task_events task_send_sent_event worker_heartbeat_interval event_exchange
    worker_processes worker_max_tasks_per_child worker_max_memory_per_child
    worker_soft_shutdown_timeout
    worker_delivery_limit
    chord_expires chord_mode join_enabled join_shards join_queue_type join_prefetch join_u_max
    join_pack_max join_max_body join_max_message join_max_parked join_done_batch join_t_refresh
    join_t_tomb join_orphan_grace join_write_ahead join_rebalance timezone
};

/// Settings of Celery that people bring along, and what celeriac does instead.
const NOT_CELERIAC: &[(&str, &str)] = &[
    ("result_backend", "results always travel over the broker, as with Celery's rpc://"),
    ("task_protocol", "it speaks protocol 2 only"),
    ("enable_utc", "times on the wire are always UTC"),
    ("broker_login_method", "PLAIN is used, and EXTERNAL where a client certificate is given"),
    ("broker_pool_limit", "a program has one connection to publish and one to consume"),
    ("worker_pool", "async and blocking tasks have their slots side by side in every worker"),
    ("task_default_delivery_mode", "messages of tasks are always persistent"),
    ("task_publish_retry", "what the broker did not confirm is always sent again"),
    ("event_serializer", "events are always JSON, which every monitor reads"),
    ("imports", "tasks are found by linking them in"),
    ("include", "tasks are found by linking them in"),
];

/// Sets `key` to `raw`.
pub(super) fn set(
    config: &mut Config,
    key: &str,
    raw: &Raw,
    origin: Origin,
) -> Result<(), ConfigError> {
    let Some(known) = KEYS.iter().find(|known| known.name == key) else {
        return Err(unknown(key, origin));
    };
    (known.set)(config, raw).map_err(|problem| explain(key, problem, origin))
}

/// The error for a key that is not in the table.
pub(super) fn unknown(key: &str, origin: Origin) -> ConfigError {
    if let Some((_, reason)) = NOT_CELERIAC.iter().find(|(name, _)| *name == key) {
        return ConfigError::NotCeleriac { origin, key: key.to_owned(), reason };
    }
    let suggestion = nearest(key, KEYS.iter().map(|known| known.name)).map(str::to_owned);
    ConfigError::Unknown { origin, key: key.to_owned(), suggestion }
}

fn explain(key: &str, problem: Problem, origin: Origin) -> ConfigError {
    let origin = match origin {
        Origin::Toml { path, line } => Origin::Toml { path, line: problem.line.or(line) },
        other => other,
    };
    let at = format!("{key}{}", problem.path);
    match problem.what {
        What::Invalid { expected, found } => {
            ConfigError::Invalid { origin, key: at, expected, found }
        }
        What::Refused { reason } => ConfigError::Refused { origin, key: at, reason },
        What::Unknown { key, known } => ConfigError::Unknown {
            origin,
            suggestion: nearest(&key, known.iter().copied()).map(|name| format!("{at}.{name}")),
            key: format!("{at}.{key}"),
        },
    }
}
