//! Random workflows in which tasks fail, and the rules about that: which tasks succeed and which
//! fail, with which exception, and which errbacks are called how often. A reference that knows
//! nothing of messages; every task, group and chord has an id of its own from the start.

use std::collections::{BTreeMap, BTreeSet};

use celeriac::protocol::canvas::Canvas;
use celeriac::protocol::{Exception, Map, Signature, Value};
use proptest::prelude::*;

use super::tree::call;

/// The task that fails with a `ValueError` of its argument.
pub(crate) const FAILS: &str = "fails";
/// The same, after it was tried again.
pub(crate) const GIVES_UP: &str = "gives_up";
/// A task that succeeds as `wrap` does when it is tried again.
pub(crate) const TRIES: &str = "tries";
/// A task that no worker has.
pub(crate) const UNKNOWN: &str = "nowhere";
/// The errback: gets the id of what failed, and a number of its own.
pub(crate) const TOLD: &str = "told";
/// One that gets the request, the exception and its traceback instead of the id.
pub(crate) const TOLD_ALL: &str = "told_all";

/// A workflow, or a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// What it is known by: its id is `n` and this.
    number: i64,
    /// Its errback, which is known by the same number.
    errback: Option<&'static str>,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    Task { task: &'static str, immutable: bool },
    Chain(Vec<Node>),
    Group(Vec<Node>),
    Chord { header: Vec<Node>, body: Box<Node>, collect: bool },
}

pub(crate) fn nodes() -> impl Strategy<Value = Node> {
    let task = prop_oneof![
        6 => Just("wrap"), 6 => Just("digest"), 3 => Just(FAILS),
        1 => Just(TRIES), 1 => Just(GIVES_UP), 1 => Just(UNKNOWN),
    ];
    let leaf = (task, prop::bool::weighted(0.2))
        .prop_map(|(task, immutable)| Shape::Task { task, immutable });
    let node = |shape| {
        let errback =
            prop_oneof![6 => Just(None), 3 => Just(Some(TOLD)), 1 => Just(Some(TOLD_ALL))];
        (shape, errback).prop_map(|(shape, errback)| Node { number: 0, errback, shape })
    };
    node(leaf.boxed()).prop_recursive(5, 40, 4, move |inner| {
        let many = |least| prop::collection::vec(inner.clone(), least..4);
        let chord = (many(0), inner.clone(), prop::bool::weighted(0.3));
        let shape = prop_oneof![
            many(1).prop_map(Shape::Chain),
            many(0).prop_map(Shape::Group),
            chord.prop_map(|(header, body, collect)| {
                let body = Box::new(body);
                Shape::Chord { header, body, collect }
            }),
        ];
        node(shape.boxed())
    })
}

impl Node {
    /// Gives numbers to all parts, from `next` on.
    pub(crate) fn number(mut self, next: &mut i64) -> Self {
        self.give_numbers(next);
        self
    }

    fn give_numbers(&mut self, next: &mut i64) {
        self.number = *next;
        *next += 1;
        match &mut self.shape {
            Shape::Task { .. } => {}
            Shape::Chain(parts) | Shape::Group(parts) => {
                parts.iter_mut().for_each(|part| part.give_numbers(next));
            }
            Shape::Chord { header, body, .. } => {
                header.iter_mut().for_each(|part| part.give_numbers(next));
                body.give_numbers(next);
            }
        }
    }

    /// The workflow as it is sent.
    pub(crate) fn canvas(&self) -> Canvas {
        let all = |nodes: &[Self]| nodes.iter().map(Self::canvas).collect::<Vec<_>>();
        let mut options = Map::from_iter([("task_id", format!("n{}", self.number))]);
        let built = match &self.shape {
            Shape::Task { task, immutable } => {
                let args = vec![Value::Int(self.number)];
                Ok(Canvas::Task(Signature { args, immutable: *immutable, ..Signature::new(*task) }))
            }
            Shape::Chain(steps) => {
                options = Map::new();
                Canvas::chain(all(steps))
            }
            Shape::Group(members) => Canvas::group(all(members)),
            Shape::Chord { header, body, collect } => {
                if *collect {
                    options.insert("join", Map::from_iter([("mode", "collect")]));
                }
                Canvas::chord(all(header), body.canvas())
            }
        };
        let mut canvas = built.expect("a workflow");
        for (key, value) in options.iter() {
            canvas.options_mut().insert(key.to_owned(), value.clone());
        }
        if let Some(errback) = self.errback {
            let args = vec![Value::Int(self.number)];
            canvas.link_error(&Signature { args, ..Signature::new(errback) });
        }
        canvas
    }
}

/// What the task of this name does.
pub(crate) fn run(task: &str, args: &[Value]) -> Result<Value, Exception> {
    let args: Vec<Value> = args.iter().map(plain).collect();
    match task {
        UNKNOWN => Err(Exception::new("celery.exceptions", "NotRegistered", UNKNOWN)),
        FAILS | GIVES_UP => {
            let own = args.last().cloned().unwrap_or_default();
            Err(Exception::new("builtins", "ValueError", own))
        }
        TRIES => Ok(call("wrap", &args)),
        _ => Ok(call(task, &args)),
    }
}

/// The list of a chord that collects, without what nobody can foretell.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        Value::Map(map) => match (map.get("ok"), map.get("err").and_then(Value::as_map)) {
            (Some(value), _) => plain(value),
            (None, Some(failure)) => named(failure.get("type").and_then(Value::as_str)),
            (None, None) => value.clone(),
        },
        other => other.clone(),
    }
}

/// Stands for an exception: tasks here know nothing but numbers and lists.
fn named(exception: Option<&str>) -> Value {
    Value::Int(if exception == Some("ChordError") { -2 } else { -1 })
}

/// How something failed: as the chord around is told, and how the exception looks. Which of
/// several failures a chord ends with depends on who comes first.
pub(crate) type Causes = BTreeSet<(String, String)>;

/// What the rules say about a workflow.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Tasks that run, and whether they succeed.
    pub(crate) runs: BTreeMap<String, bool>,
    /// Calls of a task that no worker has.
    pub(crate) unknown: usize,
    /// What the caller is told: a value, or one of these exceptions.
    pub(crate) told: BTreeMap<String, Result<Value, BTreeSet<String>>>,
    /// Calls of errbacks: which one, and for what.
    pub(crate) errbacks: BTreeMap<(i64, String), usize>,
}

/// A workflow with its errbacks where they take effect, and without groups that are followed by
/// something: those are headers of chords.
#[derive(Clone, Debug)]
enum Plain {
    Task {
        number: i64,
        task: &'static str,
        immutable: bool,
        errbacks: Vec<i64>,
    },
    /// The errbacks are called if the chain is a body that cannot run.
    Chain(Vec<Plain>, Vec<i64>),
    Group {
        number: i64,
        members: Vec<Plain>,
    },
    Chord {
        header: Vec<Plain>,
        body: Box<Plain>,
        collect: bool,
    },
}

impl Plain {
    fn of(node: &Node) -> Self {
        let all = |nodes: &[Node]| nodes.iter().map(Self::of).collect::<Vec<_>>();
        let mut plain = match &node.shape {
            Shape::Task { task, immutable } => Self::Task {
                number: node.number,
                task,
                immutable: *immutable,
                errbacks: Vec::new(),
            },
            Shape::Chain(steps) => {
                let flat = all(steps).into_iter().flat_map(|step| match step {
                    Self::Chain(steps, _) => steps,
                    other => vec![other],
                });
                Self::chain(flat.collect())
            }
            Shape::Group(members) => Self::Group { number: node.number, members: all(members) },
            Shape::Chord { header, body, collect } => {
                let body = Box::new(Self::of(body));
                Self::Chord { header: all(header), body, collect: *collect }
            }
        };
        if node.errback.is_some() {
            plain.hand(node.number);
        }
        plain
    }

    /// Gives an errback to everything that calls it.
    fn hand(&mut self, errback: i64) {
        match self {
            Self::Task { errbacks, .. } => errbacks.push(errback),
            Self::Chain(steps, errbacks) => {
                errbacks.push(errback);
                steps.iter_mut().for_each(|step| step.hand(errback));
            }
            Self::Group { members, .. } => {
                members.iter_mut().for_each(|member| member.hand(errback));
            }
            // A chord's errbacks are its body's, and those of the chords in its header.
            Self::Chord { header, body, .. } => {
                let chords = header.iter_mut().filter(|it| matches!(it, Self::Chord { .. }));
                chords.for_each(|chord| chord.hand(errback));
                body.hand(errback);
            }
        }
    }

    /// Steps without chains among them.
    fn chain(flat: Vec<Self>) -> Self {
        let mut steps: Vec<Self> = Vec::new();
        for step in flat {
            match steps.pop() {
                None => steps.push(step),
                Some(Self::Group { members: header, .. }) => {
                    steps.push(Self::Chord { header, body: Box::new(step), collect: false });
                }
                Some(Self::Chord { header, body, collect }) if body.ends_in_group() => {
                    // As in Celery, what they become has no errbacks of its own.
                    let mut flat = match *body {
                        Self::Chain(steps, _) => steps,
                        other => vec![other],
                    };
                    flat.push(step);
                    let body = Box::new(Self::chain(flat));
                    steps.push(Self::Chord { header, body, collect });
                }
                Some(before) => steps.extend([before, step]),
            }
        }
        Self::Chain(steps, Vec::new())
    }

    fn ends_in_group(&self) -> bool {
        match self {
            Self::Task { .. } => false,
            Self::Group { .. } => true,
            Self::Chain(steps, _) => steps.last().is_some_and(Self::ends_in_group),
            Self::Chord { body, .. } => body.ends_in_group(),
        }
    }

    /// What a caller waits for.
    fn result_id(&self) -> String {
        match self {
            Self::Task { number, .. } | Self::Group { number, .. } => format!("n{number}"),
            Self::Chain(steps, _) => steps.last().expect("a chain has steps").result_id(),
            Self::Chord { body, .. } => body.result_id(),
        }
    }

    /// The errbacks of a body whose chord has failed, and the ids that they get.
    fn called_if_it_cannot_run(&self) -> Vec<(i64, String)> {
        match self {
            // A chain of one is that one.
            Self::Chain(steps, _) if steps.len() == 1 => steps[0].called_if_it_cannot_run(),
            Self::Task { errbacks, .. } | Self::Chain(_, errbacks) => {
                errbacks.iter().map(|errback| (*errback, self.result_id())).collect()
            }
            Self::Group { members, .. } => {
                members.iter().flat_map(Self::called_if_it_cannot_run).collect()
            }
            Self::Chord { body, .. } => body.called_if_it_cannot_run(),
        }
    }
}

/// What the rules say about `node`.
pub(crate) fn expected(node: &Node) -> Expected {
    let mut expected = Expected::default();
    let _ = expected.part(&Plain::of(node), None, false);
    expected
}

impl Expected {
    /// What is `hidden` is in the header of a chord: the caller is told nothing of it.
    fn part(&mut self, part: &Plain, input: Option<&Value>, hidden: bool) -> Result<Value, Causes> {
        match part {
            Plain::Task { immutable, .. } => self.task(part, input.filter(|_| !immutable), hidden),
            Plain::Chain(steps, _) => self.chain(steps, input, hidden),
            Plain::Group { members, .. } => {
                let all = members.iter().map(|member| self.part(member, input, hidden)).collect();
                // Only in a header somebody waits for the whole of it.
                list(&part.result_id(), all)
            }
            Plain::Chord { header, body, collect } => {
                let all = header.iter().map(|member| self.part(member, input, true));
                let all: Vec<_> = all.collect();
                let joined = match collect {
                    true => Ok(all.into_iter().map(collected).collect::<Vec<_>>().into()),
                    false => list(&body.result_id(), all),
                };
                if let Err(causes) = &joined {
                    self.doom(body, causes, hidden);
                    for called in body.called_if_it_cannot_run() {
                        *self.errbacks.entry(called).or_default() += 1;
                    }
                }
                self.part(body, Some(&joined?), hidden)
            }
        }
    }

    fn task(&mut self, part: &Plain, input: Option<&Value>, hidden: bool) -> Result<Value, Causes> {
        let Plain::Task { number, task, errbacks, .. } = part else { panic!("{part:?}") };
        let args: Vec<_> = input.cloned().into_iter().chain([Value::Int(*number)]).collect();
        let (id, result) = (part.result_id(), run(task, &args));
        let shown = match *task {
            UNKNOWN => format!("NotRegistered({})", quoted(UNKNOWN)),
            _ => format!("ValueError({number})"),
        };
        if *task == UNKNOWN {
            self.unknown += 1;
        } else {
            self.runs.insert(id.clone(), result.is_ok());
        }
        if !hidden {
            let told = result.clone().map_err(|_| BTreeSet::from([shown.clone()]));
            self.told.insert(id.clone(), told);
        }
        result.map_err(|_| {
            for errback in errbacks {
                *self.errbacks.entry((*errback, id.clone())).or_default() += 1;
            }
            Causes::from([(id, shown)])
        })
    }

    fn chain(
        &mut self,
        steps: &[Plain],
        input: Option<&Value>,
        hidden: bool,
    ) -> Result<Value, Causes> {
        let mut value = None;
        for (at, step) in steps.iter().enumerate() {
            match self.part(step, value.as_ref().or(input), hidden) {
                Ok(result) => value = Some(result),
                Err(causes) => {
                    let rest = steps.iter().skip(at + 1);
                    rest.for_each(|step| self.doom(step, &causes, hidden));
                    return Err(causes);
                }
            }
        }
        Ok(value.expect("a chain has steps"))
    }

    /// Nothing of it can run any more.
    fn doom(&mut self, part: &Plain, causes: &Causes, hidden: bool) {
        match part {
            Plain::Task { .. } if hidden => {}
            Plain::Task { .. } => {
                let shown = causes.iter().map(|(_, shown)| shown.clone()).collect();
                self.told.insert(part.result_id(), Err(shown));
            }
            Plain::Chain(parts, _) | Plain::Group { members: parts, .. } => {
                parts.iter().for_each(|part| self.doom(part, causes, hidden));
            }
            Plain::Chord { body, .. } => self.doom(body, causes, hidden),
        }
    }
}

/// An entry of the list of a chord that collects.
fn collected(result: Result<Value, Causes>) -> Value {
    let exception = |(_, shown): &(String, String)| Some(shown.split('(').next()?.to_owned());
    result.unwrap_or_else(|causes| named(causes.first().and_then(exception).as_deref()))
}

/// The list of a header, or how the chord fails whose result has this id.
fn list(id: &str, results: Vec<Result<Value, Causes>>) -> Result<Value, Causes> {
    let mut causes = Causes::new();
    let mut values = Vec::new();
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(failed) => causes.extend(failed),
        }
    }
    if causes.is_empty() {
        return Ok(values.into());
    }
    let error = |(failed, shown): &(String, String)| {
        let text = format!("Dependency {failed} raised {shown}");
        (id.to_owned(), format!("ChordError({})", quoted(&text)))
    };
    Err(causes.iter().map(error).collect())
}

/// A text as Python shows it.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\");
    match (text.contains('\''), text.contains('"')) {
        (false, _) => format!("'{escaped}'"),
        (true, false) => format!("\"{escaped}\""),
        (true, true) => format!("'{}'", escaped.replace('\'', "\\'")),
    }
}
