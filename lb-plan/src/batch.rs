//! From changed plans to writes, in an order that leaves no frontend without a
//! live backend.

use std::collections::BTreeSet;

use lb_common::{FrontendKey, RangeKey, proto};

use crate::{
    Set,
    admit::Reserved,
    backends::Ref,
    claims::Claimant,
    model::ServiceKey,
    op::{Batch, Op},
    planner::{Planner, PortState, ServiceState},
};

/// A service of a batch: what it was, and what it is going to be.
struct Change {
    key: ServiceKey,
    old: Option<ServiceState>,
    new: Option<ServiceState>,
}

/// What clients of a service port may be bound to.
#[derive(Default)]
struct Bindings {
    service: u32,
    /// Seconds; 0 where clients are not bound.
    affinity: u32,
    /// Scope and backend id.
    backends: BTreeSet<(u8, u32)>,
}

/// Parts of a batch that are known before the maps are settled.
#[derive(Default)]
struct Parts {
    range_puts: BTreeSet<RangeKey>,
    range_deletes: BTreeSet<RangeKey>,
    purge_udp: Vec<Op>,
    purge_affinity: BTreeSet<(u32, u32)>,
}

impl Planner {
    /// The next writes: backends, tables, source ranges and filter bits, then
    /// frontends, then what is no longer needed, in reverse. Only differences
    /// are written. Empty before [`Self::finish_sync`].
    pub fn take_batch(&mut self) -> Batch {
        if !self.synced {
            return Batch::default();
        }
        self.expire();
        if std::mem::take(&mut self.freed) {
            let retried = std::mem::take(&mut self.blocked);
            self.pending
                .extend(retried.into_iter().map(|(key, (plan, _))| (key, plan)));
        }
        let mut changes = self.admit_pending();
        let mut parts = Parts::default();
        self.update_claims(&mut changes);
        for change in &changes {
            self.compare(change, &mut parts);
        }
        for change in changes {
            self.give_back(change);
        }
        if self.pending.is_empty() {
            self.lay_ghosts(&mut parts);
            self.unsettled = false;
        }
        self.settle(parts)
    }

    /// Removes what is to be removed, and admits plans until the batch is large
    /// enough. The services' new states are not in place yet.
    fn admit_pending(&mut self) -> Vec<Change> {
        let removals = std::mem::take(&mut self.removals);
        let mut changes: Vec<Change> = removals
            .into_iter()
            .map(|key| Change {
                old: self.services.remove(&key),
                key,
                new: None,
            })
            .collect();
        let mut reserved = Reserved::default();
        while self.tables.backlog < self.limits.batch_slots
            && let Some((key, plan)) = self.pending.pop_first()
        {
            match self.admit(&plan, &mut reserved) {
                Ok(new) => {
                    changes.push(Change {
                        old: self.services.remove(&key),
                        key,
                        new: Some(new),
                    });
                }
                Err(full) => {
                    self.blocked.insert(key, (plan, full));
                }
            }
        }
        changes
    }

    /// Old claims are dropped before new ones are made, so that a frontend can
    /// go from one service to another in one write.
    fn update_claims(&mut self, changes: &mut [Change]) {
        for change in &*changes {
            for old in change.old.iter().flat_map(|s| &s.ports) {
                let proto = old.key.protocol.number();
                let new = find(&change.new, old);
                let kept: Set<FrontendKey> = new
                    .iter()
                    .flat_map(|p| &p.frontends)
                    .map(|f| f.key(proto))
                    .collect();
                let claimant = (old.key.clone(), old.id);
                for f in &old.frontends {
                    self.claims.drop_vip(f);
                    if !kept.contains(&f.key(proto)) {
                        self.claims.drop(&f.key(proto), &claimant);
                    }
                }
            }
        }
        for change in &*changes {
            for port in change.new.iter().flat_map(|s| &s.ports) {
                let claimant: Claimant = (port.key.clone(), port.id);
                for f in &port.frontends {
                    let value = self.value(port, f);
                    self.claims.add_vip(f);
                    self.claims
                        .claim(f.key(port.key.protocol.number()), &claimant, value);
                }
            }
        }
        self.arbitrate(changes);
    }

    /// Gives frontends that were freed to those who wait for them.
    fn arbitrate(&mut self, changes: &[Change]) {
        let more = !self.pending.is_empty();
        let won = self
            .claims
            .arbitrate(|service| more && self.ghost_services.contains(&service));
        for (key, (winner, id)) in won {
            let changed = changes.iter().find(|c| c.key == winner.service);
            let state = match changed {
                Some(change) => change.new.as_ref(),
                None => self.services.get(&winner.service),
            };
            let port = state.and_then(|s| s.ports.iter().find(|p| p.id == id));
            let proto = winner.protocol.number();
            let found =
                port.and_then(|p| Some((p, p.frontends.iter().find(|f| f.key(proto) == key)?)));
            if let Some((port, f)) = found {
                let value = self.value(port, f);
                self.claims.grant(key, value);
            }
        }
    }

    /// What leaves a service with this change: source ranges, and backends whose
    /// flows and bindings end.
    fn compare(&self, change: &Change, parts: &mut Parts) {
        for old in change.old.iter().flat_map(|s| &s.ports) {
            let new = find(&change.new, old);
            let kept = new.map_or(&[][..], |p| &p.ranges);
            parts
                .range_deletes
                .extend(old.ranges.iter().filter(|r| !kept.contains(r)));
            self.purge_affinity(&self.bindings(old), new, parts);
            if let Some(new) = new {
                self.purge_udp(new, &mut old.serving.iter().map(|r| r.id()), parts);
            }
        }
        for new in change.new.iter().flat_map(|s| &s.ports) {
            parts
                .range_puts
                .extend(new.ranges.iter().filter(|r| !self.ranges.contains(*r)));
            if find(&change.old, new).is_none() {
                self.compare_restored(new, parts);
            }
        }
    }

    /// The same for a port that took its service id over from the maps.
    fn compare_restored(&self, port: &PortState, parts: &mut Parts) {
        let mut before = Bindings {
            service: port.id,
            ..Bindings::default()
        };
        for (key, value) in self.claims.ghosts_of(port.id) {
            before.affinity = before.affinity.max(value.affinity);
            let members = self.ghosts.members(value).iter();
            before.backends.extend(members.map(|r| (key.scope, r.id())));
        }
        self.purge_affinity(&before, Some(port), parts);
        self.purge_udp(port, &mut before.backends.iter().map(|b| b.1), parts);
    }

    fn bindings(&self, port: &PortState) -> Bindings {
        let mut found = Bindings {
            service: port.id,
            affinity: port.affinity,
            backends: BTreeSet::new(),
        };
        if port.affinity == 0 {
            return found;
        }
        for f in &port.frontends {
            if let Some(&set) = f.set.and_then(|set| port.sets.get(usize::from(set))) {
                let members = self.tables.members(set).iter();
                found.backends.extend(members.map(|r| (f.scope, r.id())));
            }
        }
        found
    }

    fn purge_affinity(&self, before: &Bindings, new: Option<&PortState>, parts: &mut Parts) {
        if before.affinity > 0 {
            let now = new.map(|p| self.bindings(p)).unwrap_or_default();
            let gone = before.backends.difference(&now.backends);
            parts
                .purge_affinity
                .extend(gone.map(|&(_, id)| (before.service, id)));
        }
    }

    fn purge_udp(&self, new: &PortState, before: &mut dyn Iterator<Item = u32>, parts: &mut Parts) {
        if new.key.protocol.number() != proto::UDP {
            return;
        }
        let serving: BTreeSet<u32> = new.serving.iter().map(|r| Ref::id(*r)).collect();
        let gone: BTreeSet<u32> = before.filter(|id| !serving.contains(id)).collect();
        parts
            .purge_udp
            .extend(gone.into_iter().map(|id| Op::PurgeUdp {
                service: new.id,
                id,
                backend: self.backends.get(id),
            }));
    }

    /// Puts the new state in place and gives back what the old one held.
    fn give_back(&mut self, change: Change) {
        for old in change.old.iter().flat_map(|s| &s.ports) {
            self.release(old);
            if find(&change.new, old).is_none() {
                self.owners.remove(&old.id);
                self.retired_services.push(self.now, old.id);
            }
        }
        if let Some(new) = change.new {
            self.services.insert(change.key, new);
        }
    }

    /// Every service is planned: what the maps hold beyond that goes, except
    /// what belongs to a service that there is no room for.
    fn lay_ghosts(&mut self, parts: &mut Parts) {
        if !self.unsettled && !self.claims.has_ghosts() && !self.kept_ranges {
            return;
        }
        let mut keep = Set::default();
        for port in self.blocked.values().flat_map(|(plan, _)| &plan.ports) {
            for f in &port.frontends {
                let key = f.key(port.key.protocol.number());
                keep.extend([
                    key,
                    FrontendKey {
                        port: lb_common::Be16::new(0),
                        proto: 0,
                        ..key
                    },
                ]);
            }
        }
        let kept = self.claims.lay_ghosts(&keep);
        let ports = self.services.values().flat_map(|s| &s.ports);
        let owned: Set<&RangeKey> = ports.flat_map(|p| &p.ranges).collect();
        let nobodys = self.ranges.iter().filter(|r| !owned.contains(r));
        let (kept_ranges, gone): (Vec<RangeKey>, Vec<RangeKey>) =
            nobodys.partition(|r| kept.contains(&r.service.get()));
        self.kept_ranges = !kept_ranges.is_empty();
        parts.range_deletes.extend(gone);
        let idle: Vec<u32> = self.ghost_services.difference(&kept).copied().collect();
        for id in idle {
            self.ghost_services.remove(&id);
            self.retired_services.push(self.now, id);
        }
    }

    /// Brings the maps in line, and writes down how.
    fn settle(&mut self, parts: Parts) -> Batch {
        let frontends = self.claims.settle(&mut self.filter);
        for value in &frontends.laid {
            let space = &mut self.tables.space;
            self.ghosts
                .release(value, self.now, &mut self.backends, space);
        }
        let backends = self.backends.settle(self.now);
        let deletes: Vec<RangeKey> = parts
            .range_deletes
            .into_iter()
            .filter(|r| self.ranges.remove(r))
            .collect();
        self.ranges.extend(&parts.range_puts);
        self.freed |= !frontends.deletes.is_empty() || !deletes.is_empty();
        let fresh = std::mem::take(&mut self.fresh_services);

        let mut ops = backends.resets;
        ops.extend(backends.puts);
        ops.extend(self.tables.take_unwritten());
        ops.extend(parts.range_puts.into_iter().map(Op::PutRange));
        ops.extend(self.filter.take_missing());
        let used = fresh.into_iter().filter(|&(_, used)| used);
        ops.extend(used.map(|(id, _)| Op::ResetServiceCounter(id)));
        ops.extend(frontends.puts);
        ops.extend(frontends.deletes);
        ops.extend(deletes.into_iter().map(Op::DeleteRange));
        ops.extend(backends.deletes);
        ops.extend(parts.purge_udp);
        ops.extend(
            parts
                .purge_affinity
                .into_iter()
                .map(|(service, backend)| Op::PurgeAffinity { service, backend }),
        );
        Batch { ops }
    }
}

/// The same port in another state of its service.
fn find<'a>(state: &'a Option<ServiceState>, port: &PortState) -> Option<&'a PortState> {
    state.as_ref()?.ports.iter().find(|p| p.id == port.id)
}
