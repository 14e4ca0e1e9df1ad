//! Drawings: before a workflow is sent, at its end with the states of its tasks, and later.

use serde_json::{Value, json};
use xtask::Spawned;

use crate::run::{Run, celeriac};
use crate::setup::{SOON, objects, setup};

fn file(name: &str, text: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The drawing in the last line of `--json`.
#[track_caller]
fn drawing(run: &Run) -> Value {
    objects(&run.stdout).pop().unwrap_or_else(|| panic!("{run:?}"))["graph"].take()
}

#[track_caller]
fn has(drawing: &str, parts: &[&str]) {
    for part in parts {
        assert!(drawing.contains(part), "{part} is not in {drawing}");
    }
}

/// The fill colours of what has succeeded and failed, in DOT.
const GREEN: &str = ", style=filled, fillcolor=\"#d5f0d8\"";
const RED: &str = ", style=filled, fillcolor=\"#f8d7da\"";

#[test]
fn a_chord_and_a_group_are_drawn_with_states_in_both_languages() {
    let setup = setup("graph-states");
    let _worker = setup.worker();
    let chord = ["chord", "add(1, 1)", "add(2, 2)", "--body", "sum_task", "--wait", "--graph"];
    let dot = setup.celeriac(&[&chord[..], &["dot"]].concat(), "");
    for task in ["add(1, 1)", "add(2, 2)", "sum_task()"] {
        has(&dot.stdout, &[&format!("[label=\"{task}: SUCCESS\"{GREEN}")]);
    }
    has(&dot.stdout, &["t0 -> t2;", "t1 -> t2;"]);
    let group = ["group", "square(2)", "fail(\"no\")", "--wait", "--graph"];
    let mermaid = setup.celeriac(&[&group[..], &["mermaid"]].concat(), "");
    assert_eq!(mermaid.code, Some(1), "{mermaid:?}");
    has(&mermaid.stdout, &["\"fail('no'): FAILURE\"]:::failure", "t0[\"square(2): "]);
    assert!(!mermaid.stdout.contains("-->"), "{mermaid:?}");
    let dot = setup.celeriac(&[&group[..], &["dot"]].concat(), "");
    has(&dot.stdout, &[&format!("[label=\"fail('no'): FAILURE\"{RED}")]);
}

#[test]
fn the_part_that_has_failed_is_drawn_with_its_body_and_with_callbacks_of_which_nobody_tells() {
    let setup = setup("graph-failed");
    let _worker = setup.worker();
    let body = json!({"task": "sum_task", "link": "double", "link_error": "process_data"});
    let tree = json!({"chord": ["add(1, 1)", "fail()"], "body": body}).to_string();
    let run = setup.celeriac(&["run", "-", "--wait", "--graph", "dot"], &tree);
    assert_eq!(run.code, Some(1), "{run:?}");
    let parts = [
        &*format!("[label=\"fail(): FAILURE\"{RED}"),
        &*format!("[label=\"sum_task(): FAILURE\"{RED}"),
        "[label=\"double(): ?\"];",
        "[label=\"process_data(): ?\"];",
        "[style=dashed, label=\"link_error\"]",
    ];
    has(&run.stdout, &parts);
}

#[test]
fn a_workflow_that_was_sent_is_drawn_later_with_what_was_told_of_it() {
    let setup = setup("graph-later");
    let chord = ["chord", "add(1, 1)", "fail()", "--body", "sum_task", "--json"];
    let sent = setup.celeriac(&[&chord[..], &["--graph", "json"]].concat(), "");
    assert_eq!(drawing(&sent)["task"], "celery.chord", "{sent:?}");
    let sent = file("graph-sent.json", &sent.stdout);
    let _other = setup.worker_with(&["-Q", "other"]);
    let mut listening = std::process::Command::new(env!("CARGO_BIN_EXE_celeriac"));
    let listening = listening.args(["events", "--json"]);
    let listening = listening.env("CELERIAC_BROKER_URL", &setup.url);
    let events = Spawned::start(listening).unwrap();
    events.wait_for_line("worker-heartbeat", SOON).unwrap();
    let _worker = setup.worker_with(&["--task-events"]);
    for part in ["task-succeeded", "task-failed"] {
        events.wait_for_line(part, SOON).unwrap();
    }
    let told = file("graph-told.json", &events.output());
    let drawn =
        celeriac(&["graph", "--from", &sent, "--states", &told, "--format", "dot"], &[], "");
    let states = ["add(1, 1): SUCCESS", "fail(): FAILURE", "sum_task(): ?"];
    has(&drawn.stdout, &states);
}

#[test]
fn a_run_that_has_waited_is_drawn_later_from_its_own_line() {
    let setup = setup("graph-waited");
    let _worker = setup.worker();
    let chain = ["chain", "add(1, 1)", "double", "--json", "--wait", "--graph", "json"];
    let run = setup.celeriac(&chain, "");
    assert_eq!(run.code, Some(0), "{run:?}");
    let path = file("graph-waited.json", &run.stdout);
    let drawn = celeriac(&["graph", "--from", &path, "--states", &path], &[], "");
    has(&drawn.stdout, &["add(1, 1): SUCCESS\"]:::success", "double(): SUCCESS\"]:::success"]);
    let plain = celeriac(&["graph", "--from", &path], &[], "");
    has(&plain.stdout, &["\"add(1, 1)\"]", "\"double()\"]"]);
}

#[test]
fn what_tells_of_no_states_is_refused() {
    let tree = file("graph-tree.json", r#"{"chain": ["a", "b"]}"#);
    let states =
        |path| celeriac(&["graph", "--from", &tree, "--states", path], &[], "{}\nsent a\n");
    states("-").is_refused(2, "-: line 2 is not a JSON object");
    states("/no/such.json").is_refused(2, "failed to read /no/such.json: No such file");
    let twice = celeriac(&["graph", "--from", "-", "--states", "-"], &[], "{}");
    twice.is_refused(2, "only one of --from and --states");
}
