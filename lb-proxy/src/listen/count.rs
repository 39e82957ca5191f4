//! How many connections there are.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::OwnedSemaphorePermit;

/// Connections of clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Connections {
    /// Those that were accepted so far.
    pub accepted: u64,
    /// Those that are there now.
    pub open: u64,
}

/// Counts connections.
#[derive(Debug, Default)]
pub struct Counter {
    accepted: AtomicU64,
    open: AtomicU64,
}

impl Counter {
    /// How many there are.
    pub fn now(&self) -> Connections {
        Connections {
            accepted: self.accepted.load(Relaxed),
            open: self.open.load(Relaxed),
        }
    }

    /// One more, which has this place.
    pub(super) fn count(self: &Arc<Self>, place: OwnedSemaphorePermit) -> Counted {
        self.accepted.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        Counted {
            counter: self.clone(),
            _place: place,
        }
    }
}

/// A connection that counts, and has its place, until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    counter: Arc<Counter>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn connections_count_and_have_their_places_until_they_end() {
        let (counter, places) = (Arc::new(Counter::default()), Arc::new(Semaphore::new(2)));
        let place = || places.clone().try_acquire_owned();
        let [first, second] = [(); 2].map(|()| counter.count(place().unwrap()));
        place().unwrap_err();
        drop(first);
        let expected = |open| Connections { accepted: 2, open };
        assert_eq!(counter.now(), expected(1));
        drop(second);
        assert_eq!(counter.now(), expected(0));
        assert_eq!(places.available_permits(), 2);
    }
}
