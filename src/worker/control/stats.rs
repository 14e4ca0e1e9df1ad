//! `stats`: figures of the worker, with every key that Flower reads.

use super::arguments::Fault;
use super::{Bridge, steer};
use crate::protocol::{Map, Value};

/// The clock of `/proc`, which Linux has fixed for programs.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn stats(bridge: &Bridge) -> Result<Value, Fault> {
    let mut stats = Map::new();
    let total: Map = bridge.crew.tally.counts().into_iter().collect();
    stats.push("total", total);
    stats.push("pid", std::process::id());
    stats.push("clock", bridge.clock().now().to_string());
    stats.push("uptime", bridge.started.elapsed().as_secs());
    stats.push("pool", pool(bridge));
    if let Some(bounds) = bridge.crew.autoscale.bounds() {
        let current = bridge.crew.slots.current() as u64;
        let (max, min) = (bounds.max() as u64, bounds.min() as u64);
        let scaler = [("max", max), ("min", min), ("current", current), ("qty", 0)];
        stats.push("autoscaler", Map::from_iter(scaler));
    }
    stats.push("broker", broker(bridge));
    stats.push("prefetch_count", steer::prefetch(bridge).all);
    let (sent, dropped) = bridge.crew.events.counts();
    stats.push("health", health(bridge));
    stats.push("events", Map::from_iter([("sent", sent), ("dropped", dropped)]));
    stats.push("rusage", usage().map_or_else(|| Value::from("N/A"), Value::Map));
    Ok(Value::Map(stats))
}

/// A word of ours: Celery's workers say nothing of it.
fn health(bridge: &Bridge) -> Map {
    let health = bridge.crew.pulse.health(&bridge.crew);
    let mut told = Map::new();
    told.push("healthy", health.is_healthy());
    told.push("consuming", health.is_consuming);
    told.push("publishing", health.is_publishing);
    told.push("answered", health.is_answered);
    told.push("answered_ago", health.answered_ago.as_secs_f64());
    told.push("lost_threads", health.lost_threads as u64);
    told.push("runs_blocking", health.runs_blocking);
    told
}

fn pool(bridge: &Bridge) -> Map {
    let mut writes = Map::new();
    writes.push("total", 0);
    writes.push("avg", "0.00");
    writes.push("all", "");
    writes.push("raw", "");
    writes.push("strategy", "none");
    writes.push("inqueues", Map::from_iter([("total", 0), ("active", 0)]));
    let config = bridge.crew.client.config();
    let seconds = |limit: Option<std::time::Duration>| limit.map_or(0.0, |it| it.as_secs_f64());
    let timeouts = [config.task_soft_time_limit, config.task_time_limit].map(seconds);
    let mut pool = Map::new();
    pool.push("implementation", "celeriac:TaskPool");
    pool.push("max-concurrency", bridge.crew.slots.current() as u64);
    pool.push("blocking-concurrency", bridge.crew.blocking_slots.current() as u64);
    pool.push("processes", vec![Value::from(std::process::id())]);
    pool.push("max-tasks-per-child", "N/A");
    pool.push("put-guarded-by-semaphore", false);
    pool.push("timeouts", Value::Array(timeouts.map(Value::from).to_vec()));
    pool.push("writes", writes);
    pool
}

fn broker(bridge: &Bridge) -> Map {
    let url = bridge.connection.broker();
    let config = bridge.crew.client.config();
    let mut broker = Map::new();
    broker.push("hostname", url.host());
    broker.push("userid", url.user());
    broker.push("virtual_host", url.vhost());
    broker.push("port", u32::from(url.port()));
    broker.push("insist", false);
    broker.push("ssl", url.is_tls());
    broker.push("transport", "amqp");
    broker.push("connect_timeout", config.broker_connection_timeout.as_secs_f64());
    broker.push("transport_options", Map::new());
    broker.push("login_method", "PLAIN");
    broker.push("uri_prefix", Value::Null);
    broker.push("heartbeat", f64::from(config.broker_heartbeat));
    broker.push("failover_strategy", "round-robin");
    let others = config.broker_url.iter().filter(|it| it.to_string() != url.to_string());
    broker.push("alternates", others.map(|it| Value::from(it.to_string())).collect::<Vec<_>>());
    broker.push("credential_provider", Value::Null);
    broker
}

/// What `getrusage` tells; what Linux tells nowhere else is 0, as it is there.
fn usage() -> Option<Map> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
    let ticks = |at: usize| field(at) as f64 / TICKS_PER_SECOND;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut usage = Map::new();
    usage.push("utime", ticks(11));
    usage.push("stime", ticks(12));
    usage.push("maxrss", line(&status, "VmHWM:"));
    for key in ["ixrss", "idrss", "isrss"] {
        usage.push(key, 0);
    }
    usage.push("minflt", field(7));
    usage.push("majflt", field(9));
    for key in ["nswap", "inblock", "oublock", "msgsnd", "msgrcv", "nsignals"] {
        usage.push(key, 0);
    }
    usage.push("nvcsw", line(&status, "voluntary_ctxt_switches:"));
    usage.push("nivcsw", line(&status, "nonvoluntary_ctxt_switches:"));
    Some(usage)
}

/// The memory that is resident now, as text.
pub(super) fn resident() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(format!("{:.2}MB", line(&status, "VmRSS:") as f64 / 1024.0))
}

fn line(status: &str, name: &str) -> u64 {
    let found = status.lines().find_map(|line| line.strip_prefix(name));
    let number = found.and_then(|rest| rest.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
