//! Random workflows, and what they mean: a reference of a few lines.

use celeriac::protocol::canvas::Canvas;
use celeriac::protocol::{Map, Signature, Value};
use proptest::prelude::*;

/// The callback: remembers its arguments.
pub(crate) const HEARD: &str = "heard";

#[derive(Clone, Debug)]
pub(crate) enum Tree {
    Task(Leaf),
    /// `map`, `starmap` or `chunks` of two.
    Items(&'static str, Vec<i64>),
    Chain(Vec<Tree>),
    Group(Vec<Tree>),
    Chord(Vec<Tree>, Box<Tree>),
}

#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    task: &'static str,
    arg: i64,
    /// An argument that is given by its name.
    named: Option<i64>,
    immutable: bool,
    /// Whether it is followed by a callback, which gets `arg` as well.
    link: bool,
}

impl Leaf {
    fn value(&self, input: Option<&Value>) -> Value {
        let input = input.filter(|_| !self.immutable).cloned();
        let numbers = [Some(self.arg), self.named].into_iter().flatten().map(Value::Int);
        call(self.task, &input.into_iter().chain(numbers).collect::<Vec<_>>())
    }

    fn signature(&self) -> Signature {
        let named = self.named.map(|number| ("named", Value::Int(number)));
        let mut options = Map::new();
        if self.link {
            let args = vec![Value::Int(self.arg)];
            let callback = Signature { args, ..Signature::new(HEARD) };
            options.insert("link", vec![callback.into_value()]);
        }
        let (args, kwargs) = (vec![Value::Int(self.arg)], Map::from_iter(named));
        let call = Signature { args, kwargs, options, ..Signature::new(self.task) };
        Signature { immutable: self.immutable, ..call }
    }
}

/// What `items` are for: a number or two.
fn item(how: &str, number: i64) -> Value {
    match how {
        "map" => Value::Int(number),
        _ => Value::Array(vec![Value::Int(number), Value::Int(number + 1)]),
    }
}

fn items(how: &str, numbers: &[i64]) -> Signature {
    let all: Vec<Value> = numbers.iter().map(|number| item(how, *number)).collect();
    let task = Signature::new("digest").into_value();
    let mut kwargs = Map::from_iter([("task", task), ("it", all.into())]);
    let subtask_type = if how == "chunks" { how.to_owned() } else { format!("x{how}") };
    if how == "chunks" {
        kwargs.insert("n", 2);
    }
    let call = Signature { kwargs, immutable: true, ..Signature::new(format!("celery.{how}")) };
    Signature { subtask_type: Some(subtask_type), ..call }
}

/// What a call of many items gives, if `task` is one.
pub(crate) fn each(task: &Signature) -> Option<Value> {
    let how = task.task.strip_prefix("celery.").filter(|how| how.ends_with("map"))?;
    let items = task.kwargs.get("it").and_then(Value::as_array)?;
    let of = |item: &Value| match item {
        Value::Array(args) if how == "starmap" => call("digest", args),
        item => call("digest", std::slice::from_ref(item)),
    };
    Some(items.iter().map(of).collect::<Vec<_>>().into())
}

/// What the callbacks of a workflow get, in no order.
pub(crate) fn heard(tree: &Tree, input: Option<&Value>, into: &mut Vec<Vec<Value>>) {
    match tree {
        Tree::Task(leaf) if leaf.link => {
            into.push(vec![leaf.value(input), Value::Int(leaf.arg)]);
        }
        Tree::Task(_) | Tree::Items(..) => {}
        Tree::Chain(steps) => {
            let mut value = input.cloned();
            for step in steps {
                heard(step, value.as_ref(), into);
                value = Some(meaning(step, value.as_ref()));
            }
        }
        Tree::Group(members) => members.iter().for_each(|it| heard(it, input, into)),
        Tree::Chord(header, body) => {
            header.iter().for_each(|it| heard(it, input, into));
            let list = header.iter().map(|it| meaning(it, input)).collect::<Vec<_>>();
            heard(body, Some(&list.into()), into);
        }
    }
}

/// What a workflow gives for the result of the step before.
pub(crate) fn meaning(tree: &Tree, input: Option<&Value>) -> Value {
    let list = |trees: &[Tree]| -> Value {
        trees.iter().map(|tree| meaning(tree, input)).collect::<Vec<_>>().into()
    };
    match tree {
        Tree::Task(leaf) => leaf.value(input),
        Tree::Items(how, numbers) => {
            let one = |number: &i64| match item(how, *number) {
                Value::Array(args) => call("digest", &args),
                item => call("digest", &[item]),
            };
            let all: Vec<Value> = numbers.iter().map(one).collect();
            let parts = all.chunks(2).map(|part| part.to_vec().into()).collect::<Vec<Value>>();
            if *how == "chunks" { parts.into() } else { all.into() }
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

/// Arguments of callbacks in an order, for comparing.
pub(crate) fn texts(heard: &[Vec<Value>]) -> Vec<String> {
    let mut texts: Vec<_> = heard.iter().map(|args| format!("{args:?}")).collect();
    texts.sort();
    texts
}

pub(crate) fn canvas(tree: &Tree) -> Canvas {
    let all = |trees: &[Tree]| trees.iter().map(canvas).collect::<Vec<_>>();
    let built = match tree {
        Tree::Task(leaf) => Ok(Canvas::Task(leaf.signature())),
        Tree::Items(how, numbers) => Canvas::from_signature(items(how, numbers)),
        Tree::Chain(steps) => Canvas::chain(all(steps)),
        Tree::Group(members) => Canvas::group(all(members)),
        Tree::Chord(header, body) => Canvas::chord(all(header), canvas(body)),
    };
    built.expect("a workflow")
}

pub(crate) fn trees() -> impl Strategy<Value = Tree> {
    let task = prop_oneof![Just("wrap"), Just("digest")];
    let named = prop::option::weighted(0.2, 0..100_i64);
    let (immutable, link) = (prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    let task = (task, 0..100_i64, named, immutable, link).prop_map(
        |(task, arg, named, immutable, link)| {
            Tree::Task(Leaf { task, arg, named, immutable, link })
        },
    );
    let how = prop_oneof![Just("map"), Just("starmap"), Just("chunks")];
    let items = (how, prop::collection::vec(0..100_i64, 0..4))
        .prop_map(|(how, numbers)| Tree::Items(how, numbers));
    let leaf = prop_oneof![9 => task, 1 => items];
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
