//! Tables found in the maps after a restart, until the frontends that lead
//! there are claimed or deleted.

use std::collections::BTreeSet;

use lb_common::Frontend;

use crate::{
    Map,
    backends::{Backends, Ref},
    slots::SlotSpace,
};

/// Read access to the slot array of the maps.
pub trait SlotReader {
    /// Copies the slots from `start` on. The range is within the array.
    fn read(&self, start: u32, out: &mut [u32]);
}

/// Slots in memory; what lies beyond their end reads as 0.
impl SlotReader for Vec<u32> {
    fn read(&self, start: u32, out: &mut [u32]) {
        let from = self.get(start as usize..).unwrap_or_default();
        let n = from.len().min(out.len());
        out[..n].copy_from_slice(&from[..n]);
        out[n..].fill(0);
    }
}

#[derive(Debug)]
struct Ghost {
    members: Box<[Ref]>,
    /// Frontends that lead here and are not claimed.
    refs: u32,
    /// Whether the slots belong to the ghost: not for a single backend, nor
    /// where a set has taken the table over.
    owns: bool,
}

/// The tables, by first slot and length.
#[derive(Default)]
pub(crate) struct Ghosts {
    tables: Map<(u32, u32), Ghost>,
    /// By length and hash of the slots.
    by_hash: Map<(u32, u64), Vec<u32>>,
    /// Lengths of tables; some may be gone.
    lengths: BTreeSet<u32>,
    slots: Option<Box<dyn SlotReader + Send>>,
    /// By backend id, the last table in which it was seen, as a running number.
    seen: Vec<u32>,
}

impl std::fmt::Debug for Ghosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ghosts")
            .field("tables", &self.tables)
            .finish_non_exhaustive()
    }
}

impl Ghosts {
    /// `ids` is a bound of all backend ids.
    pub(crate) fn new(slots: Box<dyn SlotReader + Send>, ids: u32) -> Self {
        Self {
            slots: Some(slots),
            seen: vec![0; ids as usize],
            ..Self::default()
        }
    }

    /// Notes that a frontend leads to a table. Tables beyond the array, and
    /// tables that overlap others, are left alone: whoever wrote them did not
    /// follow our rules, and the frontend is soon rewritten or deleted.
    pub(crate) fn add(&mut self, f: &Frontend, backends: &mut Backends, space: &mut SlotSpace) {
        if f.len == 0 {
            return;
        }
        if let Some(ghost) = self.tables.get_mut(&(f.slots, f.len)) {
            ghost.refs += 1;
            return;
        }
        let mut owns = false;
        let mut ids = vec![f.slots];
        if f.len > 1 {
            owns = space.reserve(f.slots, f.len);
            ids = if owns {
                self.scan(f.slots, f.len)
            } else {
                Vec::new()
            };
        }
        let members: Box<[Ref]> = ids.iter().filter_map(|&id| backends.written(id)).collect();
        members.iter().for_each(|&m| backends.retain(m));
        self.tables.insert(
            (f.slots, f.len),
            Ghost {
                members,
                refs: 1,
                owns,
            },
        );
    }

    /// The backend ids in a table. Remembers its hash.
    fn scan(&mut self, start: u32, len: u32) -> Vec<u32> {
        let slots = self.read(start, len);
        self.by_hash
            .entry((len, hash(&slots)))
            .or_default()
            .push(start);
        self.lengths.insert(len);
        let number = self.tables.len() as u32 + 1;
        let mut ids = Vec::new();
        for id in slots {
            if let Some(seen) = self.seen.get_mut(id as usize)
                && std::mem::replace(seen, number) != number
            {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        ids
    }

    fn read(&self, start: u32, len: u32) -> Vec<u32> {
        let mut out = vec![0; len as usize];
        if let Some(slots) = &self.slots {
            slots.read(start, &mut out);
        }
        out
    }

    /// Whether [`Self::adopt`] could find a table of this many slots.
    pub(crate) fn has_table(&self, len: u32) -> bool {
        self.lengths.contains(&len)
    }

    /// Takes a table with exactly these slots over, `preferred` if that is one:
    /// its first slot.
    pub(crate) fn adopt(&mut self, slots: &[u32], preferred: Option<u32>) -> Option<u32> {
        let len = slots.len() as u32;
        let starts = self.by_hash.get(&(len, hash(slots)))?;
        let owned = |start: &u32| self.tables.get(&(*start, len)).is_some_and(|g| g.owns);
        let same = |start: &u32| owned(start) && self.read(*start, len) == slots;
        let preferred = preferred.filter(|p| starts.contains(p) && same(p));
        let start = preferred.or_else(|| starts.iter().copied().find(same))?;
        self.tables.get_mut(&(start, len))?.owns = false;
        Some(start)
    }

    /// A set is gone that had taken this table over: true if frontends of before
    /// still lead there, so that the slots are theirs again.
    pub(crate) fn take_back(&mut self, start: u32, len: u32) -> bool {
        let ghost = self.tables.get_mut(&(start, len));
        ghost.is_some_and(|g| {
            g.owns = true;
            true
        })
    }

    /// The backends that a frontend of before leads to.
    pub(crate) fn members(&self, f: &Frontend) -> &[Ref] {
        self.tables
            .get(&(f.slots, f.len))
            .map_or(&[], |g| &g.members)
    }

    /// A frontend of before no longer leads to its table.
    pub(crate) fn release(
        &mut self,
        f: &Frontend,
        now: u64,
        backends: &mut Backends,
        space: &mut SlotSpace,
    ) {
        let Some(ghost) = self.tables.get_mut(&(f.slots, f.len)) else {
            return;
        };
        ghost.refs -= 1;
        if ghost.refs > 0 {
            return;
        }
        ghost.members.iter().for_each(|&m| backends.release(m));
        if ghost.owns {
            space.free(now, f.slots, f.len);
        }
        self.tables.remove(&(f.slots, f.len));
        if self.tables.is_empty() {
            *self = Self::default();
        }
    }
}

/// A hash that is only compared with itself, within one run.
fn hash(slots: &[u32]) -> u64 {
    slots.iter().fold(0, |h: u64, &slot| {
        (h.rotate_left(5) ^ u64::from(slot)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}
