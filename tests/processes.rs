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

#[test]
fn no_child_outlives_a_parent_that_was_killed_with_9() {
    let mut parent = example();
    let (_, ping) = child(&parent, 0, "ping");
    let (_, pong) = child(&parent, 0, "pong");
    parent.kill_9().unwrap();
    wait_for_end(ping);
    wait_for_end(pong);
}
