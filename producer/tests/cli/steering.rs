//! Commands that change a worker that runs, and what has changed then.

use celeriac::client::config::Config;
use celeriac::protocol::{TaskState, Value};
use celeriac::{AnyResult, AsyncResult, Client, Signature, group};
use serde_json::json;

use crate::setup::{SOON, Setup, objects, setup};

const NODE: &str = "steered@host";

/// What the only worker replies to a command.
#[track_caller]
fn ask(setup: &Setup, args: &[&str]) -> serde_json::Value {
    let args = [&args[..1], &["-d", NODE, "--timeout", "60s", "--json"], &args[1..]].concat();
    let run = setup.celeriac(&args, "");
    assert_eq!(run.code, Some(0), "{run:?}");
    let [reply] = &*objects(&run.stdout) else { panic!("{run:?}") };
    assert_eq!(reply["hostname"], NODE);
    reply["reply"].clone()
}

fn stats(setup: &Setup) -> serde_json::Value {
    ask(setup, &["inspect", "stats"])
}

async fn client(setup: &Setup) -> Client {
    let config = Config::builder().broker_url([setup.url.parse().unwrap()]).build();
    Client::connect(config).await.unwrap()
}

fn sleep() -> Signature<Value> {
    Signature::<Value>::new("sleep").arg(3600)
}

/// Waits until this many tasks run.
fn running(setup: &Setup, count: usize) {
    let are_there = || {
        let active = ask(setup, &["inspect", "active"]);
        (active.as_array()?.len() == count).then_some(())
    };
    setup.vhost.wait_until("so many tasks run", are_there).unwrap();
}

async fn is_revoked(result: &AsyncResult<Value>) {
    let error = result.get(SOON).await.expect_err("it is revoked");
    assert_eq!(error.failure().expect("a worker says so").state, TaskState::Revoked);
}

#[test]
fn a_pool_grows_and_shrinks_on_command() {
    let setup = setup("cli-pool");
    let _worker = setup.worker_with(&["-n", NODE, "-c", "3"]);
    let slots = || stats(&setup)["pool"]["max-concurrency"].as_u64().unwrap();
    let before = slots();
    let grown = ask(&setup, &["control", "pool_grow", "4"]);
    assert_eq!((grown, slots()), (json!({"ok": "pool will grow"}), before + 4));
    let shrunk = ask(&setup, &["control", "pool_shrink"]);
    assert_eq!((shrunk, slots()), (json!({"ok": "pool will shrink"}), before + 3));
}

#[test]
fn bounds_of_a_worker_that_scales_by_itself_change_on_command() {
    let setup = setup("cli-autoscale");
    let _worker = setup.worker_with(&["-n", NODE, "--autoscale", "4,1"]);
    let told = ask(&setup, &["control", "autoscale", "8", "2"]);
    assert_eq!(told, json!({"ok": "autoscale now max=8 min=2"}));
    let scaler = &stats(&setup)["autoscaler"];
    assert_eq!((&scaler["max"], &scaler["min"]), (&json!(8), &json!(2)));
}

#[test]
fn a_time_limit_that_is_set_on_command_ends_the_next_call() {
    let setup = setup("cli-time-limit");
    let _worker = setup.worker_with(&["-n", NODE]);
    let told = ask(&setup, &["control", "time_limit", "sleep", "0.1", "0.3"]);
    assert_eq!(told, json!({"ok": "time limits set successfully"}));
    let call = ["call", "sleep", "--args", "[3600]", "--wait", "--timeout", "2m"];
    let called = setup.celeriac(&call, "");
    assert_eq!(called.code, Some(1), "{called:?}");
    assert!(format!("{called:?}").contains("TimeLimitExceeded"), "{called:?}");
}

#[test]
fn a_queue_is_consumed_on_command_and_then_no_more() {
    let setup = setup("cli-consumer");
    let _worker = setup.worker_with(&["-n", NODE]);
    let queues = || {
        let queues = ask(&setup, &["inspect", "active_queues"]);
        let name = |queue: &serde_json::Value| queue["name"].as_str().unwrap().to_owned();
        queues.as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    ask(&setup, &["control", "add_consumer", "more"]);
    assert_eq!(queues(), ["celeriac", "more"]);
    let told = ask(&setup, &["control", "cancel_consumer", "more"]);
    assert_eq!(told, json!({"ok": "no longer consuming from more"}));
    assert_eq!(queues(), ["celeriac"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_terminated_on_command() {
    let setup = setup("cli-terminate");
    let _worker = setup.worker_with(&["-n", NODE]);
    let client = client(&setup).await;
    let one = client.send(sleep()).await.unwrap();
    let other = client.send(sleep()).await.unwrap();
    running(&setup, 2);
    let told = ask(&setup, &["control", "terminate", "SIGKILL", one.id()]);
    assert_eq!(told, json!({"ok": format!("terminate: {}", one.id())}));
    is_revoked(&one).await;
    running(&setup, 1);
    let told = ask(&setup, &["revoke", "--terminate", "--signal", "SIGTERM", other.id()]);
    assert_eq!(told, json!({"ok": format!("terminate: {}", other.id())}));
    is_revoked(&other).await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_terminated_by_its_root_its_group_or_its_stamp() {
    let setup = setup("cli-marks");
    let _worker = setup.worker_with(&["-n", NODE]);
    let client = client(&setup).await;
    let chain =
        client.apply(sleep() | Signature::<Value>::new("sum_task").partial()).await.unwrap();
    let grouped = client.apply(group([sleep(), sleep()])).await.unwrap();
    let stamped = client.apply(group([sleep()]).stamp("tenant", "acme")).await.unwrap();
    let kept = client.send(sleep()).await.unwrap();
    let Some(AnyResult::Task(first)) = chain.parent() else { panic!("a task") };
    let part = |at: usize, result: &celeriac::GroupResult| -> AsyncResult<Value> {
        let AnyResult::Task(part) = &result.results()[at] else { panic!("a task") };
        part.clone()
    };
    running(&setup, 5);
    ask(&setup, &["revoke", "--terminate", "--root", first.id()]);
    is_revoked(first).await;
    ask(&setup, &["revoke", "--terminate", "--group", grouped.id()]);
    is_revoked(&part(0, &grouped)).await;
    is_revoked(&part(1, &grouped)).await;
    ask(&setup, &["revoke", "--terminate", "--stamp", "tenant=acme"]);
    is_revoked(&part(0, &stamped)).await;
    running(&setup, 1);
    assert!(!kept.ready(), "it goes on");
    client.close().await;
}

/// Not of those that run: of those that have not begun.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_revoked_by_its_root_its_group_or_its_stamp() {
    let setup = setup("cli-marks-waiting");
    let client = client(&setup).await;
    let chain =
        client.apply(sleep() | Signature::<Value>::new("sum_task").partial()).await.unwrap();
    let grouped = client.apply(group([sleep()])).await.unwrap();
    let stamped = client.apply(group([sleep()]).stamp("tenant", "acme")).await.unwrap();
    let Some(AnyResult::Task(first)) = chain.parent() else { panic!("a task") };
    for args in [["--root", first.id()], ["--group", grouped.id()], ["--stamp", "tenant=acme"]] {
        let args = [&["revoke", "--timeout", "200ms"], &args[..]].concat();
        assert_eq!(setup.celeriac(&args, "").code, Some(0));
    }
    let worker = setup.worker_with(&["-n", NODE]);
    is_revoked(first).await;
    for result in [&grouped, &stamped] {
        let AnyResult::Task(part) = &result.results()[0] else { panic!("a task") };
        is_revoked(part).await;
    }
    assert!(!worker.output().contains("succeeded"), "{}", worker.output());
    client.close().await;
}
