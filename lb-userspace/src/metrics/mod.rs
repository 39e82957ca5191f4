//! Prometheus metrics: kube-proxy's names where the meaning is the same, and
//! `bascule_*` for what only this proxy has.
//! kubernetes v1.36.3, pkg/proxy/metrics/metrics.go.

pub mod readings;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets, linear_buckets},
    },
    registry::Registry,
};

use crate::{
    health::Health,
    http::{Answer, Handler},
};
pub use readings::{Reader, Readings, Source};

/// The instruments that the agent writes.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Duration of one round from snapshot to maps.
    pub sync: Histogram,
    /// The same, of rounds that planned every service.
    pub sync_full: Histogram,
    /// The same, of rounds that planned what changed.
    pub sync_partial: Histogram,
    /// From the change of a Service's endpoints to the maps.
    pub network_programming: Histogram,
    /// When the maps were last brought up to date, in seconds since 1970.
    pub last_sync: Gauge<f64, AtomicU64>,
    /// When a change last came, in seconds since 1970.
    pub last_queued: Gauge<f64, AtomicU64>,
    /// Changes of Services that are not in the maps yet, and all so far.
    pub service_changes: Changes,
    /// The same of EndpointSlices.
    pub endpoint_changes: Changes,
    /// Services in the snapshot.
    pub services: Gauge,
    /// Problems that stand, by their reason.
    pub problems: Family<ReasonLabel, Gauge>,
    /// Writes to maps that failed.
    pub apply_failures: Counter,
    /// Writes that wait to be tried again.
    pub apply_pending: Gauge,
    /// Places that objects come from and that cannot be read now.
    pub source_troubles: Gauge,
    /// 1 when every source has been read completely at least once.
    pub synced: Gauge,
    /// Entries in use of each map.
    pub map_entries: Family<MapLabel, Gauge>,
    /// Most entries of each map.
    pub map_capacity: Family<MapLabel, Gauge>,
}

/// Changes of one kind.
#[derive(Clone, Default, Debug)]
pub struct Changes {
    /// Not in the maps yet.
    pub pending: Gauge,
    /// All so far.
    pub total: Counter,
}

/// A label with the reason of a problem.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The reason.
    pub reason: &'static str,
}

/// A label with the name of a map.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct MapLabel {
    /// The map.
    pub map: &'static str,
}

/// kube-proxy's buckets of synchronisation: 1 ms to 16 s, doubling.
fn sync_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// kube-proxy's buckets of `network_programming_duration_seconds`.
fn network_programming_buckets() -> Histogram {
    let buckets = linear_buckets(0.25, 0.25, 2)
        .chain(linear_buckets(1.0, 1.0, 59))
        .chain(linear_buckets(60.0, 5.0, 12))
        .chain(linear_buckets(120.0, 30.0, 7));
    Histogram::new(buckets)
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sync: sync_buckets(),
            sync_full: sync_buckets(),
            sync_partial: sync_buckets(),
            network_programming: network_programming_buckets(),
            last_sync: Gauge::default(),
            last_queued: Gauge::default(),
            service_changes: Changes::default(),
            endpoint_changes: Changes::default(),
            services: Gauge::default(),
            problems: Family::default(),
            apply_failures: Counter::default(),
            apply_pending: Gauge::default(),
            source_troubles: Gauge::default(),
            synced: Gauge::default(),
            map_entries: Family::default(),
            map_capacity: Family::default(),
        }
    }
}

impl Metrics {
    /// Records a round from snapshot to maps that ended now.
    pub fn synced_round(&self, full: bool, took: Duration, now: SystemTime) {
        let seconds = took.as_secs_f64();
        self.sync.observe(seconds);
        let kind = if full {
            &self.sync_full
        } else {
            &self.sync_partial
        };
        kind.observe(seconds);
        self.last_sync.set(epoch_seconds(now));
        self.service_changes.pending.set(0);
        self.endpoint_changes.pending.set(0);
    }

    /// Sets the number of problems of each reason.
    pub fn set_problems(&self, reasons: impl IntoIterator<Item = &'static str>) {
        self.problems.clear();
        for reason in reasons {
            self.problems.get_or_create(&ReasonLabel { reason }).inc();
        }
    }

    /// Sets how full the maps are: name, entries in use, most entries.
    pub fn set_fill(&self, maps: &[(&'static str, u64, u64)]) {
        for (map, entries, capacity) in maps {
            let label = MapLabel { map };
            self.map_entries.get_or_create(&label).set(*entries as i64);
            self.map_capacity
                .get_or_create(&label)
                .set(*capacity as i64);
        }
    }

    fn register(&self, registry: &mut Registry) {
        self.register_kube_proxys(registry.sub_registry_with_prefix("kubeproxy"));
        let r = registry.sub_registry_with_prefix("bascule");
        let mut gauge = |name, help, gauge: &Gauge| r.register(name, help, gauge.clone());
        gauge("services", "Services in the snapshot", &self.services);
        gauge(
            "apply_pending",
            "Writes that wait to be tried again",
            &self.apply_pending,
        );
        let help = "Places that objects come from and that cannot be read now";
        gauge("source_troubles", help, &self.source_troubles);
        gauge(
            "synced",
            "1 when every source has been read completely",
            &self.synced,
        );
        let help = "Problems of objects that stand, by reason";
        r.register("problems", help, self.problems.clone());
        let help = "Writes to maps that failed";
        r.register("apply_failures", help, self.apply_failures.clone());
        r.register(
            "map_entries",
            "Entries in use of a map",
            self.map_entries.clone(),
        );
        r.register(
            "map_capacity",
            "Most entries of a map",
            self.map_capacity.clone(),
        );
    }

    fn register_kube_proxys(&self, r: &mut Registry) {
        for (name, help, histogram) in [
            ("sync", "Time from the snapshot to the maps", &self.sync),
            (
                "sync_full",
                "The same, when every service was planned",
                &self.sync_full,
            ),
            (
                "sync_partial",
                "The same, when only what changed was planned",
                &self.sync_partial,
            ),
        ] {
            r.register(
                format!("{name}_proxy_rules_duration_seconds"),
                help,
                histogram.clone(),
            );
        }
        let help = "Time from the change of an endpoint to the maps";
        let programming = self.network_programming.clone();
        r.register("network_programming_duration_seconds", help, programming);
        for (name, help, gauge) in [
            (
                "",
                "When the maps were last brought up to date",
                &self.last_sync,
            ),
            ("queued_", "When a change last came", &self.last_queued),
        ] {
            let name = format!("sync_proxy_rules_last_{name}timestamp_seconds");
            r.register(name, help, gauge.clone());
        }
        for (kind, changes) in [
            ("service", &self.service_changes),
            ("endpoint", &self.endpoint_changes),
        ] {
            let name = format!("sync_proxy_rules_{kind}_changes");
            let help = "Changes that are not in the maps yet";
            r.register(format!("{name}_pending"), help, changes.pending.clone());
            r.register(name, "Changes so far", changes.total.clone());
        }
    }
}

/// Seconds since 1970.
pub fn epoch_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

/// Everything that a scrape shows.
pub struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// The agent's instruments, its health, and what the maps hold.
    pub fn new(metrics: &Metrics, health: Arc<Health>, source: Source) -> Self {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        registry.register_collector(Box::new(readings::Collector::new(health, source)));
        Self { registry }
    }

    /// The text of a scrape.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only when a collector does.
        if encode(&mut text, &self.registry).is_err() {
            tracing::warn!("the metrics could not be written");
        }
        text
    }

    /// Serves `/metrics`.
    pub fn handler(self) -> Handler {
        Arc::new(move |path| match path {
            "/metrics" => Some(Answer {
                status: 200,
                content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                headers: Vec::new(),
                body: self.text(),
            }),
            _ => None,
        })
    }
}
