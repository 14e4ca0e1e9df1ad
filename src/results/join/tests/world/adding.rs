//! Parts that add others to their chord: in each run others, as tasks may.

use std::collections::BTreeSet;

use super::{PartState, Plan, World};
use crate::protocol::join::Place;

/// A run of a part of the header that adds parts to its chord.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Adding {
    pub(in super::super) chord: usize,
    pub(in super::super) index: u32,
    pub(in super::super) run: u32,
    pub(in super::super) count: u32,
    /// Whether its worker dies half-way, so that the part runs again.
    pub(in super::super) dies: bool,
}

impl World {
    /// What the next run of a part adds.
    pub(super) fn adding(&self, chord: usize, index: u32) -> Option<Adding> {
        let run = self.chords[chord].parts[index as usize].runs;
        let is_it = |it: &&Adding| (it.chord, it.index, it.run) == (chord, index, run);
        self.plan.adding.iter().find(is_it).copied()
    }

    pub(super) fn call_added(&mut self, number: usize, index: u32) {
        let adding = self.adding(number, index).unwrap();
        let parts = &mut self.chords[number].parts;
        for ordinal in 1..=adding.count {
            let place = Place::from(index).added(ordinal);
            let part = parts.iter_mut().find(|part| Some(&part.place) == place.as_ref());
            part.unwrap().wanted += 1;
        }
        let part = &mut parts[index as usize];
        part.called = !adding.dies;
        if adding.dies {
            (part.runs, part.wanted) = (part.runs + 1, part.wanted + 1);
        }
    }

    /// How the values of a complete list begin: those of the header, and then what was added by
    /// the runs whose values these are.
    pub(super) fn complete(&self, number: usize, values: &[String]) -> Vec<String> {
        let size = self.plan.chords[number];
        let mut expected: Vec<_> = (0..size).map(|index| format!("{number}.{index}.")).collect();
        for (index, value) in (0..size).zip(values) {
            let run = value.rsplit('.').next().and_then(|run| run.parse().ok());
            let is_it = |it: &&Adding| (it.chord, it.index, Some(it.run)) == (number, index, run);
            let count = self.plan.adding.iter().find(is_it).map_or(0, |adding| adding.count);
            expected.extend((1..=count).map(|ordinal| format!("{number}.{index}+{ordinal}.")));
        }
        expected
    }
}

/// The parts of a chord, and those that may be added to it.
pub(super) fn parts(plan: &Plan, number: usize, size: u32) -> Vec<PartState> {
    let own = (0..size).map(|index| PartState {
        place: index.into(),
        wanted: 1 + u32::from(plan.twice.contains(&(number, index))),
        ..PartState::default()
    });
    let added = plan.adding.iter().filter(|adding| adding.chord == number);
    let added: BTreeSet<_> = added
        .flat_map(|it| (1..=it.count).filter_map(|at| Place::from(it.index).added(at)))
        .collect();
    let added = added.into_iter().map(|place| PartState { place, ..PartState::default() });
    own.chain(added).collect()
}
