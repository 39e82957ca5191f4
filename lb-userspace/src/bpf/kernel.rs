//! The maps of the running kernel.

use std::io;

use lb_common::schema::MMAPABLE;

use super::{
    error::Error,
    map::{BpfMap, Entries, WriteError},
    mmap::Mapped,
    store::{MapStore, out_of_range},
    table::Table,
};

/// Bytes of zeros that one call writes to per-CPU counters.
const ZEROS: usize = 1 << 20;

/// Every map of the schema, open.
#[derive(Debug)]
pub struct KernelStore {
    maps: Vec<BpfMap>,
    windows: Vec<Mapped>,
    clean: Vec<Clean>,
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
        // Counters of a map that was made anew beside others that were not may
        // have been used already: by ids that those hold.
        let all_fresh = maps.iter().all(|(_, fresh)| *fresh);
        let clean = maps
            .iter()
            .map(|_| Clean {
                fresh: all_fresh,
                ..Clean::default()
            })
            .collect();
        let maps: Vec<BpfMap> = maps.into_iter().map(|(map, _)| map).collect();
        let windows = Table::ALL
            .iter()
            .zip(&maps)
            .map(|(table, map)| Mapped::of(*table, map, true))
            .collect();
        Self {
            maps,
            windows,
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
}

fn mapped(table: Table) -> bool {
    table.def().flags & MMAPABLE != 0
}

impl MapStore for KernelStore {
    fn capacity(&self, table: Table) -> u32 {
        table.def().values(self.map(table).info().max_entries)
    }

    fn update(&mut self, table: Table, keys: &[u8], values: &[u8]) -> Result<(), WriteError> {
        self.map(table).update_batch(keys, values)
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
        let size = table.def().value_size as usize;
        let count = (values.len() / size) as u32;
        if !values.len().is_multiple_of(size)
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
            let map = &self.maps[table as usize];
            let (window, at, left) = self.windows[table as usize].at(map.fd(), first + done)?;
            let here = left.min((count - done) as usize);
            let from = done as usize * size;
            window.write(at, &values[from..from + here * size]);
            done += here as u32;
        }
        Ok(())
    }

    fn load(&self, table: Table, first: u32, count: u32) -> io::Result<Vec<u8>> {
        let map = self.map(table);
        if first
            .checked_add(count)
            .is_none_or(|end| end > self.capacity(table))
        {
            return Err(out_of_range());
        }
        let size = table.def().value_size as usize;
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
        // A mapping of its own: reading leaves the one for writing where it is.
        let mut mapped = Mapped::of(table, map, false);
        mapped.read(map.fd(), (first, count), &mut out)?;
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
                .update_batch(&keys, values)
                .map_err(|error| WriteError {
                    done: chunk.get(error.done).map_or(ids.len(), |(at, _)| *at),
                    error: error.error,
                })?;
        }
        Ok(())
    }
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
