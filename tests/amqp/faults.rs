//! Faults: connections cut, brokers restarted and killed, queues deleted, memory short.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use celeriac::amqp::{
    BrokerUrl, Connection, ConnectionOptions, ConnectionState, Consumer, ConsumerOptions, Error,
    PublishError, Publisher, QueueSpec, RetryPolicy, Topology, WhenUnknown,
};
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use xtask::{NodeOptions, PrivateNode, TestVhost};

use crate::setup::{Setup, connect, number, numbered, options, take, wait_for_state, within};

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_although_connections_are_cut() {
    let setup = Setup::new("cut").await;
    let queue = QueueSpec::quorum("q");
    setup.declare([queue.clone()]).await;
    let consuming = connect(setup.vhost.url()).await;
    let consumer = ConsumerOptions::new([queue]).prefetch(500);
    let (mut deliveries, handle) = within(Consumer::start(&consuming, consumer)).await.unwrap();
    let (publishing, stop) = publish_until_stopped(&setup.connection);
    let (progress, mut seen_so_far) = watch::channel(0);
    let reading = tokio::spawn(async move {
        let (mut seen, mut burst) = (BTreeSet::new(), Vec::new());
        while deliveries.next_burst(&mut burst).await {
            for delivery in burst.drain(..) {
                seen.insert(number(&delivery));
                delivery.token.ack();
            }
            progress.send_replace(seen.len() as u32);
        }
        seen
    });
    for cut in 2..4 {
        assert!(setup.vhost.close_connections(2).unwrap() >= 2);
        wait_for_state(&setup.connection, |state| epoch(state) >= cut).await;
        wait_for_state(&consuming, |state| epoch(state) >= cut).await;
    }
    stop.cancel();
    let count = within(publishing).await.unwrap();
    // The depth of the queue alone does not tell: its figures lag behind on a busy machine.
    within(seen_so_far.wait_for(|seen| *seen >= count)).await.unwrap();
    setup.wait_for_depth("q", 0, 0);
    within(handle.close()).await;
    let seen = within(reading).await.unwrap();
    assert_eq!(seen.len() as u32, count, "the highest is {:?}", seen.last());
}

/// Publishes numbered messages in bursts, and tells how many when it is stopped.
fn publish_until_stopped(connection: &Connection) -> (JoinHandle<u32>, CancellationToken) {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let publisher = Publisher::new(connection);
    let publishing = tokio::spawn(async move {
        // Paced, so that however long a broker takes to come back, what was sent meanwhile can be
        // consumed within the deadline.
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut next = 0;
        while !stopped.is_cancelled() {
            pace.tick().await;
            for result in publisher.publish_all(numbered("q", next..next + 20)).await {
                result.unwrap();
            }
            next += 20;
        }
        next
    });
    (publishing, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_deleted_under_its_consumer_is_declared_and_consumed_again() {
    let setup = Setup::new("deleted").await;
    let queues = [QueueSpec::classic("q"), QueueSpec::classic("other")];
    setup.declare(queues.clone()).await;
    let (mut deliveries, _handle) = setup.consume(ConsumerOptions::new(queues).prefetch(20)).await;
    setup.vhost.delete_queue("q").unwrap();
    let publisher = Publisher::new(&setup.connection);
    assert!(within(publisher.publish_all(numbered("other", 0..5))).await[0].is_ok());
    for delivery in take(&mut deliveries, 5).await {
        assert_eq!(&*delivery.queue, "other", "the other queue goes on");
        delivery.token.ack();
    }
    setup.vhost.wait_until("the queue is there again", || setup.vhost.queue("q").ok()?).unwrap();
    assert!(within(publisher.publish_all(numbered("q", 0..5))).await[0].is_ok());
    for delivery in take(&mut deliveries, 5).await {
        assert_eq!(&*delivery.queue, "q");
        delivery.token.ack();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_full_takes_again_once_its_limit_is_gone() {
    let setup = Setup::new("limit").await;
    setup.declare([QueueSpec::quorum("q")]).await;
    let policy = ["policies", setup.vhost.name(), "full"];
    let definition = json!({"max-length": 1, "overflow": "reject-publish"});
    let limit = json!({"pattern": "^q$", "apply-to": "queues", "definition": definition});
    setup.vhost.management().put(&policy, &limit).unwrap();
    let publisher = Publisher::new(&setup.connection);
    // Paced, so that it does not keep the broker busy.
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let mut publish = async || {
        pace.tick().await;
        publisher.publish_all(numbered("q", 0..1)).await.remove(0)
    };
    within(async { while publish().await.is_ok() {} }).await;
    assert!(matches!(within(publish()).await, Err(PublishError::Nacked)));
    setup.vhost.management().delete(&policy).unwrap();
    within(async { while publish().await.is_err() {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_url_is_used_when_the_first_is_dead() {
    let vhost = TestVhost::create("urls").unwrap();
    let good: BrokerUrl = vhost.url().parse().unwrap();
    // One port where nobody listens, and one where somebody accepts and says nothing.
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = |address: std::net::SocketAddr| format!("amqp://{address}").parse().unwrap();
    let connect_timeout = Duration::from_millis(500);
    let options = ConnectionOptions {
        urls: vec![url(unused), url(silent.local_addr().unwrap()), good.clone()],
        connect_timeout,
        ..options(vhost.url())
    };
    let connection = within(Connection::open(options)).await.unwrap();
    assert_eq!(connection.broker(), good);
    within(connection.close()).await;
    assert!(matches!(&*connection.state().borrow(), ConnectionState::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_fails_when_the_policy_allows_no_further_attempt() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut once = options(&format!("amqp://{unused}"));
    once.retry.at_startup = false;
    let error = within(Connection::open(once)).await.unwrap_err();
    assert!(error.is_connection() && error.to_string().contains(&unused.to_string()), "{error}");
    let mut thrice = options(&format!("amqp://{unused}"));
    thrice.retry = RetryPolicy { attempts_max: Some(3), ..thrice.retry };
    assert!(within(Connection::open(thrice)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_virtual_hosts_are_told_at_once() {
    let vhost = TestVhost::create("credentials").unwrap();
    let wrong = vhost.url().replacen("://", "://nobody:hunter2@", 1);
    let address = wrong.rsplit_once('@').unwrap().1;
    let wrong = format!("amqp://nobody:hunter2@{address}");
    let error = within(Connection::open(options(&wrong))).await.unwrap_err();
    assert!(error.is_permanent() && !error.to_string().contains("hunter2"), "{error}");
    let mut nowhere = options(vhost.url());
    nowhere.urls = vec![nowhere.urls[0].clone().with_vhost("nowhere")];
    let error = within(Connection::open(nowhere)).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_restart_loses_nothing_and_interrupts_only() {
    let mut node = PrivateNode::start().unwrap();
    let connection = connect(node.url()).await;
    let queue = QueueSpec::quorum("q");
    let (mut deliveries, _handle) =
        within(Consumer::start(&connection, ConsumerOptions::new([queue]).prefetch(100)))
            .await
            .unwrap();
    let (publishing, stop) = publish_until_stopped(&connection);
    let (known, count) = oneshot::channel();
    let consumed = tokio::spawn(async move {
        let (mut seen, mut burst, mut count, mut known) = (BTreeSet::new(), vec![], None, count);
        while count.is_none_or(|count| seen.len() < count) {
            tokio::select! {
                more = deliveries.next_burst(&mut burst) => assert!(more),
                told = &mut known, if count.is_none() => count = Some(told.unwrap()),
            }
            for delivery in burst.drain(..) {
                seen.insert(number(&delivery));
                delivery.token.ack();
            }
        }
    });
    tokio::task::block_in_place(|| node.restart().unwrap());
    wait_for_state(&connection, |state| epoch(state) >= 2).await;
    tokio::task::block_in_place(|| {
        node.kill_9().unwrap();
        node.start_again().unwrap();
    });
    wait_for_state(&connection, |state| epoch(state) >= 3).await;
    stop.cancel();
    known.send(within(publishing).await.unwrap() as usize).unwrap();
    within(consumed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_ends_publishes_as_they_asked_for() {
    let mut node = PrivateNode::start().unwrap();
    let mut options = options(node.url());
    options.retry.attempts_max = Some(2);
    let connection = within(Connection::open(options)).await.unwrap();
    let queues = vec![QueueSpec::classic("q")];
    let topology = Topology { queues, ..Topology::default() };
    within(connection.declare(&topology)).await.unwrap();
    let publisher = Publisher::new(&connection);
    // The broker blocks at once when it has no memory, so nothing of this is confirmed.
    node.rabbitmqctl(&["set_vm_memory_high_watermark", "0"]).unwrap();
    let first = publisher.clone();
    let lost = tokio::spawn(async move {
        let mut publishes = numbered("q", 0..2);
        publishes[0].when_unknown = WhenUnknown::Report;
        first.publish_all(publishes).await
    });
    let blocked =
        wait_for_state(&connection, |state| matches!(state, ConnectionState::Blocked { .. })).await;
    assert!(format!("{blocked:?}").contains("memory"), "{blocked:?}");
    node.kill_9().unwrap();
    wait_for_state(&connection, |state| matches!(state, ConnectionState::Failed { .. })).await;
    let results = within(lost).await.unwrap();
    assert!(results.iter().all(|result| result.as_ref().is_err_and(PublishError::is_unknown)));
    let after = within(publisher.publish_all(numbered("q", 2..3))).await;
    assert!(matches!(after[0], Err(PublishError::Failed(_))), "{after:?}");
    let error = within(connection.declare(&topology)).await.unwrap_err();
    assert!(matches!(error, Error::GivenUp { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_publishes_go_on_when_the_broker_unblocks() {
    let node = PrivateNode::start().unwrap();
    let connection = connect(node.url()).await;
    let queues = vec![QueueSpec::classic("q")];
    let topology = Topology { queues, ..Topology::default() };
    within(connection.declare(&topology)).await.unwrap();
    node.rabbitmqctl(&["set_vm_memory_high_watermark", "0"]).unwrap();
    let publisher = Publisher::new(&connection);
    let pending = tokio::spawn(async move { publisher.publish_all(numbered("q", 0..10)).await });
    wait_for_state(&connection, |state| matches!(state, ConnectionState::Blocked { .. })).await;
    assert!(!pending.is_finished());
    node.rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"]).unwrap();
    assert!(within(pending).await.unwrap().iter().all(Result::is_ok));
    wait_for_state(&connection, ConnectionState::is_connected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_the_broker_times_out_comes_back() {
    let node = PrivateNode::start_with(&NodeOptions {
        // The least that the broker looks after.
        config: vec!["consumer_timeout = 1000".to_owned()],
        environment: vec![],
        tls: None,
    })
    .unwrap();
    node.rabbitmqctl(&["eval", "application:set_env(rabbit, channel_tick_interval, 500)."])
        .unwrap();
    let connection = connect(node.url()).await;
    let queue = QueueSpec::classic("q");
    let (mut deliveries, handle) =
        within(Consumer::start(&connection, ConsumerOptions::new([queue]).prefetch(1)))
            .await
            .unwrap();
    let publisher = Publisher::new(&connection);
    assert!(within(publisher.publish_all(numbered("q", 0..1))).await[0].is_ok());
    let held = take(&mut deliveries, 1).await;
    let again = take(&mut deliveries, 1).await;
    assert!(again[0].redelivered && !held[0].token.is_live() && again[0].token.is_live());
    held.into_iter().for_each(|delivery| delivery.token.ack());
    assert_eq!(handle.stale_total(), 1);
    again.into_iter().for_each(|delivery| delivery.token.ack());
    within(handle.close()).await;
}

fn epoch(state: &ConnectionState) -> u64 {
    match state {
        ConnectionState::Connected { epoch } => *epoch,
        _ => 0,
    }
}
