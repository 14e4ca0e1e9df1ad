//! Collecting the replies to one command, on a queue that lives as long as the wait.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;
use uuid::Uuid;

use super::{Control, ControlError};
use crate::amqp::{Connection, Consumer, ConsumerOptions, Deliveries, layout, topology};
use crate::protocol::Value;
use crate::protocol::control::{Reply, Request};

/// Replies to one command, at most.
const REPLIES_MAX: usize = 10_000;

/// Replies that may be on their way.
const PREFETCH: u32 = 250;

/// How many timeouts all replies together may take.
const TIMEOUTS_MAX: u32 = 10;

/// How long it may take to send a command.
const SENDING_MAX: Duration = Duration::from_secs(30);

/// What one worker has answered.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NodeReply {
    /// Its node name.
    pub hostname: String,
    /// The value, most often `{"ok": …}` or `{"error": …}`.
    pub value: Value,
}

impl NodeReply {
    /// What stands behind `ok`, if that is the form of the value.
    pub fn ok(&self) -> Option<&Value> {
        self.value.as_map()?.get("ok")
    }

    /// The error that the worker tells, if it does.
    pub fn error(&self) -> Option<&str> {
        match self.value.as_map() {
            Some(map) if map.len() == 1 => map.get("error")?.as_str(),
            _ => None,
        }
    }
}

/// Sends `request`, does what comes `then`, and collects the replies.
pub(super) async fn ask(
    control: &Control,
    mut request: Request,
    then: impl Future<Output = ()>,
) -> Result<Vec<NodeReply>, ControlError> {
    let id = Uuid::new_v4().to_string();
    let name = &control.client.config().control_exchange;
    let queue = topology::control_reply_queue(name, &id);
    let connection = control.client.connection();
    let replies = layout::control_replies(name, &id);
    let ticket = Uuid::new_v4().to_string();
    let _forgotten = Forgotten { connection, queue: &queue };
    request.reply_to = Some(control.reply_to(&id));
    request.ticket = Some(ticket.clone());
    let asking = async {
        connection.declare(&replies).await.map_err(ControlError::declare)?;
        let options = ConsumerOptions::new(replies.queues.clone())
            .prefetch(PREFETCH)
            .tag_prefix("celeriac-control");
        let consumer = Consumer::start(connection, options).await;
        let (deliveries, handle) = consumer.map_err(ControlError::declare)?;
        let sent = control.publish(&request).await;
        Ok((sent?, deliveries, handle))
    };
    let asked = tokio::time::timeout(SENDING_MAX, asking).await;
    let asked = asked.unwrap_or(Err(ControlError::Timeout { after: SENDING_MAX }));
    then.await;
    let collected = match asked {
        Ok((sent, deliveries, handle)) => {
            let mut found = Vec::new();
            if sent {
                collect(control, &ticket, deliveries, &mut found).await;
            }
            handle.close().await;
            Ok(found)
        }
        Err(error) => Err(error),
    };
    // It goes with its consumer, or with the connection.
    let _ = connection.delete_queue(&queue).await;
    collected
}

/// A queue that is not declared again after a reconnect, even if nobody waits for its end.
struct Forgotten<'a> {
    connection: &'a Connection,
    queue: &'a str,
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.connection.forget_queue(self.queue);
    }
}

async fn collect(
    control: &Control,
    ticket: &str,
    mut deliveries: Deliveries,
    found: &mut Vec<NodeReply>,
) {
    let named = Some(control.destination.len()).filter(|count| *count > 0);
    let limit = control.limit.or(named).unwrap_or(REPLIES_MAX).min(REPLIES_MAX);
    let end = Instant::now() + control.timeout.saturating_mul(TIMEOUTS_MAX).min(SENDING_MAX * 10);
    let mut burst = Vec::new();
    while found.len() < limit {
        let until = Instant::now().checked_add(control.timeout).map_or(end, |at| at.min(end));
        match tokio::time::timeout_at(until, deliveries.next_burst(&mut burst)).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
        for delivery in burst.drain(..) {
            if let Some(clock) = delivery.message.header("clock").and_then(Value::as_i64) {
                control.client.clock().adjust(clock);
            }
            let reply = Reply::decode(&delivery.message);
            delivery.token.ack();
            match reply {
                Ok(reply) if reply.ticket.as_deref() == Some(ticket) => {
                    let each = reply.answers.into_iter();
                    found.extend(each.map(|(hostname, value)| NodeReply {
                        hostname: hostname.into_owned(),
                        value,
                    }));
                }
                Ok(_) => debug!("a reply to something else"),
                Err(error) => debug!(%error, "not a reply"),
            }
        }
    }
    found.truncate(limit);
}
