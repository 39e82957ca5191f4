//! Who holds which frontend. Two services may claim one (address, port,
//! protocol): the older holder keeps it, the others wait in the order of their
//! keys, and take over when it goes.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{Addr, Be16, Frontend, FrontendKey, frontend_flags, scope};

use crate::{
    Map, Set,
    filter::{Filter, frontend_bit},
    model::ServicePortKey,
    op::Op,
    plan::FrontendPlan,
};

/// A service port, with its id.
pub(crate) type Claimant = (ServicePortKey, u32);

#[derive(Clone, Copy, Default, Debug)]
struct Vip {
    /// Frontends there, those that wait included.
    refs: u32,
    /// How many of them leave unknown ports alone.
    pass: u32,
    /// How many of them have a backend.
    served: u32,
}

/// The frontends map, as it is and as it is going to be.
#[derive(Default, Debug)]
pub(crate) struct Claims {
    written: Map<FrontendKey, Frontend>,
    /// Frontends of before the restart that nobody has claimed.
    ghosts: Set<FrontendKey>,
    /// The same, by service id.
    ghosts_of: Map<u32, Vec<FrontendKey>>,
    /// What is going to be there; `None` for nothing.
    touched: BTreeMap<FrontendKey, Option<Frontend>>,
    vips: Map<(Addr, u8), Vip>,
    touched_vips: BTreeSet<(Addr, u8)>,
    waiting: BTreeMap<FrontendKey, BTreeSet<Claimant>>,
    /// Frontends that somebody waits for and that may be free.
    contested: BTreeSet<FrontendKey>,
}

/// What a batch does about frontends, in the order of their keys.
#[derive(Default, Debug)]
pub(crate) struct FrontendOps {
    pub(crate) puts: Vec<Op>,
    pub(crate) deletes: Vec<Op>,
    /// Ghosts that were claimed or deleted, as they were.
    pub(crate) laid: Vec<Frontend>,
}

fn vip_key(addr: Addr, scope: u8) -> FrontendKey {
    FrontendKey {
        addr,
        port: Be16::new(0),
        proto: 0,
        scope,
    }
}

impl Claims {
    /// Takes a frontend over from the map.
    pub(crate) fn restore(&mut self, key: FrontendKey, value: Frontend, filter: &mut Filter) {
        filter.need(frontend_bit(&key));
        self.written.insert(key, value);
        self.ghosts.insert(key);
        if value.service != 0 {
            self.ghosts_of.entry(value.service).or_default().push(key);
        }
    }

    /// A frontend of before that nobody has claimed.
    pub(crate) fn ghost(&self, key: &FrontendKey) -> Option<&Frontend> {
        self.ghosts.contains(key).then(|| self.written.get(key))?
    }

    /// Unclaimed frontends of before with this service id.
    pub(crate) fn ghosts_of(
        &self,
        service: u32,
    ) -> impl Iterator<Item = (&FrontendKey, &Frontend)> {
        let keys = self.ghosts_of.get(&service).map_or(&[][..], |k| k);
        let keys = keys.iter().filter(|k| self.ghosts.contains(k));
        keys.filter_map(|k| Some((k, self.written.get(k)?)))
    }

    pub(crate) fn has_ghosts(&self) -> bool {
        !self.ghosts.is_empty()
    }

    /// Deletes the ghosts that `keep` does not hold: the service ids of the others.
    pub(crate) fn lay_ghosts(&mut self, keep: &Set<FrontendKey>) -> BTreeSet<u32> {
        let (kept, gone): (Vec<&FrontendKey>, Vec<&FrontendKey>) = self
            .ghosts
            .iter()
            .filter(|k| !self.touched.contains_key(k))
            .filter(|k| {
                let vip = **k == vip_key(k.addr, k.scope);
                !vip || !self.touched_vips.contains(&(k.addr, k.scope))
            })
            .partition(|k| keep.contains(k));
        self.touched.extend(gone.into_iter().map(|k| (*k, None)));
        kept.into_iter()
            .filter_map(|k| self.written.get(k))
            .map(|f| f.service)
            .collect()
    }

    /// The entries that frontends would add to the map.
    pub(crate) fn additional(&self, proto: u8, frontends: &[FrontendPlan]) -> u32 {
        let mut vips = BTreeSet::new();
        let mut new = 0;
        for f in frontends {
            new += u32::from(!self.written.contains_key(&f.key(proto)));
            if !self.written.contains_key(&vip_key(f.addr, f.scope)) {
                vips.insert((f.addr, f.scope));
            }
        }
        new + vips.len() as u32
    }

    /// Entries in the map.
    pub(crate) fn len(&self) -> u32 {
        self.written.len() as u32
    }

    fn holder(&self, key: &FrontendKey) -> Option<u32> {
        match self.touched.get(key) {
            Some(value) => value.map(|v| v.service),
            None if self.ghosts.contains(key) => None,
            None => self.written.get(key).map(|v| v.service),
        }
    }

    /// Counts the vip of a frontend that is about to be claimed.
    pub(crate) fn add_vip(&mut self, f: &FrontendPlan) {
        let vip = self.vips.entry((f.addr, f.scope)).or_default();
        vip.refs += 1;
        vip.pass += u32::from(f.pass_unknown);
        vip.served += u32::from(f.set.is_some());
        self.touched_vips.insert((f.addr, f.scope));
    }

    /// Undoes [`Self::add_vip`].
    pub(crate) fn drop_vip(&mut self, f: &FrontendPlan) {
        if let Some(vip) = self.vips.get_mut(&(f.addr, f.scope)) {
            vip.refs -= 1;
            vip.pass -= u32::from(f.pass_unknown);
            vip.served -= u32::from(f.set.is_some());
        }
        self.touched_vips.insert((f.addr, f.scope));
    }

    /// A service port no longer claims a frontend.
    pub(crate) fn drop(&mut self, key: &FrontendKey, claimant: &Claimant) {
        if self.holder(key) == Some(claimant.1) {
            self.touched.insert(*key, None);
            if self.waiting.contains_key(key) {
                self.contested.insert(*key);
            }
        } else {
            self.forget_waiting(key, claimant);
        }
    }

    fn forget_waiting(&mut self, key: &FrontendKey, claimant: &Claimant) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.remove(claimant);
            if waiting.is_empty() {
                self.waiting.remove(key);
            }
        }
    }

    /// Whether a frontend is one of before that nobody has claimed yet.
    fn is_open(&self, key: &FrontendKey) -> bool {
        self.ghosts.contains(key) && !self.touched.contains_key(key)
    }

    /// Whose it was. Nobody's if the other scope was not the same one's: then the
    /// agent died while it gave the frontend from one to another.
    fn former(&self, key: &FrontendKey) -> Option<u32> {
        let service = |key: &FrontendKey| match self.touched.get(key) {
            Some(value) => value.map(|v| v.service),
            None => self.written.get(key).map(|v| v.service),
        };
        let scope = match key.scope {
            scope::INTERNAL => scope::EXTERNAL,
            _ => scope::INTERNAL,
        };
        let both = service(key) == service(&FrontendKey { scope, ..*key });
        (both && self.is_open(key)).then(|| service(key))?
    }

    /// A service port claims a frontend, or renews its claim with a new value. One
    /// of before is at once that of the port whose it was, whoever came earlier.
    pub(crate) fn claim(&mut self, key: FrontendKey, claimant: &Claimant, value: Frontend) {
        let holder = self.holder(&key);
        let free = holder.is_none() && !self.is_open(&key) && !self.waiting.contains_key(&key);
        if [holder, self.former(&key)].contains(&Some(claimant.1)) || free {
            self.touched.insert(key, Some(value));
            return;
        }
        self.waiting
            .entry(key)
            .or_default()
            .insert(claimant.clone());
        if holder.is_none() {
            self.contested.insert(key);
        }
    }

    /// Makes somebody the holder of a free frontend.
    pub(crate) fn grant(&mut self, key: FrontendKey, value: Frontend) {
        self.touched.insert(key, Some(value));
    }

    /// Frontends that were freed while somebody waited, each with its new holder.
    /// Those of before stay contested while the service that had them may `come`.
    pub(crate) fn arbitrate(&mut self, come: impl Fn(u32) -> bool) -> Vec<(FrontendKey, Claimant)> {
        let mut won = Vec::new();
        for key in std::mem::take(&mut self.contested) {
            if self.holder(&key).is_some() {
                continue;
            }
            if self.former(&key).is_some_and(&come) {
                self.contested.insert(key);
                continue;
            }
            if let Some(first) = self.waiting.get(&key).and_then(|w| w.first()).cloned() {
                self.forget_waiting(&key, &first);
                won.push((key, first));
            }
        }
        won
    }

    /// Every claim that waits: the frontend, its holder's service id, who waits.
    pub(crate) fn conflicts(&self) -> impl Iterator<Item = (&FrontendKey, u32, &Claimant)> {
        self.waiting.iter().flat_map(|(key, waiting)| {
            let holder = self.written.get(key).map_or(0, |v| v.service);
            waiting.iter().map(move |claimant| (key, holder, claimant))
        })
    }

    /// Every frontend and vip in the map.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&FrontendKey, &Frontend)> {
        self.written.iter()
    }

    /// The writes that bring the map in line with the claims, and the state
    /// after them.
    pub(crate) fn settle(&mut self, filter: &mut Filter) -> FrontendOps {
        for (addr, scope) in std::mem::take(&mut self.touched_vips) {
            let vip = self.vips.get(&(addr, scope)).copied().unwrap_or_default();
            if vip.refs == 0 {
                self.vips.remove(&(addr, scope));
            }
            let value = (vip.refs > 0).then(|| vip_value(&vip));
            self.touched.insert(vip_key(addr, scope), value);
        }
        let mut ops = FrontendOps::default();
        for (key, value) in std::mem::take(&mut self.touched) {
            self.settle_one(key, value, filter, &mut ops);
        }
        if self.ghosts.is_empty() {
            self.ghosts = Set::default();
            self.ghosts_of = Map::default();
        }
        ops
    }

    fn settle_one(
        &mut self,
        key: FrontendKey,
        value: Option<Frontend>,
        filter: &mut Filter,
        ops: &mut FrontendOps,
    ) {
        let old = match value {
            Some(value) => self.written.insert(key, value),
            None => self.written.remove(&key),
        };
        if self.ghosts.remove(&key) {
            ops.laid.extend(old);
        }
        match (old, value) {
            (None, Some(_)) => filter.need(frontend_bit(&key)),
            (Some(_), None) => filter.forget(frontend_bit(&key)),
            _ => {}
        }
        match value {
            Some(value) if old != Some(value) => ops.puts.push(Op::PutFrontend { key, value }),
            None if old.is_some() => ops.deletes.push(Op::DeleteFrontend(key)),
            _ => {}
        }
    }
}

fn vip_value(vip: &Vip) -> Frontend {
    let flag = |is: bool, flag| if is { flag } else { 0 };
    Frontend {
        service: 0,
        flags: frontend_flags::VIP
            | flag(vip.pass > 0, frontend_flags::NODE_ADDR)
            | flag(vip.served == 0, frontend_flags::EMPTY),
        slots: 0,
        len: 0,
        affinity: 0,
    }
}
