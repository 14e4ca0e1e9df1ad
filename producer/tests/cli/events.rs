//! Watching workers and tasks.

use std::process::Command;
use std::time::Instant;

use xtask::Spawned;

use crate::run::celeriac;
use crate::setup::{SOON, Setup, objects, setup};

/// A watcher that goes on beside the test, and has heard of a worker already.
fn watch(setup: &Setup, args: &[&str]) -> Spawned {
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
    command.arg("events").args(args).env("CELERIAC_BROKER_URL", &setup.url);
    let watcher = Spawned::start(&mut command).unwrap();
    watcher.wait_for_line("worker-heartbeat", SOON).unwrap();
    watcher
}

#[test]
fn events_are_shown_as_they_happen() {
    let setup = setup("cli-events");
    let mut worker = setup.worker();
    let mut beats = setup.celeriac(&["events", "--json", "--type", "worker", "--limit", "3"], "");
    assert_eq!((beats.code, &*beats.stderr), (Some(0), ""), "{beats:?}");
    let seen = objects(&std::mem::take(&mut beats.stdout));
    assert_eq!(seen.len(), 3, "{seen:?}");
    for beat in &seen {
        assert_eq!(beat["type"], "worker-heartbeat");
        assert_eq!(beat["sw_ident"], "celeriac");
    }
    let watcher = watch(&setup, &["--enable"]);
    let deadline = Instant::now() + SOON;
    // Until the worker has heard that it is to tell.
    let is_told = |text: &str| watcher.lines().iter().any(|line| line.contains(text));
    while !is_told("task-succeeded add[") {
        let called = setup.celeriac(&["call", "add", "--args", "[2, 2]", "--wait"], "");
        assert_eq!(called.code, Some(0), "{called:?}");
        assert!(Instant::now() < deadline, "{:?}", watcher.lines());
    }
    assert!(is_told("args=(2, 2) kwargs={}") && is_told("task-started add["));
    let told = setup.celeriac(&["control", "shutdown"], "");
    assert_eq!(told.code, Some(0), "{told:?}");
    let offline = watcher.wait_for_line("worker-offline", SOON).unwrap();
    assert!(offline.contains(" 0 active, "), "{offline}");
    assert!(worker.wait(SOON).unwrap().success());
}

#[test]
fn only_what_was_asked_for_is_shown() {
    let setup = setup("cli-events-filter");
    let options = ["-E", "--heartbeat-interval", "0.2"];
    let mut command = Command::new(xtask::process::binary("celeriac-worker").unwrap());
    let mut worker =
        Spawned::start(command.args(options).env("CELERIAC_BROKER_URL", &setup.url)).unwrap();
    worker.wait_for_line(" ready.", SOON).unwrap();
    let types = "worker-heartbeat,worker-offline,task-received,task-succeeded";
    let watcher = watch(&setup, &["--type", types]);
    for (name, args) in [("add", "[2, 2]"), ("multiply", "[2, 3]")] {
        let called = setup.celeriac(&["call", name, "--args", args, "--wait"], "");
        assert_eq!(called.code, Some(0), "{called:?}");
        watcher.wait_for_line(&format!("task-succeeded {name}["), SOON).unwrap();
    }
    let started = watcher.lines().into_iter().find(|line| line.contains("task-started"));
    assert_eq!(started, None);
    setup.celeriac(&["control", "shutdown"], "");
    watcher.wait_for_line("worker-offline", SOON).unwrap();
    assert!(worker.wait(SOON).unwrap().success());
}

#[test]
fn who_cannot_listen_is_told_why() {
    let nowhere = [("CELERIAC_BROKER_URL", "amqp://127.0.0.1:1//")];
    celeriac(&["events"], &nowhere, "").is_refused(3, "127.0.0.1:1");
    assert_eq!(celeriac(&["events", "--limit", "many"], &nowhere, "").code, Some(2));
}
