//! What failed writes forbid to later ones, so that every frontend names only
//! live backends whatever fails.

use std::{collections::HashSet, ops::Range};

use lb_common::{Backend, Frontend, FrontendKey};
use lb_plan::op::{Batch, Op};

use super::{
    store::{MapStore, MapStoreExt as _},
    table::typed,
};

/// Knows what could not be written, and what is therefore still in use.
#[derive(Debug, Default)]
pub(super) struct Guard {
    // Not written: nothing new may lead there.
    missing_backends: HashSet<u32>,
    missing_slots: Vec<Range<u64>>,
    missing_ranges: HashSet<u32>,
    // Named by frontends that could not be switched or removed: left alone.
    held: bool,
    // What a frontend names could not be read: nothing is taken from any.
    blind: bool,
    held_backends: HashSet<u32>,
    held_slots: Vec<Range<u64>>,
    held_services: HashSet<u32>,
}

fn slots_of(start: u32, len: usize) -> Range<u64> {
    u64::from(start)..u64::from(start) + len as u64
}

fn overlaps(ranges: &[Range<u64>], other: &Range<u64>) -> bool {
    ranges
        .iter()
        .any(|range| range.start < other.end && other.start < range.end)
}

impl Guard {
    /// Whether an op must not be executed now.
    pub(super) fn forbids<S: MapStore>(&self, store: &S, op: &Op) -> bool {
        match op {
            Op::PutFrontend { value, .. } => self.leads_nowhere(value),
            Op::PutSlots { start, slots } => {
                overlaps(&self.held_slots, &slots_of(*start, slots.len()))
                    || (!self.missing_backends.is_empty()
                        && slots.iter().any(|id| self.missing_backends.contains(id)))
            }
            Op::PutBackend { id, backend } => {
                (self.blind || self.held_backends.contains(id)) && differs(store, *id, backend)
            }
            Op::DeleteBackend { id, .. } => self.blind || self.held_backends.contains(id),
            Op::DeleteRange(key) => self.blind || self.held_services.contains(&key.service.get()),
            Op::ClearFilterBit(_) => self.blind || self.held,
            _ => false,
        }
    }

    /// Notes that an op was not executed.
    pub(super) fn failed<S: MapStore>(&mut self, store: &S, op: &Op) {
        match op {
            Op::PutBackend { id, .. } => {
                self.missing_backends.insert(*id);
            }
            Op::PutSlots { start, slots } => {
                self.missing_slots.push(slots_of(*start, slots.len()));
            }
            Op::PutRange(key) => {
                self.missing_ranges.insert(key.service.get());
            }
            Op::PutFrontend { key, .. } | Op::DeleteFrontend(key) => self.hold(store, key),
            _ => {}
        }
    }

    fn leads_nowhere(&self, value: &Frontend) -> bool {
        self.missing_ranges.contains(&value.service)
            || match value.len {
                0 => false,
                1 => self.missing_backends.contains(&value.slots),
                len => overlaps(&self.missing_slots, &slots_of(value.slots, len as usize)),
            }
    }

    /// Keeps what a frontend names now.
    fn hold<S: MapStore>(&mut self, store: &S, key: &FrontendKey) {
        let Ok(found) = store.get_one::<typed::lb_frontends_v1>(key) else {
            self.blind = true;
            return;
        };
        let Some(value) = found else { return };
        self.held = true;
        self.held_services.insert(value.service);
        match value.len {
            0 => {}
            1 => {
                self.held_backends.insert(value.slots);
            }
            len => {
                self.held_slots.push(slots_of(value.slots, len as usize));
                let slots = store.load_many::<typed::lb_slots_v1>(value.slots, len);
                match slots {
                    Ok(ids) => self.held_backends.extend(ids),
                    Err(_) => self.blind = true,
                }
            }
        }
    }
}

fn differs<S: MapStore>(store: &S, id: u32, backend: &Backend) -> bool {
    let found = store.load_many::<typed::lb_backends_v1>(id, 1);
    !found.is_ok_and(|found| found.first() == Some(backend))
}

/// The thing that an op writes: of two ops with the same, the later one counts.
#[derive(PartialEq, Eq, Hash)]
enum Object {
    Backend(u32),
    Range(lb_common::RangeKey),
    Bit(u32),
    Frontend(FrontendKey),
    ServiceCounter(u32),
    BackendCounter(u32),
}

fn object(op: &Op) -> Option<Object> {
    Some(match op {
        Op::PutBackend { id, .. } | Op::DeleteBackend { id, .. } => Object::Backend(*id),
        Op::PutRange(key) | Op::DeleteRange(key) => Object::Range(*key),
        Op::SetFilterBit(bit) | Op::ClearFilterBit(bit) => Object::Bit(*bit),
        Op::PutFrontend { key, .. } | Op::DeleteFrontend(key) => Object::Frontend(*key),
        Op::ResetServiceCounter(id) => Object::ServiceCounter(*id),
        Op::ResetBackendCounter(id) => Object::BackendCounter(*id),
        Op::PutSlots { .. } | Op::PurgeAffinity { .. } | Op::PurgeUdp { .. } => return None,
    })
}

/// The ops that failed before and that a new batch does not make obsolete.
pub(super) fn still_wanted(pending: Vec<Op>, batch: &Batch) -> Vec<Op> {
    let newer: HashSet<Object> = batch.ops.iter().filter_map(object).collect();
    let tables: Vec<Range<u64>> = batch
        .ops
        .iter()
        .filter_map(|op| match op {
            Op::PutSlots { start, slots } => Some(slots_of(*start, slots.len())),
            _ => None,
        })
        .collect();
    let obsolete = |op: &Op| match op {
        Op::PutSlots { start, slots } => overlaps(&tables, &slots_of(*start, slots.len())),
        op => object(op).is_some_and(|object| newer.contains(&object)),
    };
    pending.into_iter().filter(|op| !obsolete(op)).collect()
}
