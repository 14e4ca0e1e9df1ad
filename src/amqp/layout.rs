//! Which entities make a client, a worker and a reply queue: the layout that we create.
//!
//! Pure data. **Invariant:** every process that declares one of these declares it alike, because
//! the broker refuses a second declaration with other arguments.

use std::time::Duration;

use super::topology::{
    Binding, ExchangeKind, ExchangeSpec, QueueKind, QueueSpec, Topology, control_exchange,
    control_queue, control_reply_exchange, control_reply_queue, dead_exchange, dead_queue,
    delay_delivery_exchange, delay_exchange, delay_queue, event_queue, join_queue, joiners_queue,
    park_end_queue, park_queue, parking_queue, reply_queue, rest_stream, results_exchange,
    revocation_stream,
};
use crate::protocol::Map;
use crate::protocol::delay;
use crate::protocol::join::shard_route;

/// How often a message may come back from a worker before the broker dead-letters it: the default
/// of RabbitMQ 4. A rolling restart returns prefetched messages and counts too, so this must not
/// be a small number.
const DELIVERY_LIMIT: i64 = 20;

/// A limit of deliveries that nobody reaches.
const DELIVERIES_NEVER: i64 = i32::MAX as i64;

/// Name of the default queue of Celery, whose programs declare it as a classic queue.
pub(crate) const CELERY_QUEUE: &str = "celery";

/// Commands that may wait in the mailbox of a worker; the oldest go first.
const MAILBOX_MAX: i64 = 10_000;
/// How long a queue of remote control outlives its consumer. Celery: `control_queue_expires`.
const PIDBOX_EXPIRES_MS: i64 = 10_000;
/// How long a command or reply waits. Celery: `control_queue_ttl`.
const PIDBOX_TTL_MS: i64 = 300_000;

/// How long a queue of events outlives its consumer. Celery: `event_queue_expires`.
const EVENTS_EXPIRE_MS: i64 = 60_000;
/// How long an event waits for its reader. Celery: `event_queue_ttl`, which is 5 s; but a monitor
/// that is busy for a moment need not lose any.
const EVENTS_TTL_MS: i64 = 60_000;
/// Messages of events that may wait for their reader; the oldest go first.
const EVENTS_MAX: i64 = 10_000;

/// How large the stream of revocations may grow: half a million ids, about.
const STREAM_BYTES_MAX: i64 = 32_000_000;

/// A task queue of ours.
///
/// A quorum queue bounds redeliveries and dead-letters to the dead exchange. A classic queue has
/// no arguments, like the queues of Celery programs.
pub(crate) fn task_queue(name: &str, kind: QueueKind, max_priority: Option<u8>) -> QueueSpec {
    if kind == QueueKind::Classic {
        return QueueSpec { max_priority, ..QueueSpec::classic(name) };
    }
    let mut spec = QueueSpec::quorum(name);
    spec.arguments.insert("x-delivery-limit", DELIVERY_LIMIT);
    spec.arguments.insert("x-dead-letter-exchange", dead_exchange());
    spec
}

/// What must exist before tasks can be sent to `queues`.
pub(crate) fn sending(queues: Vec<QueueSpec>) -> Topology {
    let mut topology = dead_letters();
    for queue in queues {
        // Celery programs publish to an exchange of the queue's name in some settings.
        if queue.name == CELERY_QUEUE {
            topology.exchanges.push(ExchangeSpec::durable(&*queue.name, ExchangeKind::Direct));
            topology.bindings.push(Binding::queue(&*queue.name, &*queue.name, &*queue.name));
        }
        topology.queues.push(queue);
    }
    topology
}

/// What must exist before a worker can consume from `queues`: also the exchange of results, and a
/// parking queue for each queue.
pub(crate) fn working(queues: &[QueueSpec]) -> Topology {
    let mut topology = sending(queues.to_vec());
    topology.exchanges.push(ExchangeSpec::durable(results_exchange(), ExchangeKind::Direct));
    for queue in queues {
        topology.merge(&parking(&parking_queue(&queue.name)));
    }
    topology
}

/// The queue `name` in which messages are parked.
///
/// People look into it again and again, and each time counts as a delivery. From RabbitMQ 4.0 on
/// a limit of 20 would apply if there was none, and drop what was looked at too often; the word
/// for "no limit" drops messages at once before 4.0. So there is a limit that nobody reaches.
pub(crate) fn parking(name: &str) -> Topology {
    let mut queue = QueueSpec::quorum(name);
    queue.arguments.insert("x-delivery-limit", DELIVERIES_NEVER);
    Topology { queues: vec![queue], ..Topology::default() }
}

/// A queue that exists as long as one connection has it, and keeps no messages.
pub(crate) fn permit(name: &str) -> QueueSpec {
    let mut queue = QueueSpec { durable: false, exclusive: true, ..QueueSpec::classic(name) };
    queue.arguments.insert("x-max-length", 0_i64);
    queue
}

/// A queue of starts: it takes `count` messages within `period`, and refuses more.
///
/// Classic, whatever the broker makes of queues that do not say: only those refuse exactly.
pub(crate) fn starts(name: &str, count: u32, period: Duration) -> QueueSpec {
    let expires = Some(starts_lifetime(period));
    let mut queue = QueueSpec { expires, ..QueueSpec::classic(name) };
    queue.arguments.insert("x-queue-type", "classic");
    queue.arguments.insert("x-max-length", i64::from(count));
    queue.arguments.insert("x-overflow", "reject-publish");
    queue.arguments.insert("x-message-ttl", i64::try_from(period.as_millis()).unwrap_or(i64::MAX));
    queue
}

/// How long such a queue stays after it was declared last: long enough that it need not be
/// declared for each start, and no longer, because each key of a call makes one.
pub(crate) fn starts_lifetime(period: Duration) -> Duration {
    const MORE: Duration = Duration::from_secs(20);
    period.saturating_mul(2).saturating_add(MORE)
}

/// The queue of dead letters. What its consumers do not get done is moved to its own parking
/// queue by the broker.
pub(crate) fn dead_letter_queue() -> QueueSpec {
    let mut queue = QueueSpec::quorum(dead_queue());
    queue.arguments.insert("x-delivery-limit", DELIVERY_LIMIT);
    queue.arguments.insert("x-dead-letter-exchange", "");
    queue.arguments.insert("x-dead-letter-routing-key", parking_queue(dead_queue()));
    queue
}

/// The queues of join shards, bound to the exchange of results by their routes.
///
/// Their arguments are part of the join protocol: no other one may be added.
pub(crate) fn joining(shards: impl IntoIterator<Item = u32>, kind: QueueKind) -> Topology {
    let mut topology = dead_letters();
    topology.exchanges.push(ExchangeSpec::durable(results_exchange(), ExchangeKind::Direct));
    for shard in shards {
        let mut queue = QueueSpec { kind, ..QueueSpec::quorum(join_queue(shard)) };
        queue.arguments.insert("x-single-active-consumer", true);
        queue.arguments.insert("x-dead-letter-exchange", dead_exchange());
        let binding = Binding::queue(&*queue.name, results_exchange(), shard_route(shard));
        topology.queues.push(queue);
        topology.bindings.push(binding);
    }
    topology
}

/// The queue of the large values of a chord, which goes away when nobody has read it for so long.
///
/// One reader at a time, because each needs all of it. Like a parking queue it has a limit of
/// deliveries that nobody reaches: each try of the body reads it once more.
pub(crate) fn park(chord: &str, kind: QueueKind, lease: Duration) -> Topology {
    // The broker takes no longer one.
    const EXPIRES_MAX: Duration = Duration::from_millis(u32::MAX as u64);
    let expires = Some(lease.clamp(Duration::from_secs(1), EXPIRES_MAX));
    let mut queue = QueueSpec { kind, expires, ..QueueSpec::quorum(park_queue(chord)) };
    if kind == QueueKind::Quorum {
        queue.arguments.insert("x-delivery-limit", DELIVERIES_NEVER);
    }
    queue.arguments.insert("x-single-active-consumer", true);
    Topology { queues: vec![queue], ..Topology::default() }
}

/// The queue that says that a body with parked values has ended. As safe as the values: a classic
/// one is not to be found while its node is away.
pub(crate) fn park_end(chord: &str, kind: QueueKind) -> Topology {
    /// A second call of the body comes within moments, or after the longest pause of a retry.
    const EXPIRES: Duration = Duration::from_secs(24 * 3600);
    let expires = Some(EXPIRES);
    let queue = QueueSpec { kind, expires, ..QueueSpec::quorum(park_end_queue(chord)) };
    Topology { queues: vec![queue], ..Topology::default() }
}

/// The queue by which workers that join are counted. A classic one: of a quorum queue with a
/// single active consumer a broker tells that it has one.
pub(crate) fn joiners() -> Topology {
    /// Without workers it goes away.
    const EXPIRES: Duration = Duration::from_secs(600);
    let mut queue = QueueSpec { expires: Some(EXPIRES), ..QueueSpec::classic(joiners_queue()) };
    queue.arguments.insert("x-max-length", 1);
    Topology { queues: vec![queue], ..Topology::default() }
}

/// A client's reply queue, bound to the exchange of results by its own name.
///
/// Durable and not exclusive, so that results which arrive while the client is reconnecting are
/// kept; a client that never comes back leaves it to expire.
pub(crate) fn reply(queue: &str, expires: Duration) -> Topology {
    Topology {
        exchanges: vec![ExchangeSpec::durable(results_exchange(), ExchangeKind::Direct)],
        queues: vec![reply_spec(queue, expires)],
        bindings: vec![Binding::queue(queue, results_exchange(), queue)],
    }
}

/// The reply queue alone.
pub(crate) fn reply_spec(queue: &str, expires: Duration) -> QueueSpec {
    QueueSpec { expires: Some(expires), ..QueueSpec::classic(queue) }
}

/// The mailbox of a worker: Celery's, and with a limit on how many commands wait in it.
pub(crate) fn mailbox(name: &str, hostname: &str) -> Topology {
    let mut queue = pidbox(control_queue(name, hostname));
    queue.arguments.insert("x-max-length", MAILBOX_MAX);
    let exchange = control_exchange(name);
    Topology {
        exchanges: vec![transient(&exchange, ExchangeKind::Fanout)],
        bindings: vec![Binding::queue(&*queue.name, exchange, "")],
        queues: vec![queue],
    }
}

/// The exchange to which commands are published.
pub(crate) fn commanding(name: &str) -> Topology {
    let exchanges = vec![transient(control_exchange(name), ExchangeKind::Fanout)];
    Topology { exchanges, ..Topology::default() }
}

/// The queue on which a caller gets the replies to one command.
pub(crate) fn control_replies(name: &str, id: &str) -> Topology {
    let queue = pidbox(control_reply_queue(name, id));
    let exchange = control_reply_exchange(name);
    Topology {
        exchanges: vec![transient(&exchange, ExchangeKind::Direct)],
        bindings: vec![Binding::queue(&*queue.name, exchange, id)],
        queues: vec![queue],
    }
}

fn transient(name: impl Into<String>, kind: ExchangeKind) -> ExchangeSpec {
    ExchangeSpec { durable: false, ..ExchangeSpec::durable(name, kind) }
}

/// A queue as Celery declares it for remote control. It goes with its connection.
fn pidbox(name: String) -> QueueSpec {
    let mut arguments = Map::new();
    arguments.insert("x-expires", PIDBOX_EXPIRES_MS);
    arguments.insert("x-message-ttl", PIDBOX_TTL_MS);
    let (durable, exclusive, auto_delete) = (false, true, true);
    QueueSpec { durable, exclusive, auto_delete, arguments, ..QueueSpec::classic(name) }
}

/// The exchange to which events are published; `name` is Celery's `event_exchange`.
pub(crate) fn telling(name: &str) -> Topology {
    let exchanges = vec![ExchangeSpec::durable(name, ExchangeKind::Topic)];
    Topology { exchanges, ..Topology::default() }
}

/// The queue on which a monitor receives all events: Celery's, and with a limit on how many wait.
pub(crate) fn listening(name: &str, id: &str) -> Topology {
    let mut arguments = Map::new();
    arguments.insert("x-expires", EVENTS_EXPIRE_MS);
    arguments.insert("x-message-ttl", EVENTS_TTL_MS);
    arguments.insert("x-max-length", EVENTS_MAX);
    let (durable, exclusive, auto_delete) = (false, true, true);
    let queue = QueueSpec::classic(event_queue(id));
    let queue = QueueSpec { durable, exclusive, auto_delete, arguments, ..queue };
    Topology {
        bindings: vec![Binding::queue(&*queue.name, name, "#")],
        queues: vec![queue],
        ..telling(name)
    }
}

/// The stream of revocations. Readers judge by dates how much of it they want; it is cut into
/// small segments, because the broker forgets whole segments only.
pub(crate) fn revocations() -> QueueSpec {
    stream(revocation_stream(), "7D", STREAM_BYTES_MAX)
}

/// The same for what only spares work, which is written by programs, and must not push out what
/// people have revoked.
pub(crate) fn revocations_of_rest() -> QueueSpec {
    stream(rest_stream(), "12h", STREAM_BYTES_MAX / 4)
}

fn stream(name: &str, age_max: &'static str, bytes_max: i64) -> QueueSpec {
    let mut queue = QueueSpec::classic(name);
    queue.arguments.insert("x-queue-type", "stream");
    queue.arguments.insert("x-max-age", age_max);
    queue.arguments.insert("x-max-length-bytes", bytes_max);
    queue.arguments.insert("x-stream-max-segment-size-bytes", bytes_max / 16);
    queue
}

/// Whether `reply_to` names a reply queue of ours, which is bound to the exchange of results.
pub(crate) fn is_reply_queue(reply_to: &str) -> bool {
    reply_to.starts_with(&*reply_queue(""))
}

/// Native delayed delivery, exactly as Celery declares it. `kind` is that of the queues.
pub(crate) fn delaying(kind: QueueKind) -> Topology {
    let mut topology = Topology::default();
    let topic = |name: String| ExchangeSpec::durable(name, ExchangeKind::Topic);
    let behind = |level: u32| match level.checked_sub(1) {
        Some(next) => delay_exchange(next),
        None => delay_delivery_exchange().to_owned(),
    };
    topology.exchanges.push(topic(delay_delivery_exchange().to_owned()));
    for level in 0..delay::LEVELS {
        let (exchange, name) = (delay_exchange(level), delay_queue(level));
        let mut queue = QueueSpec { kind, ..QueueSpec::quorum(&*name) };
        queue.arguments.insert("x-overflow", "reject-publish");
        queue.arguments.insert("x-message-ttl", 1000_i64 << level);
        queue.arguments.insert("x-dead-letter-exchange", behind(level));
        if kind == QueueKind::Quorum {
            queue.arguments.insert("x-dead-letter-strategy", "at-least-once");
        }
        topology.exchanges.push(topic(exchange.clone()));
        topology.queues.push(queue);
        let (waits, passes) = (delay::waiting_pattern(level), delay::passing_pattern(level));
        topology.bindings.push(Binding::queue(name, &*exchange, waits));
        topology.bindings.push(Binding::exchange(behind(level), exchange, passes));
    }
    topology
}

/// Brings `queues` what is for them after a delay; without those that cannot be reached so.
pub(crate) fn delayed_for<'a>(queues: impl IntoIterator<Item = &'a str>) -> Topology {
    let bind = |queue: &'a str| {
        let pattern = delay::arriving_pattern(queue)?;
        Some(Binding::queue(queue, delay_delivery_exchange(), pattern))
    };
    let delivery = ExchangeSpec::durable(delay_delivery_exchange(), ExchangeKind::Topic);
    Topology {
        exchanges: vec![delivery],
        bindings: queues.into_iter().filter_map(bind).collect(),
        ..Topology::default()
    }
}

fn dead_letters() -> Topology {
    let mut topology = parking(&parking_queue(dead_queue()));
    topology.exchanges.push(ExchangeSpec::durable(dead_exchange(), ExchangeKind::Fanout));
    topology.queues.push(dead_letter_queue());
    topology.bindings.push(Binding::queue(dead_queue(), dead_exchange(), ""));
    topology
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_queues_are_told_apart_by_name() {
        assert!(is_reply_queue(&reply_queue("5b1d")));
        assert!(!is_reply_queue("0cf9a2c8-4a41-3f6d-9b06-0c4e6f1a2b3c"));
        assert!(!is_reply_queue(""));
    }

    #[test]
    fn delays_are_declared_as_celery_declares_them() {
        let topology = delaying(QueueKind::Quorum);
        assert_eq!((topology.exchanges.len(), topology.queues.len()), (29, 28));
        assert_eq!(topology.bindings.len(), 2 * 28);
        let arguments = |level: usize| {
            let arguments = topology.queues[level].declared_arguments();
            arguments.iter().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>()
        };
        let expected = |ttl: &str, exchange: &str| {
            vec![
                "x-queue-type=String(\"quorum\")".to_owned(),
                "x-overflow=String(\"reject-publish\")".to_owned(),
                format!("x-message-ttl=Int({ttl})"),
                format!("x-dead-letter-exchange=String(\"{exchange}\")"),
                "x-dead-letter-strategy=String(\"at-least-once\")".to_owned(),
            ]
        };
        assert_eq!(arguments(0), expected("1000", "celery_delayed_delivery"));
        assert_eq!(arguments(27), expected("134217728000", "celery_delayed_26"));
        let classic = delaying(QueueKind::Classic);
        assert_eq!(classic.queues[3].declared_arguments().len(), 3, "ttl, overflow and exchange");
    }

    #[test]
    fn that_a_body_has_ended_is_kept_as_its_values_are() {
        for kind in [QueueKind::Quorum, QueueKind::Classic] {
            let park = park("c", kind, Duration::from_secs(5));
            let end = park_end("c", kind);
            assert_eq!(end.queues[0].kind, park.queues[0].kind);
            assert!(end.queues[0].expires >= Some(Duration::from_secs(24 * 3600)));
        }
    }

    #[test]
    fn a_classic_queue_looks_like_celery_s() {
        let queue = task_queue(CELERY_QUEUE, QueueKind::Classic, None);
        assert!(queue.declared_arguments().is_empty());
        assert!(queue.durable && !queue.auto_delete && !queue.exclusive);
    }
}
