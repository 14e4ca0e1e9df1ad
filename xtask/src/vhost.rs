//! A virtual host for one test, so that tests run side by side and leave nothing behind.
//!
//! It asks the management API, whose figures lag behind by up to a second on private nodes and
//! by five on others: state is waited for with [`wait_until`], never read once.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::url::AmqpUrl;
use crate::{Broker, Error, Management, Result, paths, wait_until};

// The broker of this process: a static is never dropped, so its lease ends with the process.
static BROKER: LazyLock<Result<Broker>> = LazyLock::new(Broker::for_tests);

/// How long no queue may have been declared before the virtual host is deleted.
const LOOK_AFTER: Duration = Duration::from_millis(250);
/// How often that is looked at.
const LOOKS_MAX: u32 = 20;

/// A virtual host of its own; dropping it deletes it with all it holds.
#[derive(Debug)]
pub struct TestVhost {
    name: String,
    url: String,
    user: String,
    management: Management,
}

/// How many messages a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Waiting to be delivered.
    pub ready: u64,
    /// Delivered and not yet settled.
    pub unacked: u64,
}

/// A message as the management API shows it.
#[derive(Clone, Debug)]
pub struct FetchedMessage {
    /// The body.
    pub payload: Vec<u8>,
    /// The properties by the names of the management API: `content_type`, `headers`, …
    pub properties: Value,
    /// Where it was published to.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// Whether it was delivered before.
    pub redelivered: bool,
}

impl TestVhost {
    /// Creates a virtual host on the broker of the tests; `hint` becomes part of its name.
    pub fn create(hint: &str) -> Result<Self> {
        let broker = BROKER.as_ref().map_err(|error| Error::new(error.to_string()))?;
        Self::create_on(&broker.url, broker.management(), hint)
    }

    /// Creates a virtual host on another broker, e.g. a [`PrivateNode`](crate::PrivateNode).
    pub fn create_on(url: &AmqpUrl, management: Management, hint: &str) -> Result<Self> {
        let name = format!("celeriac-{hint}-{:016x}", paths::random());
        management.put(&["vhosts", &name], &json!({}))?;
        // Deletes the virtual host also when the next step fails.
        let (url, user) = (url.with_vhost(&name).text(), url.user.clone());
        let vhost = Self { name, url, user, management };
        vhost.management.put(
            &["permissions", &vhost.name, &vhost.user],
            &json!({"configure": ".*", "write": ".*", "read": ".*"}),
        )?;
        Ok(vhost)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The AMQP URL of the virtual host.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The management API of the broker.
    pub fn management(&self) -> &Management {
        &self.management
    }

    /// How many messages a queue holds; an error when there is no such queue.
    pub fn queue_depth(&self, queue: &str) -> Result<QueueDepth> {
        let queue = self.existing(queue)?;
        Ok(QueueDepth {
            ready: number(&queue, "messages_ready"),
            unacked: number(&queue, "messages_unacknowledged"),
        })
    }

    /// How many consumers a queue has; an error when there is no such queue.
    pub fn consumers(&self, queue: &str) -> Result<u64> {
        self.existing(queue).map(|queue| number(&queue, "consumers"))
    }

    /// Waits until a queue is there and holds this much.
    pub fn wait_for_depth(&self, queue: &str, depth: QueueDepth, within: Duration) -> Result<()> {
        let mut seen = None;
        wait_until(&format!("{queue} holds {depth:?}"), within, || {
            seen = Some(self.queue_depth(queue));
            matches!(&seen, Some(Ok(now)) if *now == depth).then_some(())
        })
        .map_err(|error| Error::new(format!("{error}; last seen: {seen:?}")))
    }

    /// The names of the queues, sorted.
    pub fn queues(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> =
            self.list("queues")?.iter().map(|queue| text(queue, "name")).collect();
        names.sort();
        Ok(names)
    }

    /// One queue as the management API shows it: `type`, `arguments`, `consumers`, …
    pub fn queue(&self, queue: &str) -> Result<Option<Value>> {
        self.management.get(&["queues", &self.name, queue])
    }

    /// The ready messages of a queue, oldest first; they stay there, marked as redelivered.
    pub fn messages(&self, queue: &str) -> Result<Vec<FetchedMessage>> {
        let body = json!({
            "count": 10_000, "ackmode": "ack_requeue_true", "encoding": "base64",
        });
        let answer = self.management.post(&["queues", &self.name, queue, "get"], &body)?;
        let list = answer.ok_or_else(|| Error::new(format!("there is no queue {queue}")))?;
        list.as_array().into_iter().flatten().map(FetchedMessage::read).collect()
    }

    /// Puts a message into an exchange; returns whether it was routed to a queue.
    ///
    /// `properties` are those of the management API, e.g. `{"content_type": "…", "headers": {}}`.
    pub fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        properties: &Value,
        payload: &[u8],
    ) -> Result<bool> {
        let exchange = if exchange.is_empty() { "amq.default" } else { exchange };
        let body = json!({
            "properties": properties, "routing_key": routing_key,
            "payload": STANDARD.encode(payload), "payload_encoding": "base64",
        });
        let answer =
            self.management.post(&["exchanges", &self.name, exchange, "publish"], &body)?;
        let answer =
            answer.ok_or_else(|| Error::new(format!("there is no exchange {exchange}")))?;
        Ok(answer.get("routed").and_then(Value::as_bool).unwrap_or(false))
    }

    /// Deletes a queue; fine when it is not there.
    pub fn delete_queue(&self, queue: &str) -> Result<()> {
        self.management.delete(&["queues", &self.name, queue])
    }

    /// Removes the ready messages of a queue.
    pub fn purge(&self, queue: &str) -> Result<()> {
        self.management.delete(&["queues", &self.name, queue, "contents"])
    }

    /// The connections of the virtual host as the management API shows them.
    pub fn connections(&self) -> Result<Vec<Value>> {
        let list = self.management.get(&["vhosts", &self.name, "connections"])?;
        Ok(list.and_then(|list| list.as_array().cloned()).unwrap_or_default())
    }

    /// Cuts the connections of the virtual host as soon as at least `count_min` are seen, and
    /// returns how many were cut.
    ///
    /// A new connection is seen after some time only, hence the number to wait for.
    pub fn close_connections(&self, count_min: usize) -> Result<usize> {
        let what = format!("{count_min} connections are seen in {}", self.name);
        let connections = wait_until(&what, Duration::from_secs(120), || {
            self.connections().ok().filter(|list| list.len() >= count_min)
        })?;
        for connection in &connections {
            self.management.delete(&["connections", &text(connection, "name")])?;
        }
        Ok(connections.len())
    }

    /// Asks `probe` until it returns `Some`: [`wait_until`] with two minutes.
    pub fn wait_until<T>(&self, what: &str, probe: impl FnMut() -> Option<T>) -> Result<T> {
        wait_until(what, Duration::from_secs(120), probe)
    }

    fn existing(&self, queue: &str) -> Result<Value> {
        self.queue(queue)?.ok_or_else(|| Error::new(format!("there is no queue {queue}")))
    }

    fn list(&self, what: &str) -> Result<Vec<Value>> {
        let list = self.management.get(&[what, &self.name])?;
        Ok(list.and_then(|list| list.as_array().cloned()).unwrap_or_default())
    }
}

impl TestVhost {
    /// Waits until nobody declares queues any more.
    ///
    /// RabbitMQ 3.10 starts a process for each quorum queue that dead-letters at least once. If the
    /// queue is gone by then, that process fails again and again, until the supervisor of all of
    /// them gives up; from then on nobody can declare such a queue on that node. The broker does
    /// not tell when such a process has begun, so this looks for a moment without new queues.
    fn calm_down(&self) {
        let count = || self.list("queues").map(|queues| queues.len());
        let mut known = count();
        for _ in 0..LOOKS_MAX {
            std::thread::sleep(LOOK_AFTER);
            match (count(), known) {
                (Ok(now), Ok(before)) if now != before => known = Ok(now),
                _ => return,
            }
        }
    }
}

impl Drop for TestVhost {
    fn drop(&mut self) {
        self.calm_down();
        // A test that fails has its own message; a broker that was killed is no second failure.
        let deleted = self.management.delete(&["vhosts", &self.name]);
        if let (Err(error), false) = (deleted, std::thread::panicking()) {
            crate::note(&format!("the virtual host {} is left behind: {error}", self.name));
        }
    }
}

impl FetchedMessage {
    fn read(message: &Value) -> Result<Self> {
        let payload = text(message, "payload");
        let payload = match message.get("payload_encoding").and_then(Value::as_str) {
            Some("base64") => STANDARD
                .decode(&payload)
                .map_err(|error| Error::while_doing("a payload is not base64", error))?,
            _ => payload.into_bytes(),
        };
        Ok(Self {
            payload,
            properties: message.get("properties").cloned().unwrap_or_default(),
            exchange: text(message, "exchange"),
            routing_key: text(message, "routing_key"),
            redelivered: message.get("redelivered").and_then(Value::as_bool).unwrap_or(false),
        })
    }

    /// A header by name.
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.properties.get("headers")?.get(name)
    }
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}
