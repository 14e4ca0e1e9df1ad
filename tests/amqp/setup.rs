//! What the tests of this floor share: a connection to an own virtual host, and deadlines.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use celeriac::amqp::{
    BrokerUrl, Connection, ConnectionOptions, ConnectionState, Consumer, ConsumerHandle,
    ConsumerOptions, Deliveries, Delivery, Publish, Publisher, QueueSpec, RetryPolicy, Topology,
};
use celeriac::backoff::Backoff;
use celeriac::protocol::{Message, Properties};
use xtask::{QueueDepth, TestVhost};

pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) struct Setup {
    // Before the virtual host, which would cut it otherwise.
    pub(crate) connection: Connection,
    pub(crate) vhost: TestVhost,
}

impl Setup {
    pub(crate) async fn new(hint: &str) -> Self {
        let vhost = TestVhost::create(hint).unwrap();
        let connection = connect(vhost.url()).await;
        Self { connection, vhost }
    }

    pub(crate) async fn declare(&self, queues: impl IntoIterator<Item = QueueSpec>) {
        let queues = queues.into_iter().collect();
        within(self.connection.declare(&Topology { queues, ..Topology::default() })).await.unwrap();
    }

    /// A publisher, and the messages `0..count` published to the existing queue.
    pub(crate) async fn fill(&self, queue: &str, count: u32) -> Publisher {
        let publisher = Publisher::new(&self.connection);
        for result in within(publisher.publish_all(numbered(queue, 0..count))).await {
            result.unwrap();
        }
        publisher
    }

    pub(crate) async fn consume(&self, options: ConsumerOptions) -> (Deliveries, ConsumerHandle) {
        within(Consumer::start(&self.connection, options)).await.unwrap()
    }

    pub(crate) fn wait_for_depth(&self, queue: &str, ready: u64, unacked: u64) {
        self.vhost.wait_for_depth(queue, QueueDepth { ready, unacked }, DEADLINE).unwrap();
    }
}

pub(crate) fn options(url: &str) -> ConnectionOptions {
    let base = Duration::from_millis(50);
    let backoff = Backoff { base, cap: Duration::from_millis(500), jitter: true };
    ConnectionOptions {
        urls: vec![url.parse::<BrokerUrl>().unwrap()],
        name: "amqp test".to_owned(),
        retry: RetryPolicy { at_startup: true, attempts_max: None, backoff },
        ..ConnectionOptions::default()
    }
}

pub(crate) async fn connect(url: &str) -> Connection {
    within(Connection::open(options(url))).await.unwrap()
}

/// Fails the test instead of waiting for ever.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("the deadline has passed")
}

pub(crate) async fn wait_for_state(
    connection: &Connection,
    wanted: impl FnMut(&ConnectionState) -> bool,
) -> ConnectionState {
    let mut state = connection.state();
    within(state.wait_for(wanted)).await.unwrap().clone()
}

pub(crate) fn message(body: impl Into<Vec<u8>>) -> Message {
    let properties = Properties { delivery_mode: Some(2), ..Properties::default() };
    Message { properties, body: body.into() }
}

pub(crate) fn numbered(queue: &str, numbers: impl IntoIterator<Item = u32>) -> Vec<Publish> {
    let publish = |number: u32| Publish::new("", queue, message(number.to_string()));
    numbers.into_iter().map(publish).collect()
}

pub(crate) fn number(delivery: &Delivery) -> u32 {
    std::str::from_utf8(&delivery.message.body).unwrap().parse().unwrap()
}

/// Acks what comes until every number of `0..count` has come.
pub(crate) async fn ack_all(deliveries: &mut Deliveries, count: u32) {
    let mut missing: BTreeSet<u32> = (0..count).collect();
    let mut burst = Vec::new();
    while !missing.is_empty() {
        assert!(within(deliveries.next_burst(&mut burst)).await, "ended with {missing:?} missing");
        for delivery in burst.drain(..) {
            missing.remove(&number(&delivery));
            delivery.token.ack();
        }
    }
}

/// Takes exactly `count` deliveries.
pub(crate) async fn take(deliveries: &mut Deliveries, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        assert!(within(deliveries.next_burst(&mut all)).await, "ended after {}", all.len());
    }
    assert_eq!(all.len(), count);
    all
}
