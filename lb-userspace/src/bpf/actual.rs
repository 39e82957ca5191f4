//! What the maps hold, as planning wants to see it.

use std::{cell::RefCell, io};

use lb_common::{Backend, backend_flags};
use lb_plan::{Actual, SlotReader};

use super::{
    apply::Programmer,
    kernel::KernelStore,
    map::BpfMap,
    mmap::Mapped,
    store::{MapStore, MapStoreExt as _, values_of},
    table::{Table, typed},
};

/// Backends read at a time.
const CHUNK: u32 = 65_536;

/// Reads everything that planning restores itself from, but the slots.
fn without_slots<S: MapStore>(programmer: &Programmer<S>) -> io::Result<Actual> {
    let store = programmer.store();
    let mut actual = Actual {
        frontends: store.all::<typed::lb_frontends_v1>()?,
        ranges: store
            .all::<typed::lb_ranges_v1>()?
            .into_iter()
            .map(|(key, _)| key)
            .collect(),
        filter: programmer.filter().to_vec(),
        ..Actual::default()
    };
    actual.backends.extend(live_backends(store)?);
    Ok(actual)
}

/// The backends that are live, with their ids.
pub(super) fn live_backends<S: MapStore>(store: &S) -> io::Result<Vec<(u32, Backend)>> {
    let capacity = store.capacity(Table::lb_backends_v1);
    let mut live = Vec::new();
    for first in (0..capacity).step_by(CHUNK as usize) {
        let count = CHUNK.min(capacity - first);
        let backends = store.load_many::<typed::lb_backends_v1>(first, count)?;
        let all = (first..).zip(backends);
        live.extend(all.filter(|(_, b)| b.flags & backend_flags::LIVE != 0));
    }
    Ok(live)
}

impl Programmer<KernelStore> {
    /// What the maps of the kernel hold.
    pub fn actual(&self) -> io::Result<Actual> {
        let map = self.store().map(Table::lb_slots_v1).try_clone()?;
        Ok(Actual {
            slots: Box::new(KernelSlots::new(map)),
            ..without_slots(self)?
        })
    }
}

impl<S: MapStore + Clone + 'static> Programmer<S> {
    /// What the maps of a fake hold, at this moment.
    pub fn snapshot(&self) -> io::Result<Actual> {
        Ok(Actual {
            slots: Box::new(StoredSlots(self.store().clone())),
            ..without_slots(self)?
        })
    }
}

/// The slot array of the kernel. A piece of it is mapped at a time: the whole
/// would count as the agent's memory.
struct KernelSlots {
    map: BpfMap,
    mapped: RefCell<Mapped>,
}

impl KernelSlots {
    fn new(map: BpfMap) -> Self {
        let mapped = Mapped::of(Table::lb_slots_v1, &map, false);
        Self {
            mapped: RefCell::new(mapped),
            map,
        }
    }
}

impl SlotReader for KernelSlots {
    fn read(&self, start: u32, out: &mut [u32]) {
        let mut bytes = Vec::with_capacity(out.len() * 4 + 8);
        let range = (start, out.len() as u32);
        // A table that cannot be read is one that is not there: it is written anew.
        if let Err(error) = self
            .mapped
            .borrow_mut()
            .read(self.map.fd(), range, &mut bytes)
        {
            tracing::warn!("lb_slots_v1: cannot read the table at {start}: {error}");
            bytes.clear();
        }
        fill(out, &bytes);
    }
}

struct StoredSlots<S>(S);

impl<S: MapStore> SlotReader for StoredSlots<S> {
    fn read(&self, start: u32, out: &mut [u32]) {
        let bytes = self.0.load(Table::lb_slots_v1, start, out.len() as u32);
        fill(out, &bytes.unwrap_or_default());
    }
}

fn fill(out: &mut [u32], bytes: &[u8]) {
    out.fill(0);
    for (to, from) in out.iter_mut().zip(values_of::<u32>(bytes)) {
        *to = from;
    }
}
