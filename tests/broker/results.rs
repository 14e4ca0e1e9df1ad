//! Results that come late, twice, or to nobody.

use std::time::Duration;

use celeriac::amqp::{Publish, Publisher};
use celeriac::protocol::{ResultMeta, Serializer};
use celeriac::{Client, ResultError};
use xtask::QueueDepth;

use crate::bundle::{Bundle, PATIENCE, config, stop, within};
use crate::tasks::{add, hold};

const EMPTY: QueueDepth = QueueDepth { ready: 0, unacked: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_was_too_late_can_be_asked_for_again() {
    let bundle = Bundle::new("late").await;
    let worker = bundle.worker().await;
    let result = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    let error = result.get(Duration::from_millis(20)).await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains(result.id()), "{error}");
    bundle.probe.open(1);
    assert_eq!(result.get(PATIENCE).await.unwrap(), "x");
    assert_eq!(result.get(Duration::ZERO).await.unwrap(), "x", "it is kept");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_result_is_dropped_when_it_comes() {
    let bundle = Bundle::new("forgotten").await;
    let worker = bundle.worker().await;
    let result = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    result.forget();
    bundle.probe.open(1);
    let next = add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(next.get(PATIENCE).await.unwrap(), 2);
    bundle.settled();
    let queue = bundle.reply_queues().pop().unwrap();
    bundle.vhost.wait_for_depth(&queue, EMPTY, PATIENCE).unwrap();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_although_their_exchange_is_deleted_and_it_comes_back() {
    const EXCHANGE: &str = "celeriac.results";
    let bundle = Bundle::new("results-gone").await;
    let worker = bundle.worker().await;
    let other = within(Client::connect(config(&bundle.vhost))).await.unwrap();
    let held = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    let of_other = hold::delay(&other, "y".to_owned()).await.unwrap();
    bundle.probe.seen(2).await;
    let (management, vhost) = (bundle.vhost.management(), bundle.vhost.name());
    management.delete(&["exchanges", vhost, EXCHANGE]).unwrap();
    bundle.probe.open(2);
    assert_eq!(held.get(PATIENCE).await.unwrap(), "x");
    assert_eq!(of_other.get(PATIENCE).await.unwrap(), "y");
    let bound = || {
        let path = ["exchanges", vhost, EXCHANGE, "bindings", "source"];
        let bindings = management.get(&path).ok()??;
        (bindings.as_array()?.len() == 2).then_some(())
    };
    bundle.vhost.wait_until("both clients are bound again", bound).unwrap();
    let sum = add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 2);
    within(other.close()).await;
    stop(worker).await;
    assert_eq!(bundle.probe.counts(), (2, 0), "no task ran again for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_of_results_that_was_deleted_is_made_again() {
    let bundle = Bundle::new("results-unbound").await;
    let worker = bundle.worker().await;
    let first = add::delay(&bundle.client, 1, 0).await.unwrap();
    assert_eq!(first.get(PATIENCE).await.unwrap(), 1);
    let queue = bundle.reply_queues().pop().unwrap();
    let (management, vhost) = (bundle.vhost.management(), bundle.vhost.name());
    let of_queue = ["bindings", vhost, "e", "celeriac.results", "q", &queue];
    management.delete(&[&of_queue[..], &[&queue]].concat()).unwrap();
    let sum = add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 2);
    let bound = || (management.get(&of_queue).ok()??.as_array()?.len() == 1).then_some(());
    bundle.vhost.wait_until("the queue is bound again", bound).unwrap();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_results_the_first_counts() {
    let bundle = Bundle::new("twice").await;
    let result = add::delay(&bundle.client, 1, 1).await.unwrap();
    let queue = bundle.reply_queues().pop().unwrap();
    let publisher = Publisher::new(bundle.client.connection());
    for value in [7_i64, 8] {
        let meta = ResultMeta::success(result.id(), value.into());
        let message = meta.encode(Serializer::Json, result.id(), true).unwrap();
        publisher.publish(Publish::new("", &*queue, message)).await.unwrap();
    }
    assert_eq!(result.get(PATIENCE).await.unwrap(), 7);
    bundle.vhost.wait_for_depth(&queue, EMPTY, PATIENCE).unwrap();
    assert_eq!(result.get(PATIENCE).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_result_is_a_failure_of_its_task() {
    let bundle = Bundle::new("unreadable").await;
    let result = add::delay(&bundle.client, 1, 1).await.unwrap();
    let queue = bundle.reply_queues().pop().unwrap();
    let publisher = Publisher::new(bundle.client.connection());
    let meta = ResultMeta::success(result.id(), 1.into());
    let mut message = meta.encode(Serializer::Json, result.id(), true).unwrap();
    message.body.truncate(9);
    publisher.publish(Publish::new("", &*queue, message)).await.unwrap();
    let error = result.get(PATIENCE).await.unwrap_err();
    assert!(error.failure().is_some_and(|failure| failure.is("DecodeError")), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_has_gone_does_not_hold_up_the_worker() {
    let bundle = Bundle::new("gone").await;
    let worker = bundle.narrow_worker().await;
    let gone = within(Client::connect(bundle.client.config().clone())).await.unwrap();
    let result = hold::delay(&gone, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    gone.close().await;
    let error = result.get(PATIENCE).await.unwrap_err();
    assert!(matches!(error, ResultError::Closed { .. }), "{error:?}");
    bundle.probe.open(1);
    let next = add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(next.get(PATIENCE).await.unwrap(), 2);
    bundle.settled();
    assert_eq!(bundle.probe.runs().len(), 1, "it is not run again");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_queue_that_is_deleted_comes_back() {
    let bundle = Bundle::new("reply-queue").await;
    let worker = bundle.narrow_worker().await;
    let lost = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    bundle.probe.seen(1).await;
    let queue = bundle.reply_queues().pop().unwrap();
    bundle.vhost.delete_queue(&queue).unwrap();
    bundle.probe.open(1);
    bundle.settled();
    let consumed = || (bundle.vhost.consumers(&queue).ok()? == 1).then_some(());
    bundle.vhost.wait_until("the reply queue is read again", consumed).unwrap();
    let next = add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(next.get(PATIENCE).await.unwrap(), 2);
    assert_eq!(bundle.probe.runs().len(), 1);
    drop(lost);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_their_own_results_only() {
    let bundle = Bundle::new("two-clients").await;
    let worker = bundle.worker().await;
    let other = within(Client::connect(bundle.client.config().clone())).await.unwrap();
    let here = bundle.client.send(add::s(1, 1).task_id("same")).await.unwrap();
    let there = other.send(add::s(2, 2).task_id("same")).await.unwrap();
    assert_eq!(here.get(PATIENCE).await.unwrap(), 2);
    assert_eq!(there.get(PATIENCE).await.unwrap(), 4);
    assert_eq!(bundle.reply_queues().len(), 2);
    other.close().await;
    assert_eq!(bundle.reply_queues().len(), 1, "a client deletes its reply queue");
    bundle.client.close().await;
    assert!(bundle.reply_queues().is_empty());
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_dropped_is_kept_by_its_results_and_then_leaves_nothing() {
    let bundle = Bundle::new("dropped").await;
    let worker = bundle.worker().await;
    let client = within(Client::connect(bundle.client.config().clone())).await.unwrap();
    let result = add::delay(&client, 1, 1).await.unwrap();
    bundle.connections("results", 1);
    drop(client);
    assert_eq!(result.get(PATIENCE).await.unwrap(), 2);
    drop(result);
    let gone = || bundle.connections("results", 0).is_empty().then_some(());
    bundle.vhost.wait_until("nobody reads results", gone).unwrap();
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_client_ends_what_is_under_way() {
    let bundle = Bundle::new("closing").await;
    let client = within(Client::connect(bundle.client.config().clone())).await.unwrap();
    let sender = client.clone();
    let sending =
        tokio::spawn(async move { sender.send_all((0..2000).map(|n| add::s(n, n))).await });
    within(client.close()).await;
    let outcomes = within(sending).await.unwrap();
    assert_eq!(outcomes.len(), 2000);
    for result in outcomes.into_iter().flatten() {
        let error = result.get(PATIENCE).await.unwrap_err();
        assert!(matches!(error, ResultError::Closed { .. }), "{error:?}");
    }
    assert!(add::delay(&client, 1, 1).await.is_err());
    within(client.close()).await;
}
