//! Growing pauses between tries, with jitter: agents of a whole cluster that
//! lost the API server together must not come back together.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// A growing pause.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    random: RandomState,
    tries: u64,
}

impl Backoff {
    /// Pauses that double from `first` up to `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            next: first,
            random: RandomState::new(),
            tries: 0,
        }
    }

    /// The next pause: between half of its nominal length and all of it.
    pub fn pause(&mut self) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.max);
        self.tries += 1;
        let fraction = self.random.hash_one(self.tries) % 1000;
        nominal / 2 + nominal / 2 * fraction as u32 / 1000
    }

    /// It worked: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_vary_within_half_of_it() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));
        for nominal in [200, 400, 800, 1600, 3000, 3000] {
            let pause = backoff.pause().as_millis();
            assert!(
                (nominal / 2..=nominal).contains(&pause),
                "{pause} of {nominal}"
            );
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(200));
    }

    #[test]
    fn two_agents_do_not_pause_alike() {
        let pauses = || -> Vec<Duration> {
            let mut b = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            (0..8).map(|_| b.pause()).collect()
        };
        assert_ne!(pauses(), pauses());
    }
}
