//! The address of a result: which exchange and routing key bring it to the caller.

use crate::amqp::layout::is_reply_queue;
use crate::amqp::topology::results_exchange;
use crate::amqp::{Publish, WhenUnroutable};
use crate::protocol::Message;

/// Addresses `message` to the caller behind `reply_to`.
///
/// Reply queues of celeriac clients are bound to the results exchange, where others may listen
/// too. Every other `reply_to` is the name of a Python client's queue and is served through the
/// default exchange, as Celery does it. A result that is sent twice is read once, so a lost
/// confirm is answered by sending again. If somebody has deleted the exchange or its binding, the
/// result goes straight to the queue, and the client puts both back (see `inbox.rs`).
pub(crate) fn publish(reply_to: &str, message: Message) -> Publish {
    let exchange = if is_reply_queue(reply_to) { results_exchange() } else { "" };
    let when_unroutable = WhenUnroutable::ToQueue;
    Publish { when_unroutable, ..Publish::new(exchange, reply_to, message) }
}
