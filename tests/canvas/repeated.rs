//! Workflows in which an id occurs twice: the results of one would be taken for those of the other.

use celeriac::protocol::CallOptions;
use celeriac::protocol::canvas::{Call, CanvasError, Ids, Lowered, lower};
use celeriac::protocol::join::Link;

use super::shapes::{call, canvas, chain, chord, group};

/// A chord whose id is `id`.
fn chord_of(id: &str, header: &[String], body: &str) -> String {
    let header = header.join(", ");
    format!(
        r#"{{"task": "celery.chord", "subtask_type": "chord", "kwargs": {{"body": {body},
            "header": {{"task": "celery.group", "subtask_type": "group",
                "options": {{"task_id": "{id}"}}, "kwargs": {{"tasks": [{header}]}}}}}}}}"#
    )
}

fn named(id: &str) -> String {
    call("t", "", &format!(r#""task_id": "{id}""#))
}

fn t() -> String {
    call("t", "", "")
}

fn lowered(text: &str) -> Result<Lowered, CanvasError> {
    lower(canvas(text), Call { ids: Ids::derived("caller"), ..Call::default() })
}

#[track_caller]
fn is_repeated(text: &str, expected: &str) {
    match lowered(text) {
        Err(CanvasError::Repeated { id }) => assert_eq!(id, expected),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_workflow_is_refused_if_an_id_occurs_twice_in_it() {
    let frozen = chord_of("c", &[t(), t()], &t());
    is_repeated(&group(&[frozen.clone(), frozen.clone()]), "c");
    is_repeated(&chord(&[frozen.clone(), frozen.clone()], &t()), "c");
    is_repeated(&chain(&[frozen.clone(), t(), frozen.clone()]), "c");
    is_repeated(&chord(&[t(), frozen.clone()], &frozen), "c");
    is_repeated(&group(&[named("a"), t(), chain(&[t(), named("a")])]), "a");
    is_repeated(&chord(&[named("a"), t()], &named("a")), "a");
    assert!(lowered(&group(&[named("a"), chain(&[named("b"), named("c")])])).is_ok());
}

#[test]
fn a_chord_cannot_be_a_part_or_the_body_of_itself() {
    let inner = chord_of("c", &[t(), t()], &t());
    is_repeated(&chord_of("c", &[inner.clone(), t()], &t()), "c");
    is_repeated(&chord_of("c", &[t(), chain(&[t(), inner.clone()])], &t()), "c");
    is_repeated(&chord_of("c", &[t()], &inner), "c");
    // Nor of one that it comes to only when a part of that is replaced by it.
    let outer = |chord: &str, stack: &[&str]| Link {
        chord: chord.to_owned(),
        route: "join.0".to_owned(),
        is_final: true,
        stack: stack.iter().map(|it| (*it).to_owned()).collect(),
        ..Link::default()
    };
    for link in [outer("c", &[]), outer("d", &["c"])] {
        let call = Call { link: Some(link), ..Call::default() };
        let refused = lower(canvas(&inner), call).map(|it| it.calls.len());
        assert_eq!(refused, Err(CanvasError::Repeated { id: "c".to_owned() }));
    }
}

#[test]
fn what_a_task_calls_may_be_called_alike_and_its_callbacks_may_be_the_same() {
    let own = CallOptions { task_id: Some("a".to_owned()), ..CallOptions::default() };
    let call_it =
        |text: &str| lower(canvas(text), Call { options: own.clone(), ..Call::default() });
    assert!(call_it(&chord(&[t(), t()], &t())).is_ok());
    let link = named("callback");
    let linked = format!(r#"{{"task": "t", "options": {{"link": [{link}]}}}}"#);
    assert!(lowered(&group(&[linked.clone(), linked])).is_ok());
}
