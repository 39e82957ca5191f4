//! Maps in memory that execute batches and check what must hold after every write.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    Backend, Frontend, FrontendKey, RangeKey, backend_flags, frontend_flags, hash, limits,
};
use lb_plan::{
    Actual, Limits, Planner,
    op::{Batch, Op},
};

/// Where a frontend leads: flags, affinity, and for each slot address and port.
pub(crate) type Target = (u32, u32, Vec<(String, u16)>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Maps {
    pub(crate) frontends: BTreeMap<FrontendKey, Frontend>,
    pub(crate) backends: BTreeMap<u32, Backend>,
    pub(crate) slots: Vec<u32>,
    pub(crate) ranges: BTreeSet<RangeKey>,
    pub(crate) filter: Vec<u64>,
    limits: Limits,
    /// Whether what the maps held at first may have been wrong.
    pub(crate) lenient: bool,
}

impl Maps {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            slots: vec![0; limits.slots as usize],
            ranges: BTreeSet::new(),
            filter: vec![0; limits::FILTER_WORDS as usize],
            limits,
            lenient: false,
        }
    }

    pub(crate) fn actual(&self) -> Actual {
        Actual {
            frontends: self.frontends.iter().map(|(k, v)| (*k, *v)).collect(),
            backends: self.backends.iter().map(|(k, v)| (*k, *v)).collect(),
            slots: Box::new(self.slots.clone()),
            ranges: self.ranges.iter().copied().collect(),
            filter: self.filter.clone(),
            ..Actual::default()
        }
    }

    /// Executes a batch and checks the maps after every write of it.
    pub(crate) fn execute(&mut self, batch: &Batch) {
        for op in &batch.ops {
            self.write(op);
            self.check_after(op);
        }
    }

    /// Executes one write, which must change something.
    pub(crate) fn write(&mut self, op: &Op) {
        match op {
            Op::PutBackend { id, backend } => {
                assert!(*id > 0 && *id < self.limits.backends, "{op:?}");
                assert_ne!(
                    self.backends.insert(*id, *backend),
                    Some(*backend),
                    "{op:?}"
                );
            }
            Op::PutSlots { start, slots } => {
                let (from, to) = (*start as usize, *start as usize + slots.len());
                assert!(to <= self.slots.len(), "{op:?}");
                let used = self
                    .frontends
                    .values()
                    .filter(|f| f.len > 1 && !self.lenient);
                for f in used {
                    let (a, b) = (f.slots as usize, (f.slots + f.len) as usize);
                    assert!(to <= a || b <= from, "slots in use are overwritten: {f:?}");
                }
                self.slots[from..to].copy_from_slice(slots);
            }
            Op::PutRange(key) => {
                assert!(self.ranges.insert(*key), "{op:?}");
                assert!(self.ranges.len() <= self.limits.ranges as usize);
            }
            Op::SetFilterBit(bit) => self.filter[(bit >> 6) as usize] |= 1 << (bit & 63),
            Op::PutFrontend { key, value } => {
                assert_ne!(self.frontends.insert(*key, *value), Some(*value), "{op:?}");
                assert!(self.frontends.len() <= self.limits.frontends as usize);
            }
            Op::DeleteFrontend(key) => {
                assert!(self.frontends.remove(key).is_some(), "{op:?}");
            }
            Op::DeleteRange(key) => assert!(self.ranges.remove(key), "{op:?}"),
            Op::DeleteBackend { id, backend } => {
                assert_eq!(self.backends.remove(id), Some(*backend), "{op:?}");
            }
            Op::ClearFilterBit(bit) => {
                let word = &mut self.filter[(bit >> 6) as usize];
                assert!(*word >> (bit & 63) & 1 != 0, "{op:?}");
                *word &= !(1 << (bit & 63));
            }
            Op::ResetServiceCounter(_)
            | Op::ResetBackendCounter(_)
            | Op::PurgeAffinity { .. }
            | Op::PurgeUdp { .. } => {}
        }
    }

    /// What a write may have broken.
    fn check_after(&self, op: &Op) {
        match op {
            Op::PutFrontend { key, value } => self.check_frontend(key, value),
            Op::PutBackend { .. }
            | Op::PutSlots { .. }
            | Op::DeleteBackend { .. }
            | Op::DeleteRange(_)
            | Op::ClearFilterBit(_) => self.check(),
            _ => {}
        }
    }

    /// Every frontend names only live backends of its family and protocol and
    /// valid slots, and the filter knows it.
    pub(crate) fn check(&self) {
        if self.lenient {
            return;
        }
        let mut tables = BTreeSet::new();
        for (key, f) in &self.frontends {
            // A table is checked once, with the frontend that comes first.
            if f.len <= 1 || tables.insert((f.slots, f.len)) {
                self.check_frontend(key, f);
            }
        }
    }

    fn check_frontend(&self, key: &FrontendKey, f: &Frontend) {
        let kind = if key.proto == 0 {
            hash::filter_kind::VIP
        } else {
            hash::filter_kind::FRONTEND
        };
        assert!(
            self.filtered(kind, key.addr, key.port, key.proto),
            "{key:?} in the filter"
        );
        if f.flags & frontend_flags::VIP != 0 {
            assert_eq!((key.proto, key.port.get(), f.len), (0, 0, 0));
            return;
        }
        assert!(f.service > 0 && f.service < self.limits.services);
        let ids = match f.len {
            0 => Vec::new(),
            1 => vec![f.slots],
            len => {
                let mut ids = self.slots[f.slots as usize..(f.slots + len) as usize].to_vec();
                ids.sort_unstable();
                ids.dedup();
                ids
            }
        };
        for id in ids {
            let Some(b) = self.backends.get(&id) else {
                panic!("{key:?} names {id}, which is not live")
            };
            assert!(b.flags & backend_flags::LIVE != 0);
            assert_eq!(
                (b.addr.is_v4(), b.proto),
                (key.addr.is_v4(), key.proto),
                "{key:?}"
            );
        }
    }

    fn filtered(&self, kind: u32, addr: lb_common::Addr, port: lb_common::Be16, proto: u8) -> bool {
        let bit = hash::filter_bit(kind, addr, port, proto);
        self.filter[(bit >> 6) as usize] >> (bit & 63) & 1 != 0
    }

    /// What the planner expects of the maps is what they hold.
    pub(crate) fn are_expected(&self, planner: &Planner) {
        if self.lenient || planner.has_pending() {
            return;
        }
        let all = planner.expectations(0, usize::MAX);
        let frontends = self.frontends.keys().filter(|key| key.proto != 0).count();
        assert_eq!(all.len(), frontends);
        for e in &all {
            assert_eq!(self.frontends.get(&e.key), Some(&e.frontend), "{:?}", e.key);
            for (id, backend) in &e.backends {
                assert_eq!(self.backends.get(id), Some(backend), "backend {id}");
            }
            let member = |id: &u32| e.backends.iter().any(|(member, _)| member == id);
            let (start, len) = (e.frontend.slots as usize, e.frontend.len as usize);
            // Of a service that has no room for its change, the backends are not told.
            match (len, e.backends.is_empty()) {
                (0, _) | (_, true) => {}
                (1, false) => assert!(member(&e.frontend.slots)),
                (_, false) => assert!(self.slots[start..start + len].iter().all(member)),
            }
        }
        // Replies of any backend in the maps may come.
        let bits: BTreeSet<u32> = planner.reply_bits().unwrap().collect();
        for b in self.backends.values() {
            let bit = hash::filter_bit(hash::filter_kind::BACKEND, b.addr, b.port, b.proto);
            assert!(bits.contains(&bit), "{b:?}");
        }
        let some = planner.expectations(1, 2);
        assert_eq!(some[..], all[all.len().min(1)..all.len().min(3)]);
    }

    /// Nothing but filter bits.
    pub(crate) fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.backends.is_empty() && self.ranges.is_empty()
    }

    /// A digest of where every frontend leads, without ids: for each slot the
    /// backend's address and port.
    pub(crate) fn targets(&self) -> BTreeMap<FrontendKey, Target> {
        let target = |id: &u32| {
            let b = self.backends[id];
            (b.addr.to_string(), b.port.get())
        };
        self.frontends
            .iter()
            .map(|(key, f)| {
                let targets = match f.len {
                    0 => Vec::new(),
                    1 => vec![target(&f.slots)],
                    len => {
                        let range = f.slots as usize..(f.slots + len) as usize;
                        self.slots[range].iter().map(target).collect()
                    }
                };
                (*key, (f.flags, f.affinity, targets))
            })
            .collect()
    }
}
