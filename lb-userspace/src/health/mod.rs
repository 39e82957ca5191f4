//! Whether this node's proxy is healthy: kube-proxy's `/healthz` and `/livez`.
//!
//! The rules take the time from their caller, so that tests need no clock.
//! kubernetes v1.36.3, pkg/proxy/healthcheck/proxy_health.go.

pub mod service;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64, atomic::Ordering},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::http::{Answer, Handler};

/// A change that is not in the maps after this long makes the proxy unhealthy:
/// twice kube-proxy's default sync period.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// What is known about the proxy's health.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
    timeout: Duration,
    /// Answers of `/healthz`, healthy and not, for the metrics.
    pub healthz: [AtomicU64; 2],
    /// Answers of `/livez`, healthy and not.
    pub livez: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct State {
    synced: bool,
    /// The Node: whether it leaves the cluster; `None` if there is none.
    node: Option<bool>,
    /// A node without a Node takes no new connections.
    needs_node: bool,
    families: [bool; 2],
    updated: Option<SystemTime>,
    queued: Option<SystemTime>,
}

/// The body of an answer.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, Family>,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Family {
    last_updated: String,
    healthy: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self::new(TIMEOUT)
    }
}

impl Health {
    /// A proxy that is unhealthy when a change waits for `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                families: [true; 2],
                ..State::default()
            }),
            timeout,
            healthz: Default::default(),
            livez: Default::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every write leaves the state whole, so a panic elsewhere does not matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change came that is not in the maps yet.
    pub fn queued(&self, now: SystemTime) {
        self.state().queued.get_or_insert(now);
    }

    /// Every change that came is in the maps.
    pub fn updated(&self, now: SystemTime) {
        let mut state = self.state();
        state.queued = None;
        state.updated = Some(now);
    }

    /// Every source has been read completely, and is in the maps.
    pub fn synced(&self) {
        self.state().synced = true;
    }

    /// What the node's Node says: whether it is about to leave the cluster.
    /// `None` where there is no Node, which is as bad in a cluster, once the Node
    /// was there or where it [has to be](Self::need_node).
    pub fn node(&self, leaving: Option<bool>) {
        let mut state = self.state();
        state.needs_node |= leaving.is_some();
        state.node = leaving;
    }

    /// Makes the node's Node necessary: objects come from a cluster.
    pub fn need_node(&self) {
        self.state().needs_node = true;
    }

    /// Whether the node stays in the cluster: kube-proxy's `NodeEligible`.
    fn is_eligible(&self) -> bool {
        let state = self.state();
        match state.node {
            Some(leaving) => !leaving,
            None => !state.needs_node,
        }
    }

    /// Which address families the node has.
    pub fn families(&self, ipv4: bool, ipv6: bool) {
        self.state().families = [ipv4, ipv6];
    }

    /// Whether no change has waited for too long: what `/livez` says.
    pub fn is_alive(&self, now: SystemTime) -> bool {
        let late = |queued: SystemTime| now.duration_since(queued).is_ok_and(|d| d >= self.timeout);
        !self.state().queued.is_some_and(late)
    }

    /// Since when the oldest change that is not in the maps has been waiting.
    pub fn waiting_since(&self) -> Option<SystemTime> {
        self.state().queued
    }

    /// Whether new connections should come to this node: what `/healthz` says.
    pub fn is_healthy(&self, now: SystemTime) -> bool {
        let synced = self.state().synced;
        synced && self.is_eligible() && self.is_alive(now)
    }

    /// The answer to `/healthz`: for load balancers in front of the node.
    pub fn healthz_at(&self, now: SystemTime) -> Answer {
        let healthy = self.is_healthy(now);
        let eligible = self.is_eligible();
        self.healthz[usize::from(!healthy)].fetch_add(1, Ordering::Relaxed);
        self.answer(now, healthy, Some(eligible))
    }

    /// The answer to `/livez`: for the kubelet, which restarts what is not alive.
    /// An agent that waits for the API server is alive: its maps serve.
    pub fn livez_at(&self, now: SystemTime) -> Answer {
        let healthy = self.is_alive(now);
        self.livez[usize::from(!healthy)].fetch_add(1, Ordering::Relaxed);
        self.answer(now, healthy, None)
    }

    fn answer(&self, now: SystemTime, healthy: bool, node_eligible: Option<bool>) -> Answer {
        let alive = self.is_alive(now);
        let state = self.state();
        let updated = state
            .updated
            .map_or_else(|| "0001-01-01T00:00:00Z".into(), time);
        let families = [("IPv4", state.families[0]), ("IPv6", state.families[1])];
        let status = families
            .into_iter()
            .filter(|(_, has)| *has && state.updated.is_some());
        let body = Body {
            // As kube-proxy: of a healthy proxy it is now, whether or not there
            // was anything to update.
            last_updated: if healthy { time(now) } else { updated.clone() },
            current_time: time(now),
            node_eligible,
            // Of `/livez`, the wait for the first objects is no fault.
            healthy: alive && (state.synced || node_eligible.is_none()),
            status: status
                .map(|(family, _)| {
                    let last_updated = updated.clone();
                    (
                        family,
                        Family {
                            last_updated,
                            healthy: alive,
                        },
                    )
                })
                .collect(),
        };
        let status = if healthy { 200 } else { 503 };
        // The body is plain data, which always serialises.
        Answer::json(status, serde_json::to_string(&body).unwrap_or_default())
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
