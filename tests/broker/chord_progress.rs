//! How far a chord is, seen by who follows it.

use celeriac::protocol::join::Mode;
use celeriac::{AnyResult, Value, Workflow};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::workflow::brisk;

/// A part that waits at the gate.
fn held(label: &str) -> Workflow {
    Workflow::task("tests.hold", [label.into()])
}

fn body() -> Workflow {
    Workflow::task("tests.echo", [])
}

/// The id of the chord with this result.
fn chord(result: &AnyResult) -> &str {
    let Some(AnyResult::Group(header)) = result.parent() else { panic!("a header") };
    assert!(header.ignored());
    header.id()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_is_seen_to_end_and_so_is_the_chord() {
    let bundle = Bundle::with("progress", brisk).await;
    let worker = bundle.worker().await;
    let workflow = Workflow::chord(["a", "b", "c"].map(held), body());
    let result = within(workflow.apply_async(&bundle.client)).await.unwrap();
    let mut progress = within(bundle.client.chord_progress(chord(&result))).await.unwrap();
    for ended in 0..3 {
        let seen = within(progress.next()).await.unwrap().unwrap();
        assert_eq!((seen.ended(), seen.size, seen.failed), (ended, 3, 0));
        bundle.probe.open(1);
    }
    for _ in 0..2 {
        assert_eq!(within(progress.next()).await.unwrap(), None);
    }
    let expected: Vec<Value> = ["a", "b", "c"].map(Value::from).into();
    assert_eq!(result.get(PATIENCE).await.unwrap(), expected.into());
    let mut late = within(bundle.client.chord_progress(chord(&result))).await.unwrap();
    assert_eq!(within(late.next()).await.unwrap(), None, "it is over");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_have_failed_have_ended() {
    let bundle = Bundle::with("progress-failed", brisk).await;
    let worker = bundle.worker().await;
    let header = [Workflow::task("tests.python_error", []), held("a")];
    let workflow = Workflow::chord(header, body()).mode(Mode::Collect);
    let result = within(workflow.apply_async(&bundle.client)).await.unwrap();
    let mut progress = within(bundle.client.chord_progress(chord(&result))).await.unwrap();
    loop {
        let seen = within(progress.next()).await.unwrap().unwrap();
        assert_eq!((seen.ended(), seen.size), (seen.failed, 2));
        if seen.failed == 1 {
            break;
        }
    }
    bundle.probe.open(1);
    assert_eq!(within(progress.next()).await.unwrap(), None);
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chord_that_a_later_step_begins_is_followed_by_who_knows_that() {
    let bundle = Bundle::with("progress-later", brisk).await;
    let worker = bundle.worker().await;
    let parts = ["a", "b"].map(|label| held(label).immutable(true));
    let workflow = Workflow::chain([held("first"), Workflow::chord(parts, body())]);
    let result = within(workflow.apply_async(&bundle.client)).await.unwrap();
    let client = &bundle.client;
    let mut told = within(client.chord_progress(chord(&result))).await.unwrap().still_to_begin();
    let mut untold = within(client.chord_progress(chord(&result))).await.unwrap();
    // The one that knows asks first.
    tokio::select! {
        biased;
        seen = told.next() => panic!("nothing has begun: {seen:?}"),
        seen = within(untold.next()) => assert_eq!(seen.unwrap(), None),
    }
    bundle.probe.open(1);
    let seen = within(told.next()).await.unwrap().unwrap();
    assert_eq!((seen.ended(), seen.size), (0, 2));
    bundle.probe.open(2);
    while within(told.next()).await.unwrap().is_some() {}
    assert_eq!(within(untold.next()).await.unwrap(), None, "it has ended once");
    stop(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_worker_answers_who_has_asked_before() {
    let bundle = Bundle::with("progress-asleep", brisk).await;
    let workflow = Workflow::chord(["a", "b"].map(held), body());
    let result = within(workflow.apply_async(&bundle.client)).await.unwrap();
    let mut progress = within(bundle.client.chord_progress(chord(&result))).await.unwrap();
    let both = Box::pin(async { tokio::join!(progress.next(), bundle.worker()) });
    let (seen, worker) = within(both).await;
    assert_eq!(seen.unwrap().unwrap().size, 2);
    drop(progress);
    bundle.probe.open(2);
    result.get(PATIENCE).await.unwrap();
    stop(worker).await;
}
