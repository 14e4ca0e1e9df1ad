//! Stamps: which parts of a workflow get those of which hook, as in Celery.

use celeriac::protocol::canvas::{Canvas, Composite, StampingVisitor, lower};
use celeriac::protocol::{CallOptions, Map, Signature};

use super::shapes::{call, canvas, chain, chord, group};

/// Stamps everything with the name of the hook.
struct Hooks;

fn hook(name: &'static str) -> Map {
    Map::from_iter([(name, 1)])
}

impl StampingVisitor for Hooks {
    fn on_signature(&mut self, signature: &Signature) -> Map {
        Map::from_iter([(format!("task-{}", signature.task), 1)])
    }

    fn on_chain(&mut self, _: &Composite) -> Map {
        hook("on-chain")
    }

    fn on_group(&mut self, _: &Composite) -> Map {
        hook("on-group")
    }

    fn on_chord_header(&mut self, _: &Composite) -> Map {
        hook("on-header")
    }

    fn on_chord_body(&mut self, _: &Canvas) -> Map {
        hook("on-body")
    }

    fn on_callback(&mut self, _: &Canvas) -> Map {
        hook("on-callback")
    }

    fn on_errback(&mut self, _: &Canvas) -> Map {
        hook("on-errback")
    }
}

/// A call with a callback and an errback.
fn linked(task: &str) -> String {
    let note = |name: &str| call(&format!("{task}-{name}"), "", "");
    call(task, "", &format!(r#""link": [{}], "link_error": [{}]"#, note("ok"), note("no")))
}

/// `text`, whose first options are those of a composite, with a callback and an errback of its own.
fn linking(text: &str) -> Canvas {
    let mut canvas = canvas(text);
    canvas.link(Signature::new("ok"));
    canvas.link_error(&Signature::new("no"));
    canvas
}

/// The stamps of a call, those of the links in it, and of theirs.
fn told(call: &Signature, out: &mut Vec<String>) {
    let options = CallOptions::from_map(call.options.clone()).expect("options");
    let names: Vec<_> = options.stamps.iter().map(|it| it.0.trim_start_matches("on-")).collect();
    out.push(format!("{}: {}", call.task, names.join(" ")));
    let rest = options.chain.unwrap_or_default();
    options.link.iter().chain(&options.link_error).chain(&rest).for_each(|it| told(it, out));
}

#[track_caller]
fn check(mut canvas: Canvas, expected: &[&str]) {
    canvas.stamp(&mut Hooks).expect("stamps");
    let lowered = lower(canvas, Default::default()).expect("a workflow");
    let mut found = Vec::new();
    lowered.calls.iter().for_each(|call| told(call, &mut found));
    lowered.opens.iter().flat_map(|it| &it.body).for_each(|body| told(body, &mut found));
    found.sort();
    found.dedup();
    assert_eq!(found, expected);
}

#[test]
fn links_of_a_task_get_their_own_stamps_and_those_around_the_task() {
    let expected = ["a-no: errback task-a-no", "a-ok: callback task-a-ok", "a: task-a"];
    check(canvas(&linked("a")), &expected);
    let expected = [
        "a-no: chain errback task-a-no",
        "a-ok: chain callback task-a-ok",
        "a: chain task-a",
        "b: chain task-b",
    ];
    check(canvas(&chain(&[linked("a"), call("b", "", "")])), &expected);
}

#[test]
fn links_of_a_workflow_get_its_stamps() {
    let (a, b) = (call("a", "", ""), call("b", "", ""));
    let chained = [
        "a: chain task-a",
        "b: chain task-b",
        "no: chain errback task-no",
        "ok: chain callback task-ok",
    ];
    check(linking(&chain(&[a.clone(), b.clone()])), &chained);
    let grouped = [
        "a: group task-a",
        "b: group task-b",
        "no: group errback task-no",
        "ok: group callback task-ok",
    ];
    check(linking(&group(&[a, b])), &grouped);
}

#[test]
fn a_body_gets_the_stamps_of_its_header_and_its_own() {
    let header = [linked("a"), chain(&[call("b", "", ""), call("c", "", "")])];
    let expected = [
        "a-no: header errback task-a-no",
        "a-ok: header callback task-a-ok",
        "a: header task-a",
        "b: header chain task-b",
        "c: header chain task-c",
        "sum-no: header body errback task-sum-no",
        "sum-ok: header body callback task-sum-ok",
        "sum: header body task-sum",
    ];
    check(canvas(&chord(&header, &linked("sum"))), &expected);
}
