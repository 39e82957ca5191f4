//! The maps of the running kernel.

use std::io;

use lb_common::schema::{Kind, MMAPABLE};

use super::{
    error::Error,
    map::{BpfMap, Entries, WriteError},
    mmap::Window,
    store::{MapStore, out_of_range},
    table::Table,
};

/// Arrays up to this size are mapped whole. The kernel maps every page of a
/// window at once, and all of them count as the agent's resident memory.
const WHOLE: usize = 8 << 20;
/// Larger ones are mapped in pieces of this size, one at a time.
const PIECE: usize = 2 << 20;
/// Bytes of zeros that one call writes to per-CPU counters.
const ZEROS: usize = 1 << 20;

/// Every map of the schema, open.
#[derive(Debug)]
pub struct KernelStore {
    maps: Vec<BpfMap>,
    windows: Vec<Option<Piece>>,
    clean: Vec<Clean>,
}

#[derive(Debug)]
struct Piece {
    first: u32,
    count: u32,
    window: Window,
}

/// Which counters are known to be zero without asking: those of a map that was
/// made by this process, until their id is used.
#[derive(Debug, Default)]
struct Clean {
    fresh: bool,
    used: Vec<u64>,
}

impl Clean {
    /// Whether a counter must be zeroed before its id is used; it is used now.
    fn take(&mut self, id: u32) -> bool {
        if !self.fresh {
            return true;
        }
        let (word, bit) = (id as usize / 64, 1u64 << (id % 64));
        if self.used.len() <= word {
            self.used.resize(word + 1, 0);
        }
        let used = self.used[word] & bit != 0;
        self.used[word] |= bit;
        used
    }
}

impl KernelStore {
    /// Takes the open maps over, in the order of [`Table::ALL`]; `fresh` says
    /// which of them have just been made.
    pub(super) fn new(maps: Vec<(BpfMap, bool)>) -> Self {
        let clean = maps
            .iter()
            .map(|(_, fresh)| Clean {
                fresh: *fresh,
                ..Clean::default()
            })
            .collect();
        let maps: Vec<BpfMap> = maps.into_iter().map(|(map, _)| map).collect();
        Self {
            windows: maps.iter().map(|_| None).collect(),
            maps,
            clean,
        }
    }

    /// An open map.
    pub(super) fn map(&self, table: Table) -> &BpfMap {
        &self.maps[table as usize]
    }

    /// A second descriptor of a map, for another thread.
    pub(super) fn clone_map(&self, table: Table) -> Result<BpfMap, Error> {
        self.map(table).try_clone().map_err(|source| Error::Map {
            map: table.name(),
            call: "dup",
            source,
        })
    }

    /// The window that holds element `index` of an array, and its first element.
    fn window(&mut self, table: Table, index: u32) -> io::Result<&Piece> {
        let map = &self.maps[table as usize];
        let slot = &mut self.windows[table as usize];
        let holds = |p: &Piece| index >= p.first && index - p.first < p.count;
        if !slot.as_ref().is_some_and(holds) {
            let info = map.info();
            let bytes = (info.value_size as usize).next_multiple_of(8);
            let whole = bytes * info.max_entries as usize <= WHOLE;
            let piece = if whole {
                info.max_entries
            } else {
                (PIECE / bytes) as u32
            };
            let first = index / piece * piece;
            let count = piece.min(info.max_entries - first);
            let window = Window::new(map.fd(), info.value_size as usize, first, count, true)?;
            *slot = Some(Piece {
                first,
                count,
                window,
            });
        }
        slot.as_ref().ok_or_else(out_of_range)
    }
}

fn mapped(table: Table) -> bool {
    table.def().flags & MMAPABLE != 0
}

impl MapStore for KernelStore {
    fn capacity(&self, table: Table) -> u32 {
        self.map(table).info().max_entries
    }

    fn update(&mut self, table: Table, keys: &[u8], values: &[u8]) -> Result<(), WriteError> {
        self.map(table).update_batch(keys, values, 0)
    }

    fn delete(&mut self, table: Table, keys: &[u8]) -> Result<(), WriteError> {
        self.map(table).delete_batch(keys)
    }

    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.map(table).lookup(key)
    }

    fn entries(&self, table: Table) -> io::Result<Entries> {
        self.map(table).read_all()
    }

    fn store(&mut self, table: Table, first: u32, values: &[u8]) -> io::Result<()> {
        let size = self.map(table).info().value_size as usize;
        let count = (values.len() / size) as u32;
        if values.len() % size != 0
            || first
                .checked_add(count)
                .is_none_or(|end| end > self.capacity(table))
        {
            return Err(out_of_range());
        }
        if !mapped(table) {
            let each = (first..).zip(values.chunks_exact(size));
            return each
                .into_iter()
                .try_for_each(|(id, value)| self.map(table).update(&id.to_ne_bytes(), value));
        }
        let mut done = 0;
        while done < count {
            let index = first + done;
            let piece = self.window(table, index)?;
            let at = index - piece.first;
            let here = (piece.count - at).min(count - done);
            let (from, to) = (done as usize * size, (done + here) as usize * size);
            piece.window.write(at as usize, &values[from..to]);
            done += here;
        }
        Ok(())
    }

    fn load(&self, table: Table, first: u32, count: u32) -> io::Result<Vec<u8>> {
        let map = self.map(table);
        let info = map.info();
        if first
            .checked_add(count)
            .is_none_or(|end| end > info.max_entries)
        {
            return Err(out_of_range());
        }
        let size = info.value_size as usize;
        let mut out = Vec::with_capacity(count as usize * size + 8);
        if !mapped(table) {
            for id in first..first + count {
                out.extend(
                    map.lookup(&id.to_ne_bytes())?
                        .unwrap_or_else(|| vec![0; size]),
                );
            }
            return Ok(out);
        }
        let piece = (PIECE / size.next_multiple_of(8)) as u32;
        let mut done = 0;
        while done < count {
            let here = piece.min(count - done);
            let window = Window::new(map.fd(), size, first + done, here, false)?;
            window.read(0, here as usize, &mut out);
            done += here;
        }
        Ok(out)
    }

    fn zero(&mut self, table: Table, ids: &[u32]) -> Result<(), WriteError> {
        let clean = &mut self.clean[table as usize];
        // The positions are kept, to tell which one failed.
        let dirty: Vec<(usize, u32)> = ids
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, id)| clean.take(*id))
            .collect();
        let bytes = self.map(table).value_bytes();
        let zeros = vec![0; (ZEROS / bytes).clamp(1, dirty.len().max(1)) * bytes];
        for chunk in dirty.chunks(zeros.len() / bytes) {
            let keys: Vec<u8> = chunk.iter().flat_map(|(_, id)| id.to_ne_bytes()).collect();
            let values = &zeros[..chunk.len() * bytes];
            self.map(table)
                .update_batch(&keys, values, 0)
                .map_err(|error| WriteError {
                    done: chunk.get(error.done).map_or(ids.len(), |(at, _)| *at),
                    error: error.error,
                })?;
        }
        Ok(())
    }
}

/// Whether a table is a per-CPU array of counters.
pub(super) fn is_counter(table: Table) -> bool {
    table.def().kind == Kind::PerCpuArray
}

#[cfg(test)]
mod tests {
    use super::Clean;

    #[test]
    fn a_fresh_counter_needs_no_zeroing_until_its_id_is_given_again() {
        let mut clean = Clean {
            fresh: true,
            used: Vec::new(),
        };
        assert!(!clean.take(70));
        assert!(clean.take(70));
        assert!(!clean.take(3));
        let mut old = Clean::default();
        assert!(old.take(3));
    }
}
