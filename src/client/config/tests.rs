//! Settings from every source, and the sentences for what is wrong with them.

use std::ffi::OsString;
use std::time::Duration;

use super::*;
use crate::client::route::RouteRequest;
use crate::protocol::Map;

fn from_env(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), value.into()));
    env::apply(&mut config, variables)?;
    Ok(config)
}

#[test]
fn a_file_can_set_everything() {
    let config = Config::from_toml(
        r#"
        broker_url = ["amqp://a:b@one//", "amqps://two/vhost"]
        broker_heartbeat = 10
        broker_connection_timeout = 2.5
        broker_connection_retry = false
        broker_connection_retry_on_startup = false
        broker_connection_max_retries = 7
        broker_connection_retry_delay_max = "5s"
        broker_max_message_size = 1000
        task_default_queue = "orders"
        task_default_queue_type = "classic"
        task_queues = ["plain", { name = "fine", queue_type = "quorum", max_priority = 9 }]
        task_default_priority = 4
        task_serializer = "json"
        task_compression = "gzip"
        task_ignore_result = true
        task_store_errors_even_if_ignored = true
        task_acks_late = false
        task_track_started = true
        task_time_limit = 300
        task_soft_time_limit = "4m 30s"
        result_serializer = "msgpack"
        result_expires = "2h"
        result_persistent = false
        result_extended = true
        accept_content = ["json"]
        worker_concurrency = 1000
        worker_blocking_slots = 3
        worker_prefetch_multiplier = 1
        timezone = "utc"

        [broker_use_ssl]
        ca_certs = "/ca.pem"
        certfile = "/cert.pem"
        keyfile = "/key.pem"

        [task_routes]
        "z.*" = { queue = "first", priority = 2 }
        "a.b" = "exact"
        "*" = { exchange = "x", routing_key = "rest" }
        "#,
    )
    .unwrap();
    assert_eq!(config.broker_url.len(), 2);
    assert_eq!(config.broker_heartbeat, 10);
    assert_eq!(config.broker_connection_timeout, Duration::from_millis(2500));
    assert!(!config.broker_connection_retry && !config.broker_connection_retry_on_startup);
    assert_eq!(config.broker_connection_max_retries, Some(7));
    assert_eq!(config.broker_connection_retry_delay_max, Duration::from_secs(5));
    assert_eq!(config.broker_max_message_size, 1000);
    assert_eq!(config.task_default_queue_type, QueueKind::Classic);
    assert_eq!(config.task_queues[0], QueueSetting::named("plain"));
    assert_eq!(config.task_queues[1].queue_type, Some(QueueKind::Quorum));
    assert_eq!(config.task_queues[1].max_priority, Some(9));
    assert_eq!(config.task_default_priority, Some(4));
    assert_eq!(config.task_compression, Some(Compression::Zlib));
    assert!(!config.task_acks_late && config.task_track_started && config.task_ignore_result);
    assert_eq!(config.task_time_limit, Some(Duration::from_secs(300)));
    assert_eq!(config.task_soft_time_limit, Some(Duration::from_secs(270)));
    assert_eq!(config.result_serializer, Some(Serializer::Msgpack));
    assert_eq!(config.accept_content, [Serializer::Json]);
    assert_eq!(config.worker_prefetch_multiplier, 1);
    assert_eq!(config.broker_use_ssl.key, Some("/key.pem".into()));
    let route = |task| config.task_routes.find(&RouteRequest::new(task, &[], &Map::new()));
    assert_eq!(route("a.b").unwrap().queue.as_deref(), Some("exact"));
    assert_eq!(route("z.y").unwrap().priority, Some(2));
    assert_eq!(route("m").unwrap().routing_key.as_deref(), Some("rest"));
}

#[test]
fn a_file_can_set_everything_about_processes() {
    let config = Config::from_toml(
        r#"
        worker_processes = 4
        worker_max_tasks_per_child = 1000
        worker_max_memory_per_child = 200000
        worker_soft_shutdown_timeout = "30s"
        "#,
    )
    .unwrap();
    assert_eq!(config.worker_processes, Some(4));
    assert_eq!(config.worker_max_tasks_per_child, Some(1000));
    assert_eq!(config.worker_max_memory_per_child, Some(200_000));
    assert_eq!(config.worker_soft_shutdown_timeout, Duration::from_secs(30));
}

#[test]
fn a_file_can_set_everything_about_events() {
    let config = Config::from_toml(
        r#"
        worker_send_task_events = true
        task_send_sent_event = true
        worker_heartbeat_interval = "5s"
        event_exchange = "own.events"
        "#,
    );
    let config = config.unwrap();
    assert!(config.worker_send_task_events && config.task_send_sent_event);
    assert_eq!(config.worker_heartbeat_interval, Some(Duration::from_secs(5)));
    assert_eq!(config.event_exchange, "own.events");
    let quiet = Config::from_toml("worker_heartbeat_interval = false").unwrap();
    assert_eq!(quiet.worker_heartbeat_interval, None);
    let yaml = Config::from_toml(r#"event_serializer = "yaml""#).unwrap_err();
    assert!(yaml.to_string().contains("events are always JSON"), "{yaml}");
}

#[test]
fn a_file_can_set_everything_about_chords() {
    let config = Config::from_toml(
        r#"
        chord_expires = "1h"
        chord_mode = "collect"
        join_enabled = false
        join_shards = 16
        join_queue_type = "classic"
        join_prefetch = 1000
        join_u_max = 100
        join_pack_max = 1000
        join_max_body = 100000
        join_max_message = 300000
        join_max_parked = 400000
        join_done_batch = "5ms"
        join_t_refresh = 60
        join_t_tomb = 10
        join_orphan_grace = 5
        join_write_ahead = true
        join_rebalance = 30
        "#,
    )
    .unwrap();
    assert_eq!(
        (config.chord_expires, config.chord_mode),
        (Duration::from_secs(3600), Mode::Collect)
    );
    assert!(!config.join_enabled && config.join_write_ahead);
    assert_eq!((config.join_shards, config.join_queue_type), (16, QueueKind::Classic));
    assert_eq!((config.join_prefetch, config.join_u_max), (1000, 100));
    assert_eq!((config.join_pack_max, config.join_max_body), (1000, 100_000));
    assert_eq!(config.join_max_message, Some(300_000));
    assert_eq!(config.join_max_parked, 400_000);
    assert_eq!(config.join_done_batch, Duration::from_millis(5));
    assert_eq!(config.join_t_refresh, Duration::from_secs(60));
    assert_eq!(config.join_rebalance, Duration::from_secs(30));
    assert_eq!(config.join_t_tomb, Duration::from_secs(10));
    assert_eq!(config.join_orphan_grace, Duration::from_secs(5));
}

#[test]
fn patterns_keep_the_order_of_the_file() {
    let text = "[task_routes]\n\"z.*\" = \"first\"\n\"*.y\" = \"second\"";
    let config = Config::from_toml(text).unwrap();
    let route = config.task_routes.find(&RouteRequest::new("z.y", &[], &Map::new()));
    assert_eq!(route.unwrap().queue.as_deref(), Some("first"));
}

#[test]
fn variables_set_what_files_set() {
    let config = from_env(&[
        ("CELERIAC_BROKER_URL", "amqp://a:p,w;d@one//; amqp://two"),
        ("CELERIAC_WORKER_CONCURRENCY", "12"),
        ("CELERIAC_TASK_ACKS_LATE", "no"),
        ("CELERIAC_RESULT_EXPIRES", "90"),
        ("CELERIAC_BROKER_CONNECTION_RETRY_DELAY_MAX", "500ms"),
        ("CELERIAC_TASK_TIME_LIMIT", "none"),
        ("CELERIAC_ACCEPT_CONTENT", "json, msgpack"),
        ("CELERIAC_TASK_QUEUES", "a,b"),
        ("CELERIAC_TASK_ROUTES", r#"{ "mail.*" = { queue = "mail" } }"#),
        ("CELERIAC_TASK_COMPRESSION", ""),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(config.broker_url.len(), 2);
    assert_eq!(config.worker_concurrency, 12);
    assert_eq!(config.broker_connection_retry_delay_max, Duration::from_millis(500));
    assert!(!config.task_acks_late);
    assert_eq!(config.result_expires, Duration::from_secs(90));
    assert_eq!(config.task_time_limit, None);
    assert_eq!(config.accept_content, [Serializer::Json, Serializer::Msgpack]);
    assert_eq!(config.task_queues.len(), 2);
    assert!(!config.task_routes.is_empty());
    assert_eq!(config.task_compression, None);
}

#[test]
fn reserved_variables_are_left_alone() {
    let reserved = [
        ("CELERIAC_CONFIG", "x.toml"),
        ("CELERIAC_LOG", "debug"),
        ("CELERIAC_TEST_ANYTHING", "1"),
        ("CELERIAC_MANAGEMENT_URL", "http://localhost:15672"),
    ];
    from_env(&reserved).unwrap();
}

#[test]
fn what_is_wrong_in_a_file_is_one_sentence_with_the_line() {
    for (text, sentence) in [
        (
            "\nbroker_ur = 1",
            "settings, line 2: unknown setting 'broker_ur'; did you mean 'broker_url'?",
        ),
        ("xyzzy = 1", "settings, line 1: unknown setting 'xyzzy'"),
        (
            "result_backend = 'redis://'",
            "settings, line 1: celeriac has no setting 'result_backend': results always travel \
             over the broker, as with Celery's rpc://",
        ),
        (
            "worker_concurrency = 'many'",
            "settings, line 1: worker_concurrency must be a whole number from 1 on, but is 'many'",
        ),
        (
            "worker_concurrency = 0",
            "settings, line 1: worker_concurrency must be a whole number from 1 on, but is 0",
        ),
        (
            "task_default_priority = 256",
            "settings, line 1: task_default_priority must be a whole number from 0 to 255, \
             but is 256",
        ),
        (
            "accept_content = ['pickle']",
            "settings, line 1: accept_content must be 'msgpack' or 'json', but is 'pickle'",
        ),
        (
            "[task_routes]\n'a.*' = { que = 'x' }",
            "settings, line 2: unknown setting 'task_routes.\"a.*\".que'; did you mean \
             'task_routes.\"a.*\".queue'?",
        ),
        (
            "[[task_queues]]\nname = 'a'\nmax_priority = 'high'",
            "settings, line 3: task_queues[0].max_priority must be a whole number from 0 to 255, \
             but is 'high'",
        ),
        (
            "broker_use_ssl = true",
            "settings, line 1: broker_use_ssl must be a table with ca_certs, certfile and keyfile \
             (amqps:// turns TLS on), but is true",
        ),
        (
            "result_expires = -1",
            "settings, line 1: result_expires must be seconds, or text such as \"30s\" or \
             \"1h 30m\", but is -1",
        ),
    ] {
        assert_eq!(Config::from_toml(text).unwrap_err().to_string(), sentence);
    }
}

#[test]
fn broken_toml_says_the_line() {
    let error = Config::from_toml("task_default_queue = 'a'\n= 3").unwrap_err();
    assert!(error.to_string().starts_with("settings, line 2: "), "{error}");
}

#[test]
fn an_unknown_variable_is_an_error_with_a_suggestion() {
    let error = from_env(&[("CELERIAC_BROKER_URI", "amqp://localhost")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable CELERIAC_BROKER_URI: unknown setting 'broker_uri'; did you mean \
         'CELERIAC_BROKER_URL'?",
    );
    assert!(from_env(&[("CELERIAC_broker_url", "amqp://localhost")]).is_err());
}

#[test]
fn a_password_is_shown_neither_by_debug_nor_by_errors() {
    let config = Config::from_toml("broker_url = 'amqp://user:hunter2@host//'").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    for text in ["http://user:hunter2@host", "amqp://user:hunter2@host:port", "user:hunter2@host"] {
        let error = Config::default().set("broker_url", text).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::from_file("/no/such/celeriac.toml").unwrap_err();
    assert_eq!(error.to_string(), "failed to read the settings file /no/such/celeriac.toml");
}
