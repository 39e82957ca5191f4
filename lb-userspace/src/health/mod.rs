//! Whether this node's proxy is healthy: kube-proxy's `/healthz` and `/livez`.
//!
//! The rules take the time from their caller, so that tests need no clock.
//! kubernetes v1.36.3, pkg/proxy/healthcheck/proxy_health.go.

pub mod facts;
pub mod service;
pub mod stand_in;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64, atomic::Ordering},
    time::{Duration, SystemTime},
};

pub use facts::{Facts, Heard, View};

use crate::http::{Answer, Handler};

/// A change that is not in the maps after this long makes the proxy unhealthy:
/// twice kube-proxy's default sync period.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// What is known about the proxy's health.
#[derive(Debug)]
pub struct Health {
    view: Mutex<View>,
    /// Answers of `/healthz`, healthy and not, for the metrics.
    pub healthz: [AtomicU64; 2],
    /// Answers of `/livez`, healthy and not.
    pub livez: [AtomicU64; 2],
}

impl Default for Health {
    fn default() -> Self {
        Self::new(TIMEOUT)
    }
}

impl Health {
    /// A proxy that is unhealthy when a change waits for `timeout`.
    pub fn new(timeout: Duration) -> Self {
        let facts = Facts::new(timeout);
        Self {
            view: Mutex::new(View { facts, heard: None }),
            healthz: Default::default(),
            livez: Default::default(),
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        // Every write leaves the view whole, so a panic elsewhere does not matter.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known.
    pub fn facts(&self) -> Facts {
        self.view().facts
    }

    /// Takes an agent's facts, in a process that answers in its place.
    pub fn hear(&self, facts: Facts, heard: Heard) {
        let heard = Some(heard);
        *self.view() = View { facts, heard };
    }

    /// A change came that is not in the maps yet.
    pub fn queued(&self, now: SystemTime) {
        self.view().facts.queued.get_or_insert(now);
    }

    /// Every change that came is in the maps.
    pub fn updated(&self, now: SystemTime) {
        let facts = &mut self.view().facts;
        facts.queued = None;
        facts.updated = Some(now);
    }

    /// Every source has been read completely, and is in the maps.
    pub fn synced(&self) {
        self.view().facts.synced = true;
    }

    /// What the node's Node says: whether it is about to leave the cluster.
    /// `None` where there is no Node, which is as bad in a cluster, once the Node
    /// was there or where it [has to be](Self::need_node).
    pub fn node(&self, leaving: Option<bool>) {
        let facts = &mut self.view().facts;
        facts.needs_node |= leaving.is_some();
        facts.node = leaving;
    }

    /// Makes the node's Node necessary: objects come from a cluster.
    pub fn need_node(&self) {
        self.view().facts.needs_node = true;
    }

    /// Whether the programs do not decide as planned: the node is then no place for new
    /// connections.
    pub fn astray(&self, astray: bool) {
        self.view().facts.astray = astray;
    }

    /// Which address families the node has.
    pub fn families(&self, ipv4: bool, ipv6: bool) {
        self.view().facts.families = [ipv4, ipv6];
    }

    /// Whether no change has waited for too long: what `/livez` says.
    pub fn is_alive(&self, now: SystemTime) -> bool {
        self.view().is_alive(now)
    }

    /// Since when the oldest change that is not in the maps has been waiting.
    pub fn waiting_since(&self) -> Option<SystemTime> {
        self.view().facts.queued
    }

    /// Whether new connections should come to this node: what `/healthz` says.
    pub fn is_healthy(&self, now: SystemTime) -> bool {
        self.view().is_healthy(now)
    }

    /// The answer to `/healthz`: for load balancers in front of the node.
    pub fn healthz_at(&self, now: SystemTime) -> Answer {
        counted(&self.healthz, self.view().healthz(now))
    }

    /// The same, of this process alone and not counted: whether it has begun to serve.
    pub fn readyz(&self, now: SystemTime) -> Answer {
        self.view().healthz(now)
    }

    /// The answer to `/livez`: for the kubelet, which restarts what is not alive.
    pub fn livez_at(&self, now: SystemTime) -> Answer {
        counted(&self.livez, self.view().livez(now))
    }

    /// Serves `/healthz` and `/livez`.
    pub fn handler(self: &Arc<Self>) -> Handler {
        let health = self.clone();
        Arc::new(move |path| match path {
            "/healthz" => Some(health.healthz_at(SystemTime::now())),
            "/livez" => Some(health.livez_at(SystemTime::now())),
            _ => None,
        })
    }
}

fn counted(answers: &[AtomicU64; 2], answer: Answer) -> Answer {
    answers[usize::from(answer.status != 200)].fetch_add(1, Ordering::Relaxed);
    answer
}

/// The time that [`time`] wrote.
pub(crate) fn parse_time(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

/// A time as RFC 3339 has it.
pub(crate) fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| String::new(), |t| t.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn statuses(health: &Health, seconds: u64) -> (u16, u16) {
        (
            health.healthz_at(at(seconds)).status,
            health.livez_at(at(seconds)).status,
        )
    }

    #[test]
    fn an_agent_that_has_not_synced_is_alive_but_takes_no_new_connections() {
        let health = Health::default();
        assert_eq!(statuses(&health, 0), (503, 200));
        assert_eq!(
            statuses(&health, 3600),
            (503, 200),
            "the API server may be away for long"
        );
        health.synced();
        assert_eq!(statuses(&health, 3600), (200, 200));
    }

    #[test]
    fn a_change_that_waits_too_long_fails_both() {
        let health = Health::default();
        health.synced();
        for (seconds, queue, update, expected) in [
            (0, true, false, (200, 200)),
            // Later changes do not make the first one younger.
            (30, true, false, (200, 200)),
            (59, false, false, (200, 200)),
            (60, false, false, (503, 503)),
            (61, false, true, (200, 200)),
            (600, false, false, (200, 200)),
            (601, true, false, (200, 200)),
            (661, false, false, (503, 503)),
        ] {
            if queue {
                health.queued(at(seconds));
            }
            if update {
                health.updated(at(seconds));
            }
            assert_eq!(statuses(&health, seconds), expected, "after {seconds} s");
        }
        assert_eq!(health.healthz[1].load(Ordering::Relaxed), 2);
        assert_eq!(health.livez[0].load(Ordering::Relaxed), 6);
    }

    #[test]
    fn a_node_that_leaves_takes_no_new_connections_but_is_alive() {
        let health = Health::default();
        health.synced();
        health.node(Some(true));
        assert_eq!(statuses(&health, 0), (503, 200));
        health.node(Some(false));
        assert_eq!(statuses(&health, 0), (200, 200));
    }

    #[test]
    fn a_node_without_a_node_object_takes_none_where_there_was_or_has_to_be_one() {
        let health = Health::default();
        health.synced();
        health.node(None);
        assert_eq!(statuses(&health, 0), (200, 200), "files need no Node");
        health.node(Some(false));
        health.node(None);
        assert_eq!(statuses(&health, 0), (503, 200), "it was deleted");
        let health = Health::default();
        health.synced();
        health.need_node();
        assert_eq!(statuses(&health, 0), (503, 200));
        let body: serde_json::Value = serde_json::from_str(&health.healthz_at(at(0)).body).unwrap();
        assert_eq!(body["nodeEligible"], false);
        assert_eq!(body["healthy"], true, "the proxy itself is well");
    }

    #[test]
    fn a_clock_that_is_set_back_is_not_late() {
        let health = Health::default();
        health.synced();
        health.queued(at(1000));
        assert_eq!(statuses(&health, 0), (200, 200));
    }

    #[test]
    fn the_bodies_have_kube_proxys_fields() {
        let health = Health::default();
        health.synced();
        health.families(true, false);
        health.updated(at(0));
        health.queued(at(1));
        let expected = r#"{"lastUpdated":"2027-01-15T08:00:10Z","currentTime":"2027-01-15T08:00:10Z","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"2027-01-15T08:00:00Z","healthy":true}}}"#;
        assert_eq!(health.healthz_at(at(10)).body, expected);
        let expected = r#"{"lastUpdated":"2027-01-15T08:00:00Z","currentTime":"2027-01-15T08:01:40Z","healthy":false,"status":{"IPv4":{"lastUpdated":"2027-01-15T08:00:00Z","healthy":false}}}"#;
        assert_eq!(health.livez_at(at(100)).body, expected);
    }
}
