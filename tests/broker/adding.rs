//! Parts that add further parts to their chord while they run.

use celeriac::client::canvas::Workflow;
use celeriac::protocol::{Value, repr};
use celeriac::{AnyResult, Context, Signature, TaskResult, task};

use crate::bundle::{Bundle, PATIENCE, stop};
use crate::workflow::brisk;

/// Adds so many sums.
#[task(name = "tests.adds")]
async fn adds(cx: Context, count: i64) -> TaskResult<i64> {
    for number in 1..=count {
        cx.add_to_chord(Signature::<i64>::new("tests.add").arg(count).arg(number))?;
    }
    Ok(100 * count)
}

/// Adds another one of its kind, so many levels deep.
#[task(name = "tests.adds_itself")]
async fn adds_itself(cx: Context, levels: i64) -> TaskResult<i64> {
    if levels > 0 {
        cx.add_to_chord(Signature::<i64>::new("tests.adds_itself").arg(levels - 1))?;
    }
    Ok(levels)
}

/// Adds whole workflows.
#[task(name = "tests.adds_workflows")]
async fn adds_workflows(cx: Context) -> TaskResult<i64> {
    let add = |one: i64, other: i64| Workflow::task("tests.add", [one.into(), other.into()]);
    cx.add_to_chord(add(1, 1) | Workflow::task("tests.double", []))?;
    cx.add_to_chord(Workflow::group([add(2, 2), add(3, 3)]))?;
    cx.add_to_chord(Workflow::chord([add(4, 4), add(5, 5)], Workflow::task("tests.sum", [])))?;
    Ok(0)
}

/// Adds a part that fails.
#[task(name = "tests.adds_a_failure")]
async fn adds_a_failure(cx: Context) -> TaskResult<i64> {
    cx.add_to_chord(Signature::<i64>::new("tests.python_error"))?;
    Ok(0)
}

fn step(name: &str, args: &[i64]) -> Workflow {
    Workflow::task(name, args.iter().copied().map(Value::Int))
}

async fn joined(bundle: &Bundle, header: Vec<Workflow>) -> AnyResult {
    bundle.client.apply(Workflow::chord(header, step("celery.accumulate", &[]))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_parts_add_comes_behind_the_header_in_their_order() {
    let bundle = Bundle::with("adding", brisk).await;
    let workers = [bundle.worker().await, bundle.worker().await];
    let header = vec![
        step("tests.adds", &[2]),
        step("tests.add", &[1, 1]),
        step("tests.add", &[0, 1]) | step("tests.adds", &[]),
        step("tests.adds_itself", &[3]),
        step("tests.adds_workflows", &[]),
    ];
    let value = joined(&bundle, header).await.get(PATIENCE).await.unwrap();
    let list = "[[200, 2, 100, 3, 0, 3, 4, 2, 2, 1, 0, 4, [4, 6], 18]]";
    assert_eq!(repr::value(&value), list);
    bundle.nothing_is_left();
    for worker in workers {
        stop(worker).await;
    }
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_part_that_fails_fails_the_chord() {
    let bundle = Bundle::with("adding-fails", brisk).await;
    let worker = bundle.worker().await;
    let result = joined(&bundle, vec![step("tests.adds_a_failure", &[])]).await;
    let error = result.get(PATIENCE).await.unwrap_err();
    let shown = repr::exception(&error.failure().unwrap().exception);
    assert!(shown.starts_with("ChordError(") && shown.contains("ValueError"), "{shown}");
    bundle.nothing_is_left();
    stop(worker).await;
    bundle.settled();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_part_of_a_chord_cannot_add_to_one() {
    let bundle = Bundle::with("adding-alone", brisk).await;
    let worker = bundle.worker().await;
    let alone = bundle.client.apply(step("tests.adds", &[1])).await.unwrap();
    let error = alone.get(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("this call is none"), "{error}");
    let first = step("tests.adds", &[1]) | step("tests.double", &[]);
    let error = joined(&bundle, vec![first]).await.get(PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("only the last step of a chain"), "{error}");
    stop(worker).await;
}
