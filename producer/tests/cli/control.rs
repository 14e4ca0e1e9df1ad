//! Commands to workers: what they say, and the exit codes.

use crate::run::celeriac;
use crate::setup::{objects, setup};

#[test]
fn workers_are_asked_and_steered_from_the_command_line() {
    let setup = setup("cli-control");
    let nobody = setup.celeriac(&["inspect", "ping", "--timeout", "200ms"], "");
    nobody.is_refused(4, "no worker has replied within 200ms");
    let worker = setup.worker();
    let json = |args: &[&str]| {
        let args = [args, &["--json"]].concat();
        let run = setup.celeriac(&args, "");
        (run.code, objects(&run.stdout))
    };
    let (code, pinged) = json(&["inspect", "ping", "--timeout", "2s"]);
    assert_eq!((code, pinged.len()), (Some(0), 1), "{pinged:?}");
    assert_eq!(pinged[0]["reply"]["ok"], "pong");
    let host = pinged[0]["hostname"].as_str().unwrap().to_owned();
    // With a name, nobody waits for others.
    let to = |command: &str, rest: &[&str]| {
        let mut args = vec![command, "-d", &host, "--timeout", "30s"];
        args.extend(rest);
        json(&args)
    };
    let (code, limited) = to("control", &["rate_limit", "add", "100/s"]);
    assert_eq!(limited[0]["reply"]["ok"], "new rate limit set successfully");
    assert_eq!(code, Some(0));
    for (rest, error) in [
        (&["rate_limit", "nope", "1/s"][..], "unknown task"),
        (&["rate_limit", "add", "fast"], "Invalid rate limit string: "),
        (&["time_limit", "add", "9", "3"], "the soft limit must be shorter"),
        (&["pool_shrink", "100000"], "cannot shrink that far"),
        (&["autoscale", "1", "4"], "min must not be above max"),
    ] {
        let (code, refused) = to("control", rest);
        assert_eq!(code, Some(1), "{refused:?}");
        let told = refused[0]["reply"]["error"].as_str().unwrap();
        assert!(told.contains(error), "{told}");
    }
    let (_, added) = to("control", &["add_consumer", "more"]);
    assert_eq!(added[0]["reply"]["ok"], "add consumer more");
    let called = setup.celeriac(&["call", "add", "--args", "[2, 2]", "-Q", "more", "--wait"], "");
    assert_eq!(called.code, Some(0), "{called:?}");
    let (_, stats) = to("inspect", &["stats"]);
    assert_eq!(stats[0]["reply"]["total"]["add"], 1);
    let people = setup.celeriac(&["inspect", "-d", &host, "active_queues", "--timeout", "30s"], "");
    assert_eq!(people.stdout.lines().count(), 3, "{people:?}");
    let told = setup.celeriac(&["control", "-d", &host, "shutdown"], "");
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:?}");
    let mut worker = worker;
    assert!(worker.wait(crate::setup::SOON).unwrap().success());
}

#[test]
fn what_is_revoked_before_a_worker_starts_does_not_run() {
    let setup = setup("cli-revoke");
    let sent = setup.celeriac(&["call", "add", "--args", "[2, 2]", "--task-id", "one"], "");
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let revoked = setup.celeriac(&["revoke", "one", "two", "--timeout", "200ms"], "");
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert!(revoked.stdout.contains("no worker has replied"), "{revoked:?}");
    let some = ["revoke", "-d", "nobody@host", "three", "--timeout", "200ms"];
    setup.celeriac(&some, "").is_refused(4, "no worker has replied within 200ms");
    let worker = setup.worker();
    let discarded = worker.wait_for_line("one", crate::setup::SOON).unwrap();
    assert!(!discarded.contains("succeeded"), "{discarded}");
    let known = setup.celeriac(&["inspect", "revoked", "--json"], "");
    assert_eq!(objects(&known.stdout)[0]["reply"], serde_json::json!(["one", "two"]));
}

#[test]
fn a_chord_that_is_revoked_never_calls_its_body() {
    let setup = setup("cli-revoke-chord");
    let chord = ["chord", "add(1, 1)", "add(2, 2)", "--body", "sum_task", "--json"];
    let sent = setup.celeriac(&chord, "");
    let id = objects(&sent.stdout)[0]["chord_id"].as_str().unwrap().to_owned();
    let revoked = setup.celeriac(&["revoke", "--chord", &id], "");
    assert_eq!((revoked.code, &*revoked.stdout), (Some(0), "cancelled\n"), "{revoked:?}");
    let worker = setup.worker();
    let line = worker.wait_for_line("chord is cancelled", crate::setup::SOON).unwrap();
    assert!(line.contains(&id), "{line}");
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    for args in [
        &["control"][..],
        &["control", "frobnicate"],
        &["control", "pool_grow", "many"],
        &["control", "--pattern", "x", "pool_grow"],
        &["control", "-d", "a", "--pattern", "x", "--matcher", "glob", "pool_grow"],
        &["inspect", "query_task"],
        &["revoke"],
        &["revoke", "x", "--root", "--group"],
        &["revoke", "x", "--chord", "--terminate"],
        &["revoke", "x", "--signal", "SIGKILL"],
        &["revoke", "--stamp", "tenant"],
    ] {
        let run = celeriac(args, &[], "");
        assert_eq!(run.code, Some(2), "{run:?}");
        assert_eq!(run.stdout, "");
    }
    let help = celeriac(&["revoke", "--help"], &[], "");
    assert!(help.stdout.contains("celeriac revoke --root ID"), "{help:?}");
}
