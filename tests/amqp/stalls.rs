//! Brokers that accept a connection, complete the handshake, and then say nothing more.

use std::time::Duration;

use celeriac::amqp::{
    BrokerUrl, Connection, ConnectionOptions, Consumer, ConsumerOptions, Publisher, QueueSpec,
    Topology,
};
use xtask::TestVhost;

use crate::proxy::Proxy;
use crate::setup::{Setup, ack_all, numbered, options, within};

/// A connection through `proxy`, with `others` to fall back to.
async fn through(proxy: &Proxy, vhost: &TestVhost, others: &[&str]) -> Connection {
    let mut urls: Vec<BrokerUrl> = vec![proxy.url(vhost.url()).parse().unwrap()];
    urls.extend(others.iter().map(|url| url.parse::<BrokerUrl>().unwrap()));
    let answer_timeout = Duration::from_millis(300);
    let options = ConnectionOptions { urls, answer_timeout, ..options(vhost.url()) };
    within(Connection::open(options)).await.unwrap()
}

async fn proxy(setup: &Setup) -> Proxy {
    let broker = setup.connection.broker();
    Proxy::new(&format!("{}:{}", broker.host(), broker.port())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_open_a_channel_is_left_and_tried_again() {
    let setup = Setup::new("stalled-channel").await;
    setup.declare([QueueSpec::classic("q")]).await;
    let proxy = proxy(&setup).await;
    let connection = through(&proxy, &setup.vhost, &[]).await;
    let publisher = Publisher::new(&connection);
    assert!(within(publisher.publish_all(numbered("q", 0..1))).await[0].is_ok());
    proxy.stall();
    let publishing = tokio::spawn(async move { publisher.publish_all(numbered("q", 1..9)).await });
    proxy.given_up(2).await;
    assert!(!publishing.is_finished());
    proxy.heal();
    assert!(within(publishing).await.unwrap().iter().all(Result::is_ok));
    setup.wait_for_depth("q", 9, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_declare_is_left_and_tried_again() {
    let setup = Setup::new("stalled-declare").await;
    let proxy = proxy(&setup).await;
    let connection = through(&proxy, &setup.vhost, &[]).await;
    let queues = vec![QueueSpec::classic("q")];
    within(connection.declare(&Topology { queues, ..Topology::default() })).await.unwrap();
    let publisher = Publisher::new(&connection);
    proxy.stall();
    let publishing = tokio::spawn(async move { publisher.publish_all(numbered("q", 0..9)).await });
    proxy.given_up(2).await;
    proxy.heal();
    assert!(within(publishing).await.unwrap().iter().all(Result::is_ok));
    setup.wait_for_depth("q", 9, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_comes_back_after_a_broker_that_stalled() {
    let setup = Setup::new("stalled-consumer").await;
    let queue = QueueSpec::classic("q");
    setup.declare([queue.clone()]).await;
    let proxy = proxy(&setup).await;
    let connection = through(&proxy, &setup.vhost, &[]).await;
    let (mut deliveries, handle) =
        within(Consumer::start(&connection, ConsumerOptions::new([queue]).prefetch(4)))
            .await
            .unwrap();
    proxy.stall();
    setup.fill("q", 20).await;
    proxy.given_up(2).await;
    proxy.heal();
    ack_all(&mut deliveries, 20).await;
    within(handle.close()).await;
    setup.wait_for_depth("q", 0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stalls_makes_way_for_the_next_url() {
    let setup = Setup::new("stalled-next").await;
    setup.declare([QueueSpec::classic("q")]).await;
    let proxy = proxy(&setup).await;
    let connection = through(&proxy, &setup.vhost, &[setup.vhost.url()]).await;
    let publisher = Publisher::new(&connection);
    assert!(within(publisher.publish_all(numbered("q", 0..1))).await[0].is_ok());
    proxy.stall();
    assert!(within(publisher.publish_all(numbered("q", 1..9))).await.iter().all(Result::is_ok));
    assert_eq!(connection.broker(), setup.connection.broker());
}
