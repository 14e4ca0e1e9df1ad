//! Up to the barrier: what a predecessor left is read, ordered and fed.
//!
//! Order: opens; then chosen packs, other packs, the session's own pre-packs, single records, each
//! in the order of the log. Packs behind the mark of another session are void.
//!
//! **Invariant:** nothing is fired or acked before the own mark came back, except what a confirmed
//! pre-pack covers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chord::{Chord, Fed, Source};
use super::compact::Pack;
use super::event::{Delivery, Effect, Part};
use super::intake::{Content, Role, Run};
use super::joiner::{Joiner, Phase, ack};
use super::marks::OldMarks;
use super::settings::Rule;
use crate::protocol::join::{
    Entitled, Entry, EntryKind, Failure, Open, Place, Reason, Record, Reference,
};
use crate::protocol::{Error, Limits, msgpack};

/// What was read before the barrier.
#[derive(Clone, Debug, Default)]
pub(super) struct Replay {
    buffer: Vec<Buffered>,
    is_marked: bool,
    /// Records about one chord.
    raws: usize,
    /// The own pack that holds a delivery's record.
    pub(super) packed: BTreeMap<u64, u64>,
    /// Deliveries that are acked because a pack covers them.
    pub(super) acked: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
struct Buffered {
    tag: u64,
    count: u64,
    record: Result<Record, Error>,
    unopened: Option<Arc<str>>,
}

/// What has to be written again, and what may go then.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Inheritance {
    /// Own `done` records that are not confirmed.
    pub(super) waiting: BTreeSet<u64>,
    /// Foreign `done` records.
    tags: Vec<u64>,
}

/// One record to be fed.
struct Step {
    id: Arc<str>,
    content: Content,
    /// The delivery, for what is not in a pack of a predecessor.
    raw: Option<(u64, u64)>,
    /// The pack that holds it, and how many bytes of it.
    pack: Option<(u64, usize)>,
}

/// The log, sorted.
#[derive(Default)]
struct Sorted {
    chosen: Vec<Step>,
    unchosen: Vec<Step>,
    own_packed: Vec<Step>,
    raws: Vec<Step>,
    finished: BTreeSet<Arc<str>>,
    dones: usize,
    stale: Vec<u64>,
    old_marks: Vec<u64>,
    inspects: Vec<(u64, String, String, String)>,
    inheritance: Inheritance,
}

/// Ids in one `done` that repeats those of a predecessor.
const REPEATED_MAX: usize = 10_000;

impl Replay {
    /// Records that are not in a pack.
    pub(super) fn unpacked(&self) -> usize {
        self.raws - self.packed.len()
    }

    /// The records that are not in a pack, as entries of one.
    pub(super) fn raw_entries(&self) -> Vec<(u64, Entitled, String, Vec<u8>)> {
        let unpacked = self.buffer.iter().filter(|it| !self.packed.contains_key(&it.tag));
        let entry = |it: &Buffered| {
            let record = it.record.as_ref().ok()?;
            let none = Place::default;
            let (kind, chord, index) = match record {
                Record::Open(open) => (EntryKind::Open, &open.chord, none()),
                Record::Ok { chord, index, .. } => (EntryKind::Ok, chord, index.clone()),
                Record::Ref { chord, index, .. } => (EntryKind::Ref, chord, index.clone()),
                Record::Err { chord, index, .. } => (EntryKind::Err, chord, index.clone()),
                Record::Expire { chord, .. } => (EntryKind::Expire, chord, none()),
                Record::Cancel { chord, .. } => (EntryKind::Cancel, chord, none()),
                Record::Pack(_)
                | Record::Done { .. }
                | Record::Mark { .. }
                | Record::Inspect { .. } => return None,
            };
            let adds = match record {
                Record::Ok { adds, .. } | Record::Ref { adds, .. } => *adds,
                _ => 0,
            };
            let title = Entitled { kind, index, adds };
            Some((it.tag, title, chord.clone(), record.body().ok()?))
        };
        unpacked.filter_map(entry).collect()
    }

    fn push(&mut self, buffered: Buffered) {
        let is_raw = match &buffered.record {
            Ok(
                Record::Pack(_)
                | Record::Done { .. }
                | Record::Mark { .. }
                | Record::Inspect { .. },
            )
            | Err(_) => false,
            Ok(_) => true,
        };
        self.raws += usize::from(is_raw);
        self.buffer.push(buffered);
    }
}

impl Joiner {
    /// Reads a delivery before the barrier.
    pub(super) fn read(&mut self, delivery: Delivery, effects: &mut Vec<Effect>) {
        let Phase::Replaying(replay) = &mut self.phase else { return };
        if !std::mem::replace(&mut replay.is_marked, true) {
            self.publish_mark(effects);
        }
        let Delivery { tag, count, record, unopened, redelivered: _ } = delivery;
        if matches!(&record, Ok(Record::Mark { epoch, .. }) if *epoch == self.epoch) {
            self.mark_delivered(tag);
            return self.resolve(effects);
        }
        let Phase::Replaying(replay) = &mut self.phase else { return };
        replay.push(Buffered { tag, count, record, unopened });
        self.pre_pack(effects);
        if self.settings.breaks(Rule::Barrier) {
            self.resolve(effects);
        }
    }

    /// The barrier: everything that was there before this session has been read.
    fn resolve(&mut self, effects: &mut Vec<Effect>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Active);
        let Phase::Replaying(replay) = phase else { return };
        self.refresh_at_ms = self.now_ms.saturating_add((self.settings.refresh_ms / 4).max(1));
        self.stats.replayed = replay.buffer.len() as u64;
        self.restless = true;
        self.merge_wanted = true;
        let mut sorted = self.sort(*replay, effects);
        let finished = std::mem::take(&mut sorted.finished);
        let mut steps = sorted.chosen;
        steps.append(&mut sorted.unchosen);
        steps.append(&mut sorted.own_packed);
        if self.settings.breaks(Rule::PacksFirst) {
            steps.splice(0..0, sorted.raws);
        } else {
            steps.append(&mut sorted.raws);
        }
        let decided = self.replay_steps(steps, &finished, effects);
        self.stats.stale_packs += sorted.stale.len() as u64;
        ack(sorted.stale, effects);
        for (tag, chord, reply_to, correlation) in sorted.inspects {
            self.answer(&chord, reply_to, correlation, effects);
            ack(vec![tag], effects);
        }
        // Not before the own mark is confirmed, nor before a predecessor's last acks are safe.
        let due_ms = self.now_ms.saturating_add(self.settings.tomb_ms);
        self.old_marks = OldMarks::new(sorted.old_marks, due_ms, self.next_publish);
        self.repeat_dones(sorted.inheritance, sorted.dones, finished, effects);
        for id in decided {
            self.decide(&id, effects);
        }
        let numbers: Vec<u64> = self.packs.keys().copied().collect();
        for number in numbers {
            self.retire_pack(number, effects);
        }
    }

    /// Sorts the log into the order of the replay.
    fn sort(&mut self, replay: Replay, effects: &mut Vec<Effect>) -> Sorted {
        let mut sorted = Sorted::default();
        let mut last_mark = None;
        for Buffered { tag, count, record, unopened } in replay.buffer {
            match record {
                Err(error) => self.unreadable(tag, unopened, &error, effects),
                Ok(Record::Mark { epoch, is_renewal }) => {
                    // A renewal behind another session's mark is as void as the packs behind it.
                    if !is_renewal || last_mark.is_none() || self.settings.breaks(Rule::Renewals) {
                        last_mark = Some(epoch);
                    }
                    sorted.old_marks.push(tag);
                }
                Ok(Record::Done { chords, .. }) => {
                    sorted.finished.extend(chords.into_iter().map(Arc::from));
                    sorted.dones += 1;
                    sorted.inheritance.tags.push(tag);
                }
                Ok(Record::Inspect { chord, reply_to, correlation }) => {
                    sorted.inspects.push((tag, chord, reply_to, correlation));
                }
                Ok(Record::Pack(pack)) => {
                    let is_stale = last_mark.as_ref().is_some_and(|mark| *mark != pack.epoch);
                    if is_stale && !self.settings.breaks(Rule::StalePacks) {
                        sorted.stale.push(tag);
                        continue;
                    }
                    match pack.entries(&Limits::default()) {
                        Ok(entries) => {
                            let steps = self.inherit_pack(tag, count, pack.body.len(), entries);
                            let group =
                                if pack.chosen { &mut sorted.chosen } else { &mut sorted.unchosen };
                            group.extend(steps);
                        }
                        Err(error) => {
                            let text = format!("a pack cannot be read: {error}");
                            effects.push(Effect::Alarm { text, restart: false });
                            let record = Some(Box::new(Record::Pack(pack)));
                            self.poison(tag, record, error.to_string(), effects);
                        }
                    }
                }
                Ok(record) => {
                    let Some((id, content)) = Content::of(record) else { continue };
                    let raw = (!replay.acked.contains(&tag)).then_some((tag, count));
                    match replay.packed.get(&tag) {
                        Some(pack) => {
                            let pack = Some((*pack, 0));
                            sorted.own_packed.push(Step { id, content, raw, pack });
                        }
                        None => sorted.raws.push(Step { id, content, raw, pack: None }),
                    }
                }
            }
        }
        sorted
    }

    /// Takes over a predecessor's pack.
    fn inherit_pack(&mut self, tag: u64, count: u64, len: usize, entries: Vec<Entry>) -> Vec<Step> {
        let number = self.next_pack;
        self.next_pack += 1;
        self.packs.insert(number, Pack::inherited(tag, self.now_ms, count, len));
        let step = |entry: Entry| {
            let pack = Some((number, entry.body.len()));
            let id = Arc::from(entry.chord.as_str());
            // What cannot be read is dead weight in the pack.
            content_of(entry).ok().map(|content| Step { id, content, raw: None, pack })
        };
        entries.into_iter().filter_map(step).collect()
    }

    /// Feeds the log: all opens, then everything else. Returns the chords that are decided.
    fn replay_steps(
        &mut self,
        steps: Vec<Step>,
        finished: &BTreeSet<Arc<str>>,
        effects: &mut Vec<Effect>,
    ) -> Vec<Arc<str>> {
        for step in &steps {
            if finished.contains(&step.id) {
                self.chords.entry(Arc::clone(&step.id)).or_insert_with(Chord::finished);
            } else if let Content::Open(open) = &step.content
                && !self.chords.contains_key(&step.id)
            {
                let source = step.pack.map_or(Source::Raw, |(pack, _)| Source::Pack(pack));
                self.begin(&step.id, Arc::clone(open), source);
            }
        }
        let mut decided: Vec<Arc<str>> = Vec::new();
        for step in steps {
            let Step { id, content, raw, pack } = step;
            let is_open = content.is_open();
            if !self.chords.contains_key(&id) {
                if let Some((tag, _)) = raw {
                    self.hold_orphan(tag, &id, content, effects);
                }
                continue;
            }
            let source = pack.map_or(Source::Raw, |(pack, _)| Source::Pack(pack));
            let (was_collecting, fed) = self.feed(&id, content, source);
            if let Some((number, len)) = pack {
                self.hold_in_pack(number, &id, len);
            }
            let role = match (fed, raw) {
                (Err(wrong), Some((tag, _))) if pack.is_none() => {
                    self.contradicted(Some(tag), &id, *wrong, effects);
                    continue;
                }
                (Err(wrong), _) => {
                    self.contradicted(None, &id, *wrong, effects);
                    Role::End
                }
                (Ok((fed, role)), _) => {
                    self.stats.duplicates += u64::from(fed == Fed::Duplicate && !is_open);
                    role
                }
            };
            if let Some((tag, count)) = raw {
                self.attach(tag, count, &id, role);
                if let Some(batch) = pack.and_then(|(number, _)| self.batch_of(number)) {
                    self.raws.cover(tag, batch);
                }
            }
            let is_collecting = self.chords.get(&id).is_some_and(Chord::is_collecting);
            if was_collecting && !is_collecting {
                decided.push(id);
            }
        }
        // A chord without parts is decided by its open.
        let empty = self.chords.iter().filter(|(_, chord)| {
            chord.open.as_ref().is_some_and(|open| open.size == 0) && chord.chosen.is_empty()
        });
        decided.extend(empty.map(|(id, _)| Arc::clone(id)));
        decided
    }

    /// Notes that a pack holds a record that is still needed.
    fn hold_in_pack(&mut self, number: u64, id: &Arc<str>, len: usize) {
        if let Some(chord) = self.chords.get_mut(id) {
            chord.packs.insert(number);
        }
        if let Some(pack) = self.packs.get_mut(&number) {
            *pack.live.entry(Arc::clone(id)).or_default() += len;
            pack.chords.insert(Arc::clone(id));
        }
    }

    /// Writes again which chords a predecessor has finished: its own word may not be durable.
    fn repeat_dones(
        &mut self,
        mut inheritance: Inheritance,
        dones: usize,
        finished: BTreeSet<Arc<str>>,
        effects: &mut Vec<Effect>,
    ) {
        if dones > 0 {
            let finished: Vec<Arc<str>> = finished.into_iter().collect();
            for ids in finished.chunks(REPEATED_MAX) {
                inheritance.waiting.insert(self.write_done(ids.to_vec(), Vec::new(), effects));
            }
            if self.settings.breaks(Rule::RepeatDone) {
                let mut tags = Vec::new();
                for id in &finished {
                    let Some(chord) = self.chords.get_mut(id) else { continue };
                    tags.extend(std::mem::take(&mut chord.raws));
                }
                for tag in &tags {
                    self.raws.remove(*tag);
                }
                ack(tags, effects);
            }
        }
        self.inheritance = Some(inheritance);
        self.settle_inheritance(effects);
    }

    /// Acks what a predecessor left about itself, once nothing depends on it.
    pub(super) fn settle_inheritance(&mut self, effects: &mut Vec<Effect>) {
        let ready = |it: &Inheritance| it.waiting.is_empty();
        if self.marks.is_confirmed() && self.inheritance.as_ref().is_some_and(ready) {
            let inheritance = self.inheritance.take().unwrap_or_default();
            ack(inheritance.tags, effects);
        }
    }
}

/// Reads an entry of a pack.
fn content_of(entry: Entry) -> Result<Content, Error> {
    let limits = Limits::default();
    Ok(match entry.kind {
        EntryKind::Open => {
            let value = msgpack::decode(&entry.body, &limits)?;
            Content::Open(Arc::new(Open::from_value(entry.chord, value)?))
        }
        EntryKind::Ok => {
            let part = Part::Ok(entry.body.into());
            Content::Part(entry.index, part, entry.adds, Run::default())
        }
        EntryKind::Ref => {
            let part = Part::Parked(Arc::new(Reference::decode(&entry.body, &limits)?));
            Content::Part(entry.index, part, entry.adds, Run::default())
        }
        EntryKind::Err => {
            let failure = Failure::decode(&entry.body, &limits)?;
            Content::Part(entry.index, Part::Err(Arc::new(failure)), 0, Run::default())
        }
        EntryKind::Expire => Content::expire(Reason::decode(&entry.body, &limits)?.text),
        EntryKind::Cancel => {
            let Reason { text, errbacks } = Reason::decode(&entry.body, &limits)?;
            Content::Cancel { reason: text, errbacks }
        }
    })
}

#[cfg(test)]
impl std::hash::Hash for Replay {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        // The records themselves are those of the queue.
        let tags = self.buffer.iter().map(|it| it.tag).collect::<Vec<_>>();
        (tags, self.is_marked, &self.packed, &self.acked).hash(hasher);
    }
}
