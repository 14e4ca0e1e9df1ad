//! Parts that were added to a chord by its parts, while they ran.
//!
//! A part says in its record how many it has added; each of those has a place that follows from the
//! place of the part. A record of an added part may come before the one of the part that has added
//! it: it counts from then on, or never, if another run of that part, which has added fewer, came
//! first.
//!
//! **Invariant:** which parts count depends on the records that are there, not on their order.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::join::Place;

/// What is known of the added parts of one chord; most chords have none.
///
/// Within the joiner a part is known by a number, its slot: those of the header by their index,
/// added ones by further numbers in the order in which they came.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Added {
    places: Vec<Place>,
    slots: BTreeMap<Place, u32>,
    /// How many parts each part has added, if any.
    adds: BTreeMap<u32, u32>,
    /// Places with a record that does not count yet.
    early: BTreeSet<Place>,
    /// How many parts were added by those that count.
    total: u64,
}

impl Added {
    /// The slot of a place in a chord whose header has `size` parts; `None` if there is no number
    /// left.
    pub(super) fn slot(&mut self, place: &Place, size: u32) -> Option<u32> {
        if !place.is_added() {
            return Some(place.index());
        }
        if let Some(slot) = self.slots.get(place) {
            return Some(*slot);
        }
        let slot = size.checked_add(u32::try_from(self.places.len()).ok()?)?;
        self.places.push(place.clone());
        self.slots.insert(place.clone(), slot);
        Some(slot)
    }

    /// The place behind a slot.
    pub(super) fn place(&self, slot: u32, size: u32) -> Place {
        let added =
            slot.checked_sub(size).and_then(|at| self.places.get(usize::try_from(at).ok()?));
        added.cloned().unwrap_or_else(|| slot.into())
    }

    /// How many parts the part in this slot has added.
    pub(super) fn adds(&self, slot: u32) -> u32 {
        self.adds.get(&slot).copied().unwrap_or(0)
    }

    /// How many parts were added by those that count.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// How many records do not count.
    pub(super) fn early(&self) -> usize {
        self.early.len()
    }

    /// The slots of the added parts that count, in the order of their places.
    pub(super) fn counted(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().filter(|(place, _)| !self.early.contains(*place)).map(|(_, slot)| *slot)
    }

    /// The record for `place`, which has added so many, has come. Gives the places that count from
    /// now on: itself, and what was waiting for it; nothing if it waits itself.
    pub(super) fn arrived(&mut self, place: &Place, slot: u32, adds: u32) -> Vec<Place> {
        if adds > 0 {
            self.adds.insert(slot, adds);
        }
        if !self.is_promised(place) {
            self.early.insert(place.clone());
            return Vec::new();
        }
        let (mut counting, mut next) = (Vec::new(), vec![place.clone()]);
        while let Some(place) = next.pop() {
            let adds = self.slot_of(&place).map_or(0, |slot| self.adds(slot));
            self.total += u64::from(adds);
            if let (Some(first), Some(last)) = (place.added(1), place.added(adds)) {
                let is_own = |it: &&Place| it.depth() == first.depth();
                let own: Vec<_> =
                    self.early.range(&first..=&last).filter(is_own).cloned().collect();
                own.iter().for_each(|place| {
                    self.early.remove(place);
                });
                next.extend(own);
            }
            counting.push(place);
        }
        counting
    }

    /// Whether a part that counts has added this one.
    fn is_promised(&self, place: &Place) -> bool {
        let Some((adder, ordinal)) = place.adder() else { return true };
        let adds = self.slot_of(&adder).map_or(0, |slot| self.adds(slot));
        !self.early.contains(&adder) && ordinal <= adds
    }

    fn slot_of(&self, place: &Place) -> Option<u32> {
        if place.is_added() { self.slots.get(place).copied() } else { Some(place.index()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(added: &mut Added, place: &Place, adds: u32) -> Vec<String> {
        let slot = added.slot(place, 2).unwrap();
        let mut counting = added.arrived(place, slot, adds);
        counting.sort();
        counting.iter().map(Place::to_string).collect()
    }

    #[test]
    fn what_was_added_counts_once_its_adder_does_and_no_more_than_that_has_added() {
        let (mut added, first) = (Added::default(), Place::from(0));
        let child = |ordinal| first.added(ordinal).unwrap();
        let grandchild = child(2).added(1).unwrap();
        assert!(arrive(&mut added, &grandchild, 0).is_empty());
        assert!(arrive(&mut added, &child(2), 1).is_empty());
        assert!(arrive(&mut added, &child(3), 5).is_empty());
        assert_eq!(arrive(&mut added, &Place::from(1), 0), ["1"]);
        assert_eq!(added.total(), 0);
        assert_eq!(arrive(&mut added, &first, 2), ["0", "0.2", "0.2.1"]);
        assert_eq!((added.total(), added.early()), (3, 1), "the third is one too many");
        assert_eq!(arrive(&mut added, &child(1), 0), ["0.1"]);
        let order: Vec<_> = added.counted().map(|slot| added.place(slot, 2).to_string()).collect();
        assert_eq!(order, ["0.1", "0.2", "0.2.1"]);
    }

    #[test]
    fn slots_stay_the_same_and_do_not_run_over() {
        let (mut added, place) = (Added::default(), Place::from(1).added(7).unwrap());
        assert_eq!(added.slot(&place, 2), Some(2));
        assert_eq!((added.slot(&place, 2), added.slot(&Place::from(1), 2)), (Some(2), Some(1)));
        assert_eq!((added.place(2, 2), added.place(1, 2)), (place.clone(), Place::from(1)));
        assert_eq!(added.slot(&place.added(1).unwrap(), u32::MAX), None);
    }
}
