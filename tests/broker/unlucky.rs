//! Any workflow fails as the rules say: random trees with failing tasks run by workers and joiners
//! on a real broker, against the same reference as in `tests/canvas`.

use std::collections::{BTreeMap, BTreeSet};

use celeriac::protocol::{Value, repr};
use celeriac::{AnyResult, State, TaskError, TaskResult, task};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::fallible::{Expected, FAILS, TOLD, expected, nodes, run};
use crate::fleet::{AsItIs, arguments, random, random_seed};
use crate::probe::Probe;
use crate::workflow::brisk;

#[task(name = "fails")]
async fn fails(first: Value, #[default] second: Option<Value>) -> TaskResult<Value> {
    run(FAILS, &arguments(first, second))
        .map_err(|exception| TaskError::python("ValueError", "builtins", exception.exc_message))
}

/// The errback.
#[task(name = "told")]
async fn told(id: String, number: i64, probe: State<Probe>) {
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
    for (tree, result) in trees.iter().zip(&begun) {
        let expected = expected(tree);
        let told = check_told(result, &expected).await;
        told.unwrap_or_else(|wrong| panic!("seed {seed:?}: {wrong}: {expected:?} {tree:?}"));
        for ((number, id), times) in expected.errbacks {
            errbacks.insert(format!("{TOLD} {number} of {id}"), times);
        }
    }
    bundle.probe.seen(errbacks.values().sum()).await;
    bundle.nothing_is_left();
    for worker in workers {
        stop(worker).await;
    }
    bundle.settled();
    let mut called: BTreeMap<String, usize> = BTreeMap::new();
    bundle.probe.runs().into_iter().for_each(|label| *called.entry(label).or_default() += 1);
    assert_eq!(called, errbacks, "seed {seed:?}");
}
