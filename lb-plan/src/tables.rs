//! Maglev tables: one for each backend set, shared by every frontend that has it.

use std::sync::Arc;

use lb_common::Be16;

use crate::{
    Map,
    backends::{Backends, Ref},
    ghosts::Ghosts,
    maglev::{self, Member},
    op::Op,
    plan::PlannedBackend,
    slots::SlotSpace,
};

/// A backend set: what decides about its table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct SetKey {
    /// In the order of the plan: by address and port.
    members: Box<[Ref]>,
    /// As many as members; none if all are the same.
    weights: Box<[u32]>,
}

/// Index of a set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SetId(u32);

#[derive(Debug)]
struct Set {
    key: Arc<SetKey>,
    refs: u32,
    start: u32,
    len: u32,
    /// Not in the map yet.
    unwritten: Option<Arc<[u32]>>,
}

/// What is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    Frontends,
    Backends,
    Services,
    Slots,
    Ranges,
    /// More backends than the largest table takes.
    Table,
}

/// Where a table is: for a single backend its id and 1.
struct Place {
    start: u32,
    len: u32,
    unwritten: Option<Arc<[u32]>>,
}

/// All backend sets.
#[derive(Debug)]
pub(crate) struct Tables {
    sets: Vec<Option<Set>>,
    vacant: Vec<u32>,
    by_key: Map<Arc<SetKey>, SetId>,
    pub(crate) space: SlotSpace,
    unwritten: Vec<SetId>,
    /// Slots of unwritten tables.
    pub(crate) backlog: usize,
}

/// What the acquisition of a set needs besides the sets.
pub(crate) struct Means<'a> {
    pub(crate) backends: &'a mut Backends,
    pub(crate) ghosts: &'a mut Ghosts,
    pub(crate) now: u64,
    /// First slot of the table that the set's frontends have in the maps.
    pub(crate) preferred: Option<u32>,
}

impl Tables {
    pub(crate) fn new(slots: u32) -> Self {
        Self {
            sets: Vec::new(),
            vacant: Vec::new(),
            by_key: Map::default(),
            space: SlotSpace::new(slots),
            unwritten: Vec::new(),
            backlog: 0,
        }
    }

    /// A reference to the table of a set of backends, which is not empty; the
    /// table is made if there is none.
    pub(crate) fn acquire(
        &mut self,
        planned: &[PlannedBackend],
        proto: u8,
        means: &mut Means<'_>,
    ) -> Result<SetId, Full> {
        let members = refs(planned, proto, means.backends).ok_or(Full::Backends)?;
        let uniform = planned.iter().all(|b| b.weight == planned[0].weight);
        let weights = if uniform {
            Box::default()
        } else {
            planned.iter().map(|b| b.weight).collect()
        };
        let key = SetKey { members, weights };
        if let Some(&id) = self.by_key.get(&key) {
            key.members.iter().for_each(|&m| means.backends.release(m));
            self.retain(id);
            return Ok(id);
        }
        match self.place(planned, proto, &key, means) {
            Ok(Place {
                start,
                len,
                unwritten,
            }) => Ok(self.insert(Set {
                key: Arc::new(key),
                refs: 1,
                start,
                len,
                unwritten,
            })),
            Err(full) => {
                key.members.iter().for_each(|&m| means.backends.release(m));
                Err(full)
            }
        }
    }

    /// Finds a place for a new set: the table that is in the map already, or a
    /// free range.
    fn place(
        &mut self,
        planned: &[PlannedBackend],
        proto: u8,
        key: &SetKey,
        means: &mut Means<'_>,
    ) -> Result<Place, Full> {
        let member = |(b, id): (&PlannedBackend, &Ref)| Member {
            addr: b.addr,
            port: Be16::new(b.port),
            proto,
            weight: b.weight,
            id: id.id(),
        };
        let members: Vec<_> = planned.iter().zip(&key.members).map(member).collect();
        let eligible = maglev::eligible(&members);
        let size = maglev::table_size(eligible.len()).ok_or(Full::Table)?;
        if let [only] = eligible[..] {
            return Ok(Place {
                start: only.id,
                len: 1,
                unwritten: None,
            });
        }
        let mut slots = None;
        if means.ghosts.has_table(size) {
            let built = maglev::build(&eligible, size);
            if let Some(start) = means.ghosts.adopt(&built, means.preferred) {
                return Ok(Place {
                    start,
                    len: size,
                    unwritten: None,
                });
            }
            slots = Some(built);
        }
        // The place first: without one the table need not be built.
        let start = self.space.take(size).ok_or(Full::Slots)?;
        let slots = slots.unwrap_or_else(|| maglev::build(&eligible, size));
        Ok(Place {
            start,
            len: size,
            unwritten: Some(slots.into()),
        })
    }

    fn insert(&mut self, set: Set) -> SetId {
        let key = set.key.clone();
        let slots = set.unwritten.as_ref().map(|s| s.len());
        let id = match self.vacant.pop() {
            Some(index) => {
                self.sets[index as usize] = Some(set);
                SetId(index)
            }
            None => {
                self.sets.push(Some(set));
                SetId(self.sets.len() as u32 - 1)
            }
        };
        if let Some(slots) = slots {
            self.unwritten.push(id);
            self.backlog += slots;
        }
        self.by_key.insert(key, id);
        id
    }

    /// One more reference.
    fn retain(&mut self, id: SetId) {
        if let Some(set) = &mut self.sets[id.0 as usize] {
            set.refs += 1;
        }
    }

    /// One reference less: the last one gives backends and slots back.
    pub(crate) fn release(&mut self, id: SetId, means: &mut Means<'_>) {
        let entry = &mut self.sets[id.0 as usize];
        let Some(set) = entry else { return };
        set.refs -= 1;
        if set.refs > 0 {
            return;
        }
        if let Some(set) = entry.take() {
            self.by_key.remove(&set.key);
            set.key
                .members
                .iter()
                .for_each(|&m| means.backends.release(m));
            if set.len > 1 && !means.ghosts.take_back(set.start, set.len) {
                self.space.free(means.now, set.start, set.len);
            }
            if let Some(slots) = set.unwritten {
                self.backlog -= slots.len();
                self.unwritten.retain(|&u| u != id);
            }
            self.vacant.push(id.0);
        }
    }

    /// First slot and slots of a set, as a frontend names them.
    pub(crate) fn range(&self, id: SetId) -> (u32, u32) {
        self.set(id).map_or((0, 0), |s| (s.start, s.len))
    }

    /// The backends of a set.
    pub(crate) fn members(&self, id: SetId) -> &[Ref] {
        self.set(id).map_or(&[], |s| &s.key.members)
    }

    /// The backends' weights; empty if all are the same.
    pub(crate) fn weights(&self, id: SetId) -> &[u32] {
        self.set(id).map_or(&[], |s| &s.key.weights)
    }

    /// The writes of new tables.
    pub(crate) fn take_unwritten(&mut self) -> Vec<Op> {
        self.backlog = 0;
        let ids = std::mem::take(&mut self.unwritten);
        let mut ops = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(set) = &mut self.sets[id.0 as usize]
                && let Some(slots) = set.unwritten.take()
            {
                ops.push(Op::PutSlots {
                    start: set.start,
                    slots,
                });
            }
        }
        ops
    }

    fn set(&self, id: SetId) -> Option<&Set> {
        self.sets[id.0 as usize].as_ref()
    }
}

/// References to all of `planned`, or none.
pub(crate) fn refs(
    planned: &[PlannedBackend],
    proto: u8,
    backends: &mut Backends,
) -> Option<Box<[Ref]>> {
    let mut refs = Vec::with_capacity(planned.len());
    for b in planned {
        match backends.acquire((b.addr, Be16::new(b.port), proto), b.local) {
            Some(id) => refs.push(id),
            None => {
                refs.into_iter().for_each(|id| backends.release(id));
                return None;
            }
        }
    }
    Some(refs.into())
}
