//! Any workflow gives what it means: random trees run by the simulator, in random order and with
//! repetitions, against a reference of a few lines.

use celeriac::protocol::canvas::{Canvas, ResultTree};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRng};

use super::simulator::Simulator;
use super::tree::{Tree, canvas, heard, meaning, texts, trees};

/// Ids of all tasks that report to the caller.
fn reporting(result: &ResultTree, into: &mut Vec<String>) {
    match result.members() {
        Some(members) => members.iter().for_each(|member| reporting(member, into)),
        None if result.is_silent() => {}
        None => into.push(result.id().to_owned()),
    }
    if let Some(parent) = result.parent() {
        reporting(parent, into);
    }
}

fn run(tree: &Tree, seed: [u8; 32], duplicates: usize) -> (Simulator, ResultTree) {
    let mut rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &seed);
    let mut simulator = Simulator::with_duplicates(duplicates);
    let result = simulator.send(canvas(tree));
    simulator.run(&mut |among| (rng.next_u64() % among as u64) as usize);
    (simulator, result)
}

proptest! {
    // A failure prints its seed and its smallest tree.
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(256) })]

    #[test]
    fn a_workflow_gives_what_it_means_in_any_order(tree in trees(), seed: [u8; 32]) {
        let (simulator, result) = run(&tree, seed, 0);
        prop_assert_eq!(simulator.value(&result), meaning(&tree, None));
        let mut called = Vec::new();
        heard(&tree, None, &mut called);
        prop_assert_eq!(texts(&simulator.heard), texts(&called));
        prop_assert_eq!(simulator.unfinished(), 0);
        prop_assert!(simulator.too_early.is_empty(), "before the open: {:?}", simulator.too_early);
        prop_assert!(simulator.orphans.is_empty(), "before the parent: {:?}", simulator.orphans);
        let twice = simulator.published.iter().find(|(_, times)| **times > 1);
        prop_assert!(twice.is_none(), "published twice: {:?}", twice);
        // Whoever asks for an earlier result gets it, and nobody is told what nobody waits for.
        let mut reporting_ids = Vec::new();
        reporting(&result, &mut reporting_ids);
        reporting_ids.sort();
        let mut told: Vec<_> = simulator.results.keys().cloned().collect();
        told.sort();
        told.dedup();
        prop_assert_eq!(told, reporting_ids);
    }

    #[test]
    fn repetitions_change_nothing(tree in trees(), seed: [u8; 32]) {
        let (simulator, result) = run(&tree, seed, 5);
        prop_assert_eq!(simulator.value(&result), meaning(&tree, None));
        prop_assert_eq!(simulator.unfinished(), 0);
    }

    #[test]
    fn a_workflow_survives_the_wire_before_it_is_sent(tree in trees()) {
        let canvas = canvas(&tree);
        let read = Canvas::from_signature(canvas.clone().into_signature());
        prop_assert_eq!(read, Ok(canvas));
    }
}
