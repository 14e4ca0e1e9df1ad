//! Marks: the session's own, of which the newest stays until the session ends, and those that
//! predecessors have left.
//!
//! As long as packs of predecessors are there, old marks go one after another, oldest first, each
//! when the ack of the one before is beyond recall; and a mark of the session's own only when all
//! of them have gone. If a crash of the broker undid the ack of an older mark and not that of a
//! newer one, the packs of the newer session would look void.

use std::collections::VecDeque;

use super::event::PublishId;

/// Marks that this session has published and not acked.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Marks {
    list: VecDeque<Mark>,
    confirmed: bool,
}

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
struct Mark {
    publish: PublishId,
    confirmed: bool,
    /// The delivery tag and when it came, once it came back.
    delivered: Option<(u64, u64)>,
}

/// The marks of predecessors, oldest first.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct OldMarks {
    tags: VecDeque<u64>,
    /// Whether the last ack of one may still be undone.
    is_cooling: bool,
    /// When it can no longer be, at the earliest; `None` once that has passed.
    due_ms: Option<u64>,
    /// The publish that must be confirmed before.
    fence: u64,
}

impl OldMarks {
    /// Whoever left them may have acked older ones just now.
    pub(super) fn new(tags: Vec<u64>, due_ms: u64, fence: u64) -> Self {
        let is_cooling = !tags.is_empty();
        Self { tags: tags.into(), is_cooling, due_ms: is_cooling.then_some(due_ms), fence }
    }

    /// Takes all of them; their acks have to cool down.
    pub(super) fn take(&mut self, due_ms: u64, fence: u64) -> Vec<u64> {
        if !self.tags.is_empty() {
            (self.is_cooling, self.due_ms, self.fence) = (true, Some(due_ms), fence);
        }
        std::mem::take(&mut self.tags).into()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// Whether none is left that could come back.
    pub(super) const fn are_gone(&self) -> bool {
        !self.is_cooling
    }

    pub(super) const fn next_due(&self) -> Option<u64> {
        self.due_ms
    }

    /// The publish that is waited for, once it is time.
    pub(super) fn waits_for(&mut self, now_ms: u64) -> Option<PublishId> {
        self.due_ms = self.due_ms.filter(|due_ms| *due_ms > now_ms);
        (self.due_ms.is_none() && self.is_cooling).then_some(PublishId(self.fence))
    }

    /// The ack before is safe: takes the oldest, whose ack has to cool down in its turn.
    pub(super) fn pop(&mut self, due_ms: u64, fence: u64) -> Option<u64> {
        let tag = self.tags.pop_front();
        self.is_cooling = tag.is_some();
        self.due_ms = tag.map(|_| due_ms);
        self.fence = fence;
        tag
    }
}

impl Marks {
    pub(super) fn published(&mut self, publish: PublishId) {
        self.list.push_back(Mark { publish, confirmed: false, delivered: None });
    }

    /// Whether the session has none yet.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether any mark of the session was confirmed, so that packs behind it count.
    pub(super) const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    pub(super) fn confirmed(&mut self, publish: PublishId) {
        self.confirmed = true;
        if let Some(mark) = self.list.iter_mut().find(|mark| mark.publish == publish) {
            mark.confirmed = true;
        }
    }

    /// Marks come back in the order in which they were published.
    pub(super) fn delivered(&mut self, tag: u64, now_ms: u64) {
        if let Some(mark) = self.list.iter_mut().find(|mark| mark.delivered.is_none()) {
            mark.delivered = Some((tag, now_ms));
        }
    }

    /// Tags of the marks that a newer one has replaced.
    pub(super) fn replaced(&mut self) -> Vec<u64> {
        let mut tags = Vec::new();
        while let [old, new, ..] = self.list.make_contiguous()
            && let Some((tag, _)) = old.delivered
            && new.confirmed
            && new.delivered.is_some()
        {
            tags.push(tag);
            self.list.pop_front();
        }
        tags
    }

    /// Whether the only mark is as old as this.
    pub(super) fn is_stale(&self, before_ms: u64) -> bool {
        match self.list.back() {
            Some(Mark { delivered: Some((_, at_ms)), .. }) => *at_ms <= before_ms,
            Some(_) | None => false,
        }
    }
}
