//! Admission: a service gets everything that it needs, or nothing.

use std::{net::IpAddr, sync::Arc};

use lb_common::{Addr, Be32, FrontendKey, RangeKey};

use crate::{
    Set,
    cidr::Cidr,
    model::{Protocol, ServicePortKey},
    op::Problem,
    plan::{PortPlan, ServicePlan},
    planner::{Limits, Planner, PortState, ServiceState},
    tables::{Full, Means, SetId, refs},
};

/// Entries of maps that the services of a batch add, so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Reserved {
    frontends: u32,
    ranges: u32,
}

impl Planner {
    /// Acquires ids and tables for a plan. What an earlier plan of the service
    /// holds stays held: the old and the new tables must be there at once.
    pub(crate) fn admit(
        &mut self,
        plan: &ServicePlan,
        reserved: &mut Reserved,
    ) -> Result<ServiceState, Full> {
        let mut needs = *reserved;
        for port in &plan.ports {
            needs.frontends += self
                .claims
                .additional(port.key.protocol.number(), &port.frontends);
        }
        if self.claims.len() + needs.frontends > self.limits.frontends {
            return Err(Full::Frontends);
        }
        let mut ports = Vec::with_capacity(plan.ports.len());
        for port in &plan.ports {
            let admitted = self.admit_port(port).and_then(|state| {
                let new = state
                    .ranges
                    .iter()
                    .filter(|r| !self.ranges.contains(*r))
                    .count();
                needs.ranges += new as u32;
                let fits = self.ranges.len() as u32 + needs.ranges <= self.limits.ranges;
                ports.push(state);
                if fits { Ok(()) } else { Err(Full::Ranges) }
            });
            if let Err(full) = admitted {
                ports.iter().for_each(|port| self.undo(port));
                return Err(full);
            }
        }
        *reserved = needs;
        Ok(ServiceState {
            ports: ports.into(),
            problems: plan.problems.as_slice().into(),
        })
    }

    fn admit_port(&mut self, plan: &PortPlan) -> Result<PortState, Full> {
        let id = self.service_id(plan).ok_or(Full::Services)?;
        let mut state = PortState {
            key: plan.key.clone(),
            id,
            affinity: plan.affinity,
            frontends: plan.frontends.as_slice().into(),
            sets: Box::default(),
            serving: Box::default(),
            ranges: plan.ranges.iter().map(|r| range_key(id, r)).collect(),
        };
        match self.admit_sets(plan) {
            Ok(sets) => state.sets = sets,
            Err(full) => {
                self.undo(&state);
                return Err(full);
            }
        }
        match refs(
            &plan.serving,
            plan.key.protocol.number(),
            &mut self.backends,
        ) {
            Some(serving) => state.serving = serving,
            None => {
                self.undo(&state);
                return Err(Full::Backends);
            }
        }
        Ok(state)
    }

    fn admit_sets(&mut self, plan: &PortPlan) -> Result<Box<[SetId]>, Full> {
        let mut means = Means {
            backends: &mut self.backends,
            ghosts: &mut self.ghosts,
            now: self.now,
            preferred: None,
        };
        let mut sets = Vec::with_capacity(plan.sets.len());
        let proto = plan.key.protocol.number();
        for (index, set) in (0..).zip(&plan.sets) {
            let own = plan.frontends.iter().filter(|f| f.set == Some(index));
            means.preferred = own
                .filter_map(|f| self.claims.ghost(&f.key(proto)))
                .map(|f| f.slots)
                .next();
            match self.tables.acquire(set, proto, &mut means) {
                Ok(set) => sets.push(set),
                Err(full) => {
                    sets.into_iter()
                        .for_each(|set| self.tables.release(set, &mut means));
                    return Err(full);
                }
            }
        }
        Ok(sets.into())
    }

    /// The service id of a port: the one that it has, else the one that its
    /// frontends have in the maps, else a new one.
    fn service_id(&mut self, plan: &PortPlan) -> Option<u32> {
        let old = self.services.get(&plan.key.service);
        if let Some(port) = old.and_then(|s| s.ports.iter().find(|p| p.key == plan.key)) {
            return Some(port.id);
        }
        let id = match self.ghost_id(plan) {
            Some(id) => {
                self.ghost_services.remove(&id);
                id
            }
            None => {
                let (id, used) = self.service_ids.take()?;
                self.fresh_services.insert(id, used);
                id
            }
        };
        self.owners.insert(id, plan.key.clone());
        Some(id)
    }

    /// The id that a port had before the restart: that of its first frontend, a
    /// ClusterIP, which no two services share; else one of which it claims all that
    /// there was. Any other frontend may be one that it waited for.
    fn ghost_id(&self, plan: &PortPlan) -> Option<u32> {
        let keys = || {
            plan.frontends
                .iter()
                .map(|f| f.key(plan.key.protocol.number()))
        };
        let id = |key: FrontendKey| {
            let id = self.claims.ghost(&key)?.service;
            self.ghost_services.contains(&id).then_some(id)
        };
        keys().next().and_then(id).or_else(|| {
            let all: Set<FrontendKey> = keys().collect();
            let whole = |id: &u32| self.claims.ghosts_of(*id).all(|(key, _)| all.contains(key));
            keys().filter_map(id).find(whole)
        })
    }

    /// Undoes [`Self::admit_port`].
    fn undo(&mut self, port: &PortState) {
        self.release(port);
        let old = self.services.get(&port.key.service);
        if old.is_some_and(|s| s.ports.iter().any(|p| p.id == port.id)) {
            return;
        }
        self.owners.remove(&port.id);
        if self.fresh_services.remove(&port.id).is_some() {
            self.service_ids.free(port.id);
        } else {
            self.ghost_services.insert(port.id);
        }
    }
}

/// The entry of a network: IPv4 in mapped form, 96 bits in.
fn range_key(service: u32, cidr: &Cidr) -> RangeKey {
    let mapped = match cidr.addr {
        IpAddr::V4(_) => 96,
        IpAddr::V6(_) => 0,
    };
    RangeKey {
        prefix_len: 32 + mapped + u32::from(cidr.prefix),
        service: Be32::new(service),
        addr: Addr::from(cidr.addr),
    }
}

impl Full {
    /// What to tell about a service that was not admitted.
    pub(crate) fn problem(self, plan: &ServicePlan, limits: &Limits) -> Problem {
        let raise = |flag: &str| format!("raise {flag}, or remove services");
        let (what, limit, remedy) = match self {
            Self::Frontends => ("frontends", limits.frontends, raise("--max-frontends")),
            Self::Backends => ("backends", limits.backends, raise("--max-backends")),
            Self::Services => ("service ports", limits.services, raise("--max-services")),
            Self::Slots => ("slots of maglev tables", limits.slots, raise("--max-slots")),
            Self::Ranges => ("source ranges", limits.ranges, raise("--max-source-ranges")),
            Self::Table => (
                "backends of one service",
                crate::maglev::MAX_BACKENDS,
                "share them among several services".to_owned(),
            ),
        };
        Problem {
            object: ServicePortKey {
                service: plan.key.clone(),
                port: Arc::from(""),
                protocol: Protocol::Tcp,
            },
            reason: "MapFull",
            message: format!(
                "there is no room for more {what} (limit {limit}): the service stays as it was; \
                 {remedy}"
            ),
        }
    }
}
