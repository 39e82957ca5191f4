//! Ranges of the slot array.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::Quarantine;

/// Which slots are free: best fit, neighbours are joined.
#[derive(Debug)]
pub(crate) struct SlotSpace {
    /// Start to length.
    free: BTreeMap<u32, u32>,
    /// (length, start), the same ranges.
    by_len: BTreeSet<(u32, u32)>,
    quarantine: Quarantine<(u32, u32)>,
    used: u32,
}

impl SlotSpace {
    pub(crate) fn new(capacity: u32) -> Self {
        let mut space = Self {
            free: BTreeMap::new(),
            by_len: BTreeSet::new(),
            quarantine: Quarantine::new(),
            used: capacity,
        };
        space.insert(0, capacity);
        space
    }

    /// A range of `len` slots; `None` if there is no such range.
    pub(crate) fn take(&mut self, len: u32) -> Option<u32> {
        let &(found, start) = self.by_len.range((len, 0)..).next()?;
        self.carve(start, found, start, len);
        Some(start)
    }

    /// Takes this range; false if any of it is not free.
    pub(crate) fn reserve(&mut self, start: u32, len: u32) -> bool {
        let Some((&free, &found)) = self.free.range(..=start).next_back() else {
            return false;
        };
        let fits = u64::from(start) + u64::from(len) <= u64::from(free) + u64::from(found);
        if fits {
            self.carve(free, found, start, len);
        }
        fits
    }

    /// Gives a range back, in generation `now`.
    pub(crate) fn free(&mut self, now: u64, start: u32, len: u32) {
        self.quarantine.push(now, (start, len));
    }

    /// Makes ranges whose grace has passed available; true if there were any.
    pub(crate) fn expire(&mut self, now: u64, grace: u64) -> bool {
        let mut any = false;
        while let Some((_, (start, len))) = self.quarantine.pop(now, grace) {
            self.insert(start, len);
            any = true;
        }
        any
    }

    /// Slots in use, those in quarantine included.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Cuts a range out of a free one that holds it.
    fn carve(&mut self, free: u32, found: u32, start: u32, len: u32) {
        self.free.remove(&free);
        self.by_len.remove(&(found, free));
        for (from, to) in [(free, start), (start + len, free + found)] {
            if from < to {
                self.free.insert(from, to - from);
                self.by_len.insert((to - from, from));
            }
        }
        self.used += len;
    }

    fn insert(&mut self, mut start: u32, mut len: u32) {
        self.used -= len;
        if let Some((&before, &n)) = self.free.range(..start).next_back()
            && before + n == start
        {
            self.free.remove(&before);
            self.by_len.remove(&(n, before));
            (start, len) = (before, n + len);
        }
        if let Some(n) = self.free.remove(&(start + len)) {
            self.by_len.remove(&(n, start + len));
            len += n;
        }
        if len > 0 {
            self.free.insert(start, len);
            self.by_len.insert((len, start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_best_fit_and_joins_neighbours() {
        let mut space = SlotSpace::new(100);
        assert_eq!(
            [space.take(30), space.take(10), space.take(60)],
            [Some(0), Some(30), Some(40)]
        );
        assert_eq!(space.take(1), None);
        space.free(1, 0, 30);
        space.free(1, 30, 10);
        assert_eq!(space.take(1), None, "not before its grace has passed");
        assert!(!space.expire(1, 1));
        assert!(space.expire(2, 1));
        assert_eq!(space.used(), 60);
        assert_eq!(space.take(40), Some(0));
    }

    #[test]
    fn the_smallest_hole_that_fits_is_used() {
        let mut space = SlotSpace::new(100);
        assert!(space.reserve(20, 10) && space.reserve(50, 40));
        assert!(!space.reserve(15, 10) && !space.reserve(90, 11) && !space.reserve(55, 1));
        // Holes: 0..20, 30..50, 90..100.
        assert_eq!(space.take(9), Some(90));
        assert_eq!(space.take(20), Some(0));
        assert_eq!(space.take(20), Some(30));
        assert_eq!(space.take(2), None);
        assert_eq!(space.take(1), Some(99));
    }
}
