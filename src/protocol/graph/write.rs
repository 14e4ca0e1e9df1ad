//! The languages of drawing programs.

use std::fmt::Write;

use super::{Graph, Kind, Node, When};
use crate::protocol::TaskState;

/// States that have a look of their own, with fill and border colour.
const LOOKS: &[(&str, &str, &str)] = &[
    ("success", "#d5f0d8", "#2e7d32"),
    ("failure", "#f8d7da", "#b02a37"),
    ("revoked", "#e2e3e5", "#6c757d"),
    ("retry", "#fff3cd", "#b58105"),
    ("started", "#d6e9ff", "#1f6feb"),
];

impl Graph {
    /// The graph in the language of Mermaid, which Markdown viewers draw.
    ///
    /// Source of the syntax: <https://mermaid.js.org/syntax/flowchart.html>.
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for (at, node) in self.nodes.iter().enumerate() {
            let shape = match &node.kind {
                Kind::Task(label) => format!("[\"{}\"]", mermaid_text(&self.shown(label, node))),
                Kind::Joint => "(( ))".to_owned(),
            };
            let class = look(node).map_or_else(String::new, |(class, ..)| format!(":::{class}"));
            line(&mut text, format_args!("    t{at}{shape}{class}"));
        }
        for edge in &self.edges {
            let arrow = match edge.when {
                When::Next => "-->",
                When::Link => "-. link .->",
                When::LinkError => "-. link_error .->",
            };
            line(&mut text, format_args!("    t{} {arrow} t{}", edge.from, edge.to));
        }
        for (class, fill, stroke) in LOOKS {
            if self.nodes.iter().any(|node| look(node).is_some_and(|(it, ..)| *it == *class)) {
                line(&mut text, format_args!("    classDef {class} fill:{fill},stroke:{stroke}"));
            }
        }
        text
    }

    /// The graph in DOT, the language of Graphviz.
    ///
    /// Source of the syntax: <https://graphviz.org/doc/info/lang.html>.
    pub fn to_dot(&self) -> String {
        let mut text = String::from("digraph workflow {\n    rankdir=LR;\n    node [shape=box];\n");
        for (at, node) in self.nodes.iter().enumerate() {
            let attributes = match &node.kind {
                Kind::Task(label) => format!("label=\"{}\"", dot_text(&self.shown(label, node))),
                Kind::Joint => "shape=point".to_owned(),
            };
            let colours = look(node).map_or_else(String::new, |(_, fill, stroke)| {
                format!(", style=filled, fillcolor=\"{fill}\", color=\"{stroke}\"")
            });
            line(&mut text, format_args!("    t{at} [{attributes}{colours}];"));
        }
        for edge in &self.edges {
            let attributes = match edge.when {
                When::Next => "",
                When::Link => " [style=dashed, label=\"link\"]",
                When::LinkError => " [style=dashed, label=\"link_error\"]",
            };
            line(&mut text, format_args!("    t{} -> t{}{attributes};", edge.from, edge.to));
        }
        text.push_str("}\n");
        text
    }

    fn shown(&self, label: &str, node: &Node) -> String {
        match &node.state {
            Some(state) => format!("{label}: {state}"),
            None if self.has_states => format!("{label}: ?"),
            None => label.to_owned(),
        }
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = writeln!(text, "{line}");
}

fn look(node: &Node) -> Option<&'static (&'static str, &'static str, &'static str)> {
    let class = match node.state.as_ref()? {
        TaskState::Success => "success",
        TaskState::Failure => "failure",
        TaskState::Revoked => "revoked",
        TaskState::Retry => "retry",
        TaskState::Started => "started",
        TaskState::Pending | TaskState::Received | TaskState::Custom(_) => return None,
    };
    LOOKS.iter().find(|(it, ..)| *it == class)
}

/// Text inside of double quotes, where Mermaid reads HTML entities, which it writes with `#`.
fn mermaid_text(text: &str) -> String {
    escaped(text, |c| match c {
        '#' => Some("#35;"),
        '"' => Some("#quot;"),
        '<' => Some("#lt;"),
        '>' => Some("#gt;"),
        '&' => Some("#amp;"),
        _ => None,
    })
}

fn dot_text(text: &str) -> String {
    escaped(text, |c| match c {
        '"' => Some("\\\""),
        '\\' => Some("\\\\"),
        _ => None,
    })
}

fn escaped(text: &str, escape: impl Fn(char) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match escape(c) {
            Some(escape) => out.push_str(escape),
            None if c.is_control() => out.push(' '),
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::protocol::Signature;

    fn graph() -> Graph {
        let mut call = Signature::new("a\"<b");
        call.options.insert("task_id", "1");
        call.options.insert("link_error", vec![Signature::new("c\n\\").into_value()]);
        let states = HashMap::from([("1".to_owned(), TaskState::Failure)]);
        Graph::of(&call).with_states(&states)
    }

    #[test]
    fn without_states_there_are_no_question_marks() {
        let graph = Graph::of(&Signature::new("a"));
        assert!(graph.to_dot().contains("label=\"a()\"") && graph.to_mermaid().contains("\"a()\""));
    }

    #[test]
    fn mermaid_has_nodes_edges_and_looks() {
        let expected = "flowchart LR\n\
            \x20   t0[\"a#quot;#lt;b(): FAILURE\"]:::failure\n\
            \x20   t1[\"c \\(): ?\"]\n\
            \x20   t0 -. link_error .-> t1\n\
            \x20   classDef failure fill:#f8d7da,stroke:#b02a37\n";
        assert_eq!(graph().to_mermaid(), expected);
    }

    #[test]
    fn dot_has_nodes_edges_and_colours() {
        let expected = "digraph workflow {\n    rankdir=LR;\n    node [shape=box];\n\
            \x20   t0 [label=\"a\\\"<b(): FAILURE\", style=filled, fillcolor=\"#f8d7da\", \
            color=\"#b02a37\"];\n\
            \x20   t1 [label=\"c \\\\(): ?\"];\n\
            \x20   t0 -> t1 [style=dashed, label=\"link_error\"];\n}\n";
        assert_eq!(graph().to_dot(), expected);
    }
}
