//! Any workflow fails as the rules say: random trees with failing tasks run by the simulator, in
//! random order, against a reference that knows nothing of messages.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng};

use super::fallible::{Expected, Node, expected, nodes};
use super::simulator::Simulator;

fn run(node: &Node, seed: [u8; 32], duplicates: usize) -> Simulator {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut simulator = Simulator::with_duplicates(duplicates);
    simulator.send(node.canvas());
    simulator.run(&mut |among| (rng.next_u64() % among as u64) as usize);
    simulator
}

/// What the caller is told is what the rules allow, and nothing else.
fn check_told(simulator: &Simulator, expected: &Expected) -> Result<(), TestCaseError> {
    for (id, told) in &expected.told {
        let (value, failure) = (simulator.results.get(id), simulator.failures.get(id));
        match told {
            Ok(expected) => prop_assert_eq!((value, failure), (Some(expected), None), "{}", id),
            Err(causes) => {
                let allowed = failure.is_some_and(|failure| causes.contains(failure));
                prop_assert!(value.is_none() && allowed, "{}: {:?}, {:?}", id, failure, causes);
            }
        }
    }
    let told = simulator.results.len() + simulator.failures.len();
    prop_assert_eq!(told, expected.told.len());
    Ok(())
}

proptest! {
    // A failure prints its seed and its smallest tree.
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(1024) })]

    #[test]
    fn a_workflow_fails_as_the_rules_say_in_any_order(node in nodes(), seed: [u8; 32]) {
        let node = node.number(&mut 0);
        let (simulator, expected) = (run(&node, seed, 0), expected(&node));
        check_told(&simulator, &expected)?;
        prop_assert!(simulator.told_twice.is_empty(), "{:?}", simulator.told_twice);
        let own = |(id, _): &(&String, &bool)| expected.runs.contains_key(*id);
        let runs: BTreeMap<_, _> = simulator.runs.iter().filter(own).map(owned).collect();
        prop_assert_eq!(&runs, &expected.runs);
        prop_assert_eq!(&simulator.errbacks, &expected.errbacks);
        prop_assert_eq!(simulator.unfinished(), 0);
    }

    #[test]
    fn repetitions_of_failures_change_nothing(node in nodes(), seed: [u8; 32]) {
        let node = node.number(&mut 0);
        let (simulator, expected) = (run(&node, seed, 5), expected(&node));
        check_told(&simulator, &expected)?;
        // An errback may be called twice for a task that runs twice, and for no other.
        let called: Vec<_> = simulator.errbacks.keys().collect();
        prop_assert_eq!(called, expected.errbacks.keys().collect::<Vec<_>>());
    }
}

fn owned((id, succeeded): (&String, &bool)) -> (String, bool) {
    (id.clone(), *succeeded)
}
