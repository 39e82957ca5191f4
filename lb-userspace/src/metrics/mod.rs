//! Prometheus metrics: kube-proxy's names where the meaning is the same, and
//! `bascule_*` for what only this proxy has.
//! kubernetes v1.36.3, pkg/proxy/metrics/metrics.go.

mod exposition;
pub mod labels;
pub(crate) mod process;
pub mod readings;

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets, linear_buckets},
        info::Info,
    },
    registry::Registry,
};

pub use exposition::Exposition;
pub(crate) use exposition::classic;
pub use labels::{
    DeviceLabel, FamilyLabel, IpFamily, MapLabel, ModeLabel, PolicyLabel, ReasonLabel,
    TrafficPolicy,
};
pub use readings::{Reader, Readings, Source};

use crate::netfilter::kube_proxy::Mode;

/// The instruments that the agent writes.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Duration of one round from snapshot to maps. A round does both families.
    pub sync: Histograms,
    /// The same, of rounds that planned every service.
    pub sync_full: Histograms,
    /// The same, of rounds that planned what changed.
    pub sync_partial: Histograms,
    /// From the change of a Service's endpoints to the maps.
    pub network_programming: Histograms,
    /// When the maps were last brought up to date, in seconds since 1970.
    pub last_sync: Family<FamilyLabel, Gauge<f64, AtomicU64>>,
    /// When a change last came, in seconds since 1970.
    pub last_queued: Family<FamilyLabel, Gauge<f64, AtomicU64>>,
    /// Service ports whose policy is `Local` and that have endpoints elsewhere
    /// only.
    pub no_local_endpoints: Family<PolicyLabel, Gauge>,
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
    /// Frontends that the self-test has examined.
    pub examined: Counter,
    /// Differences that it found in the maps, which were then written anew.
    pub drifts: Counter,
    /// Packets of its that were not decided as planned, although the maps are right.
    pub astray: Counter,
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
    /// Devices that have, or should have, hooks.
    pub devices: Family<DeviceLabel, Gauge>,
    /// Socket hooks that the kernel refused.
    pub socket_hooks_failed: Gauge,
    /// 1 for each mode of kube-proxy whose rules are in the kernel.
    pub kube_proxy_rules: Family<ModeLabel, Gauge>,
    /// Connections that a takeover has left to the kernel's NAT.
    pub takeover_connections: Gauge,
}

/// Changes of one kind.
#[derive(Clone, Default, Debug)]
pub struct Changes {
    /// Not in the maps yet.
    pub pending: Gauge,
    /// All so far.
    pub total: Counter,
}

/// What `bascule status` writes for a device that nothing serves.
const NO_HOOKS: &str = "none";

/// Histograms by IP family.
pub type Histograms = Family<FamilyLabel, Histogram, fn() -> Histogram>;

/// kube-proxy's buckets of synchronisation: 1 ms to 16 s, doubling.
fn sync_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// kube-proxy's buckets of `network_programming_duration_seconds`; that of 0 comes
/// from the way it merges them (component-base/metrics/buckets.go).
fn network_programming_buckets() -> Histogram {
    let buckets = std::iter::once(0.0)
        .chain(linear_buckets(0.25, 0.25, 2))
        .chain(linear_buckets(1.0, 1.0, 59))
        .chain(linear_buckets(60.0, 5.0, 12))
        .chain(linear_buckets(120.0, 30.0, 7));
    Histogram::new(buckets)
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sync: Family::new_with_constructor(sync_buckets),
            sync_full: Family::new_with_constructor(sync_buckets),
            sync_partial: Family::new_with_constructor(sync_buckets),
            network_programming: Family::new_with_constructor(network_programming_buckets),
            last_sync: Family::default(),
            last_queued: Family::default(),
            no_local_endpoints: Family::default(),
            service_changes: Changes::default(),
            endpoint_changes: Changes::default(),
            services: Gauge::default(),
            problems: Family::default(),
            apply_failures: Counter::default(),
            examined: Counter::default(),
            drifts: Counter::default(),
            astray: Counter::default(),
            apply_pending: Gauge::default(),
            source_troubles: Gauge::default(),
            synced: Gauge::default(),
            map_entries: Family::default(),
            map_capacity: Family::default(),
            devices: Family::default(),
            socket_hooks_failed: Gauge::default(),
            kube_proxy_rules: Family::default(),
            takeover_connections: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Records a round from snapshot to maps of some families: how long it took,
    /// and when it ended, if all is in the maps.
    pub fn synced_round(
        &self,
        families: &[IpFamily],
        full: bool,
        (took, now): (Duration, Option<SystemTime>),
    ) {
        let seconds = took.as_secs_f64();
        let kind = if full {
            &self.sync_full
        } else {
            &self.sync_partial
        };
        for ip_family in families {
            let label = FamilyLabel {
                ip_family: *ip_family,
            };
            self.sync.get_or_create(&label).observe(seconds);
            kind.get_or_create(&label).observe(seconds);
            if let Some(now) = now {
                let last = self.last_sync.get_or_create(&label);
                last.set(epoch_seconds(now));
            }
        }
        self.service_changes.pending.set(0);
        self.endpoint_changes.pending.set(0);
    }

    /// Records that a change came.
    pub fn queued(&self, families: &[IpFamily], now: SystemTime) {
        for ip_family in families {
            let label = FamilyLabel {
                ip_family: *ip_family,
            };
            let last = self.last_queued.get_or_create(&label);
            last.set(epoch_seconds(now));
        }
    }

    /// Records how long a change of endpoints took to the maps.
    pub fn programmed(&self, ip_family: IpFamily, took: Duration) {
        let label = FamilyLabel { ip_family };
        let histogram = self.network_programming.get_or_create(&label);
        histogram.observe(took.as_secs_f64());
    }

    /// Sets the number of problems of each reason.
    pub fn set_problems(&self, reasons: impl IntoIterator<Item = &'static str>) {
        self.problems.clear();
        for reason in reasons {
            self.problems.get_or_create(&ReasonLabel { reason }).inc();
        }
    }

    /// Sets what is there of kube-proxy: the modes of its rules, and connections that are
    /// left to the kernel.
    pub fn set_takeover(&self, modes: &[String], left: u64) {
        for mode in Mode::ALL.map(Mode::name) {
            let there = modes.iter().any(|found| found == mode);
            let gauge = self.kube_proxy_rules.get_or_create(&ModeLabel { mode });
            gauge.set(i64::from(there));
        }
        self.takeover_connections.set(left as i64);
    }

    /// Sets the devices: the role of each, and its hooks, as `bascule status` writes both.
    pub fn set_devices<'a>(&self, all: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.devices.clear();
        let of = |role: &str, hooks: &str| {
            let (role, hooks) = (role.into(), hooks.into());
            self.devices
                .get_or_create_owned(&DeviceLabel { role, hooks })
        };
        // Always there: an alert is not to depend on a series that comes with the fault.
        for role in ["pod", "uplink"] {
            of(role, NO_HOOKS).set(0);
        }
        for (role, hooks) in all {
            let hooks = if hooks.is_empty() { NO_HOOKS } else { hooks };
            of(role, hooks).inc();
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
        let version = vec![("version", env!("BASCULE_VERSION"))];
        r.register("build", "What was built", Info::new(version));
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
        self.register_self_test(r);
        let help = "Devices that have, or should have, hooks";
        r.register("devices", help, self.devices.clone());
        let help = "Socket hooks that the kernel refused";
        let failed = self.socket_hooks_failed.clone();
        r.register("socket_hooks_failed", help, failed);
        let help = "1 where rules of kube-proxy are in the kernel, by its mode";
        r.register("kube_proxy_rules", help, self.kube_proxy_rules.clone());
        let help = "Connections that a takeover has left to the kernel's NAT";
        let left = self.takeover_connections.clone();
        r.register("takeover_connections", help, left);
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

    fn register_self_test(&self, r: &mut Registry) {
        for (name, help, counter) in [
            (
                "examined",
                "Frontends that the self-test examined",
                &self.examined,
            ),
            (
                "drifts",
                "Differences in the maps that it found and had written anew",
                &self.drifts,
            ),
            (
                "astray",
                "Packets that the programs did not decide as planned",
                &self.astray,
            ),
        ] {
            r.register(format!("selftest_{name}"), help, counter.clone());
        }
    }

    fn register_kube_proxys(&self, r: &mut Registry) {
        for (name, help, histograms) in [
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
            let name = format!("{name}_proxy_rules_duration_seconds");
            r.register(name, help, histograms.clone());
        }
        let help = "Time from the change of an endpoint to the maps";
        let programming = self.network_programming.clone();
        r.register("network_programming_duration_seconds", help, programming);
        for (name, help, gauges) in [
            (
                "",
                "When the maps were last brought up to date",
                &self.last_sync,
            ),
            ("queued_", "When a change last came", &self.last_queued),
        ] {
            let name = format!("sync_proxy_rules_last_{name}timestamp_seconds");
            r.register(name, help, gauges.clone());
        }
        r.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports with a Local policy and endpoints on other nodes only",
            self.no_local_endpoints.clone(),
        );
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
