//! Outcomes that are published, and the `done` records that say so.
//!
//! **Invariant:** what belongs to a chord is acked only after a confirmed `done` names the chord.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chord::State;
use super::event::Effect;
use super::joiner::{Joiner, Published, ack};
use super::settings::Rule;
use crate::protocol::join::Record;

/// Chords whose outcome is published and that no `done` names yet.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Outbox {
    chords: Vec<Arc<str>>,
    pub(super) due_ms: Option<u64>,
}

/// The `done` records of this session that are not acked.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Dones {
    pub(super) all: BTreeMap<u64, Done>,
    pub(super) next: u64,
    /// When each may go at the earliest.
    pub(super) due: BTreeSet<(u64, u64)>,
    /// Those which wait for a later publish to be confirmed.
    pub(super) fenced: BTreeSet<u64>,
    /// The `done` that names a chord.
    pub(super) tombs: BTreeMap<Arc<str>, u64>,
}

/// One `done` record.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Done {
    pub(super) chords: Vec<Arc<str>>,
    pub(super) confirmed: bool,
    /// Delivery tag, and when it came back.
    pub(super) delivered: Option<(u64, u64)>,
    /// Packs in the shard, or on their way, that hold any of the chords.
    pub(super) packs: BTreeSet<u64>,
    /// When anything of the chords was acked last.
    pub(super) last_ack_ms: u64,
    /// The first publish after that ack.
    pub(super) fence: u64,
    /// The `done` records that it stands for.
    pub(super) replaces: Vec<u64>,
    /// Whether another stands for it.
    pub(super) is_replaced: bool,
    /// Whether it stands for others already.
    pub(super) is_merged: bool,
}

impl Dones {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn names(&self, chord: &str) -> bool {
        self.tombs.contains_key(chord)
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }
}

impl Joiner {
    /// The outcome of a chord was handed out.
    pub(super) fn fired(&mut self, id: &Arc<str>, effects: &mut Vec<Effect>) {
        if self.settings.breaks(Rule::OutcomeBeforeDone) {
            self.outbox.chords.push(Arc::clone(id));
            self.flush(effects);
        }
    }

    /// Everything that follows from the outcome is confirmed.
    pub(super) fn outcome_published(&mut self, id: &str, effects: &mut Vec<Effect>) {
        let Some((id, chord)) = self.chords.get_key_value(id) else { return };
        if chord.state != State::Firing {
            return;
        }
        let id = Arc::clone(id);
        if let Some(chord) = self.chords.get_mut(&id) {
            chord.state = State::Published;
        }
        if self.settings.breaks(Rule::WriteDone) {
            let packs = self.chords.get(&id).map(|chord| chord.packs.clone());
            let tags = self.bury(&id, None);
            ack(tags, effects);
            for pack in packs.into_iter().flatten() {
                self.retire_pack(pack, effects);
            }
            return;
        }
        self.outbox.chords.push(id);
        let due_ms = self.now_ms.saturating_add(self.settings.done_batch_ms);
        self.outbox.due_ms.get_or_insert(due_ms);
    }

    /// Writes the `done` for what was collected, if it is time.
    pub(super) fn flush_due(&mut self, effects: &mut Vec<Effect>) {
        let is_full = self.outbox.chords.len() >= self.settings.done_batch_max;
        let is_due = self.outbox.due_ms.is_some_and(|due_ms| due_ms <= self.now_ms);
        if is_full || is_due {
            self.flush(effects);
        }
    }

    fn flush(&mut self, effects: &mut Vec<Effect>) {
        self.outbox.due_ms = None;
        let chords = std::mem::take(&mut self.outbox.chords);
        if chords.is_empty() {
            return;
        }
        for id in &chords {
            if let Some(chord) = self.chords.get_mut(id) {
                chord.state = State::Committing;
            }
        }
        self.write_done(chords, Vec::new(), effects);
    }

    /// Publishes a `done`, which may stand for others.
    pub(super) fn write_done(
        &mut self,
        chords: Vec<Arc<str>>,
        replaces: Vec<u64>,
        effects: &mut Vec<Effect>,
    ) -> u64 {
        let number = self.dones.next;
        self.dones.next += 1;
        let ids = chords.iter().map(|id| id.to_string()).collect();
        let record = Record::Done { epoch: self.epoch.clone(), done: number, chords: ids };
        let is_merged = replaces.len() > 1;
        let done = Done {
            chords,
            confirmed: false,
            delivered: None,
            packs: BTreeSet::new(),
            last_ack_ms: self.now_ms,
            fence: self.next_publish,
            replaces,
            is_replaced: false,
            is_merged,
        };
        self.dones.all.insert(number, done);
        self.publish(Published::Done(number), record, effects);
        number
    }

    /// A `done` is durable: what belongs to its chords may go.
    pub(super) fn done_confirmed(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let Some(done) = self.dones.all.get_mut(&number) else { return };
        done.confirmed = true;
        if !done.replaces.is_empty() {
            return self.settle_replacement(number, effects);
        }
        let chords = done.chords.clone();
        let mut tags = Vec::new();
        let mut packs = BTreeSet::new();
        for id in &chords {
            if let Some(chord) = self.chords.get(id) {
                packs.extend(chord.packs.iter().copied());
            }
            tags.extend(self.bury(id, Some(number)));
        }
        ack(tags, effects);
        self.touch_done(number);
        if let Some(inheritance) = &mut self.inheritance {
            inheritance.waiting.remove(&number);
        }
        self.settle_inheritance(effects);
        for pack in packs {
            self.retire_pack(pack, effects);
        }
        self.merge_wanted = true;
    }

    /// Forgets a chord that is over. Returns the deliveries that nobody needs any more.
    fn bury(&mut self, id: &Arc<str>, done: Option<u64>) -> Vec<u64> {
        self.recent.insert(Arc::clone(id));
        if let Some(number) = done {
            self.dones.tombs.insert(Arc::clone(id), number);
        }
        let Some(chord) = self.chords.remove(id) else { return Vec::new() };
        for pack in &chord.packs {
            if let Some(pack) = self.packs.get_mut(pack) {
                pack.live.remove(id);
            }
        }
        if let Some(done) = done.and_then(|number| self.dones.all.get_mut(&number)) {
            done.packs.extend(chord.packs.iter().copied());
        }
        for tag in &chord.raws {
            self.raws.remove(*tag);
        }
        chord.raws.into_iter().collect()
    }
}
