//! Runs that take long: interrupted by Ctrl-C, and begun before their broker is there.

use std::io::{Write, copy};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use xtask::{NodeOptions, PrivateNode, QueueDepth, Spawned, TestVhost};

const SOON: Duration = Duration::from_secs(120);

fn celeriac(args: &[&str], url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_celeriac"));
    command.args(args).env("CELERIAC_BROKER_URL", url);
    command
}

const LINE: &str = r#"{"task": "add", "args": [1, 2]}"#;

fn wait_for_one(vhost: &TestVhost) {
    vhost.wait_for_depth("celeriac", QueueDepth { ready: 1, unacked: 0 }, SOON).unwrap();
}

#[test]
fn ctrl_c_ends_a_run_whose_input_pauses_with_a_summary() {
    let vhost = TestVhost::create("interrupt").unwrap();
    let mut command = celeriac(&["call", "--from", "-"], vhost.url());
    let (mut run, mut input) = Spawned::start_with_input(&mut command).unwrap();
    writeln!(input, "{LINE}").unwrap();
    wait_for_one(&vhost);
    run.signal("INT").unwrap();
    assert_eq!(run.wait(SOON).unwrap().code(), Some(130), "{}", run.output());
    assert!(run.output().contains("1 sent in "), "{}", run.output());
}

#[test]
fn ctrl_c_ends_the_wait_for_results_after_the_input_has_ended() {
    let vhost = TestVhost::create("interrupt-wait").unwrap();
    let path = format!("{}/one-line.jsonl", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, LINE).unwrap();
    let args = ["call", "--from", &path, "--wait", "--timeout", "1h"];
    let mut run = Spawned::start(&mut celeriac(&args, vhost.url())).unwrap();
    wait_for_one(&vhost);
    run.signal("INT").unwrap();
    assert_eq!(run.wait(SOON).unwrap().code(), Some(130), "{}", run.output());
    assert!(run.output().contains("1 sent in "), "{}", run.output());
    assert!(run.output().contains("0 succeeded, 0 failed"), "{}", run.output());
}

#[test]
fn with_retry_a_call_waits_for_its_broker() {
    let vhost = TestVhost::create("retry").unwrap();
    let (user, rest) = vhost.url().rsplit_once('@').unwrap();
    let (broker, path) = rest.split_once('/').unwrap();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("{user}@{unused}/{path}");
    let mut command = celeriac(&["call", "add", "--retry", "-v"], &url);
    let delay = ("CELERIAC_BROKER_CONNECTION_RETRY_DELAY_MAX", "100ms");
    let mut run = Spawned::start(command.env(delay.0, delay.1)).unwrap();
    run.wait_for_line("no connection", SOON).unwrap();
    assert!(run.is_running());
    forward(unused, broker);
    assert_eq!(run.wait(SOON).unwrap().code(), Some(0), "{}", run.output());
    wait_for_one(&vhost);
}

/// Lets `from` lead to `broker` until the test's process ends.
fn forward(from: SocketAddr, broker: &str) {
    let (listener, broker) = (TcpListener::bind(from).unwrap(), broker.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&broker).unwrap());
            let (mut answers, mut to_client) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || copy(&mut client, &mut server));
            std::thread::spawn(move || copy(&mut answers, &mut to_client));
        }
    });
}

#[test]
fn a_body_that_the_broker_finds_too_large_is_told_and_the_others_are_sent() {
    let config = vec!["max_message_size = 100000".to_owned()];
    let node = PrivateNode::start_with(&NodeOptions { config, ..NodeOptions::default() }).unwrap();
    let vhost = node.vhost("body").unwrap();
    let mut command = celeriac(&["call", "--from", "-"], vhost.url());
    let (mut run, mut input) = Spawned::start_with_input(&mut command).unwrap();
    for text in ["a", &"x".repeat(200_000), "b"] {
        writeln!(input, "{}", format_args!(r#"{{"task": "t", "args": ["{text}"]}}"#)).unwrap();
    }
    drop(input);
    assert_eq!(run.wait(SOON).unwrap().code(), Some(5), "{}", run.output());
    run.wait_for_line("error: line 2: ", SOON).unwrap();
    let told = run.output();
    assert!(told.contains("larger than configured max size"), "{told}");
    assert!(told.contains("2 sent in ") && told.contains("1 not sent"), "{told}");
    let stored = vhost.messages("celeriac").unwrap();
    // The broker closes the channel over it, so that others may have been sent twice.
    assert!(stored.len() >= 2 && stored.iter().all(|message| message.payload.len() < 1000));
}
