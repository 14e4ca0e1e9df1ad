//! Every run of small worlds, each state visited once.

use std::collections::HashSet;

use super::world::{Adding, Choice, Plan, World, settings};
use crate::results::join::JoinSettings;
use crate::results::join::settings::Rule;

/// What an exploration found.
#[derive(Debug)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) ends: usize,
    pub(super) bad: Option<String>,
}

/// Visits every state that can be reached, up to `states_max`.
pub(super) fn explore(plan: &Plan, states_max: usize) -> Explored {
    let mut seen = HashSet::new();
    let mut stack = vec![World::new(plan)];
    let mut explored = Explored { states: 0, ends: 0, bad: None };
    while let Some(world) = stack.pop() {
        if !seen.insert(world.fingerprint()) {
            continue;
        }
        explored.states += 1;
        if explored.states > states_max {
            explored.bad = Some("more states than expected".to_owned());
            return explored;
        }
        let choices = world.choices();
        if choices.is_empty() {
            explored.ends += 1;
            explored.bad = world.at_end();
        }
        for choice in choices.into_iter().chain(world.faults()) {
            let mut next = world.clone();
            let effects = next.apply(choice, None);
            let mut nexts = vec![next];
            let is_event = matches!(
                choice,
                Choice::Deliver | Choice::Confirm(_) | Choice::Outcome(_) | Choice::Tick
            );
            if is_event && world.can_kill() {
                for keep in 0..effects {
                    for is_late in [false, true].into_iter().take(1 + usize::from(plan.late)) {
                        let mut dying = world.clone();
                        dying.apply(choice, Some((keep, is_late)));
                        nexts.push(dying);
                    }
                }
            }
            for mut next in nexts {
                match next.violation.take() {
                    Some(text) => explored.bad = Some(text),
                    None => stack.push(next),
                }
            }
        }
        if explored.bad.is_some() {
            return explored;
        }
    }
    explored
}

fn assert_good(plan: &Plan, states_max: usize) {
    let start = std::time::Instant::now();
    let explored = explore(plan, states_max);
    println!("{explored:?} in {:?}", start.elapsed());
    assert_eq!(explored.bad, None, "{explored:?} {plan:#?}");
    assert!(explored.ends > 0);
}

#[test]
fn two_parts_one_of_them_twice_and_a_kill() {
    assert_good(&Plan { twice: vec![(0, 0)], kills: 1, ..Plan::default() }, 300_000);
}

#[test]
fn a_part_twice_and_two_kills() {
    let plan = Plan { chords: vec![1], twice: vec![(0, 0)], kills: 2, ..Plan::default() };
    assert_good(&plan, 300_000);
}

#[test]
fn two_parts_and_two_kills() {
    assert_good(&Plan { kills: 2, ..Plan::default() }, 300_000);
}

#[test]
fn a_part_that_fails_or_succeeds_and_a_revocation() {
    let plan = Plan { failing: vec![(0, 0, 0)], cancelled: vec![0], kills: 1, ..Plan::default() };
    assert_good(&plan, 300_000);
}

#[test]
fn a_part_that_adds_another_and_a_kill() {
    let adding = vec![Adding { chord: 0, index: 0, run: 0, count: 1, dies: false }];
    let plan = Plan { chords: vec![1], adding, kills: 1, ..Plan::default() };
    assert_good(&plan, 300_000);
}

#[test]
fn a_part_that_adds_another_in_the_run_that_dies_only_and_a_kill() {
    let adding = vec![Adding { chord: 0, index: 0, run: 0, count: 1, dies: true }];
    let plan = Plan { chords: vec![1], adding, kills: 1, ..Plan::default() };
    assert_good(&plan, 300_000);
}

#[test]
fn a_classic_queue_that_crashes() {
    let settings = JoinSettings { write_ahead: true, ..settings() };
    let plan = Plan { chords: vec![1], crashes: 1, settings, ..Plan::default() };
    assert_good(&plan, 300_000);
}

#[test]
fn two_chords_in_one_shard_and_a_kill() {
    assert_good(&Plan { chords: vec![1, 1], kills: 1, ..Plan::default() }, 300_000);
}

#[test]
fn a_part_that_comes_after_the_body_while_another_chord_goes_on() {
    let plan = Plan { chords: vec![1, 1], twice: vec![(0, 0)], ..Plan::default() };
    assert_good(&plan, 300_000);
}

#[test]
fn a_part_that_comes_late_and_what_a_dead_session_publishes_late() {
    let plan = Plan { chords: vec![1], twice: vec![(0, 0)], kills: 1, ..Plan::default() };
    assert_good(&Plan { late: true, ..plan }, 300_000);
}

#[test]
fn a_deadline_that_passes_at_any_point_and_a_kill() {
    let plan = Plan { expires_ms: 5, hasty: true, kills: 1, ..Plan::default() };
    assert_good(&plan, 300_000);
    let twice = vec![(0, 0)];
    assert_good(&Plan { chords: vec![1], twice, late: true, ..plan.clone() }, 300_000);
    let explored = explore(&plan.broken(Rule::ExpireByRecord), 300_000);
    assert!(explored.bad.as_ref().is_some_and(|bad| bad.contains("G2")), "{explored:?}");
}

#[test]
fn a_deadline_that_passes_at_any_point_of_two_chords() {
    let plan = Plan { chords: vec![1, 1], expires_ms: 3, hasty: true, ..Plan::default() };
    assert_good(&plan, 300_000);
}
