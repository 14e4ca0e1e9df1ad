//! The worker as a process: its banner, its signals, its pidfile and its exit codes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use celeriac::{AsyncResult, Client, Config, Signature};
use xtask::{Proxy, QueueDepth, Spawned, TestVhost};

const SOON: Duration = Duration::from_secs(120);

/// A command that nothing of the surrounding configuration gets into.
fn worker_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac-worker"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CELERIAC_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

fn start(vhost: &TestVhost, args: &[&str]) -> Spawned {
    let mut command = worker_command();
    let worker =
        Spawned::start(command.args(args).env("CELERIAC_BROKER_URL", vhost.url())).unwrap();
    worker.wait_for_line(" ready.", SOON).unwrap();
    worker
}

async fn client(vhost: &TestVhost) -> Client {
    let config = Config::builder().broker_url([vhost.url().parse().unwrap()]).build();
    Client::connect(config).await.unwrap()
}

async fn sleep_for(client: &Client, seconds: f64) -> AsyncResult<f64> {
    client.send(Signature::<f64>::new("sleep").arg(seconds)).await.unwrap()
}

/// Waits until a task runs.
async fn runs(client: &Client) {
    let control = client.control().limit(1).timeout(SOON);
    let is_there = async || {
        let replies = control.active().await.unwrap();
        replies.iter().any(|reply| reply.value.as_array().is_some_and(|it| !it.is_empty()))
    };
    let until_then = async { while !is_there().await {} };
    tokio::time::timeout(SOON, until_then).await.unwrap();
}

#[track_caller]
fn is_refused(args: &[&str], variables: &[(&str, &str)], code: i32, part: &str) {
    let output = worker_command().args(args).envs(variables.iter().copied()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let sentences = stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(sentences, 1, "{stderr}");
    assert!(stderr.contains(part), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn the_banner_tells_queues_and_tasks_and_hides_the_password() {
    let vhost = TestVhost::create("banner").unwrap();
    let args = ["-Q", "celeriac,mail", "-c", "7", "--blocking-slots", "3", "-n", "one@%h"];
    let mut worker = start(&vhost, &args);
    let lines = worker.lines();
    let ready = lines.iter().position(|line| line.contains(" ready.")).unwrap();
    let banner = lines[..ready].join("\n");
    for part in [
        " one@",
        ".> concurrency: 7 async, 3 blocking",
        ".> celeriac",
        ".> mail",
        ". add",
        ". calculate_sum",
        ". sleep",
    ] {
        assert!(banner.contains(part), "{part} is not in {banner}");
    }
    let url = vhost.url();
    let (credentials, _) = url.trim_start_matches("amqp://").rsplit_once('@').unwrap();
    let (user, _) = credentials.split_once(':').unwrap();
    assert!(banner.contains(&format!("amqp://{user}:***@")), "{banner}");
    assert!(!worker.output().contains(credentials), "{}", worker.output());
    worker.signal("TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0));
}

#[tokio::test]
async fn sigterm_finishes_what_runs_and_gives_the_rest_back() {
    let vhost = TestVhost::create("sigterm").unwrap();
    let mut worker = start(&vhost, &["-c", "1", "--prefetch-multiplier", "8"]);
    let client = client(&vhost).await;
    let running = sleep_for(&client, 3.0).await;
    worker.wait_for_line(running.id(), SOON).unwrap();
    for _ in 0..3 {
        let waiting = sleep_for(&client, 0.0).await;
        worker.wait_for_line(waiting.id(), SOON).unwrap();
    }

    worker.signal("TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0), "{}", worker.output());
    assert_eq!(running.get(SOON).await.unwrap(), 3.0);
    vhost.wait_for_depth("celeriac", QueueDepth { ready: 3, unacked: 0 }, SOON).unwrap();
    client.close().await;
}

#[tokio::test]
async fn a_second_signal_ends_it_and_the_task_runs_elsewhere() {
    let vhost = TestVhost::create("cold").unwrap();
    let mut worker = start(&vhost, &[]);
    let client = client(&vhost).await;
    let long = sleep_for(&client, 3600.0).await;
    worker.wait_for_line("received", SOON).unwrap();

    worker.signal("INT").unwrap();
    worker.wait_for_line("Warm shutdown", SOON).unwrap();
    assert!(worker.is_running());
    worker.signal("TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(1), "{}", worker.output());
    vhost.wait_for_depth("celeriac", QueueDepth { ready: 1, unacked: 0 }, SOON).unwrap();

    let elsewhere = start(&vhost, &[]);
    elsewhere.wait_for_line(long.id(), SOON).unwrap();
    client.close().await;
}

#[tokio::test]
async fn sigquit_gives_back_at_once_what_runs() {
    let vhost = TestVhost::create("sigquit").unwrap();
    let mut worker = start(&vhost, &[]);
    let client = client(&vhost).await;
    let _long = sleep_for(&client, 3600.0).await;
    runs(&client).await;
    worker.signal("QUIT").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(1), "{}", worker.output());
    assert!(!worker.output().contains("Warm shutdown"), "{}", worker.output());
    vhost.wait_for_depth("celeriac", QueueDepth { ready: 1, unacked: 0 }, SOON).unwrap();
    client.close().await;
}

/// As in a container: the process with the id 1 gets no signal that it does not listen to.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn as_process_1_a_worker_finishes_what_runs_at_sigterm() {
    let Some(mut command) = xtask::process::as_process_1() else { return };
    let vhost = TestVhost::create("init").unwrap();
    command.arg(env!("CARGO_BIN_EXE_celeriac-worker")).env("CELERIAC_BROKER_URL", vhost.url());
    let mut worker = Spawned::start(&mut command).unwrap();
    worker.wait_for_line(" ready.", SOON).unwrap();
    let client = client(&vhost).await;
    let running = sleep_for(&client, 2.0).await;
    runs(&client).await;
    let init = xtask::process::only_child(worker.pid()).unwrap();
    xtask::process::signal(init, "TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0), "{}", worker.output());
    assert_eq!(running.get(SOON).await.unwrap(), 2.0);
    client.close().await;
}

#[tokio::test]
async fn a_worker_killed_with_9_loses_nothing_of_what_it_ran_or_held() {
    let vhost = TestVhost::create("kill").unwrap();
    let mut doomed = start(&vhost, &["-c", "2", "--prefetch-multiplier", "8", "-n", "doomed@%h"]);
    let client = client(&vhost).await;
    let sleeps = (0..40).map(|_| Signature::<f64>::new("sleep").arg(1.0));
    let results: Vec<_> =
        client.send_all(sleeps).await.into_iter().collect::<Result<_, _>>().unwrap();
    // Two run, others are prefetched, and the rest wait in the queue.
    doomed.wait_for_line("received", SOON).unwrap();

    doomed.kill_9().unwrap();
    let survivor = start(&vhost, &["-c", "40", "-n", "survivor@%h"]);
    for result in &results {
        assert_eq!(result.get(SOON).await.unwrap(), 1.0);
    }
    assert!(survivor.output().contains(results[0].id()), "the first one ran again elsewhere");
    vhost.wait_for_depth("celeriac", QueueDepth { ready: 0, unacked: 0 }, SOON).unwrap();
    client.close().await;
}

#[test]
fn a_pidfile_is_written_guarded_and_removed() {
    let vhost = TestVhost::create("pidfile").unwrap();
    let path: PathBuf = std::env::temp_dir().join(format!("{}.pid", vhost.name()));
    let pidfile = path.to_str().unwrap();
    let mut worker = start(&vhost, &["--pidfile", pidfile]);
    let pid = worker.pid().to_string();
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), pid);

    let part = format!("the running process {pid}");
    is_refused(&["--pidfile", pidfile], &[("CELERIAC_BROKER_URL", vhost.url())], 1, &part);
    assert!(path.exists());

    worker.signal("TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0));
    assert!(!path.exists());

    // One that was killed leaves its file, which does not hinder the next.
    let mut killed = start(&vhost, &["--pidfile", pidfile]);
    killed.kill_9().unwrap();
    assert!(path.exists());
    let mut next = start(&vhost, &["--pidfile", pidfile]);
    next.signal("TERM").unwrap();
    assert_eq!(next.wait(SOON).unwrap().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn wrong_settings_and_options_are_one_sentence() {
    is_refused(
        &[],
        &[("CELERIAC_WORKER_CONCURENCY", "3")],
        2,
        "did you mean 'CELERIAC_WORKER_CONCURRENCY'?",
    );
    is_refused(&["--config", "/no/such.toml"], &[], 2, "/no/such.toml");
    is_refused(&["-b", "redis://localhost"], &[], 2, "unknown scheme 'redis'");
    is_refused(&["-c", "0"], &[], 2, "--concurrency");
    is_refused(&["-l", "loud"], &[], 2, "--loglevel");
    is_refused(&[], &[("CELERIAC_LOG", "celeriac=loud")], 2, "CELERIAC_LOG");
}

#[test]
fn a_broker_that_is_not_there_ends_a_worker_that_must_not_retry() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://{}", listener.local_addr().unwrap());
    drop(listener);
    let once = ("CELERIAC_BROKER_CONNECTION_RETRY_ON_STARTUP", "false");
    is_refused(&["-b", &url], &[once], 3, "failed to connect");
}

#[tokio::test]
async fn a_broker_that_does_not_come_back_ends_a_worker_also_while_it_stops() {
    for stops in [false, true] {
        let vhost = TestVhost::create("gone").unwrap();
        let (proxy, through) = Proxy::for_url(vhost.url()).unwrap();
        let mut command = worker_command();
        command.args(["-b", &through]).env("CELERIAC_WORKER_RECOVERY_LIMIT", "2s");
        command.env("CELERIAC_WORKER_LIVENESS_TIMEOUT", "1s");
        let mut worker = Spawned::start(&mut command).unwrap();
        worker.wait_for_line(" ready.", SOON).unwrap();
        let client = client(&vhost).await;
        // It ends before the limit has passed, and its result finds nobody.
        let call = sleep_for(&client, 1.0).await;
        worker.wait_for_line(call.id(), SOON).unwrap();
        if stops {
            worker.signal("TERM").unwrap();
            worker.wait_for_line("Warm shutdown", SOON).unwrap();
        }
        drop(proxy);
        assert_eq!(worker.wait(SOON).unwrap().code(), Some(3), "{}", worker.output());
        assert!(worker.output().contains("error: "), "{}", worker.output());
        vhost.wait_for_depth("celeriac", QueueDepth { ready: 1, unacked: 0 }, SOON).unwrap();
        client.close().await;
    }
}

#[tokio::test]
async fn heartbeats_go_on_while_a_worker_that_stops_finishes_what_runs() {
    let vhost = TestVhost::create("heartbeats").unwrap();
    let mut command = worker_command();
    // A broker ends a connection on which it has heard nothing for twice that time.
    command.env("CELERIAC_BROKER_URL", vhost.url()).env("CELERIAC_BROKER_HEARTBEAT", "2");
    let mut worker = Spawned::start(&mut command).unwrap();
    worker.wait_for_line(" ready.", SOON).unwrap();
    let client = client(&vhost).await;
    let long = sleep_for(&client, 12.0).await;
    worker.wait_for_line(long.id(), SOON).unwrap();
    worker.signal("TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0), "{}", worker.output());
    assert_eq!(long.get(SOON).await.unwrap(), 12.0);
    assert!(!worker.output().contains("connection lost"), "{}", worker.output());
    vhost.wait_for_depth("celeriac", QueueDepth { ready: 0, unacked: 0 }, SOON).unwrap();
    assert!(vhost.messages("celeriac").unwrap().is_empty());
    client.close().await;
}

#[test]
fn a_signal_ends_a_worker_that_still_looks_for_its_broker() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://{}", silent.local_addr().unwrap());
    let mut worker = Spawned::start(worker_command().args(["-b", &url])).unwrap();
    let _greeted = silent.accept().unwrap();
    worker.signal("TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0), "{}", worker.output());
}

#[test]
fn the_json_log_is_json_from_the_first_line_to_the_last() {
    let vhost = TestVhost::create("jsonlog").unwrap();
    let mut worker = start(&vhost, &["--log-format", "json"]);
    worker.signal("TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0));
    let lines = worker.lines();
    assert!(!lines.is_empty());
    for line in lines {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(event["level"].is_string(), "{line}");
    }
}

/// A queue that gives a message up at its second delivery, and one worker for each.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_kills_its_workers_fails_its_chord_and_is_parked() {
    let vhost = TestVhost::create("poison").unwrap();
    let arguments = serde_json::json!({"x-queue-type": "quorum", "x-delivery-limit": 1,
        "x-dead-letter-exchange": "celeriac.dead"});
    let spec = serde_json::json!({"durable": true, "arguments": arguments});
    vhost.management().put(&["queues", vhost.name(), "celeriac"], &spec).unwrap();
    let client = client(&vhost).await;
    let sleep = Signature::<f64>::new("sleep").arg(600);
    let sums = celeriac::group([sleep]) | Signature::<f64>::new("sum_task").partial();
    let chord = client.apply(sums).await.unwrap();
    for unacked in [1, 1] {
        let mut doomed = start(&vhost, &["-c", "1"]);
        doomed.wait_for_line("sleep", SOON).unwrap();
        vhost.wait_for_depth("celeriac", QueueDepth { ready: 0, unacked }, SOON).unwrap();
        doomed.kill_9().unwrap();
    }
    let mut worker = start(&vhost, &[]);
    let error = chord.get(SOON).await.unwrap_err();
    let failure = error.failure().unwrap();
    assert!(failure.is("ChordError"), "{failure:?}");
    assert!(failure.to_string().contains("WorkerLostError"), "{failure}");
    let parked = || vhost.messages("celeriac.dead").ok().filter(|all| !all.is_empty());
    let parked = vhost.wait_until("the part is parked", parked).unwrap();
    assert_eq!(parked[0].header("dead_reason").unwrap(), "delivery-limit");
    worker.signal("TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0));
}

/// A classic queue counts nothing: the workers do.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_a_classic_queue_that_kills_its_workers_fails_and_is_parked() {
    let vhost = TestVhost::create("poison-classic").unwrap();
    let url = ("CELERIAC_BROKER_URL", vhost.url());
    let classic = ("CELERIAC_TASK_DEFAULT_QUEUE_TYPE", "classic");
    let once_more = ("CELERIAC_WORKER_DELIVERY_LIMIT", "1");
    let start = || {
        let mut command = worker_command();
        let worker = Spawned::start(command.envs([url, classic, once_more])).unwrap();
        worker.wait_for_line(" ready.", SOON).unwrap();
        worker
    };
    let mut doomed = start();
    let client = client(&vhost).await;
    let poison = sleep_for(&client, 3600.0).await;
    runs(&client).await;
    doomed.kill_9().unwrap();
    let mut doomed = start();
    runs(&client).await;
    doomed.kill_9().unwrap();
    let mut worker = start();
    let error = poison.get(SOON).await.unwrap_err();
    let failure = error.failure().unwrap();
    assert!(failure.is("WorkerLostError"), "{failure:?}");
    let parked = || vhost.messages("celeriac.dead").ok().filter(|all| !all.is_empty());
    let parked = vhost.wait_until("it is parked", parked).unwrap();
    assert_eq!(parked[0].header("dead_reason").unwrap(), "delivery-limit");
    worker.signal("TERM").unwrap();
    assert_eq!(worker.wait(SOON).unwrap().code(), Some(0));
    client.close().await;
}
