//! Which entities make a client, a worker and a reply queue: the layout that we create.
//!
//! Pure data. **Invariant:** every process that declares one of these declares it alike, because
//! the broker refuses a second declaration with other arguments.

use std::time::Duration;

use super::topology::{
    Binding, ExchangeKind, ExchangeSpec, QueueKind, QueueSpec, Topology, dead_exchange, dead_queue,
    join_queue, parking_queue, reply_queue, results_exchange,
};
use crate::protocol::join::shard_route;

/// How often a message may come back from a worker before the broker dead-letters it: the default
/// of RabbitMQ 4. A rolling restart returns prefetched messages and counts too, so this must not
/// be a small number.
const DELIVERY_LIMIT: i64 = 20;

/// Name of the default queue of Celery, whose programs declare it as a classic queue.
pub(crate) const CELERY_QUEUE: &str = "celery";

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
        topology.queues.push(QueueSpec::quorum(parking_queue(&queue.name)));
    }
    topology
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

/// Whether `reply_to` names a reply queue of ours, which is bound to the exchange of results.
pub(crate) fn is_reply_queue(reply_to: &str) -> bool {
    reply_to.starts_with(&*reply_queue(""))
}

fn dead_letters() -> Topology {
    Topology {
        exchanges: vec![ExchangeSpec::durable(dead_exchange(), ExchangeKind::Fanout)],
        queues: vec![QueueSpec::quorum(dead_queue())],
        bindings: vec![Binding::queue(dead_queue(), dead_exchange(), "")],
    }
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
    fn a_classic_queue_looks_like_celery_s() {
        let queue = task_queue(CELERY_QUEUE, QueueKind::Classic, None);
        assert!(queue.declared_arguments().is_empty());
        assert!(queue.durable && !queue.auto_delete && !queue.exclusive);
    }
}
