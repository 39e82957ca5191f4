//! What the agent would answer to health checks, for another process that answers in
//! its place; and signs of life.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{core::Core, dataplane::Dataplane, state::Record};
use crate::health::Facts;

/// What is to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sign {
    /// What would be answered now.
    Record(Record),
    /// Nothing has changed, and the agent lives.
    Beat,
}

/// Knows what was published.
#[derive(Debug)]
pub struct Publisher {
    healthz: Option<SocketAddr>,
    /// Facts, and the count of changes of services' health checks.
    known: Option<(Facts, u64)>,
    not_before: Instant,
    beat: Duration,
    next_beat: Instant,
}

/// Changes within this time are written together.
const GATHER: Duration = Duration::from_millis(50);
/// The time between two signs of life, unless a change may wait for less than four of
/// them.
const BEAT: Duration = Duration::from_secs(1);

impl Publisher {
    /// Nothing is published yet. `/healthz` is answered at `healthz`, and an agent that
    /// is silent for `timeout` counts as dead.
    pub fn new(healthz: Option<SocketAddr>, timeout: Duration, now: Instant) -> Self {
        Self {
            healthz,
            known: None,
            not_before: now,
            beat: BEAT.min(timeout / 4).max(GATHER),
            next_beat: now,
        }
    }

    /// What is new. An agent that has not read everything has nothing to say: what
    /// the one before it said is more.
    fn changed<D: Dataplane>(&self, core: &Core<D>) -> Option<(Facts, u64)> {
        let now = (core.shared.health.facts(), core.servers.changes());
        (now.0.synced && self.known != Some(now)).then_some(now)
    }

    /// When there will be something to write.
    pub fn due<D: Dataplane>(&self, core: &Core<D>) -> Instant {
        match self.changed(core) {
            Some(_) => self.not_before.min(self.next_beat),
            None => self.next_beat,
        }
    }

    /// What is to be written now.
    pub fn sign<D: Dataplane>(&mut self, core: &Core<D>, now: Instant) -> Option<Sign> {
        if now >= self.not_before
            && let Some(known) = self.changed(core)
        {
            self.known = Some(known);
            self.not_before = now + GATHER;
            return Some(Sign::Record(Record {
                facts: known.0,
                healthz: self.healthz,
                checks: core.servers.checks(),
            }));
        }
        if now < self.next_beat {
            return None;
        }
        self.next_beat = now + self.beat;
        Some(Sign::Beat)
    }
}
