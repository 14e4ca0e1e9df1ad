//! Tasks that fail, panic, or give their message back.

use celeriac::{Signature, TaskFailure};
use serde::de::DeserializeOwned;

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::tasks::{add, block_panics, declined, panics, python_error, reject, second_time};

async fn failure<T: DeserializeOwned + std::fmt::Debug>(
    bundle: &Bundle,
    call: Signature<T>,
) -> TaskFailure {
    let result = bundle.client.send(call).await.unwrap();
    let error = result.get(PATIENCE).await.unwrap_err();
    assert_eq!(result.state().as_str(), "FAILURE", "{error:?}");
    error.failure().unwrap_or_else(|| panic!("{error:?}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_has_the_class_of_its_exception() {
    let bundle = Bundle::new("class").await;
    let worker = bundle.worker().await;
    let failure = failure(&bundle, python_error::s()).await;
    assert!(failure.is("ValueError"), "{failure:?}");
    assert_eq!(failure.exception.exc_module.as_deref(), Some("builtins"));
    assert_eq!(failure.exception.to_string(), "ValueError: kaboom");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sources_of_an_error_are_its_traceback() {
    let bundle = Bundle::new("sources").await;
    let worker = bundle.worker().await;
    let failure = failure(&bundle, declined::s()).await;
    assert!(failure.is("Declined"), "{failure:?}");
    let traceback = failure.traceback.unwrap();
    assert!(traceback.contains("payment declined\n  caused by: connection reset"), "{traceback}");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_failure_with_its_place_and_the_worker_goes_on() {
    let bundle = Bundle::new("panic").await;
    let worker = bundle.narrow_worker().await;
    let panicked = failure(&bundle, panics::s()).await;
    assert!(panicked.exception.to_string().contains("lost it"), "{panicked:?}");
    let traceback = panicked.traceback.unwrap();
    assert!(traceback.contains("tests/broker/tasks.rs"), "{traceback}");
    let panicked = failure(&bundle, block_panics::s()).await;
    assert!(panicked.exception.to_string().contains("a thread panics"), "{panicked:?}");
    let sum = add::delay(&bundle.client, 1, 1).await.unwrap();
    assert_eq!(sum.get(PATIENCE).await.unwrap(), 2);
    stop(worker).await;
    bundle.settled();
    assert_eq!(bundle.probe.runs().len(), 1, "a panic is not run again");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_do_not_fit_fail_with_the_name_of_the_parameter() {
    let bundle = Bundle::new("arguments").await;
    let worker = bundle.worker().await;
    let call = || Signature::<i64>::new("tests.add");
    for (call, part) in [
        (call().arg(1).arg("x"), "y"),
        (call().arg(1), "y"),
        (call().arg(1).arg(2).arg(3), "3"),
        (call().arg(1).arg(2).kwarg("x", 3), "x"),
        (call().arg(1).kwarg("z", 3), "z"),
    ] {
        let failure = failure(&bundle, call).await;
        assert!(failure.is("TypeError"), "{failure:?}");
        assert!(failure.exception.to_string().contains(part), "{failure:?}");
    }
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_is_parked_and_the_caller_is_told() {
    let bundle = Bundle::new("reject").await;
    let worker = bundle.worker().await;
    let failure = failure(&bundle, reject::s()).await;
    assert!(failure.is("Reject"), "{failure:?}");
    let parked = bundle
        .vhost
        .wait_until("the message is parked", || bundle.vhost.messages("celeriac.dead").ok()?.pop())
        .unwrap();
    assert_eq!(parked.header("dead_reason").unwrap(), "rejected");
    assert_eq!(parked.header("dead_error").unwrap(), "not mine");
    assert_eq!(parked.header("task").unwrap(), "tests.reject");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_given_back_is_delivered_again() {
    let bundle = Bundle::new("again").await;
    let worker = bundle.worker().await;
    let result = second_time::delay(&bundle.client).await.unwrap();
    assert!(result.get(PATIENCE).await.unwrap());
    assert_eq!(bundle.probe.runs().len(), 2);
    stop(worker).await;
    bundle.settled();
}
