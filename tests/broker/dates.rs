//! Tasks that are due later, or too late.

use std::time::Duration;

use celeriac::protocol::{Expires, TaskState};
use jiff::Timestamp;
use xtask::QueueDepth;

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::tasks::{hold, note, now};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_does_not_run_before_its_date() {
    let bundle = Bundle::new("eta").await;
    let worker = bundle.worker().await;
    let before = Timestamp::now();
    let eta = before + Duration::from_millis(700);
    let dated = bundle.client.send(now::s().eta(eta)).await.unwrap();
    let counted = now::s().countdown(Duration::from_millis(900));
    let counted = bundle.client.send(counted).await.unwrap();
    let ran_at = dated.get(PATIENCE).await.unwrap();
    assert!(ran_at >= eta.as_millisecond(), "{ran_at} is before {eta}");
    let ran_at = counted.get(PATIENCE).await.unwrap();
    assert!(ran_at >= before.as_millisecond() + 900, "{ran_at} is too early after {before}");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_task_is_revoked_and_not_run() {
    let bundle = Bundle::new("expired").await;
    let worker = bundle.narrow_worker().await;
    // The worker takes it in time, and it expires while it waits for its date.
    let call = note::s("too late".to_owned())
        .countdown(Duration::from_millis(2500))
        .expires(Expires::In(Duration::from_secs(2)));
    let result = bundle.client.send(call).await.unwrap();
    let error = result.get(PATIENCE).await.unwrap_err();
    let failure = error.failure().unwrap();
    assert_eq!(failure.state, TaskState::Revoked);
    assert!(failure.is("TaskRevokedError"), "{failure:?}");
    assert_eq!(failure.exception.exc_message, ["expired".into()]);
    assert!(bundle.probe.runs().is_empty());
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_expires_before_it_is_due_is_revoked_when_it_expires() {
    let bundle = Bundle::new("expires-first").await;
    let worker = bundle.worker().await;
    let call = note::s("never".to_owned())
        .countdown(Duration::from_secs(7 * 24 * 3600))
        .expires(Expires::In(Duration::from_secs(4)));
    let result = bundle.client.send(call).await.unwrap();
    let error = result.get(PATIENCE).await.unwrap_err();
    assert!(error.failure().unwrap().is("TaskRevokedError"), "{error:?}");
    assert!(bundle.probe.runs().is_empty());
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_expires_before_any_worker_sees_it_is_revoked_all_the_same() {
    let bundle = Bundle::new("expires-unseen").await;
    let worker = bundle.worker_with(|worker| worker.queues(["other"])).await;
    let call = note::s("unseen".to_owned()).expires(Expires::In(Duration::from_secs(1)));
    let result = bundle.client.send(call).await.unwrap();
    let error = result.get(PATIENCE).await.unwrap_err();
    assert!(error.failure().unwrap().is("TaskRevokedError"), "{error:?}");
    stop(worker).await;
    bundle.settled();
}

/// No binding leads from the delay queues to a queue of this name alone.
const HELD: &str = "held.*";

async fn bundle_that_holds(hint: &str) -> Bundle {
    Bundle::with(hint, |config| config.task_default_queue = HELD.to_owned()).await
}

fn wait_for_held(bundle: &Bundle, ready: u64, unacked: u64) {
    bundle.vhost.wait_for_depth(HELD, QueueDepth { ready, unacked }, PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_in_the_worker_runs_once_although_the_connection_is_cut() {
    let bundle = bundle_that_holds("eta-cut").await;
    let worker = bundle.worker().await;
    let call = note::s("later".to_owned()).countdown(Duration::from_secs(8));
    let result = bundle.client.send(call).await.unwrap();
    wait_for_held(&bundle, 0, 1);
    bundle.cut_and_wait("consume");
    assert_eq!(result.get(PATIENCE).await.unwrap(), "later");
    stop(worker).await;
    wait_for_held(&bundle, 0, 0);
    assert_eq!(bundle.probe.runs().len(), 1, "the copy of the lost connection is given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_waits_in_the_worker_is_given_back_at_shutdown() {
    let bundle = bundle_that_holds("eta-stop").await;
    let worker = bundle.worker().await;
    let call = hold::s("later".to_owned()).countdown(Duration::from_secs(3600));
    bundle.client.send(call).await.unwrap();
    wait_for_held(&bundle, 0, 1);
    stop(worker).await;
    wait_for_held(&bundle, 1, 0);
}
