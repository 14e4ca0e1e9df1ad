//! The ids of the last chords that ended, so that late records are known at once.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// A bounded set that forgets its oldest member. Only an optimisation: nothing depends on it.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Recent {
    order: VecDeque<Arc<str>>,
    members: BTreeSet<Arc<str>>,
    max: usize,
}

impl Recent {
    pub(super) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    pub(super) fn insert(&mut self, chord: Arc<str>) {
        if self.max == 0 || !self.members.insert(Arc::clone(&chord)) {
            return;
        }
        self.order.push_back(chord);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.members.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, chord: &str) -> bool {
        self.members.contains(chord)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recent = Recent::new(2);
        for id in ["a", "b", "a", "c"] {
            recent.insert(id.into());
        }
        let known = ["a", "b", "c"].map(|id| recent.contains(id));
        assert_eq!(known, [false, true, true]);
    }
}
