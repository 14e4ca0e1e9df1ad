//! When a `done` record may go: not before nothing of its chords can come back.
//!
//! A broker that crashes may undo the newest acks of a classic queue, in any order, and a pack that
//! several chords share outlives some of them. What comes back must still find its `done`.

use std::sync::Arc;

use super::event::{Effect, PublishId};
use super::joiner::{Joiner, ack};
use super::settings::Rule;

impl Joiner {
    /// Something of the chord was acked.
    pub(super) fn touch_tomb(&mut self, chord: &str) {
        if let Some(number) = self.dones.tombs.get(chord) {
            self.touch_done(*number);
        }
    }

    /// Something of the chords of a `done` was acked.
    pub(super) fn touch_done(&mut self, number: u64) {
        let Some(done) = self.dones.all.get_mut(&number) else { return };
        let tomb_ms = self.settings.tomb_ms;
        self.dones.due.remove(&(done.last_ack_ms.saturating_add(tomb_ms), number));
        self.dones.fenced.remove(&number);
        done.last_ack_ms = self.now_ms;
        done.fence = self.next_publish;
        self.dones.due.insert((self.now_ms.saturating_add(tomb_ms), number));
    }

    /// An own `done` came back.
    pub(super) fn done_delivered(&mut self, number: u64, tag: u64, effects: &mut Vec<Effect>) {
        let Some(done) = self.dones.all.get_mut(&number).filter(|it| it.delivered.is_none()) else {
            // Somebody else writes under this session's name; it cannot be one that is relied on.
            return ack(vec![tag], effects);
        };
        done.delivered = Some((tag, self.now_ms));
        if done.replaces.is_empty() {
            self.queue_done(number);
        } else {
            self.settle_replacement(number, effects);
        }
        self.merge_dones(effects);
    }

    /// Looks at a `done` again when its time has come.
    fn queue_done(&mut self, number: u64) {
        if let Some(done) = self.dones.all.get(&number) {
            let due_ms = done.last_ack_ms.saturating_add(self.settings.tomb_ms);
            self.dones.due.insert((due_ms, number));
        }
    }

    /// Acks the `done` records whose chords are beyond recall.
    pub(super) fn retire_dones(&mut self, effects: &mut Vec<Effect>) {
        if self.settings.breaks(Rule::TombTime) {
            self.dones.due = self.dones.due.iter().map(|(_, number)| (0, *number)).collect();
        }
        while let Some((due_ms, number)) = self.dones.due.first().copied()
            && due_ms <= self.now_ms
        {
            self.dones.due.pop_first();
            // One that is not ready is looked at again when what it waits for happens.
            if self.is_quiet(number) {
                self.dones.fenced.insert(number);
            }
        }
        let mut wanted = None;
        let mut next = self.dones.fenced.first().copied();
        while let Some(number) = next {
            next = self.dones.fenced.range(number + 1..).next().copied();
            let Some(done) = self.dones.all.get(&number) else {
                self.dones.fenced.remove(&number);
                continue;
            };
            let fence = PublishId(done.fence);
            let passed = self.last_confirmed.is_some_and(|last| last >= fence);
            if passed || self.settings.breaks(Rule::TombTime) {
                self.retire_done(number, effects);
            } else {
                wanted = wanted.max(Some(fence));
            }
        }
        // Nothing was published since: a mark will do.
        if let Some(fence) = wanted
            && self.in_flight.range(fence..).next().is_none()
        {
            self.publish_mark(effects);
        }
    }

    /// Acks the marks of predecessors: all at once if no pack of theirs is there, else the oldest,
    /// if the ack of the one before is beyond recall. Without any, the own marks that newer ones
    /// have replaced.
    pub(super) fn retire_marks(&mut self, effects: &mut Vec<Effect>) {
        if !self.marks.is_confirmed() {
            return;
        }
        let due_ms = self.now_ms.saturating_add(self.settings.tomb_ms);
        if !self.old_marks.is_empty()
            && (self.packs.values().all(|pack| !pack.is_inherited)
                || self.settings.breaks(Rule::MarkOrder))
        {
            ack(self.old_marks.take(due_ms, self.next_publish), effects);
        }
        while let Some(fence) = self.old_marks.waits_for(self.now_ms) {
            if self.last_confirmed.is_none_or(|last| last < fence) {
                if self.in_flight.range(fence..).next().is_none() {
                    self.publish_mark(effects);
                }
                break;
            }
            ack(self.old_marks.pop(due_ms, self.next_publish).into_iter().collect(), effects);
        }
        if self.old_marks.are_gone() || self.settings.breaks(Rule::OwnMarkLast) {
            ack(self.marks.replaced(), effects);
        }
    }

    /// Whether a `done` is back and no pack holds any of its chords.
    fn is_quiet(&self, number: u64) -> bool {
        let Some(done) = self.dones.all.get(&number) else { return false };
        let packs = done.packs.is_empty() || self.settings.breaks(Rule::TombPacks);
        done.confirmed && done.delivered.is_some() && !done.is_replaced && packs
    }

    fn retire_done(&mut self, number: u64, effects: &mut Vec<Effect>) {
        self.dones.fenced.remove(&number);
        let Some(done) = self.dones.all.remove(&number) else { return };
        for id in &done.chords {
            if self.dones.tombs.get(id) == Some(&number) {
                self.dones.tombs.remove(id);
            }
        }
        ack(done.delivered.map(|(tag, _)| tag).into_iter().collect(), effects);
    }

    /// A pack with these chords has gone.
    pub(super) fn pack_left(&mut self, pack: u64, chords: impl Iterator<Item = Arc<str>>) {
        for id in chords {
            if let Some(chord) = self.chords.get_mut(&id) {
                chord.packs.remove(&pack);
            }
            let Some(number) = self.dones.tombs.get(&id).copied() else { continue };
            if let Some(done) = self.dones.all.get_mut(&number) {
                done.packs.remove(&pack);
            }
            self.touch_done(number);
        }
    }

    /// Writes one `done` for many small ones: every unacked delivery makes every later ack dearer.
    fn merge_dones(&mut self, effects: &mut Vec<Effect>) {
        let small: Vec<u64> =
            self.replaceable().filter(|(_, merged)| !merged).map(|it| it.0).collect();
        if small.len() > self.settings.dones_max {
            self.replace_dones(small, effects);
        }
    }

    /// Writes `done` records anew that the broker would soon take for stuck.
    pub(super) fn refresh_dones(&mut self, before_ms: u64, effects: &mut Vec<Effect>) {
        let old: Vec<u64> = self
            .replaceable()
            .map(|(number, _)| number)
            .filter(|number| {
                let delivered = self.dones.all.get(number).and_then(|done| done.delivered);
                delivered.is_some_and(|(_, at_ms)| at_ms <= before_ms)
            })
            .collect();
        for number in old {
            self.replace_dones(vec![number], effects);
        }
    }

    fn replaceable(&self) -> impl Iterator<Item = (u64, bool)> {
        let ready = |done: &super::commit::Done| {
            done.confirmed && done.delivered.is_some() && !done.is_replaced
        };
        let done = self.dones.all.iter().filter(move |(_, done)| ready(done));
        done.map(|(number, done)| (*number, done.is_merged))
    }

    fn replace_dones(&mut self, old: Vec<u64>, effects: &mut Vec<Effect>) {
        let mut chords = Vec::new();
        let (mut packs, mut last_ack_ms, mut fence, mut is_merged) = (Vec::new(), 0, 0, false);
        for number in &old {
            let Some(done) = self.dones.all.get_mut(number) else { continue };
            done.is_replaced = true;
            is_merged |= done.is_merged;
            let due_ms = done.last_ack_ms.saturating_add(self.settings.tomb_ms);
            self.dones.due.remove(&(due_ms, *number));
            self.dones.fenced.remove(number);
            chords.append(&mut done.chords);
            packs.extend(std::mem::take(&mut done.packs));
            last_ack_ms = last_ack_ms.max(done.last_ack_ms);
            fence = fence.max(done.fence);
        }
        // One that stands for a single one may still be merged, unless that was merged itself.
        is_merged |= old.len() > 1;
        let number = self.write_done(chords.clone(), old, effects);
        if let Some(done) = self.dones.all.get_mut(&number) {
            done.packs.extend(packs);
            (done.last_ack_ms, done.fence, done.is_merged) = (last_ack_ms, fence, is_merged);
        }
        for id in chords {
            self.dones.tombs.insert(id, number);
        }
    }

    /// Acks the `done` records that a new one stands for, once that is confirmed and back.
    pub(super) fn settle_replacement(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let Some(done) = self.dones.all.get_mut(&number) else { return };
        if !done.confirmed || done.delivered.is_none() {
            return;
        }
        let old = std::mem::take(&mut done.replaces);
        let gone = old.into_iter().filter_map(|number| self.dones.all.remove(&number));
        let tags = gone.filter_map(|done| done.delivered).map(|(tag, _)| tag).collect();
        ack(tags, effects);
        self.queue_done(number);
    }
}
