//! `conf` and `report`: the settings, without secrets.

use super::Bridge;
use crate::client::Config;
use crate::protocol::{Map, Serializer, Value};

/// The settings that Celery's tools know, by Celery's names.
pub(super) fn conf(bridge: &Bridge) -> Value {
    let config = bridge.crew.client.config();
    let mut conf = Map::new();
    sending(config, &mut conf);
    working(config, &mut conf);
    Value::Map(conf)
}

fn sending(config: &Config, conf: &mut Map) {
    let mime = |serializer: Serializer| serializer.name();
    let seconds = |time: Option<std::time::Duration>| time.map(|it| it.as_secs_f64());
    let brokers = config.broker_url.iter().map(ToString::to_string).collect::<Vec<_>>();
    conf.push("broker_url", brokers.join(";"));
    conf.push("broker_heartbeat", u32::from(config.broker_heartbeat));
    conf.push("broker_connection_timeout", config.broker_connection_timeout.as_secs_f64());
    conf.push("broker_connection_retry", config.broker_connection_retry);
    conf.push("broker_connection_retry_on_startup", config.broker_connection_retry_on_startup);
    conf.push("broker_connection_max_retries", config.broker_connection_max_retries);
    conf.push("task_default_queue", config.task_default_queue.as_str());
    conf.push("task_default_exchange", "");
    conf.push("task_default_routing_key", config.task_default_queue.as_str());
    conf.push("task_default_priority", config.task_default_priority.map(i32::from));
    conf.push("task_serializer", mime(config.task_serializer));
    conf.push("task_ignore_result", config.task_ignore_result);
    conf.push("task_store_errors_even_if_ignored", config.task_store_errors_even_if_ignored);
    conf.push("task_acks_late", config.task_acks_late);
    conf.push("task_track_started", config.task_track_started);
    conf.push("task_time_limit", seconds(config.task_time_limit));
    conf.push("task_soft_time_limit", seconds(config.task_soft_time_limit));
}

fn working(config: &Config, conf: &mut Map) {
    conf.push("result_backend", "rpc://");
    conf.push("result_serializer", config.result_serializer.map(Serializer::name));
    conf.push("result_expires", config.result_expires.as_secs_f64());
    conf.push("result_persistent", config.result_persistent);
    conf.push("result_extended", config.result_extended);
    let accepted = config.accept_content.iter().map(|it| Value::from(it.name()));
    conf.push("accept_content", accepted.collect::<Vec<_>>());
    conf.push("worker_concurrency", config.worker_concurrency as u64);
    conf.push("worker_prefetch_multiplier", config.worker_prefetch_multiplier);
    conf.push("worker_enable_remote_control", config.worker_enable_remote_control);
    conf.push("control_exchange", config.control_exchange.as_str());
    conf.push("worker_send_task_events", config.worker_send_task_events);
    conf.push("task_send_sent_event", config.task_send_sent_event);
    conf.push("event_exchange", config.event_exchange.as_str());
    conf.push("timezone", config.timezone.iana_name().unwrap_or("UTC"));
    conf.push("enable_utc", true);
}

/// The worker in some lines for people.
pub(super) fn report(bridge: &Bridge) -> String {
    let info = &bridge.crew.info;
    let (version, os, arch) =
        (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    let mut report = format!(
        "\nsoftware -> celeriac:{version}\nplatform -> system:{os} arch:{arch}\n\
         broker -> {}\nqueues -> {}\ntasks -> {}\n\n",
        info.broker,
        bridge.consumer.queues().join(", "),
        info.tasks.len(),
    );
    if let Value::Map(conf) = conf(bridge) {
        for (key, value) in conf.iter() {
            report.push_str(&format!("{key}: {}\n", crate::protocol::repr::value(value)));
        }
    }
    report
}
