//! States on the way: PENDING, STARTED, and what a task says about its progress.

use celeriac::protocol::{TaskState, Value};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::tasks::{add, hold, steps};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_nobody_has_taken_is_pending() {
    let bundle = Bundle::new("pending").await;
    let result = add::delay(&bundle.client, 1, 2).await.unwrap();
    assert_eq!(result.state(), TaskState::Pending);
    assert!(!result.ready() && result.latest().is_none());
    let worker = bundle.worker().await;
    assert_eq!(result.get(PATIENCE).await.unwrap(), 3);
    assert_eq!(result.state(), TaskState::Success);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_seen_by_who_follows_the_task() {
    let bundle = Bundle::new("progress").await;
    let worker = bundle.worker().await;
    let result = steps::delay(&bundle.client).await.unwrap();
    let mut updates = result.updates();
    for step in 1..=2 {
        let update = within(updates.next()).await.unwrap();
        assert_eq!(update.status, TaskState::Custom("PROGRESS".to_owned()));
        let current = update.result.as_map().and_then(|map| map.get("current"));
        assert_eq!(current, Some(&Value::Int(step)));
        assert_eq!(result.state().as_str(), "PROGRESS");
        bundle.probe.open(1);
    }
    assert_eq!(within(updates.next()).await.unwrap().status, TaskState::Success);
    assert!(within(updates.next()).await.is_none());
    assert_eq!(result.get(PATIENCE).await.unwrap(), 2);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_reported_when_it_is_tracked() {
    let bundle = Bundle::with("started", |config| config.task_track_started = true).await;
    let worker = bundle.worker().await;
    let result = hold::delay(&bundle.client, "x".to_owned()).await.unwrap();
    let mut updates = result.updates();
    let started = within(updates.next()).await.unwrap();
    assert_eq!(started.status, TaskState::Started);
    let about = started.result.as_map().unwrap();
    assert_eq!(about.get("hostname"), Some(&Value::from("test@host")));
    assert_eq!(about.get("pid"), Some(&Value::Int(std::process::id().into())));
    bundle.probe.open(1);
    assert_eq!(result.get(PATIENCE).await.unwrap(), "x");
    stop(worker).await;
}
