//! The planner: it gives out ids and tables, and turns changed plans into writes.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{Addr, Frontend, RangeKey, frontend_flags, limits, scope};

use crate::{
    Map, Set,
    backends::{Backends, Ref},
    claims::Claims,
    filter::{Filter, backend_bit, vip_bit},
    ghosts::Ghosts,
    ids::{Ids, Quarantine},
    model::{ServiceKey, ServicePortKey},
    op::{Batch, Problem},
    plan::{FrontendPlan, ServicePlan},
    tables::{Full, Means, SetId, Tables},
};

/// Sizes of the maps, and how the planner treats them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Entries of the frontends map, those of vips included.
    pub frontends: u32,
    /// Entries of the backends map; id 0 is never used.
    pub backends: u32,
    /// Service ids: entries of the services' counters; id 0 is never used.
    pub services: u32,
    /// Slots of all maglev tables.
    pub slots: u32,
    /// Entries of the source ranges map.
    pub ranges: u32,
    /// How many generations ([`Planner::tick`]) freed ids and slots stay out of use.
    pub grace: u64,
    /// A batch ends after the service with which its new tables exceed this many
    /// slots: batches of a full programming stay small.
    pub batch_slots: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frontends: limits::FRONTENDS,
            backends: limits::BACKENDS,
            services: limits::SERVICES,
            slots: limits::SLOTS,
            ranges: limits::RANGES,
            grace: 2,
            batch_slots: 1 << 20,
        }
    }
}

/// How full the maps are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// Entries of the frontends map, those of vips included.
    pub frontends: u32,
    /// Backends in their map.
    pub backends: u32,
    /// Backend ids in use, or freed and not yet in use again.
    pub backend_ids: u32,
    /// Service ids in use, or freed and not yet in use again.
    pub services: u32,
    /// Slots in use, or freed and not yet in use again.
    pub slots: u32,
    /// Source ranges.
    pub ranges: u32,
}

/// The state of one service in the maps.
#[derive(Debug)]
pub(crate) struct ServiceState {
    pub(crate) ports: Box<[PortState]>,
    pub(crate) problems: Box<[Problem]>,
}

/// The state of one service port in the maps.
#[derive(Debug)]
pub(crate) struct PortState {
    pub(crate) key: ServicePortKey,
    pub(crate) id: u32,
    pub(crate) affinity: u32,
    pub(crate) frontends: Box<[FrontendPlan]>,
    pub(crate) sets: Box<[SetId]>,
    pub(crate) serving: Box<[Ref]>,
    pub(crate) ranges: Box<[RangeKey]>,
}

/// Ids, tables, and what the maps hold.
///
/// Give it every service's plan ([`Self::upsert`], [`Self::remove`]), say when
/// all are there ([`Self::finish_sync`]), then execute the batches that
/// [`Self::take_batch`] returns, in order, until [`Self::has_pending`] is false.
///
/// The planner takes it that a batch is executed. Where a write fails, or the
/// maps may differ from what they should be for another reason, read them again
/// and start over with [`Self::restore`]: only the difference is written.
#[derive(Debug)]
pub struct Planner {
    pub(crate) limits: Limits,
    pub(crate) now: u64,
    pub(crate) synced: bool,
    /// Something was freed since the blocked services were tried.
    pub(crate) freed: bool,
    /// What was restored may have to be deleted.
    pub(crate) unsettled: bool,
    /// Source ranges of before are there that belong to a service that there was no
    /// room for: who takes its place may not want them.
    pub(crate) kept_ranges: bool,
    pub(crate) backends: Backends,
    pub(crate) tables: Tables,
    pub(crate) ghosts: Ghosts,
    pub(crate) claims: Claims,
    pub(crate) filter: Filter,
    pub(crate) service_ids: Ids,
    pub(crate) retired_services: Quarantine<u32>,
    /// Service ids found in the maps that no port has claimed.
    pub(crate) ghost_services: BTreeSet<u32>,
    pub(crate) owners: Map<u32, ServicePortKey>,
    /// Service ids given out since the last batch, and whether they were used
    /// before.
    pub(crate) fresh_services: BTreeMap<u32, bool>,
    pub(crate) services: Map<ServiceKey, ServiceState>,
    pub(crate) ranges: Set<RangeKey>,
    pub(crate) pending: BTreeMap<ServiceKey, ServicePlan>,
    pub(crate) removals: BTreeSet<ServiceKey>,
    pub(crate) blocked: BTreeMap<ServiceKey, (ServicePlan, Full)>,
    /// The addresses that SNAT writes.
    snat: BTreeSet<Addr>,
}

impl Planner {
    /// A planner for empty maps.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            now: 0,
            synced: false,
            freed: false,
            unsettled: false,
            kept_ranges: false,
            backends: Backends::new(limits.backends),
            tables: Tables::new(limits.slots),
            ghosts: Ghosts::default(),
            claims: Claims::default(),
            filter: Filter::new(Vec::new()),
            service_ids: Ids::new(limits.services),
            retired_services: Quarantine::new(),
            ghost_services: BTreeSet::new(),
            owners: Map::default(),
            fresh_services: BTreeMap::new(),
            services: Map::default(),
            ranges: Set::default(),
            pending: BTreeMap::new(),
            removals: BTreeSet::new(),
            blocked: BTreeMap::new(),
            snat: BTreeSet::new(),
        }
    }

    /// The addresses that SNAT writes. Replies come to them, and must pass the
    /// filter even where no service has a NodePort.
    pub fn set_snat_addresses(&mut self, addrs: impl IntoIterator<Item = Addr>) {
        let new: BTreeSet<Addr> = addrs.into_iter().collect();
        new.iter().for_each(|addr| self.filter.need(vip_bit(*addr)));
        let old = std::mem::replace(&mut self.snat, new);
        old.iter()
            .for_each(|addr| self.filter.forget(vip_bit(*addr)));
    }

    /// A service is there, or has changed. Nothing happens before the next batch.
    pub fn upsert(&mut self, plan: ServicePlan) {
        if plan.ports.is_empty() && plan.problems.is_empty() {
            return self.remove(&plan.key);
        }
        self.blocked.remove(&plan.key);
        self.removals.remove(&plan.key);
        self.pending.insert(plan.key.clone(), plan);
    }

    /// A service is gone. Nothing happens before the next batch.
    pub fn remove(&mut self, key: &ServiceKey) {
        if self.blocked.remove(key).is_some() {
            // What was found in the maps and was kept for it may go now.
            self.unsettled |= self.claims.has_ghosts();
        }
        self.pending.remove(key);
        if self.services.contains_key(key) {
            self.removals.insert(key.clone());
        }
    }

    /// Removes every service that `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(&ServiceKey) -> bool) {
        let known = self
            .services
            .keys()
            .chain(self.pending.keys())
            .chain(self.blocked.keys());
        let gone: BTreeSet<_> = known.filter(|k| !keep(k)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    /// Every service of the cluster has been given. Before this there are no
    /// batches: half a list, or Services without their EndpointSlices, would
    /// take away what a restarted agent finds in the maps.
    pub fn finish_sync(&mut self) {
        self.synced = true;
    }

    /// Whether [`Self::finish_sync`] was called.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Time passes: `generation` never goes back. What was freed
    /// [`Limits::grace`] generations ago may be used again. A generation should
    /// last longer than a packet takes through a program: a second is ample.
    pub fn tick(&mut self, generation: u64) {
        self.now = self.now.max(generation);
        self.expire();
    }

    /// Whether [`Self::take_batch`] has something to do.
    pub fn has_pending(&self) -> bool {
        let retry = self.freed && !self.blocked.is_empty();
        let changes = !self.pending.is_empty() || !self.removals.is_empty();
        self.synced && (changes || retry || self.unsettled || self.filter.is_behind())
    }

    /// Bits of the filter that nothing in the maps needs, cleared, except those
    /// that `still_needed` claims for conntrack: a flow outlives its frontend and
    /// its backend, and its packets must still be looked up. Bits are cleared
    /// only when every earlier batch is done.
    pub fn clear_filter(&mut self, still_needed: impl Fn(u32) -> bool) -> Batch {
        if !self.is_settled() {
            return Batch::default();
        }
        Batch {
            ops: self.filter.clear(still_needed),
        }
    }

    /// Bits of the filter of replies that the datapath may set any time: of all backends that are
    /// in the maps, or were a moment ago. `None` while [`Self::clear_filter`] clears nothing
    /// either.
    pub fn reply_bits(&self) -> Option<impl Iterator<Item = u32>> {
        let bits = || self.backends.identities().map(backend_bit);
        self.is_settled().then(bits)
    }

    /// Whether the maps have all that is planned, as far as batches were written.
    fn is_settled(&self) -> bool {
        self.synced && !self.has_pending()
    }

    /// What cannot be served as written, sorted.
    pub fn problems(&self) -> Vec<Problem> {
        let own = self
            .services
            .values()
            .flat_map(|s| s.problems.iter().cloned());
        let mut problems: Vec<_> = own.collect();
        problems.extend(
            self.blocked
                .values()
                .map(|(plan, full)| full.problem(plan, &self.limits)),
        );
        for (key, holder, (waiting, _)) in self.claims.conflicts() {
            let holder = self
                .owners
                .get(&holder)
                .map_or("another service".into(), |o| o.to_string());
            problems.push(Problem {
                object: waiting.clone(),
                reason: "FrontendConflict",
                message: format!(
                    "{} is served for {holder}, which claimed it first: give one of the two \
                     another address or port",
                    crate::dump::endpoint(key.addr, key.port, key.proto)
                ),
            });
        }
        problems.sort();
        problems.dedup();
        problems
    }

    /// Every service id with its service port, in no order.
    pub fn service_ids(&self) -> impl Iterator<Item = (u32, &ServicePortKey)> {
        self.owners.iter().map(|(&id, key)| (id, key))
    }

    /// Every service id with a frontend that clients in the cluster dial, NodePorts left out, in
    /// no order.
    pub fn vips(&self) -> impl Iterator<Item = (u32, &FrontendPlan)> {
        let ports = self.services.values().flat_map(|service| &service.ports);
        let all = ports.flat_map(|port| port.frontends.iter().map(|f| (port.id, f)));
        all.filter(|(_, f)| f.scope == scope::INTERNAL && f.flags & frontend_flags::NODE_PORT == 0)
    }

    /// Whether flows of a service may go on with a backend: false where it is no
    /// longer one of the service's backends (UDP: no serving endpoint), `None`
    /// for a service id that is not in use.
    pub fn is_backend_of(&self, service: u32, backend: u32) -> Option<bool> {
        let port = self.port(service)?;
        let mut sets = port.sets.iter().flat_map(|&s| self.tables.members(s));
        let is = |r: &Ref| r.id() == backend;
        Some(sets.any(is) || port.serving.iter().any(is))
    }

    /// The sizes that it plans for.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How full the maps are.
    pub fn usage(&self) -> Usage {
        Usage {
            frontends: self.claims.len(),
            backends: self.backends.live(),
            backend_ids: self.backends.ids(),
            services: self.service_ids.count(),
            slots: self.tables.space.used(),
            ranges: self.ranges.len() as u32,
        }
    }

    /// Services that the planner knows of, whether served or blocked.
    pub fn services(&self) -> usize {
        let waiting = self.pending.keys().chain(self.blocked.keys());
        self.services.len() + waiting.filter(|k| !self.services.contains_key(k)).count()
    }

    pub(crate) fn port(&self, service: u32) -> Option<&PortState> {
        let owner = self.owners.get(&service)?;
        self.services
            .get(&owner.service)?
            .ports
            .iter()
            .find(|p| p.id == service)
    }

    pub(crate) fn expire(&mut self) {
        let (now, grace) = (self.now, self.limits.grace);
        while let Some((_, id)) = self.retired_services.pop(now, grace) {
            self.service_ids.free(id);
            self.freed = true;
        }
        self.freed |= self.backends.expire(now, grace);
        self.freed |= self.tables.space.expire(now, grace);
    }

    /// Where a frontend of a port leads.
    pub(crate) fn value(&self, port: &PortState, f: &FrontendPlan) -> Frontend {
        let set = f.set.and_then(|set| port.sets.get(usize::from(set)));
        let (slots, len) = set.map_or((0, 0), |&set| self.tables.range(set));
        Frontend {
            service: port.id,
            flags: f.flags,
            slots,
            len,
            affinity: port.affinity,
        }
    }

    /// Gives back what a port holds, except its service id.
    pub(crate) fn release(&mut self, port: &PortState) {
        let mut means = Means {
            backends: &mut self.backends,
            ghosts: &mut self.ghosts,
            now: self.now,
            preferred: None,
        };
        port.sets
            .iter()
            .for_each(|&set| self.tables.release(set, &mut means));
        port.serving.iter().for_each(|&r| self.backends.release(r));
    }
}
