//! A workflow as a graph for people: which task runs after which.
//!
//! Pure, from the signature alone; states of tasks can be added by id. Does not decide how a
//! workflow runs: that is for whoever sends it.
//!
//! **Invariant:** the number of edges is linear in the number of tasks: where many follow many,
//! a joint stands between them.

mod write;

use std::collections::HashMap;

use super::{Map, Signature, TaskState, Value, repr};

/// Composites nested deeper than this are drawn as one node.
const DEPTH_MAX: usize = 256;

/// Characters of a label.
const LABEL_MAX: usize = 48;

/// Tasks and what follows them.
///
/// ```
/// use celeriac::protocol::{Graph, Limits, Signature, json};
///
/// let text = br#"{"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": [
///     {"task": "add", "args": [2, 2]}, {"task": "multiply", "args": [3]}]}}"#;
/// let chain = Signature::from_value(json::decode(text, &Limits::default())?)?;
/// let mermaid = Graph::of(&chain).to_mermaid();
/// assert!(mermaid.contains(r#"t0["add(2, 2)"]"#));
/// assert!(mermaid.contains("t0 --> t1"));
/// # Ok::<(), celeriac::protocol::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    /// States were added: a task without one is one of which nothing is known.
    has_states: bool,
}

/// A place in the graph.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    kind: Kind,
    /// The task's id, if the signature says it.
    task_id: Option<String>,
    state: Option<TaskState>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Task(String),
    /// Everything before it must end before anything behind it begins.
    Joint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    from: usize,
    to: usize,
    when: When,
}

/// When an edge is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// The next step.
    Next,
    /// A callback after success.
    Link,
    /// A callback after failure.
    LinkError,
}

/// The first and the last tasks of a part.
#[derive(Debug, Default)]
struct Ends {
    first: Vec<usize>,
    last: Vec<usize>,
}

impl Graph {
    /// Draws the workflow of a signature.
    pub fn of(workflow: &Signature) -> Self {
        let mut graph = Self::default();
        graph.part(workflow, 0);
        graph
    }

    /// Adds the states of tasks, by their ids. A task without one, or whose id no signature says,
    /// as those of callbacks, is drawn with a question mark.
    #[must_use]
    pub fn with_states(mut self, states: &HashMap<String, TaskState>) -> Self {
        self.has_states = true;
        for node in &mut self.nodes {
            node.state = node.task_id.as_ref().and_then(|id| states.get(id)).cloned();
        }
        self
    }

    fn part(&mut self, part: &Signature, depth: usize) -> Ends {
        let inner = |key| list(&part.kwargs, key);
        let ends = match part.task.as_str() {
            _ if depth > DEPTH_MAX => self.task(format!("{} …", part.task), None),
            "celery.chain" => self.chain(inner("tasks"), depth),
            "celery.group" => self.group(inner("tasks"), depth),
            "celery.chord" => {
                let header = self.group(inner("header"), depth);
                let mut body = Ends::default();
                for part in inner("body") {
                    body = self.part(&part, depth + 1);
                }
                self.join(header, body)
            }
            _ => {
                let id = part.options.get("task_id").and_then(Value::as_str);
                self.task(label(part), id.map(str::to_owned))
            }
        };
        for (key, when) in [("link", When::Link), ("link_error", When::LinkError)] {
            for callback in list(&part.options, key) {
                let callback = self.part(&callback, depth + 1);
                self.connect(&ends.last, &callback.first, when);
            }
        }
        ends
    }

    fn chain(&mut self, steps: Vec<Signature>, depth: usize) -> Ends {
        let mut all = Ends::default();
        for step in steps {
            let step = self.part(&step, depth + 1);
            all = self.join(all, step);
        }
        all
    }

    fn group(&mut self, members: Vec<Signature>, depth: usize) -> Ends {
        let mut all = Ends::default();
        for member in members {
            let member = self.part(&member, depth + 1);
            all.first.extend(member.first);
            all.last.extend(member.last);
        }
        all
    }

    fn task(&mut self, label: String, task_id: Option<String>) -> Ends {
        let node = self.node(Kind::Task(label), task_id);
        Ends { first: vec![node], last: vec![node] }
    }

    /// One part after the other. A part without tasks is as if it were not there.
    fn join(&mut self, before: Ends, after: Ends) -> Ends {
        if before.last.is_empty() {
            return after;
        }
        if after.first.is_empty() {
            return before;
        }
        self.connect(&before.last, &after.first, When::Next);
        Ends { first: before.first, last: after.last }
    }

    fn connect(&mut self, from: &[usize], to: &[usize], when: When) {
        if from.len() > 1 && to.len() > 1 {
            let joint = self.node(Kind::Joint, None);
            self.connect(from, &[joint], when);
            self.connect(&[joint], to, when);
            return;
        }
        for &from in from {
            self.edges.extend(to.iter().map(|&to| Edge { from, to, when }));
        }
    }

    fn node(&mut self, kind: Kind, task_id: Option<String>) -> usize {
        self.nodes.push(Node { kind, task_id, state: None });
        self.nodes.len() - 1
    }
}

/// The signatures under a key: a list, one alone, or a group that stands for its members.
fn list(map: &Map, key: &str) -> Vec<Signature> {
    let read = |value: &Value| Signature::from_value(value.clone()).ok();
    match map.get(key) {
        Some(Value::Array(items)) => items.iter().filter_map(read).collect(),
        Some(value) => match read(value) {
            Some(group) if key == "header" && group.task == "celery.group" => {
                list(&group.kwargs, "tasks")
            }
            Some(one) => vec![one],
            None => Vec::new(),
        },
        None => Vec::new(),
    }
}

/// The call as people write it.
fn label(call: &Signature) -> String {
    if let (Some(word @ ("map" | "starmap" | "chunks")), Some(inner)) =
        (call.task.strip_prefix("celery."), list(&call.kwargs, "task").first())
    {
        let items = match call.kwargs.get("it") {
            Some(Value::Array(items)) => items.len(),
            _ => 0,
        };
        return format!("{word}({}, {items} items)", inner.task);
    }
    let args = call.args.iter().map(repr::value);
    let kwargs = call.kwargs.iter().map(|(name, value)| format!("{name}={}", repr::value(value)));
    let text = args.chain(kwargs).collect::<Vec<_>>().join(", ");
    let text = format!("{}({text})", call.task);
    if text.chars().count() <= LABEL_MAX {
        return text;
    }
    text.chars().take(LABEL_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Limits, json};

    fn signature(text: &str) -> Signature {
        Signature::from_value(json::decode(text.as_bytes(), &Limits::default()).unwrap()).unwrap()
    }

    fn task(name: &str) -> String {
        format!(r#"{{"task": "{name}", "options": {{"task_id": "{name}"}}}}"#)
    }

    fn composite(word: &str, members: &[String]) -> String {
        format!(r#"{{"task": "celery.{word}", "kwargs": {{"tasks": [{}]}}}}"#, members.join(", "))
    }

    /// Edges as `a>b`, by name; joints are `+`.
    fn edges(text: &str) -> Vec<String> {
        let graph = Graph::of(&signature(text));
        let name = |at: usize| match &graph.nodes[at].kind {
            Kind::Task(label) => label.trim_end_matches("()").to_owned(),
            Kind::Joint => "+".to_owned(),
        };
        graph.edges.iter().map(|it| format!("{}>{}", name(it.from), name(it.to))).collect()
    }

    #[test]
    fn steps_follow_one_another_and_members_do_not() {
        let group = composite("group", &[task("b"), task("c")]);
        assert_eq!(edges(&group), [""; 0]);
        let chain = composite("chain", &[task("a"), group, task("d")]);
        assert_eq!(edges(&chain), ["a>b", "a>c", "b>d", "c>d"]);
    }

    #[test]
    fn a_body_follows_every_part_of_its_header() {
        for header in
            [composite("group", &[task("a"), task("b")]), format!("[{}, {}]", task("a"), task("b"))]
        {
            let chord = format!(
                r#"{{"task": "celery.chord", "kwargs": {{"header": {header}, "body": {}}}}}"#,
                task("c")
            );
            assert_eq!(edges(&chord), ["a>c", "b>c"]);
        }
    }

    #[test]
    fn many_after_many_meet_in_a_joint() {
        let group = |names: [&str; 2]| composite("group", &names.map(task));
        let chain = composite("chain", &[group(["a", "b"]), group(["c", "d"])]);
        assert_eq!(edges(&chain), ["a>+", "b>+", "+>c", "+>d"]);
    }

    #[test]
    fn empty_parts_do_not_break_a_chain() {
        let chain = composite("chain", &[task("a"), composite("group", &[]), task("b")]);
        assert_eq!(edges(&chain), ["a>b"]);
    }

    #[test]
    fn deep_nesting_is_drawn_as_one_node() {
        let mut deep = Signature::new("a");
        for _ in 0..300 {
            let tasks = Value::Array(vec![deep.into_value()]);
            let kwargs = Map::from_iter([("tasks", tasks)]);
            deep = Signature { kwargs, ..Signature::new("celery.chain") };
        }
        assert_eq!(Graph::of(&deep).nodes.len(), 1);
    }

    #[test]
    fn labels_are_calls_and_short() {
        let label = |text: &str| label(&signature(text));
        assert_eq!(
            label(r#"{"task": "add", "args": [2, "x"], "kwargs": {"y": null}}"#),
            "add(2, 'x', y=None)"
        );
        assert_eq!(
            label(r#"{"task": "celery.map", "kwargs": {"task": {"task": "f"}, "it": [1, 2]}}"#),
            "map(f, 2 items)"
        );
        let long = label(&format!(r#"{{"task": "a", "args": ["{}"]}}"#, "x".repeat(1000)));
        assert_eq!(long.chars().count(), LABEL_MAX + 1);
    }
}
