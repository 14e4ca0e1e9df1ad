//! One chord: the parts it has, and which record decides it.
//!
//! ```text
//! Collecting --(decisive record)--> Decided --> Firing --(all confirmed)--> Published
//!     --(in a done)--> Committing --(done confirmed)--> gone
//! ```
//!
//! Does not know deliveries' contents, only which of them belong to it.
//!
//! **Invariant:** the first record for an index wins, and the first decisive record decides; both
//! in the order in which records are fed, and for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::{Outcome, Part};
use super::settings::{JoinSettings, Rule};
use crate::protocol::Exception;
use crate::protocol::join::{ChordState, Failure, Inspection, Mode, Open};

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
    Expired,
    Cancelled { reason: String, errbacks: bool },
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// It counts, or comes after the decision.
    Taken,
    /// Its index has a record already.
    Duplicate,
    /// The chord has no such part.
    OutOfRange,
}

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
    pub(super) chosen: BTreeMap<u32, Chosen>,
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

    /// Takes the result of a part.
    pub(super) fn feed(
        &mut self,
        index: u32,
        part: Part,
        source: Source,
        settings: &JoinSettings,
    ) -> Fed {
        let (size, mode) =
            self.open.as_ref().map_or((u32::MAX, Mode::FailFast), |open| (open.size, open.mode));
        if index >= size {
            return Fed::OutOfRange;
        }
        if !self.is_collecting() {
            return Fed::Taken;
        }
        let counts = settings.breaks(Rule::DedupByIndex);
        if self.chosen.contains_key(&index) && !counts {
            return Fed::Duplicate;
        }
        self.list_len = self.list_len.saturating_add(list_len(&part, mode));
        let is_err = matches!(part, Part::Err(_));
        self.failed += u32::from(is_err);
        // Without the rule, whatever comes fills the next place.
        let place = if counts { u32::try_from(self.chosen.len()).unwrap_or(0) } else { index };
        self.chosen.insert(place, Chosen { part, source });
        if is_err && mode == Mode::FailFast {
            self.state = State::Decided(Decision::Failed(index));
        } else if self.list_len > settings.body_max {
            self.state = State::Decided(Decision::TooLarge(index));
        } else if u32::try_from(self.chosen.len()).is_ok_and(|held| held == size) {
            self.state = State::Decided(Decision::Complete);
        }
        Fed::Taken
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
        let chosen = std::mem::take(&mut self.chosen);
        Some(match decision {
            Decision::Complete => {
                let parts = chosen.into_values().map(|chosen| chosen.part).collect();
                Outcome::Complete { open, parts }
            }
            Decision::Failed(index) => match chosen.get(&index).map(|chosen| &chosen.part) {
                Some(Part::Err(failure)) => {
                    Outcome::Failed { open, index, failure: Arc::clone(failure) }
                }
                Some(Part::Ok(_)) | None => return None,
            },
            Decision::TooLarge(index) => {
                let max = settings.body_max;
                let text = format!("the results of chord {id} need more than {max} bytes");
                let exc = Exception {
                    exc_type: "ResultTooLarge".to_owned(),
                    exc_module: None,
                    exc_message: vec![text.into()],
                };
                let failure = Failure { exc, traceback: None, task: None, task_id: String::new() };
                Outcome::Failed { open, index, failure: Arc::new(failure) }
            }
            Decision::Expired => {
                let held = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
                let missing = open.size.saturating_sub(held);
                Outcome::Expired { open, missing }
            }
            Decision::Cancelled { reason, errbacks } => {
                Outcome::Cancelled { open, reason, errbacks }
            }
        })
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
        inspection.size = open.size;
        inspection.failed = self.failed;
        inspection.age_ms = now_ms.saturating_sub(open.created_ms);
        if self.is_collecting() {
            let held = u32::try_from(self.chosen.len()).unwrap_or(u32::MAX);
            inspection.missing_count = open.size.saturating_sub(held);
            inspection.missing = self.missing(open.size);
        }
        inspection
    }

    /// The first runs of indexes without a record.
    fn missing(&self, size: u32) -> Vec<(u32, u32)> {
        let mut runs = Vec::new();
        let mut next = 0;
        for index in self.chosen.keys().copied().chain([size]) {
            if runs.len() == Inspection::RANGES_MAX {
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
        (Part::Err(failure), Mode::Collect) => failure.encode().map_or(0, |body| body.len()) + 5,
        // It decides the chord, and no list is made.
        (Part::Err(_), Mode::FailFast) => 0,
    }
}

#[cfg(test)]
impl std::hash::Hash for Chord {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        (self.open.is_some(), self.open_source, &self.chosen, &self.state).hash(hasher);
        (&self.raws, &self.packs).hash(hasher);
    }
}
