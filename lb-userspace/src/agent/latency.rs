//! What is measured of changes: how long those of endpoints take to the maps, and
//! how many service ports lack local endpoints.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use lb_common::{frontend_flags, scope};
use lb_plan::{FrontendPlan, ServicePlan, model::ServiceKey};

use crate::{
    change::Trigger,
    metrics::{IpFamily, Metrics, PolicyLabel, TrafficPolicy},
};

/// Changes of endpoints that are not in the maps yet.
#[derive(Debug)]
pub(super) struct Programming {
    /// Earlier changes were some other agent's to program.
    since: SystemTime,
    waiting: Vec<Trigger>,
}

impl Programming {
    pub(super) fn new(since: SystemTime) -> Self {
        let waiting = Vec::new();
        Self { since, waiting }
    }

    /// Takes changes that are being programmed.
    pub(super) fn take(&mut self, triggers: &[Trigger]) {
        let ours = triggers.iter().filter(|t| t.at >= self.since);
        self.waiting.extend(ours);
    }

    /// All of them are in the maps now. What the control plane's clock says to be
    /// in the future took no time, as with kube-proxy.
    pub(super) fn done(&mut self, now: SystemTime, metrics: &Metrics) {
        for trigger in self.waiting.drain(..) {
            let took = now.duration_since(trigger.at).unwrap_or(Duration::ZERO);
            metrics.programmed(IpFamily::of(trigger.ipv6), took);
        }
    }
}

/// Service ports whose clients are dropped because the policy is `Local` and all
/// endpoints are elsewhere: by family, then internal and external
/// (`sync_proxy_rules_no_local_endpoints_total`).
type Missing = [[i64; 2]; 2];

/// How many there are of each service that has any.
#[derive(Default, Debug)]
pub(super) struct NoLocal(HashMap<ServiceKey, Missing>);

impl NoLocal {
    /// A service was planned.
    pub(super) fn planned(&mut self, plan: &ServicePlan) {
        match missing(plan) {
            [[0, 0], [0, 0]] => self.0.remove(&plan.key),
            missing => self.0.insert(plan.key.clone(), missing),
        };
    }

    /// A service is gone.
    pub(super) fn removed(&mut self, key: &ServiceKey) {
        self.0.remove(key);
    }

    /// Tells the numbers.
    pub(super) fn tell(&self, families: &[IpFamily], metrics: &Metrics) {
        for ip_family in families {
            for traffic_policy in [TrafficPolicy::internal, TrafficPolicy::external] {
                let of = |m: &Missing| m[*ip_family as usize][traffic_policy as usize];
                let label = PolicyLabel {
                    traffic_policy,
                    ip_family: *ip_family,
                };
                let gauge = metrics.no_local_endpoints.get_or_create(&label);
                gauge.set(self.0.values().map(of).sum());
            }
        }
    }
}

fn missing(plan: &ServicePlan) -> Missing {
    let mut missing = Missing::default();
    let drops = |f: &&FrontendPlan| f.set.is_none() && f.flags & frontend_flags::DROP_IF_EMPTY != 0;
    for port in &plan.ports {
        for (family, counts) in IpFamily::ALL.into_iter().zip(&mut missing) {
            let v4 = family == IpFamily::IPv4;
            let of_family = port.frontends.iter().filter(|f| f.addr.is_v4() == v4);
            let dropping: Vec<&FrontendPlan> = of_family.filter(drops).collect();
            // A ClusterIP drops clients of both scopes, the others only those outside.
            let inside = |f: &&FrontendPlan| f.scope == scope::INTERNAL;
            let cluster_ip = |f: &FrontendPlan| {
                let mut twins = dropping.iter().filter(|t| inside(t));
                twins.any(|t| (t.addr, t.port) == (f.addr, f.port))
            };
            counts[0] += i64::from(dropping.iter().any(inside));
            counts[1] += i64::from(dropping.iter().any(|f| !cluster_ip(f)));
        }
    }
    missing
}
