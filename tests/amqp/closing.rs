//! Closing a consumer at once after much was settled: a quorum queue takes verdicts in with some
//! delay, and none of them may be lost with the channel.

use std::collections::BTreeSet;

use celeriac::amqp::{ConsumerOptions, QueueSpec};

use crate::setup::{Setup, number, take, within};

const COUNT: u32 = 200;

/// Takes all messages of a queue, cancels, acks those that are `done`, gives the others back, and
/// closes: those that are done do not come again.
async fn nothing_done_comes_again(hint: &str, done: fn(u32) -> bool) {
    let setup = Setup::new(hint).await;
    let queue = QueueSpec::quorum("q");
    setup.declare([queue.clone()]).await;
    setup.fill("q", COUNT).await;
    let options = || ConsumerOptions::new([queue.clone()]).prefetch(COUNT);
    let (mut deliveries, handle) = setup.consume(options()).await;
    let held = take(&mut deliveries, COUNT as usize).await;
    within(handle.cancel()).await;
    for delivery in held {
        if done(number(&delivery)) {
            delivery.token.ack();
        } else {
            delivery.token.requeue();
        }
    }
    within(handle.close()).await;
    let left = (0..COUNT).filter(|number| !done(*number)).count();
    let (mut deliveries, handle) = setup.consume(options()).await;
    let again = take(&mut deliveries, left).await;
    let again: BTreeSet<u32> = again.iter().map(number).collect();
    let twice: Vec<_> = again.iter().filter(|number| done(**number)).collect();
    assert!(twice.is_empty(), "acked, and delivered again: {twice:?}");
    within(handle.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acked_before_others_were_given_back_stays_acked() {
    nothing_done_comes_again("closed", |number| number < COUNT / 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acked_between_others_stays_acked() {
    nothing_done_comes_again("closed-mixed", |number| number % 2 == 0).await;
}
