//! Listening to events.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;
use tracing::debug;
use uuid::Uuid;

use crate::amqp::{
    Connection, Consumer, ConsumerHandle, ConsumerOptions, Deliveries, Error, layout, topology,
};
use crate::client::Client;
use crate::protocol::event::{self, Event};
use crate::protocol::{self, Map, Message};

/// Messages on their way to this program.
const PREFETCH: u32 = 250;

/// Events that wait to be taken.
const QUEUE_MAX: usize = 1024;

/// The events of all workers and clients, from now on; a stream, too.
///
/// Whoever takes them too slowly loses some: the broker drops what has waited for a minute, and the
/// oldest of more than 10,000 messages. The end comes when the client's connection is closed, or
/// given up.
///
/// ```no_run
/// # async fn example(client: celeriac::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use celeriac::protocol::event::EventKind;
///
/// let mut events = client.events().await?;
/// client.control().enable_events().await?;
/// while let Some(event) = events.next().await {
///     if let EventKind::TaskFailed { uuid, exception, .. } = event.kind {
///         println!("{} on {}: {}", uuid, event.hostname, exception.unwrap_or_default());
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Event>,
}

impl Client {
    /// Listens to events. Workers are asked to tell at once that they are there; they tell of tasks
    /// if they run with `--task-events` or are asked to with
    /// [`enable_events`](crate::client::Control::enable_events).
    ///
    /// # Errors
    /// When the queue cannot be declared or read.
    pub async fn events(&self) -> Result<Events, Error> {
        let id = Uuid::new_v4().to_string();
        let connection = self.connection();
        let listening = layout::listening(&self.config().event_exchange, &id);
        connection.declare(&listening).await?;
        let options =
            ConsumerOptions::new(listening.queues).prefetch(PREFETCH).tag_prefix("celeriac-events");
        let (deliveries, handle) = Consumer::start(connection, options).await?;
        let (events, queue) = mpsc::channel(QUEUE_MAX);
        let reading = Reading {
            handle,
            events,
            connection: connection.clone(),
            id: topology::event_queue(&id),
        };
        tokio::spawn(reading.run(deliveries));
        // They tell by themselves soon enough.
        if let Err(error) = self.control().cast("heartbeat", Map::new()).await {
            debug!(%error, "workers could not be asked for a heartbeat");
        }
        Ok(Events { queue })
    }
}

impl Events {
    /// The next event; `None` when there will be none any more.
    pub async fn next(&mut self) -> Option<Event> {
        self.queue.recv().await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.queue.poll_recv(cx)
    }
}

/// Reads until nobody listens any more.
struct Reading {
    handle: ConsumerHandle,
    events: mpsc::Sender<Event>,
    connection: Connection,
    id: String,
}

impl Reading {
    async fn run(self, mut deliveries: Deliveries) {
        let nobody = self.events.clone();
        tokio::select! {
            () = nobody.closed() => {}
            () = self.read(&mut deliveries) => {}
        }
        self.handle.close().await;
        // It goes with its consumer, or with the connection.
        let _ = self.connection.delete_queue(&self.id).await;
    }

    async fn read(&self, deliveries: &mut Deliveries) {
        let mut burst = Vec::new();
        while deliveries.next_burst(&mut burst).await {
            for delivery in burst.drain(..) {
                for event in read(&delivery.message) {
                    if self.events.send(event).await.is_err() {
                        return;
                    }
                }
                delivery.token.ack();
            }
        }
    }
}

/// The events of a message that can be read.
fn read(message: &Message) -> Vec<Event> {
    let readable = |event: Result<Event, protocol::Error>| {
        event.inspect_err(|error| debug!(%error, "an event cannot be read")).ok()
    };
    match event::decode(message) {
        Ok(events) => events.into_iter().filter_map(readable).collect(),
        Err(error) => {
            debug!(%error, "a message of events cannot be read");
            Vec::new()
        }
    }
}
