//! `call --unique`: of the same calls one is sent, whoever sends the others.

use serde_json::Value;
use xtask::QueueDepth;

use crate::run::celeriac;
use crate::setup::{SOON, Setup, objects, setup};

fn wait_for(setup: &Setup, ready: u64) {
    setup.vhost.wait_for_depth("celeriac", QueueDepth { ready, unacked: 0 }, SOON).unwrap();
}

#[test]
fn the_same_call_is_refused_with_the_id_of_the_first_one() {
    let setup = setup("unique");
    let call = ["call", "report", "--args", "[2030]", "--unique", "10m"];
    let first = setup.celeriac(&[&call[..], &["--json"]].concat(), "");
    assert_eq!(first.code, Some(0), "{first:?}");
    let first = objects(&first.stdout).remove(0);
    let id = first["task_id"].as_str().unwrap();
    setup.celeriac(&call, "").is_refused(5, id);
    // The same id is the same call, sent again.
    let again = setup.celeriac(&[&call[..], &["--task-id", id]].concat(), "");
    assert_eq!(again.code, Some(0), "{again:?}");
    let other = setup.celeriac(&["call", "report", "--args", "[2031]", "--unique", "10m"], "");
    assert_eq!(other.code, Some(0), "{other:?}");
    let plain = setup.celeriac(&["call", "report", "--args", "[2030]"], "");
    assert_eq!(plain.code, Some(0), "{plain:?}");
    wait_for(&setup, 4);
}

#[test]
fn a_key_makes_calls_the_same_whatever_their_arguments() {
    let setup = setup("unique-key");
    let call = |number: &str| {
        let key = ["--unique", "24h", "--unique-key", "nightly"];
        setup.celeriac(&[&["call", "report", "--args", number], &key[..]].concat(), "")
    };
    assert_eq!(call("[1]").code, Some(0));
    call("[2]").is_refused(5, "was not sent: the same call, ");
    wait_for(&setup, 1);
}

#[test]
fn lines_say_so_themselves_or_all_of_them() {
    let setup = setup("unique-lines");
    let input = "\
        {\"task\": \"report\", \"args\": [1]}\n\
        {\"task\": \"report\", \"args\": [1]}\n\
        {\"task\": \"report\", \"args\": [2], \"options\": {\"unique\": 60}}\n\
        {\"task\": \"report\", \"args\": [2], \"options\": {\"unique\": \"1m\"}}\n\
        {\"task\": \"report\", \"args\": [3], \"options\": {\"unique\": \"soon\"}}\n";
    let run = setup.celeriac(&["call", "--from", "-", "--unique", "10m", "--json"], input);
    assert_eq!(run.code, Some(2), "{run:?}");
    let mut sent = Vec::new();
    for object in objects(&run.stdout) {
        if object["status"] == "SENT" {
            sent.push(object["line"].as_u64().unwrap());
        } else {
            assert_eq!(object["status"], "NOT_SENT", "{object}");
        }
    }
    sent.sort_unstable();
    // One of each two, whichever was faster.
    assert!(matches!(sent[..], [1 | 2, 3 | 4]), "{sent:?}");
    assert!(run.stderr.contains(": report was not sent: the same call, "), "{run:?}");
    assert!(run.stderr.contains("error: line 5: unique must be a time"), "{run:?}");
    let summary: Value = serde_json::from_str(run.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["sent"], &summary["not_sent"]), (&2.into(), &2.into()), "{summary}");
    wait_for(&setup, 2);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let setup = setup("unique-wrong");
    setup
        .celeriac(&["call", "add", "--unique", "0s"], "")
        .is_refused(2, "between 1 ms and 49 days");
    for wrong in [&["--unique", "soon"][..], &["--unique-key", "alone"]] {
        let run = setup.celeriac(&[&["call", "add"], wrong].concat(), "");
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains("--unique"), "{run:?}");
    }
}

#[test]
fn its_help_says_what_it_does_and_what_it_does_not() {
    let help = celeriac(&["call", "--help"], &[], "").stdout;
    for part in ["--unique <WINDOW>", "--unique-key <KEY>", "exit code 5", "sent before (--unique)"]
    {
        assert!(help.contains(part), "{part} is not in {help}");
    }
    let help = celeriac(&["--help"], &[], "").stdout;
    assert!(help.contains("celeriac call report --args '[2030]' --unique 24h"), "{help}");
}
