//! Any workflow gives what it means: random trees run by workers and joiners on a real broker,
//! against the same reference as in `tests/canvas`. Which tasks run, how often, with which ids and
//! in which place, is what the simulator of `tests/canvas` says, which knows nothing of workers.

use celeriac::client::canvas::{Dynamic, Step, WorkflowError};
use celeriac::protocol::canvas::{Canvas, Ids, JoinDefaults, ResultTree};
use celeriac::protocol::{Map, Signature, Value};
use celeriac::{AnyResult, Context, State, task};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::bundle::{Bundle, PATIENCE, stop, within};
use crate::fallible::run;
use crate::probe::Probe;
use crate::simulator::{Simulator, place};
use crate::tree::{HEARD, Tree, canvas, meaning, trees};
use crate::workflow::brisk;

/// Says which task runs for the first time, and where in its workflow.
pub(crate) fn says(context: &Context, probe: &Probe) {
    let it = context.request();
    let group = it.group.as_deref().zip(it.group_index);
    let root = it.root_id.as_deref().unwrap_or(&it.id);
    // A task that another one calls for its items runs in the place of that one.
    if !it.task.starts_with("celery.") && it.retries == 0 {
        let parent = it.parent_id.as_deref();
        probe.record(place(&it.task, &it.id, root, parent, group, &it.stamps));
    }
}

#[task(name = "wrap")]
async fn wrap(
    context: Context,
    probe: State<Probe>,
    first: Value,
    #[default] second: Option<Value>,
    #[default] named: Option<Value>,
) -> Value {
    says(&context, &probe);
    run("wrap", &arguments(first, second, named)).unwrap()
}

#[task(name = "digest")]
async fn digest(
    context: Context,
    probe: State<Probe>,
    first: Value,
    #[default] second: Option<Value>,
    #[default] named: Option<Value>,
) -> Value {
    says(&context, &probe);
    run("digest", &arguments(first, second, named)).unwrap()
}

/// The callback.
#[task(name = "heard")]
async fn hears(context: Context, probe: State<Probe>, value: Value, number: i64) {
    says(&context, &probe);
    probe.record(called(&[value, number.into()]));
}

fn called(args: &[Value]) -> String {
    format!("{HEARD} {args:?}")
}

pub(crate) fn arguments(first: Value, second: Option<Value>, named: Option<Value>) -> Vec<Value> {
    std::iter::once(first).chain(second).chain(named).collect()
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

/// The ids that the caller waits for, and those that they follow from.
fn ids(of: &AnyResult) -> String {
    let members = match of {
        AnyResult::Task(_) => Vec::new(),
        AnyResult::Group(group) => group.results().iter().map(ids).collect(),
    };
    format!("{} {members:?} after {:?}", of.id(), of.parent().map(ids))
}

fn ids_of_tree(tree: &ResultTree) -> String {
    let members = tree.members().unwrap_or_default().iter().map(ids_of_tree);
    let members: Vec<_> = members.collect();
    format!("{} {members:?} after {:?}", tree.id(), tree.parent().map(ids_of_tree))
}

/// A workflow with ids and stamps, what the caller waits for, and what its tasks say.
fn prepared(tree: &Tree) -> (Canvas, String, Vec<String>) {
    let mut canvas = canvas(tree);
    canvas.stamp(&mut |_: &Signature| Map::from_iter([("job", "j1")])).unwrap();
    let result = canvas.freeze(&mut Ids::Random, &JoinDefaults::default()).unwrap();
    let mut simulator = Simulator::default();
    simulator.send(canvas.clone());
    // Never another task in the place of one, and nothing twice.
    simulator.run(&mut |among| among - 1);
    let says = simulator.places.iter().filter(|place| !place.starts_with("celery."));
    let says = says.cloned().chain(simulator.heard.iter().map(|args| called(args))).collect();
    (canvas, ids_of_tree(&result), says)
}

#[tokio::test(flavor = "multi_thread")]
async fn random_workflows_give_what_they_mean() {
    let seed = random_seed();
    let trees: Vec<Tree> = random(trees(), seed, 40);
    let bundle = Bundle::with("fleet", brisk).await;
    let workers = [bundle.worker().await, bundle.worker().await];
    let (mut begun, mut expected) = (Vec::new(), Vec::new());
    for tree in &trees {
        let (canvas, ids_before, says) = prepared(tree);
        let result = within(bundle.client.apply(AsItIs(canvas))).await.unwrap();
        assert_eq!(ids(&result), ids_before, "seed {seed:?}: {tree:?}");
        begun.push(result);
        expected.extend(says);
    }
    for (tree, result) in trees.iter().zip(begun) {
        let value = result.get(PATIENCE).await;
        let value = value.unwrap_or_else(|error| panic!("seed {seed:?}: {error}: {tree:?}"));
        assert_eq!(value, meaning(tree, None), "seed {seed:?}: {tree:?}");
    }
    bundle.probe.seen(expected.len()).await;
    bundle.nothing_is_left();
    for worker in workers {
        stop(worker).await;
    }
    bundle.settled();
    // Each task once, with its id and in its place.
    let mut says = bundle.probe.runs();
    says.sort();
    expected.sort();
    let differ = says.iter().zip(&expected).find(|(says, expected)| says != expected);
    assert_eq!((says.len(), differ), (expected.len(), None), "seed {seed:?}");
}
