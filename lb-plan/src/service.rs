//! Planning one service.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_common::proto;

use crate::{
    endpoints::{self, Candidate},
    frontends::{self, Family, Target, Targets},
    model::{EndpointSlice, NodeView, Protocol, Service, ServicePort, ServicePortKey, ServiceType},
    op::Problem,
    plan::{BackendSet, HealthCheck, PlannedBackend, PortPlan, ServicePlan},
    topology,
};

/// Plans one service: its frontends with the backend sets of both scopes.
/// `slices` are all EndpointSlices of the service, in any order; `node` is where
/// the plan is for. What cannot be served is left out and told in
/// [`ServicePlan::problems`]; the rest is served. The semantics are those of
/// kube-proxy 1.36 in nftables mode.
pub fn plan_service(service: &Service, slices: &[&EndpointSlice], node: &NodeView) -> ServicePlan {
    let mut plan = ServicePlan {
        key: service.key.clone(),
        ports: Vec::new(),
        health_check: None,
        problems: Vec::new(),
    };
    if skipped(service, node) {
        return plan;
    }
    let mut slices = slices.to_vec();
    slices.sort_by(|a, b| a.name.cmp(&b.name));
    let mut problems = Vec::new();
    let families = frontends::families(service, node, &mut problems);
    let mut planning = Planning {
        service,
        slices,
        node,
        families,
        invalid: BTreeSet::new(),
    };
    for port in ports(service, &mut problems) {
        plan.ports.extend(planning.port(port));
    }
    plan.ports.sort_by(|a, b| a.key.cmp(&b.key));
    plan.health_check = planning.health_check();
    problems.extend(planning.invalid.into_iter().map(|what| {
        (
            "InvalidEndpoint",
            format!(
                "{what}: it gets no traffic; endpoints need an address that other hosts can reach"
            ),
        )
    }));
    let object = ServicePortKey {
        service: service.key.clone(),
        port: Arc::from(""),
        protocol: Protocol::Tcp,
    };
    plan.problems = problems
        .into_iter()
        .map(|(reason, message)| Problem {
            object: object.clone(),
            reason,
            message,
        })
        .collect();
    plan.problems.sort();
    plan.problems.dedup();
    plan
}

/// Headless, `ExternalName`, or served by another proxy.
fn skipped(service: &Service, node: &NodeView) -> bool {
    service.cluster_ips.is_empty()
        || service.kind == ServiceType::ExternalName
        || service.proxy_name != node.proxy_name
}

/// The ports, the last of each name and protocol, as kube-proxy's map has them.
fn ports<'a>(
    service: &'a Service,
    problems: &mut Vec<(&'static str, String)>,
) -> impl Iterator<Item = &'a ServicePort> {
    let mut last = BTreeMap::new();
    for port in &service.ports {
        if port.port == 0 {
            let text = format!("port {:?} has the number 0 and is not served", port.name);
            problems.push(("InvalidPort", text));
        } else if last.insert((&port.name, port.protocol), port).is_some() {
            let text = format!(
                "two ports have the name {:?}: only the last is served; rename one",
                port.name
            );
            problems.push(("DuplicatePort", text));
        }
    }
    last.into_values()
}

struct Planning<'a> {
    service: &'a Service,
    slices: Vec<&'a EndpointSlice>,
    node: &'a NodeView,
    families: Vec<Family>,
    invalid: BTreeSet<String>,
}

impl Planning<'_> {
    /// The plan of one port; `None` if no family of the service is on this node.
    fn port(&mut self, port: &ServicePort) -> Option<PortPlan> {
        if self.families.is_empty() {
            return None;
        }
        let mut plan = PortPlan {
            key: ServicePortKey {
                service: self.service.key.clone(),
                port: port.name.clone(),
                protocol: port.protocol,
            },
            frontends: Vec::new(),
            sets: Vec::new(),
            serving: Vec::new(),
            ranges: Vec::new(),
            // 0 would mean no affinity; the API has 1 as its least.
            affinity: self.service.affinity_seconds.map_or(0, |s| s.max(1)),
        };
        let found = endpoints::gather(port, &self.slices, self.node, &mut self.invalid);
        for family in &self.families {
            let candidates = if family.v4 { &found.v4 } else { &found.v6 };
            let categories = topology::categorize(candidates, self.node);
            let targets = Targets {
                cluster: Target {
                    set: intern(&mut plan.sets, &categories.cluster),
                    drop: false,
                },
                local: Target {
                    set: intern(&mut plan.sets, &categories.local),
                    drop: categories.any && categories.local.is_empty(),
                },
            };
            plan.frontends.extend(frontends::frontends(
                self.service,
                port,
                family,
                self.node,
                &targets,
            ));
            plan.ranges.extend(frontends::admitted(family, self.node));
            if port.protocol.number() == proto::UDP {
                let serving = candidates.iter().filter(|c| c.serving || c.ready);
                plan.serving.extend(serving.map(backend));
            }
        }
        drop_unused(&mut plan);
        plan.ranges.sort_unstable();
        plan.ranges.dedup();
        Some(plan)
    }

    /// Only a LoadBalancer of external policy `Local` has one (`NeedsHealthCheck`).
    fn health_check(&self) -> Option<HealthCheck> {
        let service = self.service;
        let needed = service.kind == ServiceType::LoadBalancer
            && service.external_policy == crate::model::TrafficPolicy::Local
            && service.health_check_node_port != 0;
        let family = self.families.first().filter(|_| needed)?;
        let mut local = BTreeSet::new();
        for port in &service.ports {
            let found = endpoints::gather(port, &self.slices, self.node, &mut BTreeSet::new());
            let found = if family.v4 { found.v4 } else { found.v6 };
            local.extend(found.iter().filter(|c| c.ready && c.local).map(|c| c.addr));
        }
        Some(HealthCheck {
            port: service.health_check_node_port,
            local_ready: local.len() as u32,
        })
    }
}

/// The index of a set among `sets`, where equal sets are one.
fn intern(sets: &mut Vec<BackendSet>, candidates: &[Candidate<'_>]) -> Option<u8> {
    if candidates.is_empty() {
        return None;
    }
    let set: BackendSet = candidates.iter().map(backend).collect();
    let index = sets.iter().position(|s| *s == set).unwrap_or_else(|| {
        sets.push(set);
        sets.len() - 1
    });
    // At most two sets a family.
    Some(index as u8)
}

/// Policies that no frontend follows leave sets that nobody needs.
fn drop_unused(plan: &mut PortPlan) {
    for index in (0..plan.sets.len() as u8).rev() {
        if plan.frontends.iter().any(|f| f.set == Some(index)) {
            continue;
        }
        plan.sets.remove(usize::from(index));
        let later = plan.frontends.iter_mut().filter_map(|f| f.set.as_mut());
        later.filter(|set| **set > index).for_each(|set| *set -= 1);
    }
}

fn backend(candidate: &Candidate<'_>) -> PlannedBackend {
    PlannedBackend {
        addr: candidate.addr,
        port: candidate.port,
        local: candidate.local,
        weight: candidate.endpoint.weight,
    }
}
