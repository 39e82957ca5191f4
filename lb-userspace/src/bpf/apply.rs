//! The one interpreter of [`Op`]s: writes a batch to a store, in order, runs of
//! the same kind together.
//!
//! What a failed write would have made true is not relied on: a frontend whose
//! table, backend or source range could not be written stays as it was, and
//! what a frontend that could not be switched or removed still names stays too.
//! So after every batch, failed or not, each frontend names only live backends.
//! Failed ops are kept and tried again before the next batch.

use std::{io, ops::Range};

use bytemuck::{Zeroable as _, bytes_of};
use lb_common::{Backend, Frontend, NodeConfig};
use lb_plan::op::{Batch, Op};

use super::{
    failure::{ApplyReport, Failure, Purge},
    guard::{Guard, still_wanted},
    store::{MapStore, MapStoreExt as _, WriteError},
    table::{Table, typed},
};

/// Programs the maps of a store. It must be their only writer: the filter is
/// kept here as well, because a bit is a part of a word.
#[derive(Debug)]
pub struct Programmer<S> {
    store: S,
    filter: Vec<u64>,
    pending: Vec<Op>,
}

impl<S: MapStore> Programmer<S> {
    /// Takes a store over, with what is in its maps.
    pub fn new(store: S) -> io::Result<Self> {
        let mut programmer = Self {
            store,
            filter: Vec::new(),
            pending: Vec::new(),
        };
        programmer.reread()?;
        Ok(programmer)
    }

    /// Takes the maps as they are now, and forgets what failed: for planning anew.
    pub fn reread(&mut self) -> io::Result<()> {
        let words = self.store.capacity(Table::lb_filter_v1);
        self.filter = self.store.load_many::<typed::lb_filter_v1>(0, words)?;
        self.pending.clear();
        Ok(())
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, for tests that make it fail.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The words of the filter, as they stand in the map.
    pub fn filter(&self) -> &[u64] {
        &self.filter
    }

    /// Ops that failed and will be tried again.
    pub fn pending(&self) -> &[Op] {
        &self.pending
    }

    /// Writes what the datapath must know of its node.
    pub fn configure(&mut self, config: &NodeConfig) -> io::Result<()> {
        self.store.store_one::<typed::lb_node_v1>(0, config)
    }

    /// Writes what failed before, then a batch. Never panics, never stops: a
    /// write that fails is reported and kept, and whatever does not depend on it
    /// is done. With an empty batch this is a retry.
    pub fn apply(&mut self, batch: &Batch) -> ApplyReport {
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return self.run(&batch.ops);
        }
        let mut ops = still_wanted(pending, batch);
        ops.extend_from_slice(&batch.ops);
        self.run(&ops)
    }

    fn run(&mut self, ops: &[Op]) -> ApplyReport {
        let mut run = Run {
            programmer: self,
            report: ApplyReport::default(),
            guard: Guard::default(),
        };
        for same in ops.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
            run.execute(same);
        }
        let report = run.report;
        self.pending = report
            .failed
            .iter()
            .map(|failure| failure.op.clone())
            .collect();
        report
    }

    fn filter_bit(&mut self, bit: u32, on: bool) -> io::Result<()> {
        let index = bit >> 6;
        let word = self.filter.get(index as usize).copied().unwrap_or(0);
        let mask = 1u64 << (bit & 63);
        let word = if on { word | mask } else { word & !mask };
        self.store.store_one::<typed::lb_filter_v1>(index, &word)?;
        self.filter[index as usize] = word;
        Ok(())
    }
}

struct Run<'a, S> {
    programmer: &'a mut Programmer<S>,
    report: ApplyReport,
    guard: Guard,
}

impl<S: MapStore> Run<'_, S> {
    /// Executes ops of one kind.
    fn execute(&mut self, ops: &[Op]) {
        match ops.first() {
            Some(Op::PutFrontend { .. }) => self.put_frontends(ops),
            Some(Op::PutRange(_) | Op::DeleteRange(_) | Op::DeleteFrontend(_)) => self.keyed(ops),
            Some(Op::ResetServiceCounter(_)) => self.zero(Table::lb_svc_ctr_v1, ops),
            Some(Op::ResetBackendCounter(_)) => self.zero(Table::lb_be_ctr_v1, ops),
            _ => self.singles(ops),
        }
    }

    /// Ops that write elements of arrays, and those that write no map.
    fn singles(&mut self, ops: &[Op]) {
        for op in ops {
            if self.guard.forbids(&self.programmer.store, op) {
                self.skip(op);
                continue;
            }
            match self.single(op) {
                Ok(()) => self.report.written += 1,
                Err(error) => self.fail(op, &error),
            }
        }
    }

    fn single(&mut self, op: &Op) -> io::Result<()> {
        let programmer = &mut *self.programmer;
        let store = &mut programmer.store;
        match op {
            Op::PutBackend { id, backend } => {
                store.store_one::<typed::lb_backends_v1>(*id, backend)
            }
            Op::DeleteBackend { id, .. } => {
                store.store_one::<typed::lb_backends_v1>(*id, &Backend::zeroed())
            }
            Op::PutSlots { start, slots } => store.store_many::<typed::lb_slots_v1>(*start, slots),
            Op::SetFilterBit(bit) => programmer.filter_bit(*bit, true),
            Op::ClearFilterBit(bit) => programmer.filter_bit(*bit, false),
            Op::PurgeAffinity { service, backend } => {
                let (service, backend) = (*service, *backend);
                self.report
                    .purges
                    .push(Purge::Affinity { service, backend });
                Ok(())
            }
            Op::PurgeUdp {
                service,
                id,
                backend,
            } => {
                let (service, id, backend) = (*service, *id, *backend);
                self.report.purges.push(Purge::Udp {
                    service,
                    id,
                    backend,
                });
                Ok(())
            }
            // The others come in runs.
            _ => Ok(()),
        }
    }

    fn put_frontends(&mut self, ops: &[Op]) {
        let allowed = self.allowed(ops);
        let mut keys = Vec::with_capacity(allowed.len() * size_of::<lb_common::FrontendKey>());
        let mut values = Vec::with_capacity(allowed.len() * size_of::<Frontend>());
        for op in &allowed {
            if let Op::PutFrontend { key, value } = op {
                keys.extend_from_slice(bytes_of(key));
                values.extend_from_slice(bytes_of(value));
            }
        }
        self.batch(&allowed, |store, part| {
            update(store, Table::lb_frontends_v1, (&keys, &values), part)
        });
    }

    /// Runs of ops that hold a key each: range puts, and deletions.
    fn keyed(&mut self, ops: &[Op]) {
        let allowed = self.allowed(ops);
        let keys: Vec<u8> = allowed
            .iter()
            .flat_map(|op| match op {
                Op::PutRange(key) | Op::DeleteRange(key) => bytes_of(key),
                Op::DeleteFrontend(key) => bytes_of(key),
                _ => &[],
            })
            .copied()
            .collect();
        match ops.first() {
            Some(Op::PutRange(_)) => {
                // The value of a range says nothing: that the key matches is all.
                let values = vec![0; allowed.len() * size_of::<u32>()];
                self.batch(&allowed, |store, part| {
                    update(store, Table::lb_ranges_v1, (&keys, &values), part)
                });
            }
            Some(Op::DeleteRange(_)) => self.batch(&allowed, |store, part| {
                delete(store, Table::lb_ranges_v1, &keys, part)
            }),
            _ => self.batch(&allowed, |store, part| {
                delete(store, Table::lb_frontends_v1, &keys, part)
            }),
        }
    }

    fn zero(&mut self, table: Table, ops: &[Op]) {
        let ops: Vec<&Op> = ops.iter().collect();
        let ids: Vec<u32> = ops
            .iter()
            .filter_map(|op| match op {
                Op::ResetServiceCounter(id) | Op::ResetBackendCounter(id) => Some(*id),
                _ => None,
            })
            .collect();
        self.batch(&ops, |store, part| store.zero(table, &ids[part]));
    }

    /// Those that may be executed; the others are reported.
    fn allowed<'o>(&mut self, ops: &'o [Op]) -> Vec<&'o Op> {
        let mut allowed = Vec::with_capacity(ops.len());
        for op in ops {
            if self.guard.forbids(&self.programmer.store, op) {
                self.skip(op);
            } else {
                allowed.push(op);
            }
        }
        allowed
    }

    /// Writes elements in batches: after one that fails, on with the next one.
    fn batch(
        &mut self,
        ops: &[&Op],
        mut write: impl FnMut(&mut S, Range<usize>) -> Result<(), WriteError>,
    ) {
        let mut start = 0;
        while start < ops.len() {
            match write(&mut self.programmer.store, start..ops.len()) {
                Ok(()) => {
                    self.report.written += ops.len() - start;
                    return;
                }
                Err(WriteError { done, error }) => {
                    let failed = (start + done).min(ops.len() - 1);
                    self.report.written += failed - start;
                    self.fail(ops[failed], &error);
                    start = failed + 1;
                }
            }
        }
    }

    fn fail(&mut self, op: &Op, error: &io::Error) {
        self.guard.failed(&self.programmer.store, op);
        let store = &self.programmer.store;
        let failure = Failure::new(op, error, |table| store.capacity(table));
        self.report.failed.push(failure);
    }

    fn skip(&mut self, op: &Op) {
        self.fail(op, &io::Error::from_raw_os_error(libc::ECANCELED));
    }
}

fn update<S: MapStore>(
    store: &mut S,
    table: Table,
    (keys, values): (&[u8], &[u8]),
    part: Range<usize>,
) -> Result<(), WriteError> {
    let (k, v) = (
        table.def().key_size as usize,
        table.def().value_size as usize,
    );
    let keys = &keys[part.start * k..part.end * k];
    store.update(table, keys, &values[part.start * v..part.end * v])
}

fn delete<S: MapStore>(
    store: &mut S,
    table: Table,
    keys: &[u8],
    part: Range<usize>,
) -> Result<(), WriteError> {
    let size = table.def().key_size as usize;
    store.delete(table, &keys[part.start * size..part.end * size])
}

/// The map that an op writes.
pub(super) fn table_of(op: &Op) -> Option<Table> {
    Some(match op {
        Op::PutBackend { .. } | Op::DeleteBackend { .. } => Table::lb_backends_v1,
        Op::PutSlots { .. } => Table::lb_slots_v1,
        Op::PutRange(_) | Op::DeleteRange(_) => Table::lb_ranges_v1,
        Op::SetFilterBit(_) | Op::ClearFilterBit(_) => Table::lb_filter_v1,
        Op::PutFrontend { .. } | Op::DeleteFrontend(_) => Table::lb_frontends_v1,
        Op::ResetServiceCounter(_) => Table::lb_svc_ctr_v1,
        Op::ResetBackendCounter(_) => Table::lb_be_ctr_v1,
        Op::PurgeAffinity { .. } | Op::PurgeUdp { .. } => return None,
    })
}
