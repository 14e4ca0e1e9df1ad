//! The supervisor with real processes: the example that starts two of them.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;
use std::time::Duration;

use xtask::process::{binary, is_alive, signal};
use xtask::{Spawned, wait_until};

const SOON: Duration = Duration::from_secs(120);

fn example() -> Spawned {
    Spawned::start(&mut Command::new(binary("examples/processes").unwrap())).unwrap()
}

/// Waits for a line of this word from line `from` on; gives the number after it and the child's id.
fn child(parent: &Spawned, from: usize, word: &str) -> (usize, u32) {
    let (next, line) = parent.wait_for_line_from(from, &format!("{word} from "), SOON).unwrap();
    (next, line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

fn wait_for_end(pid: u32) {
    wait_until("the child ends", SOON, || (!is_alive(pid)).then_some(())).unwrap();
}

#[test]
fn a_child_killed_with_9_is_replaced_and_the_other_goes_on() {
    let mut parent = example();
    let (_, ping) = child(&parent, 0, "ping");
    let (_, pong) = child(&parent, 0, "pong");
    signal(ping, "KILL").unwrap();
    wait_for_end(ping);
    let seen = parent.lines().len();
    let (_, replacement) = child(&parent, seen, "ping");
    assert_ne!(replacement, ping);
    assert!(is_alive(pong), "the other one was left alone");

    parent.signal("INT").unwrap();
    assert!(parent.wait(SOON).unwrap().success());
    assert!(!is_alive(replacement) && !is_alive(pong));
}

/// The system tells this parent nothing: it looks for itself.
#[cfg(target_os = "linux")]
#[test]
fn a_parent_that_is_not_told_of_a_death_sees_it_all_the_same() {
    let mut command = Command::new("env");
    command.arg("--block-signal=CHLD").arg(binary("examples/processes").unwrap());
    let mut parent = Spawned::start(&mut command).unwrap();
    let (_, ping) = child(&parent, 0, "ping");
    signal(ping, "KILL").unwrap();
    let another = || {
        let lines = parent.lines();
        let mut pids = lines.iter().filter_map(|line| line.strip_prefix("ping from "));
        pids.find_map(|pid| pid.parse().ok().filter(|pid: &u32| *pid != ping))
    };
    let replacement = wait_until("another takes its place", SOON, another).unwrap();
    assert!(!is_alive(ping) && is_alive(replacement));
    parent.signal("INT").unwrap();
    assert!(parent.wait(SOON).unwrap().success());
}

#[test]
fn no_child_outlives_a_parent_that_was_killed_with_9() {
    let mut parent = example();
    let (_, ping) = child(&parent, 0, "ping");
    let (_, pong) = child(&parent, 0, "pong");
    parent.kill_9().unwrap();
    wait_for_end(ping);
    wait_for_end(pong);
}
