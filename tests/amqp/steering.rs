//! Consumers that are changed while they run.

use celeriac::amqp::{Consumer, ConsumerOptions, QueueSpec};

use crate::setup::{Setup, ack_all, connect, number, take, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_added_is_consumed_also_after_a_lost_connection() {
    let setup = Setup::new("add").await;
    let (mut deliveries, handle) =
        setup.consume(ConsumerOptions::new([QueueSpec::quorum("one")]).prefetch(600)).await;
    assert!(within(handle.add_queue(QueueSpec::classic("two"))).await.unwrap());
    assert!(!within(handle.add_queue(QueueSpec::classic("two"))).await.unwrap(), "it is there");
    assert_eq!(handle.queues(), ["one", "two"]);
    setup.fill("two", 100).await;
    ack_all(&mut deliveries, 100).await;
    setup.cut();
    setup.fill("two", 100).await;
    ack_all(&mut deliveries, 100).await;
    setup.fill("one", 10).await;
    ack_all(&mut deliveries, 10).await;
    within(handle.close()).await;
    setup.wait_for_depth("two", 0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_cannot_be_consumed_is_refused_and_the_others_go_on() {
    let setup = Setup::new("add-refused").await;
    let (mut deliveries, handle) =
        setup.consume(ConsumerOptions::new([QueueSpec::quorum("one")]).prefetch(4)).await;
    let refused = within(handle.add_queue(QueueSpec::existing("nowhere"))).await.unwrap_err();
    assert!(refused.is_not_found(), "{refused}");
    assert!(within(handle.add_queue(QueueSpec::classic("q".repeat(300)))).await.is_err());
    assert_eq!(handle.queues(), ["one"]);
    setup.fill("one", 20).await;
    ack_all(&mut deliveries, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_cancelled_gives_back_and_does_not_come_back() {
    let setup = Setup::new("cancel-one").await;
    let queues = ["one", "two"].map(QueueSpec::classic);
    let (mut deliveries, handle) = setup.consume(ConsumerOptions::new(queues).prefetch(20)).await;
    setup.fill("two", 30).await;
    let first = take_some(&mut deliveries).await;
    assert!(within(handle.cancel_queue("two")).await);
    assert!(!within(handle.cancel_queue("two")).await);
    let held = first.len() as u64;
    setup.wait_for_depth("two", 30 - held, held);
    // Tokens that are out can still be settled.
    first.into_iter().for_each(|delivery| delivery.token.ack());
    setup.wait_for_depth("two", 30 - held, 0);
    setup.cut();
    setup.fill("one", 5).await;
    for delivery in take(&mut deliveries, 5).await {
        assert_eq!(&*delivery.queue, "one");
        delivery.token.ack();
    }
    assert_eq!(setup.vhost.consumers("two").unwrap(), 0);
    setup.wait_for_depth("two", 30 - held, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefetch_that_is_changed_holds_and_nothing_is_lost_or_delivered_twice() {
    let setup = Setup::new("prefetch").await;
    let queue = QueueSpec::quorum("q");
    let (mut deliveries, handle) = setup.consume(ConsumerOptions::new([queue]).prefetch(10)).await;
    setup.fill("q", 1000).await;
    let first = take(&mut deliveries, 10).await;
    within(handle.set_prefetch(30, 0)).await;
    let second = take(&mut deliveries, 30).await;
    // However often it is changed, no more comes before the first ones are settled.
    for prefetch in [31, 50, 40] {
        within(handle.set_prefetch(prefetch, 0)).await;
    }
    setup.wait_for_depth("q", 960, 40);
    let mut seen: Vec<u32> = first.iter().chain(&second).map(number).collect();
    first.into_iter().for_each(|delivery| delivery.token.ack());
    let third = take(&mut deliveries, 40).await;
    seen.extend(third.iter().map(number));
    setup.wait_for_depth("q", 920, 70);
    second.into_iter().chain(third).for_each(|delivery| delivery.token.ack());
    within(handle.set_prefetch(2000, 0)).await;
    while seen.len() < 1000 {
        let mut burst = Vec::new();
        assert!(within(deliveries.next_burst(&mut burst)).await);
        for delivery in burst {
            // A quorum queue takes back what it was just sending to a consumer that is cancelled.
            seen.push(number(&delivery));
            delivery.token.ack();
        }
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..1000), "each came once");
    within(handle.close()).await;
    setup.wait_for_depth("q", 0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_prefetch_that_waits_is_made_with_the_next_connection() {
    let setup = Setup::new("prefetch-cut").await;
    let queue = QueueSpec::quorum("q");
    let (mut deliveries, handle) = setup.consume(ConsumerOptions::new([queue]).prefetch(10)).await;
    setup.fill("q", 100).await;
    let _first = take(&mut deliveries, 10).await;
    within(handle.set_prefetch(20, 0)).await;
    let _second = take(&mut deliveries, 20).await;
    within(handle.set_prefetch(40, 0)).await;
    setup.wait_for_depth("q", 70, 30);
    setup.cut();
    setup.wait_for_depth("q", 60, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prefetch_that_grows_needs_is_tried_again_until_the_queue_is_back() {
    let setup = Setup::new("prefetch-refused").await;
    let queue = QueueSpec::quorum("q");
    setup.declare([queue.clone()]).await;
    let only_existing = ConsumerOptions::new([QueueSpec::existing("q")]).prefetch(10);
    let consuming = connect(setup.vhost.url()).await;
    let (_deliveries, handle) = within(Consumer::start(&consuming, only_existing)).await.unwrap();
    let registered = || handle.is_registered().then_some(());
    setup.vhost.wait_until("it consumes", registered).unwrap();
    setup.vhost.delete_queue("q").unwrap();
    // Which takes more lanes than there are, and none of them can open.
    within(handle.set_prefetch(1000, 0)).await;
    setup.declare([queue]).await;
    setup.vhost.wait_until("all lanes consume", registered).unwrap();
    let four = || (setup.vhost.consumers("q").ok()? == 4).then_some(());
    setup.vhost.wait_until("the broker knows them all", four).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefetch_that_grows_after_the_end_of_consuming_takes_nothing() {
    let setup = Setup::new("prefetch-ended").await;
    let queue = || ConsumerOptions::new([QueueSpec::quorum("q")]);
    let (_deliveries, handle) = setup.consume(queue().prefetch(10)).await;
    within(handle.cancel()).await;
    // Which takes more lanes than there are.
    within(handle.set_prefetch(2000, 0)).await;
    setup.fill("q", 100).await;
    setup.wait_for_depth("q", 100, 0);
    let (mut others, _handle) = setup.consume(queue()).await;
    for delivery in take(&mut others, 100).await {
        assert!(!delivery.redelivered, "somebody has had it, and gave it back");
        delivery.token.ack();
    }
}

async fn take_some(deliveries: &mut celeriac::amqp::Deliveries) -> Vec<celeriac::amqp::Delivery> {
    let mut some = Vec::new();
    assert!(within(deliveries.next_burst(&mut some)).await);
    some
}

impl Setup {
    /// Cuts the connection, and waits until there is another one.
    fn cut(&self) {
        let names = || -> Vec<String> {
            let connections = self.vhost.connections().unwrap_or_default();
            let name = |it: &serde_json::Value| Some(it["name"].as_str()?.to_owned());
            connections.iter().filter_map(name).collect()
        };
        let old = self.vhost.wait_until("it is seen", || Some(names()).filter(|it| !it.is_empty()));
        let old = old.unwrap();
        for name in &old {
            self.vhost.management().delete(&["connections", name]).unwrap();
        }
        let back = || {
            let now = names();
            (!now.is_empty() && now.iter().all(|name| !old.contains(name))).then_some(())
        };
        self.vhost.wait_until("it is back", back).unwrap();
    }
}
