//! Commands that change how the worker works.

use tracing::{info, warn};

use super::arguments::{Arguments, Fault};
use super::{Bound, Bridge};
use crate::amqp::{Binding, ExchangeKind, ExchangeSpec, Topology, layout, topology};
use crate::protocol::Value;
use crate::protocol::control::Reply;
use crate::task::RateLimit;
use crate::worker::WorkerHandle;
use crate::worker::autoscale::Bounds;
use crate::worker::events::ballots;
use crate::worker::limits::Limits;
use crate::worker::prefetch::Prefetch;

/// Slots that commands can make.
const SLOTS_MAX: usize = 10_000;

/// Queues that commands can make a worker consume.
const QUEUES_MAX: usize = 256;

/// Warm shutdown.
pub(super) fn shutdown(bridge: &Bridge) {
    info!("shutdown was asked for by remote control");
    WorkerHandle(bridge.crew.stop.clone()).shutdown();
}

/// `election(id, topic, action)`: Python's workers elect one of them, and wait until all workers
/// that tell of themselves have agreed. We are no candidate, so agreeing is all there is to do.
pub(super) fn election(arguments: &Arguments<'_>, bridge: &Bridge) {
    if let Ok(Some(id)) = arguments.optional_text("id") {
        ballots::agree(&bridge.crew, id);
    }
}

/// `enable_events()`: monitors send it again and again.
pub(super) fn enable_events(arguments: &Arguments<'_>, bridge: &Bridge) -> Result<Value, Fault> {
    arguments.none()?;
    if !bridge.crew.events.enable() {
        return Ok(Reply::ok("task events already enabled"));
    }
    info!("events of tasks are sent, by remote control");
    Ok(Reply::ok("task events enabled"))
}

/// `disable_events()`. As in Celery, a worker that was started with them keeps sending.
pub(super) fn disable_events(arguments: &Arguments<'_>, bridge: &Bridge) -> Result<Value, Fault> {
    arguments.none()?;
    if !bridge.crew.events.disable() {
        return Ok(Reply::ok("task events already disabled"));
    }
    info!("events of tasks are sent no more, by remote control");
    Ok(Reply::ok("task events disabled"))
}

/// `rate_limit(task_name, rate_limit)`.
pub(super) fn rate_limit(arguments: &Arguments<'_>, bridge: &Bridge) -> Result<Value, Fault> {
    let name = arguments.text("task_name")?;
    let given = arguments.required("rate_limit")?;
    let limit = RateLimit::from_value(given)
        .map_err(|error| Fault::new(format!("Invalid rate limit string: {error}")))?;
    known_task(name, bridge)?;
    bridge.crew.rates.set(name, limit);
    Ok(Reply::ok(match limit {
        Some(limit) => {
            info!(task_name = name, %limit, "rate limit changed by remote control");
            "new rate limit set successfully"
        }
        None => {
            info!(task_name = name, "rate limit removed by remote control");
            "rate limit disabled successfully"
        }
    }))
}

/// `time_limit(task_name, hard=None, soft=None)`.
pub(super) fn time_limit(arguments: &Arguments<'_>, bridge: &Bridge) -> Result<Value, Fault> {
    let name = arguments.text("task_name")?;
    let (soft, hard) = (arguments.seconds("soft")?, arguments.seconds("hard")?);
    if let (Some(soft), Some(hard)) = (soft, hard)
        && soft >= hard
    {
        let text = "the soft limit must be shorter than the hard one";
        return Err(Fault::exception("ValueError", text));
    }
    known_task(name, bridge)?;
    bridge.crew.time_limits.set(name, Limits { soft, hard });
    info!(task_name = name, ?soft, ?hard, "time limits changed by remote control");
    Ok(Reply::ok("time limits set successfully"))
}

fn known_task(name: &str, bridge: &Bridge) -> Result<(), Fault> {
    bridge.crew.registry.task(name).map(|_| ()).ok_or_else(|| Fault::new("unknown task"))
}

/// `pool_grow(n=1)`: more async slots, and the prefetch with them.
pub(super) async fn pool_grow(arguments: &Arguments<'_>, bridge: &Bridge) -> Result<Value, Fault> {
    let by = arguments.count("n", 1, SLOTS_MAX)?.unwrap_or(1);
    by_hand("pool_grow", bridge)?;
    if bridge.crew.slots.current().saturating_add(by) > SLOTS_MAX {
        let text = format!("commands do not make the pool larger than {SLOTS_MAX} slots");
        return Err(Fault::exception("ValueError", &text));
    }
    let slots = bridge.crew.slots.grow(by);
    fit_prefetch(bridge).await;
    info!(slots, "the pool grew by remote control");
    Ok(Reply::ok("pool will grow"))
}

/// `pool_shrink(n=1)`: fewer async slots; what runs is not disturbed, and one slot stays.
pub(super) async fn pool_shrink(
    arguments: &Arguments<'_>,
    bridge: &Bridge,
) -> Result<Value, Fault> {
    let by = arguments.count("n", 1, 1_000_000)?.unwrap_or(1);
    by_hand("pool_shrink", bridge)?;
    if by >= bridge.crew.slots.current() {
        let text = "the pool cannot shrink that far: at least one slot stays";
        return Err(Fault::exception("ValueError", text));
    }
    let slots = bridge.crew.slots.shrink(by);
    fit_prefetch(bridge).await;
    info!(slots, "the pool shrank by remote control");
    Ok(Reply::ok("pool will shrink"))
}

/// Lets the prefetch follow the slots.
async fn fit_prefetch(bridge: &Bridge) {
    prefetch(bridge).apply(&bridge.crew, &bridge.consumer).await;
}

/// The prefetch for the slots of both kinds.
pub(super) fn prefetch(bridge: &Bridge) -> Prefetch {
    let crew = &bridge.crew;
    Prefetch::of(crew, crew.slots.current().saturating_add(crew.blocking_slots.current()))
}

/// Slots that follow the load are not for others to change.
fn by_hand(method: &str, bridge: &Bridge) -> Result<(), Fault> {
    if bridge.crew.autoscale.bounds().is_none() {
        return Ok(());
    }
    let text = format!("{method} is not supported with autoscale. Adjust autoscale range instead.");
    Err(Fault::new(text))
}

/// `autoscale(max, min)`: other bounds, where slots follow the load.
pub(super) fn autoscale(arguments: &Arguments<'_>, bridge: &Bridge) -> Result<Value, Fault> {
    let max = arguments.count("max", 1, SLOTS_MAX)?;
    let min = arguments.count("min", 0, SLOTS_MAX)?;
    if let (Some(max), Some(min)) = (max, min)
        && min > max
    {
        let text = format!("min must not be above max, and {min} is above {max}");
        return Err(Fault::exception("ValueError", &text));
    }
    let autoscale = &bridge.crew.autoscale;
    let Some(now) = autoscale.bounds() else {
        return Err(Fault::exception("ValueError", "Autoscale not enabled"));
    };
    let max = max.unwrap_or_else(|| now.max().max(min.unwrap_or(0)));
    let min = min.unwrap_or_else(|| now.min().min(max));
    if let Some(bounds) = Bounds::new(max, min) {
        if !autoscale.set(bounds) {
            return Err(Fault::exception("ValueError", "Autoscale not enabled"));
        }
        info!(max, min, "autoscale bounds changed by remote control");
    }
    Ok(Reply::ok(format!("autoscale now max={max} min={min}")))
}

/// `add_consumer(queue, exchange=None, exchange_type='direct', routing_key=None, **options)`.
pub(super) async fn add_consumer(
    arguments: &Arguments<'_>,
    bridge: &Bridge,
) -> Result<Value, Fault> {
    let queue = arguments.text("queue")?;
    if queue.is_empty() {
        return Err(Fault::exception("ValueError", "the name of a queue is not empty"));
    }
    let exchange = arguments.optional_text("exchange")?.filter(|exchange| !exchange.is_empty());
    let kind = arguments.optional_text("exchange_type")?.unwrap_or("direct");
    // As in Celery, which publishes to that exchange with the name of the queue.
    let routing_key = arguments.optional_text("routing_key")?.unwrap_or(queue);
    let queues = bridge.consumer.queues();
    if queues.iter().any(|it| it == queue) {
        return Ok(Reply::ok(format!("already consuming from {queue}")));
    }
    if queues.len() >= QUEUES_MAX {
        let text = format!("a worker is not made to consume more than {QUEUES_MAX} queues");
        return Err(Fault::exception("ValueError", &text));
    }
    let spec = bridge.crew.client.config().queue(queue);
    let mut topology = layout::working(std::slice::from_ref(&spec));
    if let Some(exchange) = exchange {
        let kind = exchange_kind(kind)?;
        topology.exchanges.push(ExchangeSpec::durable(exchange, kind));
        topology.bindings.push(Binding::queue(queue, exchange, routing_key));
    }
    let failed =
        |error: &crate::amqp::Error| Fault::exception("OperationalError", &error.to_string());
    declare(&topology, queue, bridge).await.map_err(|error| failed(&error))?;
    bridge.consumer.add_queue(spec).await.map_err(|error| failed(&error))?;
    // Many declarations, for which whoever waits for the reply need not wait.
    bridge.binder.bind(queue);
    let bound = Bound {
        exchange: exchange.unwrap_or(queue).to_owned(),
        exchange_type: kind.to_owned(),
        routing_key: routing_key.to_owned(),
    };
    bridge.bound().insert(queue.to_owned(), bound);
    info!(queue, "consuming by remote control");
    Ok(Reply::ok(format!("add consumer {queue}")))
}

/// Declares all that belongs to a queue. The connection that consumes declares it again after
/// each loss, until the queue is cancelled and forgotten; the one that publishes does so with the
/// parking queue, which is wanted for longer: what is parked must still find its place.
async fn declare(
    topology: &Topology,
    queue: &str,
    bridge: &Bridge,
) -> Result<(), crate::amqp::Error> {
    let parking = layout::parking(&topology::parking_queue(queue));
    bridge.crew.client.connection().declare(&parking).await?;
    bridge.connection.declare(topology).await
}

fn exchange_kind(kind: &str) -> Result<ExchangeKind, Fault> {
    match kind {
        "direct" => Ok(ExchangeKind::Direct),
        "topic" => Ok(ExchangeKind::Topic),
        "fanout" => Ok(ExchangeKind::Fanout),
        "headers" => Ok(ExchangeKind::Headers),
        other => {
            let text = format!("unknown exchange type '{other}'");
            Err(Fault::exception("ValueError", &text))
        }
    }
}

/// `cancel_consumer(queue)`.
pub(super) async fn cancel_consumer(
    arguments: &Arguments<'_>,
    bridge: &Bridge,
) -> Result<Value, Fault> {
    let queue = arguments.text("queue")?;
    if bridge.consumer.cancel_queue(queue).await {
        info!(queue, "no longer consuming, by remote control");
    } else {
        warn!(queue, "not consuming, so nothing was cancelled by remote control");
    }
    bridge.bound().remove(queue);
    Ok(Reply::ok(format!("no longer consuming from {queue}")))
}
