//! The mailbox: takes commands from the broker, one after the other, and answers them.
//!
//! **Invariants:** garbage is logged and dropped; a command that hangs or an answer that cannot
//! be sent holds up the next one for a bounded time only. A name that another node has leaves
//! this worker without a mailbox until that node is gone, and no worse.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Bridge, commands};
use crate::amqp::{Consumer, ConsumerOptions, Delivery, Publish, Publisher, layout, topology};
use crate::backoff::Backoff;
use crate::protocol::control::{Reply, Request};
use crate::protocol::excerpt;
use crate::protocol::{Serializer, Value, repr};

/// Commands that are on their way to the worker; more wait in the broker, for a while.
const PREFETCH: u32 = 16;

/// How long one command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an answer may take: the broker may have blocked us.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Until a mailbox that could not be opened is tried again.
const RETRY: Backoff =
    Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30), jitter: true };

/// A mailbox that is open, or being opened.
#[derive(Debug)]
pub(in crate::worker) struct Mailbox {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Mailbox {
    /// Opens the mailbox, and takes commands until [`stop`](Self::stop).
    pub(in crate::worker) async fn open(bridge: Bridge) -> Self {
        let (stop, first) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, tried) = (stop.clone(), first.clone());
        let serving = tokio::spawn(async move {
            let bridge = Arc::new(bridge);
            stopped.run_until_cancelled(keep(&bridge, &tried)).await;
        });
        // Whoever has seen the worker ready may expect an answer.
        first.cancelled().await;
        Self { stop, serving }
    }

    pub(in crate::worker) async fn stop(self) {
        self.stop.cancel();
        // A command that panics has been printed already.
        let _ = self.serving.await;
    }
}

/// Opens the mailbox until it has worked; `tried` hears of the first time.
async fn keep(bridge: &Arc<Bridge>, tried: &CancellationToken) {
    let hostname = bridge.crew.info.hostname.as_str();
    let config = bridge.crew.client.config();
    let mailbox = layout::mailbox(&config.control_exchange, hostname);
    let queue = topology::control_queue(&config.control_exchange, hostname);
    for attempt in 0.. {
        let opened = async {
            bridge.connection.declare(&mailbox).await?;
            let options = ConsumerOptions::new(mailbox.queues.clone())
                .prefetch(PREFETCH)
                .exclusive()
                .tag_prefix(format!("{hostname} control"));
            Consumer::start(&bridge.connection, options).await
        };
        let opened = opened.await;
        tried.cancel();
        match opened {
            Ok((mut deliveries, handle)) => {
                debug!(queue, "remote control is open");
                // Not the worker's publisher: a reply to an exchange that is not there closes its
                // channel, and the results on it would have to be sent again.
                let replies = Publisher::new(bridge.crew.client.connection());
                let mut burst = Vec::new();
                while deliveries.next_burst(&mut burst).await {
                    for delivery in burst.drain(..) {
                        take(delivery, bridge, &replies).await;
                    }
                }
                handle.close().await;
                return;
            }
            Err(error) if error.is_permanent() => return,
            Err(error) => {
                // Or a connection of ours that the broker has not given up yet.
                bridge.connection.forget_queue(&queue);
                warn!(%error, queue, "no remote control: does another node have this name?");
                tokio::time::sleep(RETRY.delay(attempt)).await;
            }
        }
    }
}

async fn take(delivery: Delivery, bridge: &Arc<Bridge>, replies: &Publisher) {
    // Nobody else can have it, and nobody waits long for a command.
    delivery.token.ack();
    let message = delivery.message;
    if let Some(clock) = message.header("clock").and_then(Value::as_i64) {
        bridge.clock().adjust(clock);
    }
    let (request, serializer) = match Request::decode(&message) {
        Ok(read) => read,
        Err(error) => {
            warn!(%error, "a command could not be read, and is dropped");
            return;
        }
    };
    match request.concerns(&bridge.crew.info.hostname) {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            warn!(%error, "a command for nobody knows whom is dropped");
            return;
        }
    }
    let Some(value) = run(&request, bridge).await else { return };
    answer(request, value, serializer, bridge, replies).await;
}

/// The value of the answer; `None` for a command that is never answered.
async fn run(request: &Request, bridge: &Arc<Bridge>) -> Option<Value> {
    let method = repr::value(&excerpt(&request.method).into());
    // Monitors cast these every few seconds.
    let is_routine = matches!(&*request.method, "enable_events" | "heartbeat");
    if request.reply_to.is_none() && !is_routine {
        info!("remote control: {method}");
    } else {
        debug!("remote control: {method}");
    }
    // In a task of its own, so that nothing that it does ends the mailbox.
    let (request, bridge) = (request.clone(), Arc::clone(bridge));
    let running = tokio::spawn(async move { commands::run(&request, &bridge).await });
    match tokio::time::timeout(COMMAND_TIMEOUT, running).await {
        Ok(Ok(value)) => value,
        Ok(Err(_)) => Some(Reply::exception("RuntimeError", "the command panicked")),
        Err(_) => Some(Reply::exception("TimeoutError", "the command goes on by itself")),
    }
}

async fn answer(
    request: Request,
    value: Value,
    serializer: Serializer,
    bridge: &Bridge,
    replies: &Publisher,
) {
    let Some(reply_to) = request.reply_to else { return };
    let hostname = bridge.crew.info.hostname.as_str();
    let reply = |value| Reply::of(hostname, request.ticket.clone(), value);
    let clock = bridge.clock().tick();
    let encoded = reply(value).encode(serializer, clock).or_else(|error| {
        reply(Reply::exception("EncodeError", &error.to_string())).encode(serializer, clock)
    });
    let Ok(message) = encoded else { return };
    let publish = Publish::new(reply_to.exchange, reply_to.routing_key, message);
    send(publish, replies).await;
}

async fn send(publish: Publish, replies: &Publisher) {
    match tokio::time::timeout(REPLY_TIMEOUT, replies.publish(publish)).await {
        Ok(Ok(())) => {}
        // The caller has gone.
        Ok(Err(error)) => debug!(%error, "a reply reached nobody"),
        Err(_) => debug!("a reply could not be sent in time"),
    }
}
