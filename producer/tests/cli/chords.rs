//! How far chords are: the bar of a run that waits, and `celeriac progress`.

use std::process::Command;

use serde_json::{Value, json};
use xtask::Spawned;

use crate::run::celeriac;
use crate::setup::{SOON, Setup, objects, setup};

/// The queue whose worker comes when the test lets it.
const LATER: &str = "later";

/// Runs the command on a terminal, each of whose drawings is a line of its own.
const TERMINAL: &str = "import os, pty, sys
read = lambda fd: os.read(fd, 65536).replace(b'\\r', b'\\n') + b'\\n'
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], read)))";

fn on_a_terminal(setup: &Setup, args: &[&str]) -> Spawned {
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_celeriac")]).args(args);
    let command = command.env("CELERIAC_BROKER_URL", &setup.url).env("TERM", "xterm");
    Spawned::start(command).unwrap()
}

/// Makes the queue of the parts that are to wait.
fn prepare(setup: &Setup) {
    drop(setup.worker_with(&["-Q", LATER]));
}

/// A chord of which one part waits for a worker of its own.
fn chord(options: &Value) -> String {
    let waits = json!({"task": "add", "args": [2, 2], "options": {"queue": LATER}});
    json!({"chord": ["add(1, 1)", waits], "body": "sum_task", "options": options}).to_string()
}

fn file(name: &str, text: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_bar_counts_the_parts_of_a_chord_as_they_end() {
    for (name, options) in
        [("bar-reports", json!({})), ("bar-silent", json!({"join": {"header_results": false}}))]
    {
        let setup = setup(name);
        prepare(&setup);
        let _worker = setup.worker();
        let path = file(&format!("{name}.json"), &chord(&options));
        let mut run = on_a_terminal(&setup, &["run", &path, "--wait", "--timeout", "120s"]);
        run.wait_for_line("1/3 tasks have ended", SOON).unwrap();
        let _other = setup.worker_with(&["-Q", LATER]);
        run.wait_for_line(" s: 6", SOON).unwrap();
        assert!(run.wait(SOON).unwrap().success(), "{name}: {}", run.output());
    }
}

#[test]
fn the_bar_counts_a_silent_header_whose_chord_a_later_step_begins() {
    let setup = setup("bar-later");
    prepare(&setup);
    let _worker = setup.worker();
    let part = |queue| {
        let options = json!({"queue": queue});
        json!({"task": "add", "args": [2, 2], "immutable": true, "options": options})
    };
    let silent = json!({"join": {"header_results": false}});
    let parts = [part("celeriac"), part(LATER)];
    let chord = json!({"chord": parts, "body": "sum_task", "options": silent});
    let path = file("bar-later.json", &json!({"chain": ["add(1, 1)", chord]}).to_string());
    let mut run = on_a_terminal(&setup, &["run", &path, "--wait", "--timeout", "120s"]);
    run.wait_for_line("2/4 tasks have ended", SOON).unwrap();
    let _other = setup.worker_with(&["-Q", LATER]);
    run.wait_for_line(" s: 8", SOON).unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", run.output());
}

#[test]
fn a_chord_that_was_sent_before_is_followed_by_its_id() {
    let setup = setup("progress");
    prepare(&setup);
    let _worker = setup.worker();
    let sent = setup.celeriac(&["run", "-", "--json"], &chord(&json!({})));
    let id = objects(&sent.stdout)[0]["chord_id"].as_str().unwrap().to_owned();
    let once = || {
        let run = setup.celeriac(&["progress", &id, "--once", "--json"], "");
        assert_eq!(run.code, Some(0), "{run:?}");
        let seen = objects(&run.stdout).remove(0);
        assert_eq!((&seen["state"], &seen["size"]), (&"collecting".into(), &2.into()), "{seen}");
        (seen["ended"] == 1).then_some(())
    };
    xtask::wait_until("one part has ended", SOON, once).unwrap();
    let short = setup.celeriac(&["progress", &id, "--timeout", "1ms"], "");
    assert_eq!(short.code, Some(4), "{short:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
    let command = command.args(["progress", &id]).env("CELERIAC_BROKER_URL", &setup.url);
    let plain = Spawned::start(command).unwrap();
    plain.wait_for_line("1 of 2 parts have ended", SOON).unwrap();
    let mut watched = on_a_terminal(&setup, &["progress", &id]);
    watched.wait_for_line("1/2 parts have ended", SOON).unwrap();
    let _other = setup.worker_with(&["-Q", LATER]);
    plain.wait_for_line("the chord is over", SOON).unwrap();
    watched.wait_for_line("the chord is over", SOON).unwrap();
    assert!(watched.wait(SOON).unwrap().success(), "{}", watched.output());
    let late = setup.celeriac(&["progress", &id, "--json"], "");
    assert_eq!(late.code, Some(0), "{late:?}");
    assert_eq!(objects(&late.stdout), [json!({"chord_id": id, "state": "unknown"})]);
}

#[test]
fn a_progress_that_nobody_knows_ends_with_a_sentence() {
    let setup = setup("progress-nobody");
    let nobody =
        |id: &str, time| setup.celeriac(&["progress", id, "--once", "--timeout", time], "");
    nobody("a-chord", "120s").is_refused(5, "failed to reach the joiner of chord a-chord");
    nobody(&"x".repeat(300), "120s").is_refused(2, "cannot be the id of a chord");
    prepare(&setup);
    nobody("a-chord", "1s").is_refused(4, "no joiner has answered within 1s");
    let down = [("CELERIAC_BROKER_URL", "amqp://127.0.0.1:1")];
    celeriac(&["progress", "a-chord"], &down, "").is_refused(3, "");
}
