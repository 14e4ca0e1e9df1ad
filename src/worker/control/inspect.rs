//! Commands that look: what the worker holds, knows and consumes.

use jiff::Timestamp;

use super::arguments::{Arguments, Fault};
use super::{Bound, Bridge};
use crate::protocol::{Map, Value, date};
use crate::task::{Acks, Request, TaskDef};
use crate::worker::active::{Held, Stage};
use crate::worker::neighbours;

/// Jobs in one answer.
const LISTED_MAX: usize = 10_000;

/// Attributes of tasks that are shown when none is asked for.
const ATTRIBUTES: [&str; 3] = ["exchange", "routing_key", "rate_limit"];

pub(super) fn clock(bridge: &Bridge) -> Result<Value, Fault> {
    Ok(Value::Map(Map::from_iter([("clock", bridge.clock().now())])))
}

/// What runs.
pub(super) fn active(bridge: &Bridge) -> Result<Value, Fault> {
    Ok(listed(Stage::Active, bridge, |held| info(held, bridge)))
}

/// What waits for a slot.
pub(super) fn reserved(bridge: &Bridge) -> Result<Value, Fault> {
    Ok(listed(Stage::Reserved, bridge, |held| info(held, bridge)))
}

/// What waits for its date.
pub(super) fn scheduled(bridge: &Bridge) -> Result<Value, Fault> {
    Ok(listed(Stage::Scheduled, bridge, |held| {
        let mut entry = Map::with_capacity(3);
        entry.push("eta", held.request.eta.map(date::format));
        // What Celery's timer calls the priority of its entries.
        entry.push("priority", 6);
        entry.push("request", info(held, bridge));
        Value::Map(entry)
    }))
}

/// The ids of revoked tasks.
pub(super) fn revoked(bridge: &Bridge) -> Result<Value, Fault> {
    Ok(texts(bridge.crew.revoked.task_ids()))
}

/// `{id: [state, info]}` of those that are here.
pub(super) fn query_task(arguments: &Arguments<'_>, bridge: &Bridge) -> Result<Value, Fault> {
    arguments.required("ids")?;
    let wanted = arguments.texts("ids")?;
    let wanted: std::collections::HashSet<&str> = wanted.iter().map(String::as_str).collect();
    let mut found = Map::new();
    for held in bridge.crew.active.list() {
        if wanted.contains(held.request.id.as_str()) {
            let state = match held.stage {
                Stage::Active => "active",
                Stage::Reserved => "reserved",
                Stage::Scheduled => "scheduled",
            };
            let entry = vec![Value::from(state), info(&held, bridge)];
            found.insert(held.request.id.clone(), Value::Array(entry));
        }
    }
    Ok(Value::Map(found))
}

/// `name`, or `name [attribute=value attribute=value]`.
pub(super) fn registered(arguments: &Arguments<'_>, bridge: &Bridge) -> Result<Value, Fault> {
    let items = arguments.texts("taskinfoitems")?;
    let builtins = arguments.truthy("builtins");
    let items: Vec<&str> = match items.is_empty() {
        true => ATTRIBUTES.to_vec(),
        false => items.iter().map(String::as_str).collect(),
    };
    let mut shown = Vec::new();
    for name in bridge.crew.registry.names() {
        if name.starts_with("celery.") && !builtins {
            continue;
        }
        let Some(task) = bridge.crew.registry.task(name) else { continue };
        let fields = items.iter().filter_map(|item| {
            let value = attribute(task, item, bridge)?;
            Some(format!("{item}={value}"))
        });
        let fields: Vec<String> = fields.collect();
        shown.push(match fields.is_empty() {
            true => name.to_owned(),
            false => format!("{name} [{}]", fields.join(" ")),
        });
    }
    Ok(texts(shown))
}

/// An attribute of Celery's tasks as Python shows it; `None` if it is not set or not known here.
fn attribute(task: &TaskDef, name: &str, bridge: &Bridge) -> Option<String> {
    let (options, config) = (&task.options, bridge.crew.client.config());
    let python = |flag: bool| if flag { "True" } else { "False" }.to_owned();
    let seconds = |time: std::time::Duration| time.as_secs_f64().to_string();
    match name {
        "name" => Some(task.name.to_owned()),
        "rate_limit" => bridge.crew.rates.get(task.name).map(|limit| limit.to_string()),
        "queue" => options.queue.map(str::to_owned),
        "priority" => options.priority.map(|it| it.to_string()),
        "serializer" => options.serializer.map(|it| it.name().to_owned()),
        "max_retries" => options.max_retries.map(|it| it.to_string()),
        "time_limit" => options.time_limit.or(config.task_time_limit).map(seconds),
        "soft_time_limit" => options.soft_time_limit.or(config.task_soft_time_limit).map(seconds),
        "ignore_result" => Some(python(options.ignore_result.unwrap_or(config.task_ignore_result))),
        "track_started" => Some(python(options.track_started.unwrap_or(config.task_track_started))),
        "acks_late" => Some(python(acks_late(task, bridge))),
        _ => None,
    }
}

fn acks_late(task: &TaskDef, bridge: &Bridge) -> bool {
    let late = bridge.crew.client.config().task_acks_late;
    task.options.acks.map_or(late, |acks| acks == Acks::Late)
}

/// The queues, with every key that Celery's have.
pub(super) fn active_queues(bridge: &Bridge) -> Result<Value, Fault> {
    let bound = bridge.bound().clone();
    let queues = bridge.consumer.queues();
    let each = |name: &String| queue(name, bound.get(name), bridge);
    Ok(Value::Array(queues.iter().map(each).collect()))
}

fn queue(name: &str, bound: Option<&Bound>, bridge: &Bridge) -> Value {
    let spec = bridge.crew.client.config().queue(name);
    let mut exchange = Map::new();
    exchange.push("name", bound.map_or(name, |bound| &bound.exchange));
    exchange.push("type", bound.map_or("direct", |bound| &bound.exchange_type));
    exchange.push("arguments", Value::Null);
    exchange.push("durable", true);
    exchange.push("passive", false);
    exchange.push("auto_delete", false);
    exchange.push("delivery_mode", Value::Null);
    exchange.push("no_declare", false);
    let arguments = spec.declared_arguments();
    let mut queue = Map::new();
    queue.push("name", name);
    queue.push("exchange", exchange);
    queue.push("routing_key", bound.map_or(name, |bound| &bound.routing_key));
    queue.push("queue_arguments", Some(arguments).filter(|it| !it.is_empty()).map(Value::Map));
    queue.push("binding_arguments", Value::Null);
    queue.push("consumer_arguments", Value::Null);
    queue.push("durable", spec.durable);
    queue.push("exclusive", spec.exclusive);
    queue.push("auto_delete", spec.auto_delete);
    queue.push("no_ack", false);
    queue.push("alias", Value::Null);
    queue.push("bindings", Vec::<Value>::new());
    for key in ["no_declare", "expires", "message_ttl", "max_length", "max_length_bytes"] {
        queue.push(key, Value::Null);
    }
    queue.push("max_priority", spec.max_priority.map(i32::from));
    Value::Map(queue)
}

/// What a worker that starts wants to know of the others, and what it tells them: the tasks that
/// it knows to be revoked. Nobody answers himself.
pub(super) fn hello(arguments: &Arguments<'_>, bridge: &Bridge) -> Result<Value, Fault> {
    if arguments.text("from_node")? == bridge.crew.info.hostname {
        return Ok(Value::Null);
    }
    if let Some(revoked) = arguments.get("revoked") {
        bridge.revocations.adopt(neighbours::task_ids(revoked), &bridge.crew);
    }
    let mut reply = Map::with_capacity(2);
    reply.push("revoked", texts(bridge.crew.revoked.task_ids()));
    reply.push("clock", bridge.clock().tick());
    Ok(Value::Map(reply))
}

fn listed(stage: Stage, bridge: &Bridge, show: impl Fn(&Held) -> Value) -> Value {
    let held = bridge.crew.active.list();
    let held = held.iter().filter(|held| held.stage == stage).take(LISTED_MAX);
    Value::Array(held.map(show).collect())
}

/// One job with every key that Celery's have. Arguments are shown as the sender has shown them,
/// always: the values are the task's.
fn info(held: &Held, bridge: &Bridge) -> Value {
    let request: &Request = &held.request;
    let address = &request.delivery_info;
    let mut delivery = Map::with_capacity(4);
    delivery.push("exchange", address.exchange.as_str());
    delivery.push("routing_key", address.routing_key.as_str());
    delivery.push("priority", address.priority.map(i32::from));
    delivery.push("redelivered", address.redelivered);
    let is_active = held.stage == Stage::Active;
    let task = bridge.crew.registry.task(&request.task);
    let mut info = Map::with_capacity(10);
    info.push("id", request.id.as_str());
    info.push("name", request.shadow.as_deref().unwrap_or(&request.task));
    info.push("args", request.argsrepr.as_str());
    info.push("kwargs", request.kwargsrepr.as_str());
    info.push("type", request.task.as_str());
    info.push("hostname", request.hostname.as_str());
    info.push("time_start", held.since.map(seconds));
    info.push("acknowledged", is_active && task.is_some_and(|task| !acks_late(task, bridge)));
    info.push("delivery_info", delivery);
    let pid = held.pid.or_else(|| is_active.then(std::process::id));
    info.push("worker_pid", pid);
    Value::Map(info)
}

fn seconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}

fn texts(texts: Vec<String>) -> Value {
    Value::Array(texts.into_iter().map(Value::from).collect())
}
