//! Packs: many records rewritten as one message, so that little stays unacked for long.
//!
//! **Invariants:** what a pack covers is acked only after the pack, and all that were written with
//! it, are confirmed and have come back. No pack is written before the session's mark is
//! confirmed: a successor would take it for one of a lost session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chord::{Chord, Decision, Source, State};
use super::event::{Effect, Part};
use super::intake::Role;
use super::joiner::{Joiner, Phase, Published, ack};
use super::settings::Rule;
use crate::protocol::join::{self, Entitled, EntryKind, PackWriter, Record};

/// A pack in the shard, or on its way to it.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Pack {
    /// Whether a predecessor has written it.
    pub(super) is_inherited: bool,
    /// Whether this session knows that it is durable.
    pub(super) confirmed: bool,
    /// Delivery tag, and when it came.
    pub(super) delivered: Option<(u64, u64)>,
    /// How often the broker delivered it.
    pub(super) count: u64,
    /// Bytes of the records that are still needed, by chord.
    pub(super) live: BTreeMap<Arc<str>, usize>,
    /// The chords that it names, dead or alive.
    pub(super) chords: BTreeSet<Arc<str>>,
    pub(super) len: usize,
    /// Whether its records are being written anew.
    rewriting: bool,
    batch: Option<u64>,
}

/// Packs that were written together.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Batch {
    waiting: BTreeSet<u64>,
    /// Deliveries that the packs stand for.
    covers: Vec<u64>,
    /// What the packs take over from older packs.
    moved: Vec<(u64, Arc<str>)>,
    /// The chord whose outcome waits for them.
    secures: Option<Arc<str>>,
}

/// What is to be written of a chord.
#[derive(Debug, Default)]
struct Wanted {
    open: bool,
    indexes: BTreeSet<u32>,
}

/// Packs while they are filled.
#[derive(Default)]
struct Filling {
    writer: PackWriter,
    entries: Vec<(Arc<str>, Option<u32>, usize)>,
}

impl Pack {
    /// A pack that a predecessor has written.
    pub(super) fn inherited(tag: u64, now_ms: u64, count: u64, len: usize) -> Self {
        let delivered = Some((tag, now_ms));
        Self { is_inherited: true, delivered, count, len, ..Self::default() }
    }

    fn live_len(&self) -> usize {
        self.live.values().sum()
    }

    /// Whether it is in the shard and not being written anew.
    fn is_settled(&self) -> bool {
        self.delivered.is_some() && self.batch.is_none() && !self.rewriting
    }
}

impl Joiner {
    /// Packs what has to be packed by now.
    pub(super) fn compact_due(&mut self, effects: &mut Vec<Effect>) {
        if !self.marks.is_confirmed() && !self.settings.breaks(Rule::MarkBeforePack) {
            return;
        }
        for id in std::mem::take(&mut self.unsecured) {
            self.secure(&id, effects);
        }
        if self.raws.packable() > self.settings.raws_max {
            let half = self.raws.packable().div_ceil(2);
            let raws: Vec<u64> = self.raws.oldest().take(half).map(|(tag, _)| tag).collect();
            self.compact(&raws, &[], effects);
        }
        if std::mem::take(&mut self.restless) {
            self.compact_restless(effects);
        }
        if self.refresh_at_ms <= self.now_ms {
            let before_ms = self.now_ms.saturating_sub(self.settings.refresh_ms / 4 * 3);
            self.refresh_at_ms = self.now_ms.saturating_add((self.settings.refresh_ms / 4).max(1));
            self.refresh(before_ms, effects);
        }
        if std::mem::take(&mut self.merge_wanted) {
            self.merge_packs(effects);
        }
    }

    /// Packs what the broker has delivered so often that it may give up on it.
    fn compact_restless(&mut self, effects: &mut Vec<Effect>) {
        let max = self.settings.deliveries_max;
        let raws = self.raws.oldest().filter(|(_, raw)| raw.count >= max);
        let raws: Vec<u64> = raws.map(|(tag, _)| tag).collect();
        let packs = self.packs.iter().filter(|(_, pack)| pack.count >= max && pack.is_settled());
        let packs: Vec<u64> = packs.map(|(number, _)| *number).collect();
        self.compact(&raws, &packs, effects);
    }

    /// Writes anew what was delivered before `before_ms`.
    fn refresh(&mut self, before_ms: u64, effects: &mut Vec<Effect>) {
        let raws = self.raws.oldest().filter(|(_, raw)| raw.at_ms <= before_ms);
        let raws: Vec<u64> = raws.map(|(tag, _)| tag).collect();
        let old = |pack: &Pack| pack.delivered.is_some_and(|(_, at_ms)| at_ms <= before_ms);
        let packs = self.packs.iter().filter(|(_, pack)| old(pack) && pack.is_settled());
        let packs: Vec<u64> = packs.map(|(number, _)| *number).collect();
        self.compact(&raws, &packs, effects);
        self.refresh_dones(before_ms, effects);
        if self.marks.is_stale(before_ms) {
            self.publish_mark(effects);
        }
    }

    /// Merges packs that are mostly dead, or small and many.
    fn merge_packs(&mut self, effects: &mut Vec<Effect>) {
        let settled = || self.packs.iter().filter(|(_, pack)| pack.is_settled());
        let live: usize = settled().map(|(_, pack)| pack.live_len()).sum();
        let all: usize = settled().map(|(_, pack)| pack.len).sum();
        let half = self.settings.pack_max / 2;
        let is_wasteful = all.saturating_sub(live) > live.max(self.settings.pack_max);
        let picked: Vec<u64> = if is_wasteful {
            let dead = settled().filter(|(_, pack)| pack.live_len() < pack.len / 2);
            dead.map(|(number, _)| *number).collect()
        } else if self.packs.len() > self.settings.packs_max {
            let small = settled().filter(|(_, pack)| pack.live_len() < half);
            small.map(|(number, _)| *number).collect()
        } else {
            return;
        };
        // A few small ones are no reason, as long as the rest is full.
        if is_wasteful || picked.len() > self.settings.packs_max / 2 {
            self.compact(&[], &picked, effects);
        }
    }

    /// Writes the chosen records behind these deliveries and packs into new packs.
    fn compact(&mut self, raws: &[u64], packs: &[u64], effects: &mut Vec<Effect>) {
        let number = self.next_batch;
        let mut batch = Batch::default();
        let mut wanted: BTreeMap<Arc<str>, Wanted> = BTreeMap::new();
        let mut spare = Vec::new();
        for &tag in raws {
            let Some(raw) = self.raws.get(tag) else { continue };
            let (id, role) = (Arc::clone(&raw.chord), raw.role);
            let Some(source) = self.chords.get(&id).and_then(|chord| chord.source(role)) else {
                continue;
            };
            // A duplicate may rest on the pack that has its part, if that is known to be durable.
            let home = match source {
                Source::Raw => None,
                Source::Pack(home) => {
                    self.packs.get(&home).map(|pack| (pack.confirmed, pack.batch))
                }
            };
            match home {
                Some((true, None)) => spare.push(tag),
                Some((_, Some(other))) => {
                    self.raws.cover(tag, other);
                    if let Some(other) = self.batches.get_mut(&other) {
                        other.covers.push(tag);
                    }
                }
                Some((false, None)) | None => {
                    wanted.entry(id).or_default().add(role);
                    self.raws.cover(tag, number);
                    batch.covers.push(tag);
                }
            }
        }
        for tag in &spare {
            self.forget_raw(*tag);
        }
        ack(spare, effects);
        self.want_packs(packs, &mut wanted, &mut batch);
        self.write_batch(&wanted, batch, effects);
    }

    /// Adds what the packs hold of chords that still collect.
    fn want_packs(
        &mut self,
        packs: &[u64],
        wanted: &mut BTreeMap<Arc<str>, Wanted>,
        batch: &mut Batch,
    ) {
        let mut sources: BTreeMap<Arc<str>, BTreeSet<u64>> = BTreeMap::new();
        for number in packs {
            let Some(pack) = self.packs.get_mut(number) else { continue };
            for id in pack.live.keys() {
                if self.chords.get(id).is_some_and(Chord::is_collecting) {
                    batch.moved.push((*number, Arc::clone(id)));
                    sources.entry(Arc::clone(id)).or_default().insert(*number);
                    pack.rewriting = true;
                }
            }
        }
        for (id, from) in sources {
            let Some(chord) = self.chords.get(&id) else { continue };
            let wanted = wanted.entry(id).or_default();
            let is_from = |source: Source| matches!(source, Source::Pack(at) if from.contains(&at));
            wanted.open |= is_from(chord.open_source);
            let moved = chord.chosen.iter().filter(|(_, chosen)| is_from(chosen.source));
            wanted.indexes.extend(moved.map(|(index, _)| *index));
        }
    }

    /// Writes everything that a decision is based on; the outcome follows when it is confirmed.
    pub(super) fn secure(&mut self, id: &Arc<str>, effects: &mut Vec<Effect>) {
        if !self.marks.is_confirmed() {
            self.unsecured.push(Arc::clone(id));
            return;
        }
        let Some(chord) = self.chords.get(id) else { return };
        let is_safe = |source: Source| match source {
            Source::Raw => false,
            Source::Pack(number) => {
                let pack = self.packs.get(&number);
                pack.is_some_and(|pack| pack.confirmed && pack.batch.is_none())
            }
        };
        let open = !is_safe(chord.open_source);
        let unsafe_parts = chord.chosen.iter().filter(|(_, chosen)| !is_safe(chosen.source));
        let indexes: BTreeSet<u32> = unsafe_parts.map(|(index, _)| *index).collect();
        if !open && indexes.is_empty() && chord.end_record(id).is_none() {
            return self.fire(id, effects);
        }
        let wanted = BTreeMap::from([(Arc::clone(id), Wanted { open, indexes })]);
        let batch = Batch { secures: Some(Arc::clone(id)), ..Batch::default() };
        self.write_batch(&wanted, batch, effects);
    }

    /// Publishes packs with what is wanted.
    fn write_batch(
        &mut self,
        wanted: &BTreeMap<Arc<str>, Wanted>,
        mut batch: Batch,
        effects: &mut Vec<Effect>,
    ) {
        let mut packs = Vec::new();
        let mut filling = Filling::default();
        for (id, wanted) in wanted {
            let Some(chord) = self.chords.get(id) else { continue };
            for (kind, slot, body) in chord.entries(id, wanted) {
                let (index, adds) = slot.map_or_else(Default::default, |slot| chord.title(slot));
                let title = Entitled { kind, index, adds };
                let len = PackWriter::entry_len(&title, id, &body);
                if filling.writer.len() + len > self.settings.pack_max && !filling.writer.is_empty()
                {
                    packs.push(std::mem::take(&mut filling));
                }
                filling.writer.push(&title, id, &body);
                let slot = match kind {
                    EntryKind::Open | EntryKind::Expire | EntryKind::Cancel => None,
                    EntryKind::Ok | EntryKind::Ref | EntryKind::Err => slot,
                };
                filling.entries.push((Arc::clone(id), slot, len));
            }
        }
        if !filling.writer.is_empty() {
            packs.push(filling);
        }
        if packs.is_empty() {
            return;
        }
        let number = self.next_batch;
        self.next_batch += 1;
        self.stats.compactions += 1;
        if self.settings.breaks(Rule::PackBeforeAck) {
            let tags = std::mem::take(&mut batch.covers);
            for tag in &tags {
                self.forget_raw(*tag);
            }
            ack(tags, effects);
        }
        for filling in packs {
            self.stats.packed += filling.entries.len() as u64;
            batch.waiting.insert(self.next_pack);
            let pack = self.note_pack(&filling, number);
            let body = filling.writer.finish();
            self.publish_pack(pack, true, body, effects);
        }
        self.batches.insert(number, batch);
    }

    /// Notes where the records of a pack are from now on.
    fn note_pack(&mut self, filling: &Filling, batch: u64) -> Pack {
        let number = self.next_pack;
        let mut pack = Pack { batch: Some(batch), len: filling.writer.len(), ..Pack::default() };
        for (id, place, len) in &filling.entries {
            *pack.live.entry(Arc::clone(id)).or_default() += len;
            pack.chords.insert(Arc::clone(id));
            let Some(chord) = self.chords.get_mut(id) else { continue };
            chord.packs.insert(number);
            match place {
                None => chord.open_source = Source::Pack(number),
                Some(index) => {
                    if let Some(chosen) = chord.chosen.get_mut(index) {
                        chosen.source = Source::Pack(number);
                    }
                }
            }
        }
        pack
    }

    fn publish_pack(&mut self, pack: Pack, chosen: bool, body: Vec<u8>, effects: &mut Vec<Effect>) {
        let number = self.next_pack;
        self.next_pack += 1;
        self.packs.insert(number, pack);
        let epoch = self.epoch.clone();
        let record = Record::Pack(join::Pack { epoch, pack: number, chosen, body });
        self.publish(Published::Pack(number), record, effects);
    }

    /// Packs what was read before the barrier, record by record as it is, so that more can be read.
    pub(super) fn pre_pack(&mut self, effects: &mut Vec<Effect>) {
        let Phase::Replaying(replay) = &mut self.phase else { return };
        if replay.unpacked() <= self.settings.buffered_max || !self.marks.is_confirmed() {
            return;
        }
        let number = self.next_batch;
        self.next_batch += 1;
        let mut batch = Batch::default();
        let mut packs = Vec::new();
        let mut writer = PackWriter::default();
        let mut next_pack = self.next_pack;
        for (tag, title, chord, body) in replay.raw_entries() {
            let len = PackWriter::entry_len(&title, &chord, &body);
            if writer.len() + len > self.settings.pack_max && !writer.is_empty() {
                packs.push(std::mem::take(&mut writer));
                next_pack += 1;
            }
            writer.push(&title, &chord, &body);
            replay.packed.insert(tag, next_pack);
            batch.covers.push(tag);
        }
        if !writer.is_empty() {
            packs.push(writer);
        }
        for writer in packs {
            batch.waiting.insert(self.next_pack);
            let pack = Pack { batch: Some(number), len: writer.len(), ..Pack::default() };
            self.publish_pack(pack, false, writer.finish(), effects);
        }
        self.batches.insert(number, batch);
    }

    pub(super) fn pack_confirmed(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let Some(pack) = self.packs.get_mut(&number) else { return };
        pack.confirmed = true;
        self.settle_pack(number, effects);
    }

    /// A pack is relied on once it is confirmed and back: then it is known that no mark of another
    /// session got in between, behind which a successor would take it for void.
    fn settle_pack(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let is_early =
            matches!(self.phase, Phase::Replaying(_)) || self.settings.breaks(Rule::PackBack);
        let Some(pack) = self.packs.get_mut(&number) else { return };
        if !pack.confirmed || (pack.delivered.is_none() && !is_early) {
            return;
        }
        if let Some(batch) = pack.batch.take()
            && let Some(waiting) = self.batches.get_mut(&batch).map(|batch| &mut batch.waiting)
        {
            waiting.remove(&number);
            if waiting.is_empty()
                && let Some(batch) = self.batches.remove(&batch)
            {
                self.batch_settled(batch, effects);
            }
        }
        self.retire_pack(number, effects);
    }

    /// All packs of a batch can be relied on: what they stand for may go.
    fn batch_settled(&mut self, batch: Batch, effects: &mut Vec<Effect>) {
        let mut tags = batch.covers;
        if let Phase::Replaying(replay) = &mut self.phase {
            replay.acked.extend(tags.iter().copied());
        } else {
            // What belongs to a chord that is over by now was acked with its `done`.
            tags.retain(|tag| self.forget_raw(*tag));
        }
        ack(tags, effects);
        for (number, id) in batch.moved {
            if let Some(pack) = self.packs.get_mut(&number) {
                pack.live.remove(&id);
                pack.rewriting = false;
            }
            self.retire_pack(number, effects);
        }
        if let Some(id) = batch.secures {
            self.fire(&id, effects);
        }
        self.merge_wanted = true;
    }

    /// The batch that a pack on its way belongs to.
    pub(super) fn batch_of(&self, pack: u64) -> Option<u64> {
        self.packs.get(&pack).and_then(|pack| pack.batch)
    }

    fn forget_raw(&mut self, tag: u64) -> bool {
        let Some(raw) = self.raws.remove(tag) else { return false };
        if let Some(chord) = self.chords.get_mut(&raw.chord) {
            chord.raws.remove(&tag);
        }
        true
    }

    /// An own pack came back.
    pub(super) fn pack_delivered(&mut self, number: u64, tag: u64, effects: &mut Vec<Effect>) {
        match self.packs.get_mut(&number) {
            Some(pack) if pack.delivered.is_none() => {
                pack.delivered = Some((tag, self.now_ms));
                self.settle_pack(number, effects);
            }
            // Somebody else writes under this session's name.
            Some(_) | None => ack(vec![tag], effects),
        }
    }

    /// Acks a pack that nothing depends on any more.
    pub(super) fn retire_pack(&mut self, number: u64, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Active) {
            return;
        }
        let Some(pack) = self.packs.get(&number) else { return };
        let Some((tag, _)) = pack.delivered else { return };
        if !pack.live.is_empty() || pack.batch.is_some() {
            return;
        }
        if let Some(pack) = self.packs.remove(&number) {
            ack(vec![tag], effects);
            self.pack_left(number, pack.chords.into_iter());
        }
    }
}

impl Wanted {
    fn add(&mut self, role: Role) {
        match role {
            Role::Open => self.open = true,
            Role::Part(index) => {
                self.indexes.insert(index);
            }
            Role::End => {}
        }
    }
}

impl Chord {
    /// Where the chosen record behind a delivery is; `None` for what is never packed.
    fn source(&self, role: Role) -> Option<Source> {
        match role {
            Role::Open => Some(self.open_source),
            Role::Part(index) => self.chosen.get(&index).map(|chosen| chosen.source),
            Role::End => None,
        }
    }

    /// The record that ended the chord, if it was none of its parts.
    fn end_record(&self, id: &str) -> Option<(EntryKind, Option<u32>, Vec<u8>)> {
        let chord = id.to_owned();
        let (kind, record) = match &self.state {
            State::Decided(Decision::Expired { reason }) => {
                let reason = reason.clone().unwrap_or_default();
                (EntryKind::Expire, Record::Expire { chord, reason })
            }
            State::Decided(Decision::Cancelled { reason, errbacks }) => {
                let (reason, errbacks) = (reason.clone(), *errbacks);
                (EntryKind::Cancel, Record::Cancel { chord, reason, errbacks })
            }
            _ => return None,
        };
        record.body().ok().map(|body| (kind, None, body))
    }

    /// What a pack holds of the chord: the open, what decided it, then the rest.
    fn entries(&self, id: &str, wanted: &Wanted) -> Vec<(EntryKind, Option<u32>, Vec<u8>)> {
        let mut entries = Vec::new();
        if wanted.open
            && let Some(open) = &self.open
            && let Ok(body) = Record::Open(Box::new((**open).clone())).body()
        {
            entries.push((EntryKind::Open, None, body));
        }
        entries.extend(self.end_record(id));
        let decisive = match self.state {
            State::Decided(Decision::Failed(index) | Decision::TooLarge(index)) => Some(index),
            _ => None,
        };
        let rest = wanted.indexes.iter().copied().filter(|index| Some(*index) != decisive);
        for index in decisive.into_iter().chain(rest) {
            match self.chosen.get(&index).map(|chosen| &chosen.part) {
                Some(Part::Ok(value)) => entries.push((EntryKind::Ok, Some(index), value.to_vec())),
                Some(Part::Parked(reference)) => {
                    // It was read from these bytes, or from more.
                    let body = reference.encode().unwrap_or_default();
                    entries.push((EntryKind::Ref, Some(index), body));
                }
                Some(Part::Err(failure)) => {
                    // It was read from these bytes, or from more.
                    let body = failure.encode().unwrap_or_default();
                    entries.push((EntryKind::Err, Some(index), body));
                }
                None => {}
            }
        }
        entries
    }
}
