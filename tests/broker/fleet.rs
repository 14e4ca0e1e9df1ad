//! Any workflow gives what it means: random trees run by workers and joiners on a real broker,
//! against the same reference as in `tests/canvas`.

use celeriac::AnyResult;
use celeriac::client::canvas::{Dynamic, Step, WorkflowError};
use celeriac::protocol::Value;
use celeriac::protocol::canvas::Canvas;
use celeriac::task;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::fallible::run;
use crate::tree::{Tree, canvas, meaning, trees};
use crate::workflow::brisk;

#[task(name = "wrap")]
async fn wrap(first: Value, #[default] second: Option<Value>) -> Value {
    run("wrap", &arguments(first, second)).unwrap()
}

#[task(name = "digest")]
async fn digest(first: Value, #[default] second: Option<Value>) -> Value {
    run("digest", &arguments(first, second)).unwrap()
}

pub(crate) fn arguments(first: Value, second: Option<Value>) -> Vec<Value> {
    std::iter::once(first).chain(second).collect()
}

/// A tree as it is: composing it without types would flatten it as Celery does.
pub(crate) struct AsItIs(pub(crate) Canvas);

impl Step for AsItIs {
    type In = Dynamic;
    type Out = Value;
    type Handle = AnyResult;

    fn into_canvas(self) -> Result<Canvas, WorkflowError> {
        Ok(self.0)
    }
}

/// So many random values, which the seed decides.
pub(crate) fn random<T: Strategy>(strategy: T, seed: [u8; 32], count: usize) -> Vec<T::Value> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut value = || strategy.new_tree(&mut runner).unwrap().current();
    (0..count).map(|_| value()).collect()
}

pub(crate) fn random_seed() -> [u8; 32] {
    let seed = *uuid::Uuid::new_v4().as_bytes();
    [seed, seed].concat().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn random_workflows_give_what_they_mean() {
    let seed = random_seed();
    let trees: Vec<Tree> = random(trees(), seed, 40);
    let bundle = Bundle::with("fleet", brisk).await;
    let workers = [bundle.worker().await, bundle.worker().await];
    let mut begun = Vec::new();
    for tree in &trees {
        begun.push(within(bundle.client.apply(AsItIs(canvas(tree)))).await.unwrap());
    }
    for (tree, result) in trees.iter().zip(begun) {
        let value = result.get(PATIENCE).await;
        let value = value.unwrap_or_else(|error| panic!("seed {seed:?}: {error}: {tree:?}"));
        assert_eq!(value, meaning(tree, None), "seed {seed:?}: {tree:?}");
    }
    for worker in workers {
        stop(worker).await;
    }
    bundle.settled();
}
