//! Workflows from the command line, through a real broker and the stock worker.

use crate::run::celeriac;
use crate::setup::{objects, setup};

/// The last line of a run that has succeeded, after the time.
#[track_caller]
fn value(run: &crate::run::Run) -> &str {
    assert_eq!(run.code, Some(0), "{run:?}");
    run.stdout.lines().last().unwrap().split_once(" s: ").unwrap().1
}

#[test]
fn a_chain_gives_each_step_the_result_of_the_one_before() {
    let setup = setup("chain");
    let _worker = setup.worker();
    let run = setup.celeriac(&["chain", "add(2, 2)", "multiply(3)", "power(2)", "--wait"], "");
    assert_eq!(value(&run), "144");
    let run = setup.celeriac(&["chain", "add(2, 2) | multiply(3) | power(2)", "--wait"], "");
    assert_eq!(value(&run), "144");
}

#[test]
fn a_group_gives_the_list_in_the_order_of_its_members() {
    let setup = setup("group");
    let _worker = setup.worker();
    let members = ["group", "square(2)", "square(3)", "square(4)", "double(5)", "--wait"];
    assert_eq!(value(&setup.celeriac(&members, "")), "[4, 9, 16, 10]");
}

#[test]
fn a_chord_calls_its_body_with_the_list() {
    let setup = setup("chord");
    let _worker = setup.worker();
    let chord =
        ["chord", "square(0)", "square(1)", "square(2)", "--body", "sum_task", "--wait", "--json"];
    let run = setup.celeriac(&chord, "");
    assert_eq!(run.code, Some(0), "{run:?}");
    let object = objects(&run.stdout).remove(0);
    assert_eq!(object["result"], 5, "{object}");
    let tasks = object["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 4, "{object}");
    assert!(tasks.iter().all(|task| task["status"] == "SUCCESS"), "{object}");
}

#[test]
fn a_tree_is_read_from_files_and_standard_input() {
    let setup = setup("run");
    let _worker = setup.worker();
    let tree = r#"{"chain": ["group(square(1), square(2))", {"task": "sum_task"}]}"#;
    assert_eq!(value(&setup.celeriac(&["run", "-", "--wait"], tree)), "5");
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (name, text) in [
        ("workflow.json", tree),
        ("workflow.toml", "chord = ['square(1)', 'square(2)']\nbody = 'sum_task'\n"),
    ] {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        let run = setup.celeriac(&["run", path.to_str().unwrap(), "--wait"], "");
        assert_eq!(value(&run), "5", "{name}");
    }
}

#[test]
fn a_failure_ends_the_run_and_is_drawn() {
    let setup = setup("failure");
    let _worker = setup.worker();
    let run = setup.celeriac(
        &["chain", "add(1, 1)", "fail.si()", "double", "--wait", "--graph", "mermaid"],
        "",
    );
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stdout.contains("FAILURE in "), "{run:?}");
    for part in ["add(1, 1): SUCCESS", "fail(): FAILURE", "double(): FAILURE", ":::failure"] {
        assert!(run.stdout.contains(part), "{part} is not in {run:?}");
    }
}

#[test]
fn a_drawing_is_a_part_of_the_object_if_objects_are_wanted() {
    let setup = setup("drawn-json");
    let args = ["chord", "add(1, 1)", "add(2, 2)", "--body", "sum_task", "--json"];
    let sent = setup.celeriac(&[&args[..], &["--graph", "mermaid"]].concat(), "");
    let objects = objects(&sent.stdout);
    let [sent] = &objects[..] else { panic!("{sent:?}") };
    assert!(sent["graph"].as_str().unwrap().starts_with("flowchart LR\n"), "{sent}");
    let _worker = setup.worker();
    let done = setup.celeriac(&[&args[..], &["--wait", "--graph", "dot"]].concat(), "");
    let objects = crate::setup::objects(&done.stdout);
    let drawing = objects.last().unwrap()["graph"].as_str().unwrap();
    assert!(drawing.starts_with("digraph "), "{drawing}");
    assert_eq!(drawing.matches(": SUCCESS").count(), 3, "{drawing}");
}

#[test]
fn a_bar_counts_the_tasks_of_a_workflow_on_a_terminal() {
    let setup = setup("bar");
    let spawn = "import pty, sys; pty.spawn(sys.argv[1:])";
    for (args, bar) in [
        (&["group", "add(1, 1)", "add(2, 2)"][..], "0/2 tasks have ended"),
        (&["chord", "add(1, 1)", "add(2, 2)", "--body", "sum_task"], "0/3 tasks have ended"),
    ] {
        let run = std::process::Command::new("python3")
            .args(["-c", spawn, env!("CARGO_BIN_EXE_celeriac")])
            .args(args)
            .args(["--wait", "--timeout", "1s"])
            .env("CELERIAC_BROKER_URL", &setup.url)
            .env("TERM", "xterm")
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&run.stdout);
        assert!(shown.contains(bar), "{shown}");
    }
}

#[test]
fn what_is_no_workflow_is_refused_before_a_broker_is_asked() {
    for (args, input, part) in [
        (&["chain", "add(2"][..], "", "'add(2' is not a workflow: ',' or ')' is missing"),
        (&["chord", "a", "--body", ""], "", "the name of a task is missing"),
        (&["run", "-"], "{\"chain\": 3}", "-: chain must be an array"),
        (&["run", "-"], r#"{"task": "a", "subtask_type": "canvas"}"#, "type 'canvas'"),
        (&["run", "/no/such.toml"], "", "failed to read /no/such.toml: No such file"),
        (&["run", "workflow.txt"], "", "workflow.txt must end in .json or .toml"),
        (&["graph", "a |"], "", "the name of a task is missing"),
    ] {
        celeriac(args, &[], input).is_refused(2, part);
    }
    let deep = format!("{}\"a\"{}", "{\"chain\": [".repeat(10_000), "]}".repeat(10_000));
    celeriac(&["run", "-"], &[], &deep).is_refused(2, "more levels of nesting than the limit");
}

#[test]
fn a_graph_is_drawn_without_a_broker() {
    let run = celeriac(&["graph", "group(square(2), square(3)) | sum_task"], &[], "");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.starts_with("flowchart LR\n"), "{run:?}");
    assert!(run.stdout.contains("t1 --> t2"), "{run:?}");
    let tree = r#"{"chord": ["a"], "body": "b"}"#;
    let run = celeriac(&["graph", "--from", "-", "--format", "dot"], &[], tree);
    assert!(run.stdout.contains("t0 -> t1;"), "{run:?}");
}
