//! The state of a session, and who handles which event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chord::{Chord, State};
use super::commit::{Dones, Outbox};
use super::compact::{Batch, Pack};
use super::contradiction::Contradiction;
use super::event::{Delivery, Effect, Event, Outcome, PublishId};
use super::intake::{Orphans, Raws};
use super::marks::{Marks, OldMarks};
use super::recent::Recent;
use super::replay::{Inheritance, Replay};
use super::settings::JoinSettings;
use super::stats::JoinStats;
use crate::protocol::Error;
use crate::protocol::join::Record;

/// One subscription of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Joiner {
    pub(super) epoch: String,
    pub(super) settings: JoinSettings,
    pub(super) now_ms: u64,
    pub(super) phase: Phase,
    pub(super) stats: JoinStats,

    /// What was published to the shard.
    pub(super) next_publish: u64,
    pub(super) in_flight: BTreeMap<PublishId, Published>,
    pub(super) last_confirmed: Option<PublishId>,
    pub(super) marks: Marks,
    pub(super) old_marks: OldMarks,

    /// What the shard holds.
    pub(super) chords: BTreeMap<Arc<str>, Chord>,
    pub(super) raws: Raws,
    pub(super) packs: BTreeMap<u64, Pack>,
    pub(super) next_pack: u64,
    pub(super) batches: BTreeMap<u64, Batch>,
    pub(super) next_batch: u64,
    pub(super) orphans: Orphans,
    /// The last chords whose `open` could not be read.
    pub(super) unopened: Recent,
    /// Deliveries that cannot be right, by the record that gives their chord up.
    pub(super) contradictions: BTreeMap<PublishId, (u64, Contradiction)>,

    /// What has ended.
    pub(super) outbox: Outbox,
    pub(super) dones: Dones,
    pub(super) recent: Recent,
    pub(super) inheritance: Option<Inheritance>,

    /// When chords expire for which no record says so yet.
    pub(super) expiries: BTreeSet<(u64, Arc<str>)>,
    pub(super) refresh_at_ms: u64,
    /// Whether deliveries may have come so often that the broker gives up on them.
    pub(super) restless: bool,
    /// Whether packs may be worth merging.
    pub(super) merge_wanted: bool,
    /// Decided chords that wait for the mark before they are written.
    pub(super) unsecured: Vec<Arc<str>>,
}

/// How far a session is.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum Phase {
    /// Reading what is there already.
    Replaying(Box<Replay>),
    /// The own mark came back.
    Active,
    /// To be restarted; nothing is handled any more.
    Over,
}

/// What a confirm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum Published {
    Mark,
    Pack(u64),
    Done(u64),
    Expire,
    GivingUp,
}

impl Joiner {
    /// A joiner for a new subscription; `epoch` is a name that no session had before.
    pub(crate) fn new(epoch: impl Into<String>, settings: JoinSettings) -> Self {
        Self {
            epoch: epoch.into(),
            now_ms: 0,
            phase: Phase::Replaying(Box::default()),
            stats: JoinStats::default(),
            next_publish: 0,
            in_flight: BTreeMap::new(),
            last_confirmed: None,
            marks: Marks::default(),
            old_marks: OldMarks::default(),
            chords: BTreeMap::new(),
            raws: Raws::default(),
            packs: BTreeMap::new(),
            next_pack: 0,
            batches: BTreeMap::new(),
            next_batch: 0,
            orphans: Orphans::default(),
            unopened: Recent::new(settings.recent_max),
            contradictions: BTreeMap::new(),
            outbox: Outbox::default(),
            dones: Dones::default(),
            recent: Recent::new(settings.recent_max),
            inheritance: None,
            expiries: BTreeSet::new(),
            refresh_at_ms: 0,
            restless: false,
            merge_wanted: false,
            unsecured: Vec::new(),
            settings,
        }
    }

    /// Handles what happened at `now_ms` and appends what has to be done.
    ///
    /// Time is in milliseconds since the Unix epoch and must not stand still while the driver
    /// waits: take the wall clock when the session begins and a steady clock from there on.
    pub(crate) fn handle(&mut self, now_ms: u64, event: Event, effects: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        self.now_ms = self.now_ms.max(now_ms);
        match event {
            Event::Delivered(delivery) => self.delivered(delivery, effects),
            Event::Confirmed { publish } => self.confirmed(publish, effects),
            Event::OutcomePublished { chord } => self.outcome_published(&chord, effects),
            Event::Tick => {}
        }
        if matches!(self.phase, Phase::Active) {
            self.expire_due(effects);
            self.drop_orphans(effects);
            self.flush_due(effects);
            self.retire_dones(effects);
            self.retire_marks(effects);
            self.compact_due(effects);
        }
    }

    /// When [`Event::Tick`] is due next, if no other event comes before.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        if !matches!(self.phase, Phase::Active) {
            return None;
        }
        [
            self.expiries.first().map(|(at_ms, _)| *at_ms),
            self.orphans.next_due(),
            self.outbox.due_ms,
            self.dones.next_due(),
            self.old_marks.next_due(),
            Some(self.refresh_at_ms),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether the barrier is behind: this session decides.
    pub(crate) const fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active)
    }

    /// Whether no outcome is between its publishing and its `done`: if the session ended now, its
    /// successor would publish none of them again.
    pub(crate) fn is_settled(&self) -> bool {
        self.chords.values().all(|it| matches!(it.state, State::Collecting | State::Decided(_)))
    }

    /// What was counted so far.
    pub(crate) fn stats(&self) -> JoinStats {
        JoinStats {
            chords: self.chords.len(),
            raws: self.raws.len(),
            packs: self.packs.len(),
            dones: self.dones.len(),
            ..self.stats.clone()
        }
    }

    fn delivered(&mut self, delivery: Delivery, effects: &mut Vec<Effect>) {
        if let Err(Error::JoinVersion(_)) = delivery.record {
            let text = delivery.record.err().map(|error| error.to_string()).unwrap_or_default();
            self.phase = Phase::Over;
            effects.push(Effect::StandBack { text, for_ms: self.settings.stand_back_ms });
            return;
        }
        match self.phase {
            Phase::Replaying(_) => self.read(delivery, effects),
            Phase::Active => self.arrive(delivery, effects),
            Phase::Over => {}
        }
    }

    fn confirmed(&mut self, publish: PublishId, effects: &mut Vec<Effect>) {
        let Some(published) = self.in_flight.remove(&publish) else { return };
        self.last_confirmed = self.last_confirmed.max(Some(publish));
        match published {
            Published::Mark => {
                self.marks.confirmed(publish);
                self.settle_inheritance(effects);
            }
            Published::Pack(pack) => self.pack_confirmed(pack, effects),
            Published::Done(done) => self.done_confirmed(done, effects),
            Published::GivingUp => {
                if let Some((tag, wrong)) = self.contradictions.remove(&publish) {
                    self.stats.poison += 1;
                    let Contradiction { record, reason } = wrong;
                    let record = Some(Box::new(record));
                    effects.push(Effect::Poison { tag, record, reason, untold: true });
                }
            }
            Published::Expire => {}
        }
        if matches!(self.phase, Phase::Replaying(_)) {
            self.pre_pack(effects);
        }
    }

    /// Publishes to the shard.
    pub(super) fn publish(
        &mut self,
        published: Published,
        record: Record,
        effects: &mut Vec<Effect>,
    ) -> PublishId {
        let id = PublishId(self.next_publish);
        self.next_publish += 1;
        self.in_flight.insert(id, published);
        effects.push(Effect::Publish { id, record });
        id
    }

    /// The first mark of a session is its barrier; the later ones only renew it.
    pub(super) fn publish_mark(&mut self, effects: &mut Vec<Effect>) {
        let is_renewal = !self.marks.is_empty();
        let record = Record::Mark { epoch: self.epoch.clone(), is_renewal };
        let id = self.publish(Published::Mark, record, effects);
        self.marks.published(id);
    }

    /// An own mark came back.
    pub(super) fn mark_delivered(&mut self, tag: u64) {
        self.marks.delivered(tag, self.now_ms);
    }

    /// Ends the session: its state can no longer be trusted.
    pub(super) fn restart(&mut self, text: String, effects: &mut Vec<Effect>) {
        self.phase = Phase::Over;
        effects.push(Effect::Alarm { text, restart: true });
    }

    /// Hands the outcome of a decided chord to the driver.
    pub(super) fn fire(&mut self, id: &Arc<str>, effects: &mut Vec<Effect>) {
        let Some(chord) = self.chords.get_mut(id) else { return };
        if !matches!(chord.state, State::Decided(_)) {
            return;
        }
        let Some(outcome) = chord.fire(id, &self.settings) else { return };
        match outcome {
            Outcome::Complete { .. } => self.stats.complete += 1,
            Outcome::Failed { .. } => self.stats.failed += 1,
            Outcome::Expired { .. } => self.stats.expired += 1,
            Outcome::Cancelled { .. } => self.stats.cancelled += 1,
        }
        effects.push(Effect::Fire { chord: Arc::clone(id), outcome: Box::new(outcome) });
        self.fired(id, effects);
    }
}

/// Acks in ascending order, as the broker likes it best.
pub(super) fn ack(mut tags: Vec<u64>, effects: &mut Vec<Effect>) {
    if !tags.is_empty() {
        tags.sort_unstable();
        effects.push(Effect::Ack { tags });
    }
}

#[cfg(test)]
impl Joiner {
    /// Feeds everything that its future depends on to `hasher`.
    pub(super) fn digest(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        (&self.epoch, self.now_ms, self.next_publish, &self.last_confirmed).hash(hasher);
        (&self.phase, &self.in_flight, &self.marks, &self.chords, &self.raws).hash(hasher);
        (&self.packs, self.next_pack, &self.batches, self.next_batch).hash(hasher);
        (&self.orphans, &self.outbox, &self.dones, &self.recent).hash(hasher);
        (&self.inheritance, &self.old_marks, &self.expiries, self.refresh_at_ms).hash(hasher);
        (self.restless, self.merge_wanted, &self.unsecured, &self.unopened).hash(hasher);
        self.contradictions.iter().map(|(id, it)| (id, it.0)).collect::<Vec<_>>().hash(hasher);
    }
}
