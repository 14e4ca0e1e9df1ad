//! A worker of several processes: who is replaced, who ends when, and that nothing is lost by it.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use celeriac::{AsyncResult, Client, Config, Signature};
use xtask::process::{is_alive, signal};
use xtask::{QueueDepth, Spawned, TestVhost, wait_until};

const SOON: Duration = Duration::from_secs(120);

/// A command that nothing of the surrounding configuration gets into.
fn worker_command(vhost: &TestVhost, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac-worker"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CELERIAC_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.args(args).env("CELERIAC_BROKER_URL", vhost.url());
    command
}

/// Starts a worker and waits until `ready` of its processes are.
fn start_command(command: &mut Command, ready: usize) -> Spawned {
    let worker = Spawned::start(command).unwrap();
    let mut from = 0;
    for _ in 0..ready {
        (from, _) = worker.wait_for_line_from(from, " ready.", SOON).unwrap();
    }
    worker
}

fn start(vhost: &TestVhost, args: &[&str], ready: usize) -> Spawned {
    start_command(&mut worker_command(vhost, args), ready)
}

/// The ids of all children so far, in the order of their starts.
fn children(parent: &Spawned) -> Vec<u32> {
    let lines = parent.lines();
    let started = lines.iter().filter(|line| line.contains("child started"));
    let pid = |line: &String| line.split_once("pid=")?.1.split_whitespace().next()?.parse().ok();
    started.filter_map(pid).collect()
}

fn wait_for_end(pid: u32) {
    wait_until("the child ends", SOON, || (!is_alive(pid)).then_some(())).unwrap();
}

async fn client(vhost: &TestVhost) -> Client {
    let config = Config::builder().broker_url([vhost.url().parse().unwrap()]).build();
    Client::connect(config).await.unwrap()
}

async fn send_sleeps(client: &Client, number: usize, seconds: f64) -> Vec<AsyncResult<f64>> {
    let sleeps = (0..number).map(|_| Signature::<f64>::new("sleep").arg(seconds));
    client.send_all(sleeps).await.into_iter().collect::<Result<_, _>>().unwrap()
}

async fn all_succeed(results: &[AsyncResult<f64>]) {
    for result in results {
        result.get(SOON).await.unwrap();
    }
}

#[tokio::test]
async fn a_child_killed_with_9_is_replaced_and_its_tasks_run_again() {
    let vhost = TestVhost::create("child-kill").unwrap();
    let mut parent = start(&vhost, &["--processes", "2", "-c", "4", "-n", "fleet@%h"], 2);
    assert!(parent.output().contains(" .> processes:   2"), "{}", parent.output());
    for name in ["fleet-1@", "fleet-2@"] {
        parent.wait_for_line(name, SOON).unwrap();
    }
    let client = client(&vhost).await;
    let results = send_sleeps(&client, 80, 0.25).await;
    parent.wait_for_line("received", SOON).unwrap();

    let doomed = children(&parent)[0];
    signal(doomed, "KILL").unwrap();
    parent.wait_for_line("child died: SIGKILL", SOON).unwrap();
    all_succeed(&results).await;
    assert_eq!(children(&parent).len(), 3, "{}", parent.output());
    vhost.wait_for_depth("celeriac", QueueDepth { ready: 0, unacked: 0 }, SOON).unwrap();

    parent.signal("TERM").unwrap();
    assert_eq!(parent.wait(SOON).unwrap().code(), Some(0), "{}", parent.output());
    assert!(children(&parent).iter().all(|child| !is_alive(*child)));
    client.close().await;
}

#[test]
fn no_worker_outlives_a_parent_that_was_killed_with_9() {
    let vhost = TestVhost::create("parent-kill").unwrap();
    let mut parent = start(&vhost, &["--processes", "2"], 2);
    parent.kill_9().unwrap();
    for child in children(&parent) {
        wait_for_end(child);
    }
}

#[tokio::test]
async fn children_that_are_replaced_after_their_tasks_lose_none() {
    let vhost = TestVhost::create("recycle").unwrap();
    let args = ["--processes", "2", "--max-tasks-per-child", "40", "-c", "10"];
    let mut parent = start(&vhost, &args, 2);
    let client = client(&vhost).await;
    let results = send_sleeps(&client, 200, 0.01).await;
    all_succeed(&results).await;
    parent.wait_for_line("child wants to be replaced", SOON).unwrap();
    let lines = parent.lines();
    let ended: Vec<_> = lines.iter().filter(|line| line.contains(" succeeded in ")).collect();
    assert_eq!(ended.len(), 200, "a task ran twice");
    parent.signal("TERM").unwrap();
    assert_eq!(parent.wait(SOON).unwrap().code(), Some(0), "{}", parent.output());
    assert!(!parent.output().contains("child died"), "{}", parent.output());
    client.close().await;
}

#[test]
fn a_child_that_is_too_large_is_replaced() {
    let vhost = TestVhost::create("large").unwrap();
    // No worker is as small as that.
    let args = ["--processes", "1", "--max-memory-per-child", "1000"];
    let parent = start(&vhost, &args, 1);
    let (next, _) = parent.wait_for_line_from(0, "child wants to be replaced", SOON).unwrap();
    parent.wait_for_line_from(next, " ready.", SOON).unwrap();
}

#[tokio::test]
async fn children_that_are_too_large_at_once_run_all_that_waits() {
    let vhost = TestVhost::create("large-load").unwrap();
    let args = ["--processes", "1", "--max-memory-per-child", "1000", "-c", "4"];
    let mut command = worker_command(&vhost, &args);
    // What is behind many others is given back by more children than that.
    command.args(["--prefetch-multiplier", "20"]).env("CELERIAC_WORKER_DELIVERY_LIMIT", "4");
    let mut parent = start_command(&mut command, 1);
    let client = client(&vhost).await;
    let results = send_sleeps(&client, 40, 0.8).await;
    all_succeed(&results).await;
    parent.signal("TERM").unwrap();
    assert_eq!(parent.wait(SOON).unwrap().code(), Some(0), "{}", parent.output());
    assert_eq!(vhost.queue_depth("celeriac.dead").map_or(0, |depth| depth.ready), 0);
    client.close().await;
}

#[tokio::test]
async fn a_signal_to_every_process_at_once_is_still_a_warm_stop() {
    let vhost = TestVhost::create("group-term").unwrap();
    let mut parent = start(&vhost, &["--processes", "1"], 1);
    let client = client(&vhost).await;
    let results = send_sleeps(&client, 1, 2.0).await;
    parent.wait_for_line("received", SOON).unwrap();
    // As a service manager does it: the child gets it from there and from its parent.
    signal(children(&parent)[0], "TERM").unwrap();
    parent.signal("TERM").unwrap();
    assert_eq!(parent.wait(SOON).unwrap().code(), Some(0), "{}", parent.output());
    all_succeed(&results).await;
    client.close().await;
}

#[tokio::test]
async fn a_second_signal_gives_back_what_the_children_run() {
    let vhost = TestVhost::create("children-cold").unwrap();
    let mut parent = start(&vhost, &["--processes", "2"], 2);
    let client = client(&vhost).await;
    let _running = send_sleeps(&client, 2, 3600.0).await;
    parent.wait_for_line("received", SOON).unwrap();
    parent.signal("TERM").unwrap();
    parent.wait_for_line("Warm shutdown", SOON).unwrap();
    parent.signal("TERM").unwrap();
    assert_eq!(parent.wait(SOON).unwrap().code(), Some(1), "{}", parent.output());
    vhost.wait_for_depth("celeriac", QueueDepth { ready: 2, unacked: 0 }, SOON).unwrap();
    client.close().await;
}

#[tokio::test]
async fn a_soft_stop_waits_for_short_tasks_and_gives_back_long_ones() {
    softly_stopped(&[]).await;
}

#[tokio::test]
async fn a_parent_whose_sigterm_means_more_stops_its_children_softly() {
    softly_stopped(&["--processes", "1"]).await;
}

async fn softly_stopped(args: &[&str]) {
    for (seconds, code, left) in [(1.0, 0, 0), (3600.0, 1, 1)] {
        let vhost = TestVhost::create("soft").unwrap();
        let mut command = worker_command(&vhost, args);
        command.env("CELERIAC_WORKER_SOFT_SHUTDOWN_TIMEOUT", if code == 0 { "60" } else { "1" });
        command.env("REMAP_SIGTERM", "SIGQUIT");
        let mut worker = start_command(&mut command, 1);
        let client = client(&vhost).await;
        let _running = send_sleeps(&client, 1, seconds).await;
        worker.wait_for_line("received", SOON).unwrap();
        worker.signal("TERM").unwrap();
        worker.wait_for_line("Soft shutdown (SIGQUIT)", SOON).unwrap();
        assert_eq!(worker.wait(SOON).unwrap().code(), Some(code), "{}", worker.output());
        let depth = QueueDepth { ready: left, unacked: 0 };
        vhost.wait_for_depth("celeriac", depth, SOON).unwrap();
        client.close().await;
    }
}

/// As if the broker were not there, for children that must not wait for it.
#[test]
fn a_parent_whose_children_get_nowhere_gives_up_with_their_exit_code() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://{}", listener.local_addr().unwrap());
    drop(listener);
    let vhost = TestVhost::create("hopeless").unwrap();
    let mut command = worker_command(&vhost, &["--processes", "2", "-b", &url]);
    command.env("CELERIAC_BROKER_CONNECTION_RETRY_ON_STARTUP", "false");
    let mut parent = Spawned::start(&mut command).unwrap();
    assert_eq!(parent.wait(SOON).unwrap().code(), Some(3), "{}", parent.output());
    assert!(parent.output().contains("no child gets anywhere: giving up"), "{}", parent.output());
    assert!(children(&parent).len() > 2, "it has tried again: {}", parent.output());
}

#[test]
fn each_process_has_a_health_file_of_its_own() {
    let vhost = TestVhost::create("health-files").unwrap();
    let path = std::env::temp_dir().join(vhost.name());
    let file = path.to_str().unwrap();
    let mut parent = start(&vhost, &["--processes", "2", "--health-file", file], 2);
    let own = |place| std::path::PathBuf::from(format!("{file}-{place}"));
    let all = || [1, 2].iter().all(|place| own(place).exists()).then_some(());
    wait_until("both are there", SOON, all).unwrap();
    assert!(!path.exists());
    parent.signal("TERM").unwrap();
    assert_eq!(parent.wait(SOON).unwrap().code(), Some(0), "{}", parent.output());
    assert!(![1, 2].iter().any(|place| own(place).exists()));
}

#[test]
fn the_mark_of_a_child_is_of_no_use_to_others() {
    let vhost = TestVhost::create("mark").unwrap();
    let output = worker_command(&vhost, &[]).env("CELERIAC_CHILD", "1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("CELERIAC_CHILD is set by a worker"));
}

#[tokio::test]
async fn a_fleet_is_restarted_one_by_one_under_load_without_loss_or_repetition() {
    const TASKS: usize = 2000;
    let vhost = TestVhost::create("rolling").unwrap();
    let args = |name| ["-c", "10", "-n", name];
    let mut fleet = vec![start(&vhost, &args("one@%h"), 1), start(&vhost, &args("two@%h"), 1)];
    let client = client(&vhost).await;
    let results = send_sleeps(&client, TASKS, 0.05).await;
    let mut retired = Vec::new();
    for name in ["one@%h", "two@%h"] {
        fleet[0].wait_for_line(" succeeded in ", SOON).unwrap();
        let mut old = fleet.remove(0);
        old.signal("TERM").unwrap();
        assert_eq!(old.wait(SOON).unwrap().code(), Some(0), "{}", old.output());
        retired.push(old);
        fleet.push(start(&vhost, &args(name), 1));
    }
    all_succeed(&results).await;
    let mut ran = Vec::new();
    for worker in retired.iter().chain(&fleet) {
        let lines = worker.lines();
        let ended = lines.iter().filter(|line| line.contains(" succeeded in "));
        ran.extend(
            ended.filter_map(|line| Some(line.split_once("sleep[")?.1.get(..36)?.to_owned())),
        );
    }
    assert_eq!(ran.len(), TASKS);
    assert_eq!(ran.iter().collect::<HashSet<_>>().len(), TASKS, "a task ran twice");
    client.close().await;
}

#[tokio::test]
async fn slots_grow_with_the_load_and_go_when_nobody_needs_them() {
    let vhost = TestVhost::create("autoscale").unwrap();
    let mut worker = start(&vhost, &["--autoscale", "8,1"], 1);
    let client = client(&vhost).await;
    let results = send_sleeps(&client, 16, 2.0).await;
    worker.wait_for_line("autoscale: the slots follow the load", SOON).unwrap();
    all_succeed(&results).await;
    let number = |line: &str, key: &str| -> Option<u32> {
        line.split_once(key)?.1.split_whitespace().next()?.parse().ok()
    };
    let has_shrunk = |line: &String| number(line, " to=") < number(line, " from=");
    let shrinks = || worker.lines().iter().any(has_shrunk).then_some(());
    wait_until("half a minute of idleness", SOON, shrinks).unwrap();
    worker.signal("TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0), "{}", worker.output());
    let refused = worker_command(&vhost, &["--autoscale", "2,3"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    client.close().await;
}
