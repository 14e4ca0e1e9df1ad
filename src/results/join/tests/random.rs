//! Random runs. A failing one prints its seed and what happened.

use std::fmt::Write as _;

use super::world::{Adding, Choice, Plan, World, settings};
use crate::protocol::join::Mode;
use crate::results::join::JoinSettings;

/// A run that went wrong.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) seed: u64,
    pub(super) text: String,
    pub(super) steps: String,
}

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.bits() % sides.max(1) as u64).unwrap()
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

const STEPS_MAX: usize = 3000;

/// One run to its end. A traced one shows the queue after every step.
pub(super) fn run(plan: &Plan, seed: u64, is_traced: bool) -> Result<(), Bad> {
    let mut dice = Dice(seed);
    let mut world = World::new(plan);
    let mut steps = String::new();
    let bad = |text: String, steps: String| Err(Bad { seed, text, steps });
    for _ in 0..STEPS_MAX {
        let mut choices = world.choices();
        if choices.len() > 1 && dice.roll(4) != 0 {
            choices.retain(|choice| *choice != Choice::Late);
        }
        let faults = world.faults();
        let is_fault = !faults.is_empty() && dice.roll(plan.odds) == 0;
        let (choice, cut) = if is_fault {
            match faults[dice.roll(faults.len())] {
                Choice::Crash(_) => (Choice::Crash(dice.bits()), None),
                fault => (fault, None),
            }
        } else if choices.is_empty() {
            match world.at_end() {
                None => return Ok(()),
                Some(text) => return bad(text, steps),
            }
        } else {
            let choice = choices[dice.roll(choices.len())];
            let dies = world.can_kill() && dice.roll(plan.odds) == 0;
            let is_event = matches!(
                choice,
                Choice::Deliver | Choice::Confirm(_) | Choice::Outcome(_) | Choice::Tick
            );
            (choice, (dies && is_event).then(|| (dice.roll(4), dice.roll(2) == 0)))
        };
        let _ = writeln!(steps, "{choice:?} {cut:?}");
        world.apply(choice, cut);
        if is_traced {
            let _ = writeln!(steps, "    {}", world.shown());
        }
        if let Some(text) = world.violation.take() {
            return bad(text, steps);
        }
    }
    bad("it never ends".to_owned(), steps)
}

/// Many runs; the first that goes wrong.
pub(super) fn find(plan: &Plan, seeds: u64) -> Option<Bad> {
    let bad = (0..seeds).find_map(|seed| run(plan, seed, false).err())?;
    run(plan, bad.seed, true).err()
}

/// `CELERIAC_SEEDS=20` tries twenty times as many.
fn assert_good(plan: &Plan, seeds: u64) {
    let more = std::env::var("CELERIAC_SEEDS").ok().and_then(|text| text.parse().ok());
    let seeds = seeds * more.unwrap_or(1);
    if let Some(bad) = find(plan, seeds) {
        panic!("seed {}: {}\n{}{plan:#?}", bad.seed, bad.text, bad.steps);
    }
}

#[test]
fn chords_end_whatever_dies() {
    let plan = Plan { chords: vec![3, 2], twice: vec![(0, 1)], kills: 3, ..Plan::default() };
    assert_good(&plan, 400);
    assert_good(&Plan { late: true, impatient: true, ..plan }, 400);
}

#[test]
fn chords_end_whatever_a_classic_queue_forgets() {
    let plan = Plan {
        chords: vec![2, 1],
        twice: vec![(0, 0)],
        kills: 2,
        crashes: 2,
        settings: JoinSettings { write_ahead: true, ..settings() },
        ..Plan::default()
    };
    assert_good(&plan, 400);
    assert_good(&Plan { impatient: true, ..plan }, 400);
}

#[test]
fn chords_that_fail_or_are_revoked_end_once() {
    let plan = Plan {
        chords: vec![3, 2, 1],
        twice: vec![(0, 1), (1, 0)],
        failing: vec![(0, 1, 0), (1, 0, 1)],
        cancelled: vec![2],
        kills: 3,
        ..Plan::default()
    };
    assert_good(&plan, 300);
    assert_good(&Plan { mode: Mode::Collect, ..plan.clone() }, 300);
    assert_good(&Plan { expires_ms: 5, impatient: true, ..plan }, 300);
}

#[test]
fn chords_end_whatever_is_added_to_them() {
    let adding = |(chord, index, run, count, dies)| Adding { chord, index, run, count, dies };
    let plan = Plan {
        chords: vec![2, 1],
        twice: vec![(0, 0)],
        adding: [
            (0, 0, 0, 2, false),
            (0, 0, 1, 1, false),
            (0, 1, 0, 1, false),
            (1, 0, 0, 2, true),
            (1, 0, 1, 1, false),
        ]
        .map(adding)
        .to_vec(),
        kills: 3,
        ..Plan::default()
    };
    assert_good(&plan, 400);
    assert_good(&Plan { late: true, impatient: true, ..plan.clone() }, 300);
    // One that was added fails, once.
    let failing = Plan { failing: vec![(0, 2, 0), (1, 2, 0)], ..plan.clone() };
    assert_good(&failing, 300);
    assert_good(&Plan { mode: Mode::Collect, ..failing }, 300);
    let settings = JoinSettings { write_ahead: true, ..settings() };
    assert_good(&Plan { crashes: 2, settings, ..plan }, 300);
}

#[test]
fn chords_end_when_packs_are_small_and_rewritten_often() {
    let settings = JoinSettings {
        raws_max: 2,
        pack_max: 60,
        packs_max: 2,
        dones_max: 1,
        deliveries_max: 2,
        refresh_ms: 40,
        buffered_max: 3,
        ..settings()
    };
    let plan = Plan {
        chords: vec![4, 3, 2],
        twice: vec![(0, 1), (1, 0), (1, 1)],
        kills: 4,
        settings,
        horizon_ms: 600,
        ..Plan::default()
    };
    assert_good(&plan, 300);
}
