//! Random workflows, and what they mean: a reference of a few lines.

use celeriac::protocol::canvas::Canvas;
use celeriac::protocol::{Signature, Value};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) enum Tree {
    Task { task: &'static str, arg: i64, immutable: bool },
    Chain(Vec<Tree>),
    Group(Vec<Tree>),
    Chord(Vec<Tree>, Box<Tree>),
}

/// What a workflow gives for the result of the step before.
pub(crate) fn meaning(tree: &Tree, input: Option<&Value>) -> Value {
    let list = |trees: &[Tree]| -> Value {
        trees.iter().map(|tree| meaning(tree, input)).collect::<Vec<_>>().into()
    };
    match tree {
        Tree::Task { task, arg, immutable } => {
            let input = input.filter(|_| !immutable).cloned();
            let args: Vec<_> = input.into_iter().chain([Value::Int(*arg)]).collect();
            call(task, &args)
        }
        Tree::Chain(steps) => {
            let mut value = None;
            for step in steps {
                value = Some(meaning(step, value.as_ref().or(input)));
            }
            value.expect("a chain has steps")
        }
        Tree::Group(members) => list(members),
        Tree::Chord(header, body) => meaning(body, Some(&list(header))),
    }
}

pub(crate) fn canvas(tree: &Tree) -> Canvas {
    let all = |trees: &[Tree]| trees.iter().map(canvas).collect::<Vec<_>>();
    let built = match tree {
        Tree::Task { task, arg, immutable } => {
            let args = vec![Value::Int(*arg)];
            Ok(Canvas::Task(Signature { args, immutable: *immutable, ..Signature::new(*task) }))
        }
        Tree::Chain(steps) => Canvas::chain(all(steps)),
        Tree::Group(members) => Canvas::group(all(members)),
        Tree::Chord(header, body) => Canvas::chord(all(header), canvas(body)),
    };
    built.expect("a workflow")
}

pub(crate) fn trees() -> impl Strategy<Value = Tree> {
    let task = prop_oneof![Just("wrap"), Just("digest")];
    let leaf = (task, 0..100_i64, prop::bool::weighted(0.2))
        .prop_map(|(task, arg, immutable)| Tree::Task { task, arg, immutable });
    leaf.prop_recursive(5, 60, 4, |inner| {
        let many = |least| prop::collection::vec(inner.clone(), least..5);
        prop_oneof![
            many(1).prop_map(Tree::Chain),
            many(0).prop_map(Tree::Group),
            (many(0), inner.clone()).prop_map(|(header, body)| Tree::Chord(header, body.into())),
        ]
    })
}

/// The tasks that workflows are made of: `wrap(…)` gives its arguments, `digest(…)` a number that
/// depends on all of them and their order.
pub(crate) fn call(task: &str, args: &[Value]) -> Value {
    match task {
        "wrap" => Value::Array(args.to_vec()),
        "digest" => Value::Int(args.iter().fold(7, digest)),
        "same" => args.first().expect("an argument").clone(),
        "digest_list" => call("digest", args.first().and_then(Value::as_array).expect("a list")),
        "celery.accumulate" => Value::Array(args.to_vec()),
        other => panic!("unknown task {other}"),
    }
}

fn digest(before: i64, value: &Value) -> i64 {
    const MODULUS: i64 = 1_000_000_007;
    let before = before % MODULUS;
    match value {
        Value::Int(number) => (before * 31 + number) % MODULUS,
        Value::Array(items) => (items.iter().fold(before * 37 + 1, digest) * 41 + 2) % MODULUS,
        other => panic!("unexpected {other:?}"),
    }
}
