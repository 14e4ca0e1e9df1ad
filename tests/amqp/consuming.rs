//! Consuming: what is delivered is settled as judged, and nothing else is.

use celeriac::amqp::{
    Binding, Consumer, ConsumerOptions, ExchangeKind, ExchangeSpec, Publisher, QueueSpec, Topology,
};

use crate::setup::{Setup, ack_all, number, numbered, take, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_gets_everything_and_its_acks_leave_the_queue_empty() {
    let setup = Setup::new("all").await;
    let queue = QueueSpec::quorum("q");
    setup.declare([queue.clone()]).await;
    setup.fill("q", 5000).await;
    let (mut deliveries, handle) =
        setup.consume(ConsumerOptions::new([queue]).prefetch(1000)).await;
    ack_all(&mut deliveries, 5000).await;
    within(handle.close()).await;
    setup.wait_for_depth("q", 0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_out_of_order_reach_exactly_what_was_acked() {
    let setup = Setup::new("order").await;
    let queue = QueueSpec::classic("q");
    setup.declare([queue.clone()]).await;
    setup.fill("q", 100).await;
    let (mut deliveries, handle) =
        setup.consume(ConsumerOptions::new([queue.clone()]).prefetch(100)).await;
    let mut all = take(&mut deliveries, 100).await;
    // From the newest to the oldest, but for every tenth, which is kept.
    let mut kept = Vec::new();
    while let Some(delivery) = all.pop() {
        if number(&delivery).is_multiple_of(10) {
            kept.push(delivery);
        } else {
            delivery.token.ack();
        }
    }
    setup.wait_for_depth("q", 0, 10);
    within(handle.close()).await;
    setup.wait_for_depth("q", 10, 0);
    let (mut deliveries, _handle) = setup.consume(ConsumerOptions::new([queue]).prefetch(10)).await;
    let again = take(&mut deliveries, 10).await;
    assert!(
        again.iter().all(|delivery| number(delivery).is_multiple_of(10) && delivery.redelivered)
    );
    assert_eq!(handle.stale_total(), 0);
    drop(kept);
    assert_eq!(handle.stale_total(), 10, "their channel is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_messages_are_dead_lettered_and_requeued_ones_come_again() {
    let setup = Setup::new("reject").await;
    let mut queue = QueueSpec::quorum("q");
    queue.arguments.insert("x-dead-letter-exchange", "dead");
    let topology = Topology {
        exchanges: vec![ExchangeSpec::durable("dead", ExchangeKind::Fanout)],
        queues: vec![queue.clone(), QueueSpec::classic("dead")],
        bindings: vec![Binding::queue("dead", "dead", "")],
    };
    within(setup.connection.declare(&topology)).await.unwrap();
    setup.fill("q", 30).await;
    let (mut deliveries, handle) = setup.consume(ConsumerOptions::new([queue]).prefetch(30)).await;
    for delivery in take(&mut deliveries, 30).await {
        match number(&delivery) % 3 {
            0 => delivery.token.ack(),
            1 => delivery.token.reject(),
            _ => delivery.token.requeue(),
        }
    }
    for delivery in take(&mut deliveries, 10).await {
        assert_eq!(number(&delivery) % 3, 2);
        assert!(delivery.redelivered);
        delivery.token.ack();
    }
    within(handle.close()).await;
    setup.wait_for_depth("q", 0, 0);
    setup.wait_for_depth("dead", 10, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_token_gives_its_message_back() {
    let setup = Setup::new("dropped").await;
    let queue = QueueSpec::classic("q");
    setup.declare([queue.clone()]).await;
    setup.fill("q", 1).await;
    let (mut deliveries, _handle) = setup.consume(ConsumerOptions::new([queue]).prefetch(1)).await;
    drop(take(&mut deliveries, 1).await);
    let again = take(&mut deliveries, 1).await;
    assert!(again[0].redelivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_gives_back_what_was_not_handed_out_and_still_settles_the_rest() {
    let setup = Setup::new("cancel").await;
    let queue = QueueSpec::classic("q");
    setup.declare([queue.clone()]).await;
    setup.fill("q", 1000).await;
    let (mut deliveries, handle) = setup.consume(ConsumerOptions::new([queue]).prefetch(600)).await;
    setup.wait_for_depth("q", 400, 600);
    let mut burst = Vec::new();
    assert!(within(deliveries.next_burst(&mut burst)).await);
    let held = burst.len() as u64;
    assert!(held < 600, "a burst is bounded");
    within(handle.cancel()).await;
    setup.wait_for_depth("q", 1000 - held, held);
    assert!(!within(deliveries.next_burst(&mut Vec::new())).await, "nothing more comes");
    burst.drain(..).for_each(|delivery| delivery.token.ack());
    within(handle.close()).await;
    within(handle.close()).await;
    setup.wait_for_depth("q", 1000 - held, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_bounds_what_is_unsettled_over_all_lanes_and_queues() {
    let setup = Setup::new("prefetch").await;
    let queues = [QueueSpec::classic("a"), QueueSpec::classic("b")];
    setup.declare(queues.clone()).await;
    setup.fill("a", 1000).await;
    setup.fill("b", 1000).await;
    let (mut deliveries, handle) = setup.consume(ConsumerOptions::new(queues).prefetch(600)).await;
    setup.wait_for_depth("a", 700, 300);
    setup.wait_for_depth("b", 700, 300);
    let mut settled = 0;
    let mut burst = Vec::new();
    while settled < 2000 {
        assert!(within(deliveries.next_burst(&mut burst)).await);
        settled += burst.len();
        burst.drain(..).for_each(|delivery| delivery.token.ack());
    }
    within(handle.close()).await;
    setup.wait_for_depth("a", 0, 0);
    setup.wait_for_depth("b", 0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_acks_the_broker_forgets_at_once() {
    let setup = Setup::new("noack").await;
    let queue = QueueSpec::classic("q");
    setup.declare([queue.clone()]).await;
    setup.fill("q", 100).await;
    let (mut deliveries, _handle) = setup.consume(ConsumerOptions::new([queue]).no_ack()).await;
    let held = take(&mut deliveries, 100).await;
    setup.wait_for_depth("q", 0, 0);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_both_handles_ends_the_consumer() {
    let setup = Setup::new("drop").await;
    let queue = QueueSpec::classic("q");
    setup.declare([queue.clone()]).await;
    let publisher = setup.fill("q", 10).await;
    let started = setup.consume(ConsumerOptions::new([queue.clone()]).prefetch(10)).await;
    setup.wait_for_depth("q", 0, 10);
    drop(started);
    setup.wait_for_depth("q", 10, 0);
    within(publisher.publish_all(numbered("q", 10..11))).await[0].as_ref().unwrap();
    // An exclusive consumer is refused while another one lives.
    let (mut deliveries, _handle) =
        setup.consume(ConsumerOptions::new([queue]).prefetch(20).exclusive()).await;
    take(&mut deliveries, 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_on_what_is_missing_or_refused_fails_with_the_brokers_words() {
    let setup = Setup::new("missing").await;
    let missing = ConsumerOptions::new([QueueSpec::existing("nowhere")]).prefetch(1);
    let error = within(Consumer::start(&setup.connection, missing)).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("nowhere"), "{error}");

    let queue = || ConsumerOptions::new([QueueSpec::classic("q")]).prefetch(1).exclusive();
    let _first = setup.consume(queue()).await;
    let error = within(Consumer::start(&setup.connection, queue())).await.unwrap_err();
    assert!(error.is_refused() && error.to_string().contains("exclusive"), "{error}");
    // The connection and other channels have not suffered.
    let publisher = Publisher::new(&setup.connection);
    assert!(within(publisher.publish_all(numbered("q", 0..1))).await[0].is_ok());
}
