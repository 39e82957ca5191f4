//! Giving out ids, and keeping what was freed out of use for a while.

use std::collections::VecDeque;

/// Ids below a limit, the lowest free one first; 0 is never given out.
#[derive(Debug)]
pub(crate) struct Ids {
    used: Vec<u64>,
    /// No word before this one has a free id.
    first_free: usize,
    limit: u32,
    count: u32,
    /// Ids from here on have never been used.
    unused_from: u32,
}

impl Ids {
    pub(crate) fn new(limit: u32) -> Self {
        let mut ids = Self {
            used: Vec::new(),
            first_free: 0,
            limit,
            count: 0,
            unused_from: 1,
        };
        ids.used.push(1);
        ids
    }

    /// The lowest free id, and whether it was used before; `None` when all are
    /// used.
    pub(crate) fn take(&mut self) -> Option<(u32, bool)> {
        let mut word = self.first_free;
        while self.used.get(word) == Some(&u64::MAX) {
            word += 1;
        }
        self.first_free = word;
        let bit = self.used.get(word).map_or(0, |w| w.trailing_ones());
        let id = u32::try_from(word).ok()? * 64 + bit;
        let used = id < self.unused_from;
        self.reserve(id).then_some((id, used))
    }

    /// Takes this id; false if it is used or above the limit.
    pub(crate) fn reserve(&mut self, id: u32) -> bool {
        if id >= self.limit {
            return false;
        }
        let word = (id / 64) as usize;
        if word >= self.used.len() {
            self.used.resize(word + 1, 0);
        }
        let bit = 1 << (id % 64);
        if self.used[word] & bit != 0 {
            return false;
        }
        self.used[word] |= bit;
        self.count += 1;
        self.unused_from = self.unused_from.max(id + 1);
        true
    }

    /// Treats every id as one that was used before.
    pub(crate) fn mark_used(&mut self) {
        self.unused_from = self.limit;
    }

    /// Gives an id back.
    pub(crate) fn free(&mut self, id: u32) {
        let word = (id / 64) as usize;
        self.used[word] &= !(1 << (id % 64));
        self.first_free = self.first_free.min(word);
        self.count -= 1;
    }

    /// Ids in use, those in quarantine included.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }
}

/// What was freed, and when: a program that read an old entry just before it
/// changed may still follow it, so it is not used again at once.
#[derive(Debug)]
pub(crate) struct Quarantine<T> {
    queue: VecDeque<(u64, T)>,
}

impl<T> Quarantine<T> {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
        }
    }

    /// Puts something in, in generation `now`, which never goes back.
    pub(crate) fn push(&mut self, now: u64, what: T) {
        self.queue.push_back((now, what));
    }

    /// Takes out the oldest thing that has been in for `grace` generations.
    pub(crate) fn pop(&mut self, now: u64, grace: u64) -> Option<(u64, T)> {
        let &(since, _) = self.queue.front()?;
        if now.saturating_sub(since) < grace {
            return None;
        }
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_id_is_given_out_and_never_zero() {
        let mut ids = Ids::new(200);
        let all: Vec<_> = std::iter::from_fn(|| ids.take()).collect();
        assert_eq!(all, (1..200).map(|id| (id, false)).collect::<Vec<_>>());
        ids.free(150);
        ids.free(70);
        assert_eq!(ids.take(), Some((70, true)));
        assert_eq!(ids.take(), Some((150, true)));
        assert_eq!(ids.take(), None);
        assert_eq!(ids.count(), 199);
    }

    #[test]
    fn reserved_ids_are_skipped() {
        let mut ids = Ids::new(1000);
        assert!(ids.reserve(1) && ids.reserve(2) && ids.reserve(4));
        assert!(!ids.reserve(4) && !ids.reserve(0) && !ids.reserve(1000));
        assert_eq!(
            [ids.take(), ids.take()],
            [Some((3, true)), Some((5, false))]
        );
        ids.mark_used();
        assert_eq!(ids.take(), Some((6, true)));
    }

    #[test]
    fn quarantine_lasts_for_its_grace() {
        let mut q = Quarantine::new();
        q.push(5, "a");
        q.push(6, "b");
        assert_eq!(q.pop(6, 2), None);
        assert_eq!(q.pop(7, 2), Some((5, "a")));
        assert_eq!(q.pop(7, 2), None);
        assert_eq!(q.pop(8, 2), Some((6, "b")));
        assert_eq!(q.pop(u64::MAX, 0), None);
    }
}
