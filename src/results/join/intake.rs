//! Records after the barrier: fed to their chord, or held as orphans.
//!
//! Does not ack what belongs to a chord that is not over; see `commit` and `compact`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::chord::{Chord, Decision, Fed, Source, State};
use super::contradiction::{self, Contradiction};
use super::event::{Delivery, Effect, Part};
use super::joiner::{Joiner, Published, ack};
use super::settings::Rule;
use crate::protocol::join::{Inspection, Open, Pack, Place, Record};
use crate::protocol::{Error, Limits};

/// What a record says about its chord.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Open(Arc<Open>),
    /// The place, the result, and how many parts were added by it.
    Part(Place, Part, u32, Run),
    /// Why, if not because its time is over.
    Expire {
        reason: Option<String>,
    },
    Cancel {
        reason: String,
        errbacks: bool,
    },
}

/// The run of a task that made a part, for people.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    execution: String,
    task_id: String,
}

/// What an `expire` says of a chord whose time is over.
const TIME_IS_OVER: &str = "its time is over";

/// What a delivery holds of its chord; a part by its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum Role {
    Open,
    Part(u32),
    End,
}

/// An unacked delivery of a single record.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Raw {
    pub(super) chord: Arc<str>,
    pub(super) role: Role,
    pub(super) at_ms: u64,
    pub(super) count: u64,
    /// The packs on their way that will stand for it.
    pub(super) batch: Option<u64>,
    /// Whether it can be packed.
    packable: bool,
}

/// The unacked deliveries of single records of known chords.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Raws {
    all: BTreeMap<u64, Raw>,
    packable: usize,
}

/// Unacked records of chords that were never heard of.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Orphans {
    due: VecDeque<(u64, u64, Arc<str>)>,
    chords: BTreeMap<Arc<str>, usize>,
}

impl Content {
    /// The chord and what is said about it; `None` for what is not about one chord.
    pub(super) fn of(record: Record) -> Option<(Arc<str>, Self)> {
        Some(match record {
            Record::Open(open) => (open.chord.as_str().into(), Self::Open(Arc::from(open))),
            Record::Ok { chord, index, adds, value, execution, task_id } => {
                let run = Run { execution, task_id };
                (chord.into(), Self::Part(index, Part::Ok(value.into()), adds, run))
            }
            Record::Ref { chord, index, adds, reference, task_id } => {
                let run = Run { execution: String::new(), task_id };
                (chord.into(), Self::Part(index, Part::Parked(Arc::new(reference)), adds, run))
            }
            Record::Err { chord, index, failure, execution } => {
                let run = Run { execution, task_id: failure.task_id.clone() };
                (chord.into(), Self::Part(index, Part::Err(Arc::new(failure)), 0, run))
            }
            Record::Expire { chord, reason } => (chord.into(), Self::expire(reason)),
            Record::Cancel { chord, reason, errbacks } => {
                (chord.into(), Self::Cancel { reason, errbacks })
            }
            Record::Pack(_)
            | Record::Done { .. }
            | Record::Mark { .. }
            | Record::Inspect { .. } => return None,
        })
    }

    /// That a chord is given up, for a reason.
    pub(super) fn expire(reason: String) -> Self {
        let reason = Some(reason).filter(|it| !it.is_empty() && it != TIME_IS_OVER);
        Self::Expire { reason }
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }
}

impl Raws {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) const fn packable(&self) -> usize {
        self.packable
    }

    pub(super) fn get(&self, tag: u64) -> Option<&Raw> {
        self.all.get(&tag)
    }

    /// The deliveries that can be packed, oldest first.
    pub(super) fn oldest(&self) -> impl Iterator<Item = (u64, &Raw)> {
        self.all.iter().filter(|(_, raw)| raw.packable).map(|(tag, raw)| (*tag, raw))
    }

    pub(super) fn insert(&mut self, tag: u64, raw: Raw) {
        self.packable += usize::from(raw.packable);
        self.all.insert(tag, raw);
    }

    pub(super) fn remove(&mut self, tag: u64) -> Option<Raw> {
        let raw = self.all.remove(&tag)?;
        self.packable -= usize::from(raw.packable);
        Some(raw)
    }

    /// The chord is decided: its records wait for their `done`.
    pub(super) fn retain_until_done(&mut self, tag: u64) {
        if let Some(raw) = self.all.get_mut(&tag) {
            self.packable -= usize::from(raw.packable);
            raw.packable = false;
        }
    }

    /// The record is covered by packs on their way.
    pub(super) fn cover(&mut self, tag: u64, batch: u64) {
        self.retain_until_done(tag);
        if let Some(raw) = self.all.get_mut(&tag) {
            raw.batch = Some(batch);
        }
    }
}

impl Orphans {
    pub(super) fn hold(&mut self, tag: u64, chord: Arc<str>, due_ms: u64) {
        *self.chords.entry(Arc::clone(&chord)).or_default() += 1;
        self.due.push_back((due_ms, tag, chord));
    }

    fn contains(&self, chord: &str) -> bool {
        self.chords.contains_key(chord)
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.front().map(|(due_ms, _, _)| *due_ms)
    }

    fn pop_due(&mut self, now_ms: u64) -> Option<u64> {
        self.due.front().filter(|(due_ms, _, _)| *due_ms <= now_ms)?;
        let (_, tag, chord) = self.due.pop_front()?;
        if let Some(count) = self.chords.get_mut(&chord) {
            *count -= 1;
            if *count == 0 {
                self.chords.remove(&chord);
            }
        }
        Some(tag)
    }
}

impl Joiner {
    /// Handles a delivery after the barrier.
    pub(super) fn arrive(&mut self, delivery: Delivery, effects: &mut Vec<Effect>) {
        let Delivery { tag, redelivered, count, record, unopened } = delivery;
        if redelivered && !self.settings.breaks(Rule::Barrier) {
            let text = "a record came back behind the session's mark: a policy (delayed retry, \
                        priorities) breaks the order of the join queue";
            return self.restart(text.to_owned(), effects);
        }
        match record {
            Err(error) => self.unreadable(tag, unopened, &error, effects),
            Ok(Record::Mark { epoch, .. }) if epoch == self.epoch => {
                self.mark_delivered(tag);
            }
            Ok(Record::Pack(pack)) if pack.epoch == self.epoch => {
                self.pack_delivered(pack.pack, tag, effects);
            }
            Ok(Record::Done { epoch, done, .. }) if epoch == self.epoch => {
                self.done_delivered(done, tag, effects);
            }
            Ok(Record::Pack(pack)) => self.void_pack(tag, &pack, effects),
            Ok(Record::Mark { .. } | Record::Done { .. }) => ack(vec![tag], effects),
            Ok(Record::Inspect { chord, reply_to, correlation }) => {
                self.answer(&chord, reply_to, correlation, effects);
                ack(vec![tag], effects);
            }
            Ok(record) => {
                if let Some((chord, content)) = Content::of(record) {
                    self.take(tag, count, &chord, content, effects);
                }
            }
        }
    }

    /// A record about one chord.
    fn take(
        &mut self,
        tag: u64,
        count: u64,
        id: &Arc<str>,
        content: Content,
        effects: &mut Vec<Effect>,
    ) {
        match content {
            Content::Open(open) if !self.chords.contains_key(id) => {
                if self.is_over(id) {
                    self.drop_late(tag, id, effects);
                } else if self.orphans.contains(id) {
                    // The records that came before it are not kept: they are delivered again.
                    let text = format!("records of chord {id} came before its open");
                    self.restart(text, effects);
                } else {
                    self.begin(id, open, Source::Raw);
                    self.attach(tag, count, id, Role::Open);
                    self.decide(id, effects);
                }
            }
            content if self.chords.contains_key(id) => {
                let (was_collecting, fed) = self.feed(id, content, Source::Raw);
                let role = match fed {
                    Err(wrong) => return self.contradicted(Some(tag), id, *wrong, effects),
                    Ok((Fed::Duplicate, role)) => {
                        self.stats.duplicates += 1;
                        if self.settings.breaks(Rule::KeepDuplicates) {
                            return ack(vec![tag], effects);
                        }
                        role
                    }
                    Ok((Fed::Taken | Fed::OutOfRange, role)) => role,
                };
                if self.settings.breaks(Rule::AckAfterDone) {
                    ack(vec![tag], effects);
                } else {
                    self.attach(tag, count, id, role);
                }
                if was_collecting {
                    self.decide(id, effects);
                }
            }
            _ if self.is_over(id) => self.drop_late(tag, id, effects),
            content => self.hold_orphan(tag, id, content, effects),
        }
    }

    /// A chord begins.
    pub(super) fn begin(&mut self, id: &Arc<str>, open: Arc<Open>, source: Source) {
        self.expiries.insert((open.expires_ms, Arc::clone(id)));
        self.chords.insert(Arc::clone(id), Chord::new(open, source));
    }

    /// Feeds a record to its chord. Says whether the chord was undecided before, and what became
    /// of the record and what it holds, or why it cannot be right.
    pub(super) fn feed(
        &mut self,
        id: &Arc<str>,
        content: Content,
        source: Source,
    ) -> (bool, Result<(Fed, Role), Box<Contradiction>>) {
        let Some(chord) = self.chords.get_mut(id) else {
            return (false, Ok((Fed::Taken, Role::End)));
        };
        let was_collecting = chord.is_collecting();
        let size = chord.open.as_ref().map_or(0, |open| open.size);
        let fed = match content {
            Content::Open(open) => match &chord.open {
                Some(first) => match contradiction::between(first, &open) {
                    Some(wrong) => Err(Box::new(wrong)),
                    None => Ok((Fed::Duplicate, Role::Open)),
                },
                None => Ok((Fed::Taken, Role::Open)),
            },
            Content::Part(index, part, adds, run) => {
                match chord.feed(&index, (part.clone(), adds), source, &self.settings) {
                    (Fed::OutOfRange, _) => {
                        let reason =
                            format!("chord {id} has {size} parts, and this is number {index}");
                        let record = part_record(id, index, part, run).adding(adds);
                        Err(Box::new(Contradiction { record, reason }))
                    }
                    (fed, slot) => Ok((fed, Role::Part(slot))),
                }
            }
            Content::Expire { reason } => {
                chord.end(Decision::Expired { reason });
                Ok((Fed::Taken, Role::End))
            }
            Content::Cancel { reason, errbacks } => {
                chord.end(Decision::Cancelled { reason, errbacks });
                Ok((Fed::Taken, Role::End))
            }
        };
        (was_collecting, fed)
    }

    /// Notes that a delivery belongs to a chord.
    pub(super) fn attach(&mut self, tag: u64, count: u64, id: &Arc<str>, role: Role) {
        let Some(chord) = self.chords.get_mut(id) else { return };
        chord.raws.insert(tag);
        let packable = chord.is_collecting();
        let chord = Arc::clone(id);
        self.raws
            .insert(tag, Raw { chord, role, at_ms: self.now_ms, count, batch: None, packable });
    }

    /// Starts what a decision asks for, if there is one.
    pub(super) fn decide(&mut self, id: &Arc<str>, effects: &mut Vec<Effect>) {
        let Some(chord) = self.chords.get(id) else { return };
        if !matches!(chord.state, State::Decided(_)) {
            return;
        }
        if let Some(open) = &chord.open {
            self.expiries.remove(&(open.expires_ms, Arc::clone(id)));
        }
        for tag in &chord.raws {
            self.raws.retain_until_done(*tag);
        }
        if self.settings.write_ahead {
            self.secure(id, effects);
        } else {
            self.fire(id, effects);
        }
    }

    /// Writes `expire` records for chords whose time is over. The log decides, not the clock.
    pub(super) fn expire_due(&mut self, effects: &mut Vec<Effect>) {
        while let Some((at_ms, _)) = self.expiries.first()
            && *at_ms <= self.now_ms
            && let Some((_, id)) = self.expiries.pop_first()
        {
            if self.settings.breaks(Rule::ExpireByRecord) {
                if let Some(chord) = self.chords.get_mut(&id) {
                    chord.end(Decision::Expired { reason: None });
                }
                self.decide(&id, effects);
                continue;
            }
            let reason = TIME_IS_OVER.to_owned();
            let record = Record::Expire { chord: id.to_string(), reason };
            self.publish(Published::Expire, record, effects);
        }
    }

    /// A message that is none of the protocol's goes to the dead letters.
    pub(super) fn unreadable(
        &mut self,
        tag: u64,
        unopened: Option<Arc<str>>,
        error: &Error,
        effects: &mut Vec<Effect>,
    ) {
        let Some(chord) = unopened else {
            return self.poison(tag, None, error.to_string(), effects);
        };
        self.unopened.insert(chord);
        self.stats.poison += 1;
        effects.push(Effect::Poison { tag, record: None, reason: error.to_string(), untold: true });
    }

    /// A message goes to the dead letters; `record` is what was read in it, if it was.
    pub(super) fn poison(
        &mut self,
        tag: u64,
        record: Option<Box<Record>>,
        reason: String,
        effects: &mut Vec<Effect>,
    ) {
        self.stats.poison += 1;
        effects.push(Effect::Poison { tag, record, reason, untold: false });
    }

    /// Answers an `inspect`.
    pub(super) fn answer(
        &self,
        chord: &str,
        reply_to: String,
        correlation: String,
        effects: &mut Vec<Effect>,
    ) {
        let inspection = match self.chords.get(chord) {
            Some(known) => known.inspect(chord, self.now_ms),
            None => Inspection::unknown(chord),
        };
        effects.push(Effect::Reply { reply_to, correlation, inspection: Box::new(inspection) });
    }

    /// Whether the chord is known to have ended.
    fn is_over(&self, id: &str) -> bool {
        self.recent.contains(id) || self.dones.names(id)
    }

    fn drop_late(&mut self, tag: u64, id: &str, effects: &mut Vec<Effect>) {
        self.stats.late += 1;
        ack(vec![tag], effects);
        self.touch_tomb(id);
    }

    /// A record of a chord without an `open`. If that came and could not be read, the record goes
    /// where the `open` went.
    pub(super) fn hold_orphan(
        &mut self,
        tag: u64,
        id: &Arc<str>,
        content: Content,
        effects: &mut Vec<Effect>,
    ) {
        self.stats.orphans += 1;
        if let Content::Part(index, part, adds, run) = content
            && self.unopened.contains(id)
        {
            let record = part_record(id, index, part, run).adding(adds);
            let reason = format!("chord {id} could not be opened");
            return self.poison(tag, Some(Box::new(record)), reason, effects);
        }
        let due_ms = self.now_ms.saturating_add(self.settings.orphan_grace_ms);
        self.orphans.hold(tag, Arc::clone(id), due_ms);
    }

    /// Acks orphans whose chord did not appear.
    pub(super) fn drop_orphans(&mut self, effects: &mut Vec<Effect>) {
        let mut tags = Vec::new();
        while let Some(tag) = self.orphans.pop_due(self.now_ms) {
            tags.push(tag);
        }
        ack(tags, effects);
    }

    /// A pack of a session that is over, behind the own mark: nobody relies on it.
    fn void_pack(&mut self, tag: u64, pack: &Pack, effects: &mut Vec<Effect>) {
        self.stats.stale_packs += 1;
        ack(vec![tag], effects);
        // Its ack may be undone by a crash; what comes back must still find its `done`.
        for entry in pack.entries(&Limits::default()).unwrap_or_default() {
            self.touch_tomb(&entry.chord);
        }
    }
}

/// The record that a part came in.
fn part_record(id: &Arc<str>, index: Place, part: Part, run: Run) -> Record {
    let (chord, Run { execution, task_id }) = (id.to_string(), run);
    match part {
        Part::Ok(value) => {
            let value = value.to_vec();
            Record::Ok { chord, index, adds: 0, execution, task_id, value }
        }
        Part::Parked(reference) => {
            let reference = Arc::unwrap_or_clone(reference);
            Record::Ref { chord, index, adds: 0, task_id, reference }
        }
        Part::Err(failure) => {
            Record::Err { chord, index, execution, failure: Arc::unwrap_or_clone(failure) }
        }
    }
}
