//! Records that cannot be right beside what the log has said before.
//!
//! Two `open`s of one chord are the same one, written twice, if they agree on what the chord is:
//! how many parts it has, how they are joined, whose body it calls and whose part it is. A task
//! that runs again makes the same chord again, and the arguments of its body may differ. If they do
//! not agree, two chords have the same id, and the results of both would fill the same places.
//!
//! **Invariant:** such a chord ends without its body, and the log says so before the second `open`
//! leaves it.

use std::sync::Arc;

use super::event::Effect;
use super::joiner::{Joiner, Published};
use crate::protocol::canvas::Canvas;
use crate::protocol::join::{Open, Parent, Record};

/// A record that cannot be right, and why.
#[derive(Clone, Debug)]
pub(super) struct Contradiction {
    pub(super) record: Record,
    pub(super) reason: String,
}

/// Why both cannot be the `open` of one chord, if they cannot.
pub(super) fn between(first: &Open, second: &Open) -> Option<Contradiction> {
    let id = &first.chord;
    let reason = if first.size != second.size {
        let (first, second) = (first.size, second.size);
        format!("chord {id} has {first} parts, and this open says {second}")
    } else if first.mode != second.mode {
        let (first, second) = (first.mode.as_str(), second.mode.as_str());
        format!("chord {id} is joined in mode {first}, and this open says {second}")
    } else if first.parent != second.parent {
        let (first, second) = (place(first.parent.as_ref()), place(second.parent.as_ref()));
        format!("chord {id} is {first}, and this open says {second}")
    } else if first.body != second.body && body(first) != body(second) {
        let (first, second) = (body(first), body(second));
        format!("the body of chord {id} is {first}, and this open says {second}")
    } else {
        return None;
    };
    let record = Record::Open(Box::new(second.clone()));
    Some(Contradiction { record, reason })
}

fn place(parent: Option<&Parent>) -> String {
    parent.map_or_else(
        || "no part of another one".to_owned(),
        |Parent { chord, index, .. }| format!("part {index} of chord {chord}"),
    )
}

/// What the caller of the body waits for.
fn body(open: &Open) -> String {
    let Some(body) = &open.body else { return "none".to_owned() };
    let id = Canvas::from_signature(body.clone()).ok().and_then(|body| body.result_id());
    format!("{}[{}]", body.task, id.unwrap_or_default())
}

impl Joiner {
    /// A record that cannot be right goes to the dead letters. If it is an `open`, the chord itself
    /// ends first.
    pub(super) fn contradicted(
        &mut self,
        tag: Option<u64>,
        id: &Arc<str>,
        wrong: Contradiction,
        effects: &mut Vec<Effect>,
    ) {
        let is_open = matches!(wrong.record, Record::Open(_));
        if is_open && self.chords.get(id).is_some_and(|chord| chord.is_collecting()) {
            let (chord, reason) = (id.to_string(), wrong.reason.clone());
            let publish =
                self.publish(Published::GivingUp, Record::Expire { chord, reason }, effects);
            self.contradictions.extend(tag.map(|tag| (publish, (tag, wrong))));
        } else if let Some(tag) = tag {
            let Contradiction { record, reason } = wrong;
            self.poison(tag, Some(Box::new(record)), reason, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::join::Mode;
    use crate::protocol::{Map, Signature};

    fn open() -> Open {
        let body = Signature::new("sum");
        let chord = "c".to_owned();
        Open { chord, route: "join.0".to_owned(), size: 2, body: Some(body), ..Open::default() }
    }

    #[test]
    fn the_same_chord_made_again_is_no_contradiction() {
        let with = |pairs: [(&'static str, &'static str); 2], arg: i64| {
            let options = Map::from_iter(pairs);
            let body = Signature { options, args: vec![arg.into()], ..Signature::new("sum") };
            Open { body: Some(body), ..open() }
        };
        let first = with([("task_id", "b"), ("reply_to", "r")], 1);
        let again = with([("reply_to", "r"), ("task_id", "b")], 2);
        assert!(between(&first, &Open { created_ms: 5, ..again }).is_none());
    }

    #[test]
    fn two_chords_with_one_id_are_told_apart() {
        #[track_caller]
        fn check(second: Open, expected: &str) {
            let found = between(&open(), &second).unwrap();
            assert_eq!(found.reason, expected);
            assert_eq!(found.record, Record::Open(Box::new(second)));
        }
        check(Open { size: 3, ..open() }, "chord c has 2 parts, and this open says 3");
        let collect = Open { mode: Mode::Collect, ..open() };
        check(collect, "chord c is joined in mode fail_fast, and this open says collect");
        let (chord, route) = ("o".to_owned(), "join.1".to_owned());
        let parent = Some(Parent { chord, route, index: 4.into() });
        let text = "chord c is no part of another one, and this open says part 4 of chord o";
        check(Open { parent, ..open() }, text);
        let other = Open { body: Some(Signature::new("max")), ..open() };
        check(other, "the body of chord c is sum[], and this open says max[]");
        check(
            Open { body: None, ..open() },
            "the body of chord c is sum[], and this open says none",
        );
    }
}
