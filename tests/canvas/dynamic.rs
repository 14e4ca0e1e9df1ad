//! Workflows without types compose as Celery composes them; ones with types keep their lists.

use celeriac::client::canvas::Step;
use celeriac::protocol::canvas::Canvas;
use celeriac::protocol::join::Mode;
use celeriac::protocol::{Limits, Signature, Value, json};
use celeriac::{Workflow, chain, group};

fn task(name: &str) -> Workflow {
    Workflow::task(name, [])
}

fn group_of(names: &[&str]) -> Workflow {
    Workflow::group(names.iter().map(|name| task(name)))
}

/// `a | (b, c) | [h]->d`, for chains, groups and chords.
fn shape(canvas: &Canvas) -> String {
    let all =
        |parts: &[Canvas], between: &str| parts.iter().map(shape).collect::<Vec<_>>().join(between);
    match canvas {
        Canvas::Task(task) => task.task.clone(),
        Canvas::Chain(it) => all(it.parts(), " | "),
        Canvas::Group(it) => format!("({})", all(it.parts(), ", ")),
        Canvas::Chord(it, body) => format!("[{}]->{}", all(it.parts(), ", "), shape(body)),
    }
}

fn check(workflow: impl Step, expected: &str) {
    assert_eq!(shape(&workflow.into_canvas().expect("a workflow")), expected);
}

#[test]
fn a_group_of_one_behind_a_step_is_its_member_and_in_front_a_list() {
    check(task("a") | group_of(&["b"]) | task("c"), "a | b | c");
    check(group_of(&["a"]) | task("b"), "(a) | b");
    check(Workflow::chain([task("a"), group_of(&["b"])]), "a | b");
}

#[test]
fn an_empty_group_behind_a_step_is_left_out() {
    check(task("a") | group_of(&[]) | task("b"), "a | b");
    check(task("a") | group_of(&[]), "a");
}

#[test]
fn a_group_in_a_group_is_flattened_but_not_in_a_header() {
    let nested = || Workflow::group([group_of(&["a", "b"]), task("c")]);
    check(nested(), "(a, b, c)");
    check(Workflow::chord([group_of(&["a", "b"]), task("c")], task("d")), "[(a, b), c]->d");
    check(nested() | task("d"), "((a, b), c) | d");
}

#[test]
fn workflows_with_types_keep_their_lists() {
    let step = || Signature::new("a");
    let typed = || celeriac::Signature::<i64>::new("a");
    check(typed() | group([typed().partial::<i64>()]), "a | (a)");
    check(typed() | group(Vec::<celeriac::Signature<i64, _>>::from([typed().si()])), "a | (a)");
    check(chain((group([typed()]), typed().partial::<Vec<i64>>())), "(a) | a");
    check(group([group([typed()]), group([typed()])]), "((a), (a))");
    assert!(Workflow::from(step()).into_signature().is_ok());
}

#[test]
fn workflows_with_and_without_types_mix() {
    let typed = celeriac::Signature::<i64>::new("a");
    check(typed.clone() | task("b"), "a | b");
    check(typed.dynamic() | task("b"), "a | b");
}

#[test]
fn a_mistake_is_reported_when_the_workflow_is_sent() {
    let wrong = || {
        let map = std::collections::HashMap::from([((1, 2), 3)]);
        celeriac::Signature::<i64>::new("wrong").arg(map)
    };
    let message = |workflow: Result<Canvas, _>| -> String {
        let error: celeriac::client::canvas::WorkflowError = workflow.unwrap_err();
        error.to_string()
    };
    let expected = "failed to serialize the arguments of wrong";
    assert_eq!(message(group([wrong(), wrong()]).into_canvas()), expected);
    assert_eq!(message((wrong() | wrong().si()).into_canvas()), expected);
    let unknown = Signature { subtask_type: Some("tree".to_owned()), ..Signature::new("x") };
    let unknown = Workflow::from_signature(unknown) | task("a");
    assert!(message(unknown.into_canvas()).starts_with("unknown workflow type 'tree'"));
    assert_eq!(message(Workflow::chain([]).into_canvas()), "a chain needs at least one step");
}

#[test]
fn ten_thousand_levels_are_refused_where_they_are_built() {
    let mut workflow = task("a");
    for _ in 0..10_000 {
        workflow = Workflow::group([workflow]);
    }
    let error = workflow.into_canvas().unwrap_err();
    assert_eq!(error.to_string(), "workflows are nested deeper than 64 levels");
}

#[test]
fn ten_thousand_steps_are_no_nesting() {
    let add = celeriac::Signature::<i64>::new("a").partial::<i64>();
    let steps = chain(vec![add; 10_000]);
    let (frozen, mut result) = steps.freeze().unwrap();
    let canvas = frozen.into_canvas().unwrap();
    assert_eq!(canvas.parts().len(), 10_000);
    let mut length = 1;
    while let Some(parent) = result.take_parent() {
        result = parent;
        length += 1;
    }
    assert_eq!(length, 10_000);
}

#[test]
fn stamps_reach_everything_and_a_visitor_sees_what_they_are_for() {
    let typed = |name: &'static str| celeriac::Signature::<i64>::new(name);
    let callback = typed("callback").partial::<i64>();
    let workflow =
        (typed("a").link(callback) | typed("b").partial::<i64>()).stamp("tenant", "acme");
    let mut seen = Vec::new();
    let workflow = workflow.stamp_with(&mut |task: &Signature| {
        assert_eq!(task.options.get("tenant"), Some(&Value::from("acme")));
        seen.push(task.task.clone());
        Default::default()
    });
    assert!(workflow.into_canvas().is_ok());
    seen.sort();
    assert_eq!(seen, ["a", "b", "callback"]);
}

#[test]
fn what_has_no_types_is_stamped_alike() {
    let chord = Workflow::chord([task("a"), task("b") | task("c")], task("d"));
    let mut seen = Vec::new();
    let chord = chord.stamp("tenant", "acme").stamp_with(&mut |task: &Signature| {
        assert_eq!(task.options.get("tenant"), Some(&Value::from("acme")));
        seen.push(task.task.clone());
        Default::default()
    });
    assert!(chord.into_canvas().is_ok());
    seen.sort();
    assert_eq!(seen, ["a", "b", "c", "d"]);
}

#[test]
fn a_chord_without_types_says_how_it_is_joined() {
    let minute = std::time::Duration::from_secs(60);
    let settings = |it: Workflow| it.mode(Mode::Collect).expires_after(minute).revoke_rest(true);
    let join = |canvas: &Canvas| canvas.options().get("join").cloned();
    let chord = settings(Workflow::chord([task("a")], task("b"))).into_canvas().unwrap();
    let expected = r#"{"mode": "collect", "expires": 60.0, "revoke_rest": true}"#;
    let expected = json::decode(expected.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(join(&chord), Some(expected.clone()));
    let followed = (settings(group_of(&["a", "b"])) | task("c")).into_canvas().unwrap();
    assert_eq!(join(&followed.parts()[0]), Some(expected));
}

#[test]
fn how_a_task_or_a_chain_is_joined_is_a_mistake() {
    for workflow in [task("a"), task("a") | task("b")] {
        let mistake = workflow.park_above(9).into_signature().unwrap_err();
        assert!(mistake.to_string().starts_with("park_above says how a chord is joined"));
    }
}
