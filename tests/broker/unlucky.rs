//! Any workflow fails as the rules say: random trees with failing tasks run by workers and joiners
//! on a real broker, against the same reference as in `tests/canvas`.

use std::collections::{BTreeMap, BTreeSet};

use celeriac::protocol::{Exception, Map, Value, repr};
use celeriac::{AnyResult, Context, State, TaskError, TaskResult, task};
use xtask::QueueDepth;

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::fallible::{Expected, FAILS, GIVES_UP, TOLD, TRIES, expected, nodes, run};
use crate::fleet::{AsItIs, arguments, random, random_seed, says};
use crate::probe::Probe;
use crate::workflow::brisk;

fn error(kind: &str, task: &str, args: &[Value]) -> TaskError {
    let exception = run(task, args).expect_err("it fails");
    TaskError::python(kind, "builtins", exception.exc_message)
}

#[task(name = "fails")]
async fn fails(
    context: Context,
    probe: State<Probe>,
    first: Value,
    #[default] second: Option<Value>,
) -> TaskResult<Value> {
    says(&context, &probe);
    Err(error("ValueError", FAILS, &arguments(first, second, None)))
}

#[task(name = "gives_up", max_retries = 1, retry_delay = "10ms", retry_for("ValueError"))]
async fn gives_up(
    context: Context,
    probe: State<Probe>,
    first: Value,
    #[default] second: Option<Value>,
) -> TaskResult<Value> {
    says(&context, &probe);
    Err(error("ValueError", GIVES_UP, &arguments(first, second, None)))
}

#[task(name = "tries", max_retries = 1, retry_delay = "10ms", retry_for("ConnectionError"))]
async fn tries(
    context: Context,
    probe: State<Probe>,
    first: Value,
    #[default] second: Option<Value>,
) -> TaskResult<Value> {
    says(&context, &probe);
    let args = arguments(first, second, None);
    if context.retries() == 0 {
        return Err(error("ConnectionError", FAILS, &args));
    }
    Ok(run(TRIES, &args).unwrap())
}

/// The errback.
#[task(name = "told")]
async fn told(id: String, number: i64, probe: State<Probe>) {
    probe.record(format!("{TOLD} {number} of {id}"));
}

#[task(name = "told_all")]
async fn told_all(
    request: Map,
    _error: Exception,
    _traceback: Option<String>,
    number: i64,
    probe: State<Probe>,
) {
    let id = request.get("id").and_then(Value::as_str).unwrap_or_default();
    probe.record(format!("{TOLD} {number} of {id}"));
}

/// What the caller waits for, earlier steps included.
fn awaited<'a>(result: &'a AnyResult, into: &mut Vec<&'a AnyResult>) {
    match result {
        AnyResult::Task(_) => into.push(result),
        AnyResult::Group(group) => group.results().iter().for_each(|it| awaited(it, into)),
    }
    if let Some(parent) = result.parent() {
        awaited(parent, into);
    }
}

/// Compares what the caller is told with what the rules allow.
async fn check_told(result: &AnyResult, expected: &Expected) -> Result<(), String> {
    let mut results = Vec::new();
    awaited(result, &mut results);
    results.retain(|it| expected.told.contains_key(it.id()));
    let ids: BTreeSet<_> = results.iter().map(|it| it.id()).collect();
    if !expected.told.keys().all(|id| ids.contains(id.as_str())) {
        return Err(format!("not awaited: {ids:?}"));
    }
    for result in results {
        let told = result.get(PATIENCE).await;
        let is_right = match (&told, &expected.told[result.id()]) {
            (Ok(value), Ok(expected)) => value == expected,
            (Err(error), Err(causes)) => error
                .failure()
                .is_some_and(|failure| causes.contains(&repr::exception(&failure.exception))),
            _ => false,
        };
        if !is_right {
            return Err(format!("{} is told {told:?}", result.id()));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_workflows_fail_as_the_rules_say() {
    let seed = random_seed();
    let mut numbers = 0;
    let trees: Vec<_> = random(nodes(), seed, 40);
    let trees: Vec<_> = trees.into_iter().map(|node| node.number(&mut numbers)).collect();
    let bundle = Bundle::with("unlucky", brisk).await;
    let workers = [bundle.worker().await, bundle.worker().await];
    let mut begun = Vec::new();
    for tree in &trees {
        begun.push(within(bundle.client.apply(AsItIs(tree.canvas()))).await.unwrap());
    }
    let mut errbacks: BTreeMap<String, usize> = BTreeMap::new();
    let (mut ran, mut unknown) = (BTreeMap::new(), 0);
    for (tree, result) in trees.iter().zip(&begun) {
        let expected = expected(tree);
        let told = check_told(result, &expected).await;
        told.unwrap_or_else(|wrong| panic!("seed {seed:?}: {wrong}: {expected:?} {tree:?}"));
        for ((number, id), times) in expected.errbacks {
            errbacks.insert(format!("{TOLD} {number} of {id}"), times);
        }
        ran.extend(expected.runs.into_keys().map(|id| (id, 1)));
        unknown += expected.unknown;
    }
    bundle.probe.seen(errbacks.values().sum::<usize>() + ran.len()).await;
    unknown_are_parked(&bundle, unknown);
    bundle.nothing_is_left();
    for worker in workers {
        stop(worker).await;
    }
    bundle.settled();
    let (mut called, mut runs) = (BTreeMap::new(), BTreeMap::new());
    for label in bundle.probe.runs() {
        if label.starts_with(TOLD) {
            *called.entry(label).or_default() += 1;
        } else {
            let id = label.split(' ').nth(1).unwrap();
            *runs.entry(id.to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(called, errbacks, "seed {seed:?}");
    assert_eq!(runs, ran, "seed {seed:?}");
}

/// Each message that no worker has a task for, and then nothing any more.
fn unknown_are_parked(bundle: &Bundle, count: usize) {
    let parked = || {
        let all = bundle.vhost.messages("celeriac.dead").unwrap_or_default();
        (all.len() == count).then_some(())
    };
    xtask::wait_until("unknown tasks are parked", PATIENCE, parked).unwrap();
    if count > 0 {
        bundle.vhost.purge("celeriac.dead").unwrap();
        let empty = QueueDepth { ready: 0, unacked: 0 };
        bundle.vhost.wait_for_depth("celeriac.dead", empty, PATIENCE).unwrap();
    }
}
