//! Time limits: what tasks are told, what stops them, and what their callers read.

use std::time::Duration;

use celeriac::protocol::{Map, Value};
use celeriac::{Context, SendError, Signature, State, TaskError, TaskResult, task};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::probe::Probe;
use crate::tasks::{block, hold, note};

const SHORT: Duration = Duration::from_millis(300);

/// Says when it is told, and that it is dropped; ends in the way that it is asked for.
#[task(name = "tests.told", soft_time_limit = "300ms")]
async fn told(cx: Context, how: String, probe: State<Probe>) -> TaskResult<String> {
    let exceeded = cx.soft_time_limit_exceeded().await;
    probe.record("told");
    match how.as_str() {
        "result" => Ok("in time".to_owned()),
        "limit" => Err(exceeded.into()),
        "error" => Err(TaskError::new("something else")),
        _ => {
            let _dropped = Dropped(probe);
            std::future::pending().await
        }
    }
}

/// Says that it goes.
struct Dropped(State<Probe>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.record("dropped");
    }
}

/// Ends when it sees that its time is over.
#[task(name = "tests.spin", soft_time_limit = "300ms")]
fn spin(cx: Context) -> TaskResult<()> {
    loop {
        cx.check_soft_time_limit()?;
        std::thread::yield_now();
    }
}

async fn failure(bundle: &Bundle, call: impl Future<Output = Sent>) -> String {
    let error = within(call).await.unwrap().get(PATIENCE).await.unwrap_err();
    let failure = error.failure().unwrap_or_else(|| panic!("{error:?}"));
    let shown = failure.exception.to_string();
    bundle.settled();
    shown
}

type Sent = Result<celeriac::AsyncResult<String>, SendError>;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_beyond_its_hard_limit_is_dropped_and_has_failed() {
    let bundle = Bundle::new("hard-limit").await;
    let worker = bundle.worker().await;
    let call = hold::s("x".to_owned()).time_limit(SHORT);
    assert_eq!(failure(&bundle, bundle.client.send(call)).await, "TimeLimitExceeded: 0.3");
    // Nobody waits at the gate any more.
    bundle.probe.open(1);
    let next = hold::delay(&bundle.client, "y".to_owned()).await.unwrap();
    assert_eq!(next.get(PATIENCE).await.unwrap(), "y");
    assert_eq!(bundle.probe.runs(), ["x", "y"]);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_can_be_set_while_the_worker_runs() {
    let bundle = Bundle::new("limit-command").await;
    let worker = bundle.worker().await;
    let limit = [("task_name", Value::from("tests.hold")), ("hard", Value::Float(0.3))];
    let control = bundle.client.control().limit(1);
    let replies = within(control.command("time_limit", Map::from_iter(limit))).await.unwrap();
    assert!(replies.iter().all(|reply| reply.ok().is_some()), "{replies:?}");
    let call = hold::s("x".to_owned());
    assert_eq!(failure(&bundle, bundle.client.send(call)).await, "TimeLimitExceeded: 0.3");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_beyond_its_soft_limit_is_told_and_ends_as_it_likes() {
    let bundle = Bundle::new("soft-limit").await;
    let worker = bundle.worker().await;
    let call = |how: &str| told::s(how.to_owned());
    let in_time = bundle.client.send(call("result")).await.unwrap();
    assert_eq!(in_time.get(PATIENCE).await.unwrap(), "in time");
    for how in ["limit", "error"] {
        let failed = failure(&bundle, bundle.client.send(call(how))).await;
        assert_eq!(failed, "SoftTimeLimitExceeded", "{how}");
    }
    let both = call("never").time_limit(2 * SHORT);
    assert_eq!(failure(&bundle, bundle.client.send(both)).await, "TimeLimitExceeded: 0.6");
    assert_eq!(bundle.probe.runs(), ["told", "told", "told", "told", "dropped"]);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_task_that_looks_is_told_too() {
    let bundle = Bundle::new("soft-blocking").await;
    let worker = bundle.worker().await;
    let error = spin::delay(&bundle.client).await.unwrap().get(PATIENCE).await.unwrap_err();
    assert!(error.failure().unwrap().is("SoftTimeLimitExceeded"), "{error:?}");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_cannot_be_stopped_is_given_up_and_replaced() {
    let bundle = Bundle::with("lost-thread", |config| config.task_time_limit = Some(SHORT)).await;
    let worker = bundle.narrow_worker().await;
    // One slot, and four threads that may be given up; the fifth keeps the slot.
    for lost in 1..=5 {
        let error = block::delay(&bundle.client).await.unwrap().get(PATIENCE).await.unwrap_err();
        assert!(error.failure().unwrap().is("TimeLimitExceeded"), "{lost}: {error:?}");
    }
    bundle.settled();
    bundle.probe.drain();
    let waits = block::delay(&bundle.client).await.unwrap();
    bundle.wait_for_depth(0, 1);
    let other = note::delay(&bundle.client, "x".to_owned()).await.unwrap();
    assert_eq!(other.get(PATIENCE).await.unwrap(), "x", "async tasks go on");
    assert_eq!(bundle.probe.drain(), ["x"], "and there is no thread for the other");
    bundle.probe.open(6);
    assert_eq!(waits.get(PATIENCE).await.unwrap(), 4, "until one has returned");
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_of_errbacks_are_given_up_like_those_of_tasks() {
    let bundle = Bundle::new("lost-errback").await;
    let worker = bundle.narrow_worker().await;
    for lost in 1..=5 {
        let call = Signature::<()>::new("tests.python_error");
        let call = call.link_error(Signature::<()>::new("tests.on_failure_blocks"));
        let result = bundle.client.send(call).await.unwrap();
        let error = result.get(PATIENCE).await.unwrap_err();
        assert!(error.failure().unwrap().is("ValueError"), "{lost}: {error:?}");
    }
    bundle.settled();
    assert_eq!(bundle.probe.drain(), ["blocks"; 5]);
    let waits = block::delay(&bundle.client).await.unwrap();
    bundle.wait_for_depth(0, 1);
    let other = note::delay(&bundle.client, "x".to_owned()).await.unwrap();
    assert_eq!(other.get(PATIENCE).await.unwrap(), "x", "async tasks go on");
    assert_eq!(bundle.probe.drain(), ["x"], "and the fifth thread keeps the only slot");
    bundle.probe.open(6);
    assert_eq!(waits.get(PATIENCE).await.unwrap(), 4, "until one has returned");
    stop(worker).await;
    bundle.settled();
}

/// An errback that never ends by itself.
#[task(name = "tests.on_failure_stuck", time_limit = "300ms")]
async fn on_failure_stuck(request: Value, error: Value, traceback: Value, probe: State<Probe>) {
    let _ = (request, error, traceback);
    probe.record("told");
    let _dropped = Dropped(probe);
    std::future::pending().await
}

/// The same on a thread, which cannot be stopped.
#[task(name = "tests.on_failure_blocks", time_limit = "300ms")]
fn on_failure_blocks(request: Value, error: Value, traceback: Value, probe: State<Probe>) {
    let _ = (request, error, traceback);
    probe.record("blocks");
    tokio::runtime::Handle::current().block_on(probe.pass());
}

#[tokio::test(flavor = "multi_thread")]
async fn errbacks_that_are_called_here_have_the_limits_of_their_tasks() {
    let bundle = Bundle::new("limits-errback").await;
    let worker = bundle.worker().await;
    for (errback, runs) in [
        ("tests.on_failure_stuck", &["told", "dropped"] as &[&str]),
        ("tests.on_failure_blocks", &["blocks"]),
    ] {
        let call = Signature::<()>::new("tests.python_error");
        let call = call.link_error(Signature::<()>::new(errback));
        let result = bundle.client.send(call).await.unwrap();
        let error = result.get(PATIENCE).await.unwrap_err();
        assert!(error.failure().is_some_and(|failure| failure.is("ValueError")), "{error}");
        assert_eq!(bundle.probe.drain(), runs);
    }
    bundle.settled();
    bundle.probe.open(1);
    stop(worker).await;
}
