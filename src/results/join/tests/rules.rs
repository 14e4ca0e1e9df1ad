//! Each rule of the protocol taken away makes some run fail; with it, the same runs pass.
//!
//! The numbers are those of the conformance tests in `docs/chords.md`.

use super::random::find;
use super::world::{Adding, Choice, Plan, World, settings};
use crate::results::join::JoinSettings;
use crate::results::join::settings::Rule;

/// Runs until one fails, at most.
const SEEDS: u64 = 20_000;

/// A quorum queue whose sessions die.
fn quorum() -> Plan {
    Plan { chords: vec![2, 2], twice: vec![(0, 0), (1, 1)], kills: 2, ..Plan::default() }
}

/// A classic queue whose broker crashes.
fn classic() -> Plan {
    Plan { crashes: 2, settings: JoinSettings { write_ahead: true, ..settings() }, ..quorum() }
}

fn assert_needed(rule: Rule, plan: &Plan, complaint: &str) {
    let Some(bad) = find(&plan.clone().broken(rule), SEEDS) else {
        panic!("without {rule:?} nothing goes wrong");
    };
    println!("without {rule:?}: seed {}, {}", bad.seed, bad.text);
    assert!(bad.text.contains(complaint), "{rule:?}: {}\n{}", bad.text, bad.steps);
    if let Some(bad) = find(plan, (bad.seed + 1).min(300)) {
        panic!("with {rule:?}: seed {}, {}\n{}", bad.seed, bad.text, bad.steps);
    }
}

#[test]
fn rule_1_records_are_acked_after_their_chord_is_done() {
    assert_needed(Rule::AckAfterDone, &quorum(), "");
}

#[test]
fn rule_2_parts_are_told_apart_by_their_index() {
    assert_needed(Rule::DedupByIndex, &quorum(), "G1");
}

#[test]
fn rule_3_a_worker_acks_its_task_after_the_confirm() {
    let careless = Plan { careless_workers: true, ..classic() };
    let bad = find(&careless, SEEDS).expect("a part is lost");
    assert!(bad.text.contains("G3"), "{}", bad.text);
}

#[test]
fn rule_4_parts_are_sent_after_the_open_is_confirmed() {
    let careless = Plan { careless_producer: true, impatient: true, ..quorum() };
    let bad = find(&careless, SEEDS).expect("a part comes before its chord");
    assert!(!bad.text.contains("G2"), "{}", bad.text);
}

#[test]
fn rule_5_nothing_is_decided_before_the_barrier() {
    assert_needed(Rule::Barrier, &quorum(), "");
}

#[test]
fn rule_6_a_done_is_written_before_records_are_acked() {
    assert_needed(Rule::WriteDone, &classic(), "");
}

#[test]
fn rule_7_an_outcome_is_confirmed_before_its_done_is_written() {
    assert_needed(Rule::OutcomeBeforeDone, &quorum(), "");
}

#[test]
fn rule_8_a_done_outlives_acks_that_can_be_undone() {
    assert_needed(Rule::TombTime, &classic(), "");
}

#[test]
fn rule_11_packed_records_win_over_raw_ones() {
    assert_needed(Rule::PacksFirst, &quorum(), "G2");
}

#[test]
fn rule_12_records_are_acked_after_the_pack_that_covers_them() {
    assert_needed(Rule::PackBeforeAck, &classic(), "");
}

#[test]
fn rule_16_deadlines_are_decided_by_the_log() {
    let plan = Plan { expires_ms: 5, impatient: true, ..quorum() };
    assert_needed(Rule::ExpireByRecord, &plan, "G2");
}

/// That our session closes its channel, and what brokers make of a cancel, is for its own tests.
#[test]
fn rule_17_a_shard_is_given_away_by_closing_the_channel() {
    let careless = Plan { careless_givers: true, ..quorum() };
    let bad = find(&careless, SEEDS).expect("records come behind the mark");
    assert!(bad.text.contains("G2"), "{}\n{}", bad.text, bad.steps);
    assert_eq!(find(&quorum(), (bad.seed + 1).min(300)).map(|bad| bad.text), None);
}

#[test]
fn rule_18_added_parts_are_sent_before_the_record_that_counts_them() {
    let adding = |run, count, dies| Adding { chord: 0, index: 0, run, count, dies };
    let adding = vec![adding(0, 2, true), adding(1, 1, false)];
    let plan = Plan { adding, ..quorum() };
    assert_eq!(find(&plan, 300).map(|bad| bad.text), None);
    let bad = find(&Plan { careless_adders: true, ..plan }, SEEDS).expect("a part is missing");
    assert!(bad.text.contains("G3"), "{}", bad.text);
}

/// Runs `script` without and with the rule, each to its end.
fn assert_needed_in(rule: Rule, plan: &Plan, script: impl Fn(&mut World), complaint: &str) {
    let run = |plan: &Plan| {
        let mut world = World::new(plan);
        script(&mut world);
        world.finish()
    };
    let without = run(&plan.clone().broken(rule));
    assert!(without.as_ref().is_some_and(|text| text.contains(complaint)), "{without:?}");
    assert_eq!(run(plan), None, "with {rule:?}");
}

/// Only what a script asks for: packs from the third record on.
fn scripted(chords: &[u32]) -> Plan {
    let settings = JoinSettings { raws_max: 2, ..settings() };
    Plan { chords: chords.to_vec(), kills: 3, late: true, settings, ..Plan::default() }
}

fn scripted_classic(chords: &[u32]) -> Plan {
    Plan { crashes: 1, late: false, ..scripted(chords) }
}

#[test]
fn rule_9_a_done_outlives_the_packs_that_hold_its_chords() {
    let script = |world: &mut World| {
        world.all([Choice::Open(0), Choice::Open(1), Choice::Part(1, 0)]);
        // Both opens are in one pack now; the first chord ends, and time passes.
        world.settle();
        world.apply(Choice::Part(0, 0), None);
        world.settle();
        world.wait();
        world.apply(Choice::Kill, None);
    };
    assert_needed_in(Rule::TombPacks, &scripted(&[1, 2]), script, "G4");
}

#[test]
fn rule_10_packs_behind_the_mark_of_another_session_are_void() {
    let script = |world: &mut World| {
        world.all([Choice::Open(0), Choice::Part(0, 0)]);
        world.settle();
        world.apply(Choice::Part(0, 1), None);
        // The pack of the first session is on its way when the session dies.
        world.apply(Choice::Deliver, Some((1, true)));
        world.settle();
        world.apply(Choice::Part(0, 2), None);
        world.settle();
        world.wait();
        world.all([Choice::Late, Choice::Kill]);
    };
    assert_needed_in(Rule::StalePacks, &scripted(&[3]), script, "G4");
}

#[test]
fn a_renewed_mark_begins_no_session() {
    let script = |world: &mut World| {
        world.all([Choice::Open(0), Choice::Part(0, 0), Choice::Open(1), Choice::Part(1, 0)]);
        world.settle();
        // The first chord is done; its tomb asks for another mark.
        world.apply(Choice::Tick, None);
        world.settle();
        world.apply(Choice::Part(1, 1), None);
        world.apply(Choice::Tick, None);
        // The mark and the pack behind it are on their way when the session dies.
        world.apply(Choice::Deliver, Some((1, true)));
        world.settle();
        world.apply(Choice::Part(1, 2), None);
        world.settle();
        world.wait();
        world.all([Choice::Late, Choice::Late, Choice::Kill]);
    };
    assert_needed_in(Rule::Renewals, &scripted(&[1, 3]), script, "G4");
}

#[test]
fn a_pack_is_relied_on_when_it_has_come_back() {
    let script = |world: &mut World| {
        world.all([Choice::Open(0), Choice::Part(0, 0), Choice::Part(0, 1)]);
        // The first mark of the first session comes behind that of the second.
        world.apply(Choice::Deliver, Some((0, true)));
        world.all([Choice::Deliver, Choice::Late]);
        world.all([Choice::Deliver, Choice::Deliver, Choice::Deliver]);
        world.confirm_all();
        world.confirm_all();
        world.apply(Choice::Kill, None);
    };
    assert_needed_in(Rule::PackBack, &scripted(&[3]), script, "G3");
}

#[test]
fn rule_13_packs_are_written_after_the_mark_is_confirmed() {
    let script = |world: &mut World| {
        world.apply(Choice::Open(0), None);
        world.all_on_disk();
        world.settle();
        world.apply(Choice::Kill, None);
        world.all([Choice::Deliver, Choice::Deliver, Choice::Deliver]);
        world.all([Choice::Part(0, 0), Choice::Part(0, 1)]);
        world.all_on_disk();
        world.all([Choice::Deliver, Choice::Deliver]);
        world.confirm_packs();
        world.deliver_all();
        // The acks are on disk, the mark is not.
        world.crash_where(|what| what != "mark/s1");
    };
    assert_needed_in(Rule::MarkBeforePack, &scripted_classic(&[3]), script, "G3");
}

#[test]
fn rule_14_an_inherited_done_is_written_again() {
    let script = |world: &mut World| {
        world.all([Choice::Open(0), Choice::Part(0, 0)]);
        world.all_on_disk();
        world.settle();
        world.all([Choice::Tick, Choice::Kill]);
        world.deliver_all();
        // No `done` is on disk, and the ack of the open is not either.
        world.crash_where(|what| what == "ack ok/c0/0/0");
    };
    let plan = Plan { careless_producer: true, ..scripted_classic(&[1]) };
    assert_needed_in(Rule::RepeatDone, &plan, script, "G4");
}

#[test]
fn rule_15_duplicates_are_kept() {
    let script = |world: &mut World| {
        world.apply(Choice::Open(0), None);
        world.all_on_disk();
        world.settle();
        // The first run's worker never learns that its record arrived; the second one does.
        world.all([Choice::Part(0, 0), Choice::Part(0, 0)]);
        world.on_disk("ref/c0/0/0.0.1");
        world.deliver_all();
        world.crash_where(|what| what.starts_with("ack"));
    };
    let plan = Plan { twice: vec![(0, 0)], ..scripted_classic(&[2]) };
    assert_needed_in(Rule::KeepDuplicates, &plan, script, "G3");
}

#[test]
fn old_marks_go_one_after_another() {
    let script = |world: &mut World| {
        world.apply(Choice::Open(0), None);
        world.all_on_disk();
        world.settle();
        world.apply(Choice::Kill, None);
        world.settle();
        world.all([Choice::Part(0, 0), Choice::Part(0, 1)]);
        world.all_on_disk();
        // The open and a part are in a pack of the second session.
        world.settle();
        world.apply(Choice::Kill, None);
        world.settle();
        world.crash_where(|what| what != "ack mark/s0");
    };
    assert_needed_in(Rule::MarkOrder, &scripted_classic(&[3]), script, "G3");
}

#[test]
fn a_renewed_mark_goes_after_all_old_ones() {
    let script = |world: &mut World| {
        world.apply(Choice::Open(0), None);
        world.all_on_disk();
        world.all([Choice::Part(0, 0), Choice::Part(0, 1)]);
        world.all_on_disk();
        // There is a pack of the first session, so that its mark goes slowly.
        world.settle();
        world.apply(Choice::Kill, None);
        world.settle();
        // The second session renews its mark, and with that can ack the one of the first.
        world.apply(Choice::Tick, None);
        world.settle();
        world.all([Choice::Part(0, 2), Choice::Part(0, 3)]);
        world.all_on_disk();
        world.settle();
        world.crash_where(|what| what != "ack mark/s0");
    };
    assert_needed_in(Rule::OwnMarkLast, &scripted_classic(&[5]), script, "G3");
}
