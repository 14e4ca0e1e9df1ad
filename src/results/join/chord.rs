//! One chord: the parts it has, and which record decides it.
//!
//! ```text
//! Collecting --(decisive record)--> Decided --> Firing --(all confirmed)--> Published
//!     --(in a done)--> Committing --(done confirmed)--> gone
//! ```
//!
//! Does not know deliveries' contents, only which of them belong to it.
//!
//! **Invariant:** the first record for a place wins, and the first decisive record decides; both
//! in the order in which records are fed, and for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::added::Added;
use super::event::{Outcome, Part};
use super::settings::{JoinSettings, Rule};
use crate::protocol::Exception;
use crate::protocol::join::{ChordState, Failure, Inspection, Mode, Open, Place};

/// Where the copy of a record is that the shard keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum Source {
    /// In a message of its own.
    Raw,
    /// In a pack.
    Pack(u64),
}

/// Where a chord is in its life.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum State {
    /// Parts are missing.
    Collecting,
    /// The outcome is known and not yet handed out.
    Decided(Decision),
    /// The outcome is being published.
    Firing,
    /// The outcome is published and waits for a `done`.
    Published,
    /// A `done` names the chord and is not confirmed yet.
    Committing,
}

/// What decided a chord.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum Decision {
    Complete,
    Failed(u32),
    TooLarge(u32),
    Expired { reason: Option<String> },
    Cancelled { reason: String, errbacks: bool },
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// It counts, or comes after the decision.
    Taken,
    /// Its place has a record already.
    Duplicate,
    /// The chord has no such part.
    OutOfRange,
}

/// Runs of missing places that an outcome tells of.
const PLACES_MAX: usize = 10;

/// A part that is there.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Chosen {
    pub(super) part: Part,
    pub(super) source: Source,
}

/// A chord that the shard still holds records of.
#[derive(Clone, Debug)]
pub(super) struct Chord {
    /// Absent only if a predecessor's `done` is all that is known.
    pub(super) open: Option<Arc<Open>>,
    pub(super) open_source: Source,
    /// By slot; see [`Added`].
    pub(super) chosen: BTreeMap<u32, Chosen>,
    added: Added,
    pub(super) state: State,
    failed: u32,
    /// Bytes of the list of results so far.
    list_len: usize,

    /// Deliveries that belong to it alone.
    pub(super) raws: BTreeSet<u64>,
    /// Packs in the shard, or on their way to it, that hold records of it.
    pub(super) packs: BTreeSet<u64>,
}

impl Chord {
    pub(super) fn new(open: Arc<Open>, source: Source) -> Self {
        let state = match open.size {
            0 => State::Decided(Decision::Complete),
            _ => State::Collecting,
        };
        Self { open: Some(open), open_source: source, state, ..Self::finished() }
    }

    /// A chord that a predecessor has finished.
    pub(super) fn finished() -> Self {
        Self {
            open: None,
            open_source: Source::Raw,
            chosen: BTreeMap::new(),
            added: Added::default(),
            state: State::Committing,
            failed: 0,
            list_len: 0,
            raws: BTreeSet::new(),
            packs: BTreeSet::new(),
        }
    }

    pub(super) fn is_collecting(&self) -> bool {
        self.state == State::Collecting
    }

    /// Takes the result of a part, which has added so many others. Gives its slot, too.
    pub(super) fn feed(
        &mut self,
        place: &Place,
        (part, adds): (Part, u32),
        source: Source,
        settings: &JoinSettings,
    ) -> (Fed, u32) {
        let size = self.size();
        if place.index() >= size {
            return (Fed::OutOfRange, 0);
        }
        if !self.is_collecting() {
            return (Fed::Taken, 0);
        }
        let Some(slot) = self.added.slot(place, size) else { return (Fed::OutOfRange, 0) };
        let counts = settings.breaks(Rule::DedupByIndex);
        if self.chosen.contains_key(&slot) && !counts {
            return (Fed::Duplicate, slot);
        }
        let mode = self.open.as_ref().map_or(Mode::FailFast, |open| open.mode);
        self.list_len = self.list_len.saturating_add(list_len(&part, mode));
        self.failed += u32::from(matches!(part, Part::Err(_)));
        // Without the rule, whatever comes fills the next place.
        let slot = if counts { u32::try_from(self.chosen.len()).unwrap_or(0) } else { slot };
        self.chosen.insert(slot, Chosen { part, source });
        let counting = self.added.arrived(place, slot, adds);
        if let Some(failed) = self.first_failed(counting).filter(|_| mode == Mode::FailFast) {
            self.state = State::Decided(Decision::Failed(failed));
        } else if self.list_len > settings.body_max {
            self.state = State::Decided(Decision::TooLarge(slot));
        } else if self.missing_count() == 0 {
            self.state = State::Decided(Decision::Complete);
        }
        (Fed::Taken, slot)
    }

    /// Number of parts in the header.
    fn size(&self) -> u32 {
        self.open.as_ref().map_or(u32::MAX, |open| open.size)
    }

    /// Of parts that count from now on, the slot of the first that has failed.
    fn first_failed(&mut self, counting: Vec<Place>) -> Option<u32> {
        let size = self.size();
        let is_err =
            |slot: &u32| matches!(self.chosen.get(slot), Some(Chosen { part: Part::Err(_), .. }));
        let slots = counting.into_iter().filter_map(|place| {
            let slot = self.added.slot(&place, size)?;
            is_err(&slot).then_some((place, slot))
        });
        slots.min().map(|(_, slot)| slot)
    }

    /// Number of parts without a record, as far as it is known how many were added.
    pub(super) fn missing_count(&self) -> u64 {
        let held = self.chosen.len() - self.added.early();
        (u64::from(self.size()) + self.added.total()).saturating_sub(held as u64)
    }

    /// The place behind a slot, and how many parts the part there has added.
    pub(super) fn title(&self, slot: u32) -> (Place, u32) {
        (self.added.place(slot, self.size()), self.added.adds(slot))
    }

    /// Takes the parts in their order, leaving out those that do not count.
    fn take_parts(&mut self) -> Vec<Part> {
        let mut chosen = std::mem::take(&mut self.chosen);
        let mut added = chosen.split_off(&self.size());
        let added = self.added.counted().filter_map(|slot| added.remove(&slot));
        chosen.into_values().chain(added).map(|chosen| chosen.part).collect()
    }

    /// Ends the chord, unless it is decided.
    pub(super) fn end(&mut self, decision: Decision) {
        if self.is_collecting() {
            self.state = State::Decided(decision);
        }
    }

    /// Hands the outcome out, once, and with it the values.
    pub(super) fn fire(&mut self, id: &Arc<str>, settings: &JoinSettings) -> Option<Outcome> {
        let open = Arc::clone(self.open.as_ref()?);
        let State::Decided(decision) = std::mem::replace(&mut self.state, State::Firing) else {
            return None;
        };
        let missing = self.missing_count();
        let index = |slot| self.title(slot).0;
        let outcome = match decision {
            Decision::Complete => Outcome::Complete { open, parts: self.take_parts() },
            Decision::Failed(slot) => match self.chosen.get(&slot).map(|chosen| &chosen.part) {
                Some(Part::Err(failure)) => {
                    let failure = Arc::clone(failure);
                    Outcome::Failed { open, index: index(slot), failure, missing }
                }
                Some(Part::Ok(_) | Part::Parked(_)) | None => return None,
            },
            Decision::TooLarge(slot) => {
                let max = settings.body_max;
                let text = format!("the results of chord {id} need more than {max} bytes");
                let exc = Exception {
                    exc_type: "ResultTooLarge".to_owned(),
                    exc_module: None,
                    exc_message: vec![text.into()],
                };
                let failure = Failure { exc, traceback: None, task: None, task_id: String::new() };
                let (index, failure) = (index(slot), Arc::new(failure));
                Outcome::Failed { open, index, failure, missing }
            }
            Decision::Expired { reason } => {
                let places = self.missing(open.size, PLACES_MAX);
                let size = u64::from(open.size) + self.added.total();
                Outcome::Expired { open, missing, places, size, reason }
            }
            Decision::Cancelled { reason, errbacks } => {
                Outcome::Cancelled { open, reason, errbacks }
            }
        };
        self.chosen.clear();
        Some(outcome)
    }

    /// What an `inspect` is answered.
    pub(super) fn inspect(&self, id: &str, now_ms: u64) -> Inspection {
        let mut inspection = Inspection::unknown(id);
        inspection.state = match self.state {
            State::Collecting => ChordState::Collecting,
            State::Decided(_) | State::Firing => ChordState::Decided,
            State::Published | State::Committing => ChordState::Finished,
        };
        let Some(open) = &self.open else { return inspection };
        let added = u32::try_from(self.added.total()).unwrap_or(u32::MAX);
        inspection.size = open.size.saturating_add(added);
        inspection.failed = self.failed;
        inspection.age_ms = now_ms.saturating_sub(open.created_ms);
        if self.is_collecting() {
            inspection.missing_count = u32::try_from(self.missing_count()).unwrap_or(u32::MAX);
            inspection.missing = self.missing(open.size, Inspection::RANGES_MAX);
        }
        inspection
    }

    /// The first runs of indexes of the header without a record.
    fn missing(&self, size: u32, runs_max: usize) -> Vec<(u32, u32)> {
        let mut runs = Vec::new();
        let mut next = 0;
        let held = self.chosen.range(..size).map(|(index, _)| *index);
        for index in held.chain([size]) {
            if runs.len() == runs_max {
                break;
            }
            if index > next {
                runs.push((next, index - 1));
            }
            next = index.saturating_add(1);
        }
        runs
    }
}

/// Bytes of a part in the list of results.
fn list_len(part: &Part, mode: Mode) -> usize {
    match (part, mode) {
        (Part::Ok(value), Mode::FailFast) => value.len(),
        // A map of one, its key of two or three letters, and the value.
        (Part::Ok(value), Mode::Collect) => value.len() + 4,
        // A list of its id, its size and a flag, with room for all of their heads.
        (Part::Parked(reference), _) => reference.execution.len() + 16,
        (Part::Err(failure), Mode::Collect) => failure.encode().map_or(0, |body| body.len()) + 5,
        // It decides the chord, and no list is made.
        (Part::Err(_), Mode::FailFast) => 0,
    }
}

#[cfg(test)]
impl std::hash::Hash for Chord {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        (self.open.is_some(), self.open_source, &self.chosen, &self.state).hash(hasher);
        self.added.hash(hasher);
        (&self.raws, &self.packs).hash(hasher);
    }
}
