//! When conntrack is walked again. Every flow that was opened is once over, and
//! none that was not: so walks are paid by new flows, and the cost of collecting
//! follows what there is to collect, not the size of the table.

use std::time::{Duration, Instant};

/// Entries that a walk may visit for each one that came since the last.
const VISITS: u64 = 8;
/// Entries that are too few to walk for.
const FEW: u64 = 4096;
/// A walk follows the last one no sooner than this, …
const SOONEST: Duration = Duration::from_secs(2);
/// … than this when entries are left and nothing comes, …
const LATEST: Duration = Duration::from_secs(120);
/// … and than this when the tables are three quarters full.
const CROWDED: Duration = Duration::from_secs(10);

/// What is known of the last walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    capacity: u64,
    /// Entries that it saw.
    entries: u64,
    /// Flows that had ever been opened then.
    opened: u64,
    when: Option<Instant>,
}

impl Pace {
    /// For tables of `capacity` entries each, none of which was walked yet.
    pub(super) fn new(capacity: u64) -> Self {
        let (entries, opened, when) = (0, 0, None);
        Self {
            capacity,
            entries,
            opened,
            when,
        }
    }

    /// Takes note of a walk that has ended.
    pub(super) fn walked(&mut self, entries: u64, opened: u64, when: Instant) {
        (self.entries, self.opened, self.when) = (entries, opened, Some(when));
    }

    /// Whether to walk, when `opened` flows have ever been opened.
    pub(super) fn is_due(&self, opened: u64, now: Instant) -> bool {
        let Some(when) = self.when else { return true };
        let since = now.saturating_duration_since(when);
        // Two entries a flow.
        let new = opened.saturating_sub(self.opened) * 2;
        let expected = self.entries + new;
        let crowded = expected > self.capacity / 4 * 3;
        if crowded && (since >= CROWDED || since >= SOONEST && new > FEW) {
            return true;
        }
        since >= SOONEST && new > FEW.max(expected / VISITS) || since >= LATEST && expected > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: u64 = 500_000;

    /// Whether a walk is due some seconds after one that saw `entries` entries,
    /// when `flows` were opened since.
    fn due(entries: u64, flows: u64, seconds: u64) -> bool {
        let mut pace = Pace::new(CAPACITY);
        let when = Instant::now();
        pace.walked(entries, 1_000_000, when);
        pace.is_due(1_000_000 + flows, when + Duration::from_secs(seconds))
    }

    #[test]
    fn the_first_walk_is_due_at_once() {
        assert!(Pace::new(CAPACITY).is_due(0, Instant::now()));
    }

    #[test]
    fn an_idle_table_is_hardly_ever_walked() {
        assert!(!due(100_000, 0, 119));
        assert!(due(100_000, 0, 120));
        assert!(!due(0, 0, 10_000));
    }

    #[test]
    fn new_flows_pay_for_walks() {
        assert!(!due(100_000, 5_000, 60));
        assert!(due(100_000, 8_000, 60));
        assert!(!due(100_000, 8_000, 1));
        assert!(due(0, 3_000, 2));
    }

    #[test]
    fn a_crowded_table_is_walked_soon() {
        assert!(due(380_000, 0, 10));
        assert!(!due(380_000, 0, 9));
        assert!(due(380_000, 3_000, 2));
    }

    #[test]
    fn the_visits_of_many_walks_follow_the_flows() {
        let mut pace = Pace::new(CAPACITY);
        let (mut now, mut opened, mut visits) = (Instant::now(), 0u64, 0u64);
        // An hour of 1,000 flows a second, each of which is over after a minute.
        for second in 0..3600 {
            now += Duration::from_secs(1);
            opened += 1000;
            if pace.is_due(opened, now) {
                let entries = 2000 * u64::from(second.min(60u32));
                visits += entries;
                pace.walked(entries, opened, now);
            }
        }
        assert!(
            visits < opened * 2 * (VISITS + 1),
            "{visits} for {opened} flows"
        );
    }
}
