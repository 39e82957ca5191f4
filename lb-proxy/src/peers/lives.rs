//! Which proxies there are, and which have ended.

use std::{collections::BTreeSet, net::SocketAddr, num::NonZeroUsize};

use lb_route::overall::Life;
use lru::LruCache;

/// Proxies that are remembered: one that is forgotten is greeted as new.
const LIVES: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");

/// Where proxies were heard from.
#[derive(Debug)]
pub(super) struct Lives {
    places: LruCache<Life, SocketAddr>,
    /// Who was heard last from a place.
    last: LruCache<SocketAddr, Life>,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            places: LruCache::new(LIVES),
            last: LruCache::new(LIVES),
        }
    }
}

impl Lives {
    /// One was heard from a place. Whether it is new.
    pub(super) fn heard(&mut self, life: Life, from: SocketAddr) -> bool {
        self.last.put(from, life);
        self.places.put(life, from).is_none()
    }

    /// Whether one has ended, where these are all places: another is at its own, or it has none of
    /// them. What it had counted, others have to tell.
    pub(super) fn has_ended(&self, life: Life, places: &BTreeSet<SocketAddr>) -> bool {
        let place = self.places.peek(&life);
        let is_there = place.is_some_and(|place| {
            places.contains(place) && self.last.peek(place).is_some_and(|last| *last == life)
        });
        !is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_ended_when_its_place_is_gone_or_of_another() {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let places = BTreeSet::from([at(1), at(2)]);
        let mut lives = Lives::default();
        assert!(lives.heard(Life(1), at(1)));
        assert!(!lives.heard(Life(1), at(1)));
        assert!(lives.heard(Life(2), at(2)));
        assert!(lives.heard(Life(3), at(2)));
        assert!(lives.heard(Life(4), at(4)));
        for (life, expected) in [(1, false), (2, true), (3, false), (4, true), (5, true)] {
            assert_eq!(lives.has_ended(Life(life), &places), expected, "{life}");
        }
        // What comes late from one that was there before.
        assert!(!lives.heard(Life(2), at(2)));
        assert!(lives.has_ended(Life(3), &places));
        assert!(!lives.heard(Life(3), at(2)));
        assert!(!lives.has_ended(Life(3), &places));
    }
}
