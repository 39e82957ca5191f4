//! Twins of the kernel's maps: one that lives in memory, and one that fails.

use std::{
    collections::{BTreeMap, HashMap},
    io,
};

use lb_common::schema::Kind;

use super::{
    settings::MapSizes,
    store::{Entries, MapStore, WriteError, out_of_range},
    table::Table,
};

/// Maps in memory, with the sizes, and the errors of full maps, of the kernel's.
#[derive(Clone, Debug, Default)]
pub struct FakeStore {
    sizes: MapSizes,
    hashes: HashMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
    arrays: HashMap<Table, BTreeMap<u32, Vec<u8>>>,
}

impl FakeStore {
    /// Empty maps of these sizes.
    pub fn new(sizes: MapSizes) -> Self {
        Self {
            sizes,
            ..Self::default()
        }
    }

    /// Every map's contents, to compare two stores; elements of arrays that are
    /// zero are left out, as an array has no empty elements.
    pub fn contents(&self) -> BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut all = BTreeMap::new();
        for (table, entries) in &self.hashes {
            all.insert(table.name(), entries.clone());
        }
        for (table, elements) in &self.arrays {
            let nonzero = elements
                .iter()
                .filter(|(_, value)| value.iter().any(|b| *b != 0));
            let keyed = nonzero.map(|(id, value)| (id.to_be_bytes().to_vec(), value.clone()));
            all.insert(table.name(), keyed.collect());
        }
        all.retain(|_, entries: &mut BTreeMap<_, _>| !entries.is_empty());
        all
    }

    fn is_array(table: Table) -> bool {
        matches!(
            table.def().kind,
            Kind::Array | Kind::Packed | Kind::PerCpuArray
        )
    }

    /// What the kernel answers when a map of this kind has no room:
    /// `htab_map_alloc_elem` E2BIG, `trie_update_elem` ENOSPC.
    fn full(table: Table) -> io::Error {
        match table.def().kind {
            Kind::LpmTrie => io::Error::from_raw_os_error(libc::ENOSPC),
            _ => io::Error::from_raw_os_error(libc::E2BIG),
        }
    }
}

impl MapStore for FakeStore {
    fn capacity(&self, table: Table) -> u32 {
        self.sizes.of(table)
    }

    fn update(&mut self, table: Table, keys: &[u8], values: &[u8]) -> Result<(), WriteError> {
        assert!(!Self::is_array(table), "{table} is an array");
        let capacity = self.capacity(table) as usize;
        let entries = self.hashes.entry(table).or_default();
        let (key_size, value_size) = sizes_of(table);
        assert_eq!(
            keys.len() / key_size * value_size,
            values.len(),
            "{table}: keys and values"
        );
        let pairs = keys
            .chunks_exact(key_size)
            .zip(values.chunks_exact(value_size));
        for (done, (key, value)) in pairs.enumerate() {
            if entries.len() >= capacity && !entries.contains_key(key) {
                return Err(WriteError {
                    done,
                    error: Self::full(table),
                });
            }
            entries.insert(key.to_vec(), value.to_vec());
        }
        Ok(())
    }

    fn delete(&mut self, table: Table, keys: &[u8]) -> Result<(), WriteError> {
        assert!(!Self::is_array(table), "{table} is an array");
        let entries = self.hashes.entry(table).or_default();
        for key in keys.chunks_exact(sizes_of(table).0) {
            entries.remove(key);
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self
            .hashes
            .get(&table)
            .and_then(|entries| entries.get(key))
            .cloned())
    }

    fn entries(&self, table: Table) -> io::Result<Entries> {
        let mut all = Entries::default();
        for (key, value) in self.hashes.get(&table).into_iter().flatten() {
            all.keys.extend_from_slice(key);
            all.values.extend_from_slice(value);
        }
        Ok(all)
    }

    fn store(&mut self, table: Table, first: u32, values: &[u8]) -> io::Result<()> {
        assert!(Self::is_array(table), "{table} is no array");
        let size = sizes_of(table).1;
        assert_eq!(values.len() % size, 0, "{table}: values");
        if first as usize + values.len() / size > self.capacity(table) as usize {
            return Err(out_of_range());
        }
        let elements = self.arrays.entry(table).or_default();
        for (id, value) in (first..).zip(values.chunks_exact(size)) {
            elements.insert(id, value.to_vec());
        }
        Ok(())
    }

    fn load(&self, table: Table, first: u32, count: u32) -> io::Result<Vec<u8>> {
        assert!(Self::is_array(table), "{table} is no array");
        if first as usize + count as usize > self.capacity(table) as usize {
            return Err(out_of_range());
        }
        let size = sizes_of(table).1;
        let mut out = vec![0; count as usize * size];
        let Some(elements) = self.arrays.get(&table) else {
            return Ok(out);
        };
        for (id, value) in elements.range(first..first + count) {
            let at = (id - first) as usize * size;
            out[at..at + size].copy_from_slice(value);
        }
        Ok(out)
    }

    fn zero(&mut self, table: Table, ids: &[u32]) -> Result<(), WriteError> {
        let zeros = vec![0; sizes_of(table).1];
        for (done, id) in ids.iter().enumerate() {
            self.store(table, *id, &zeros)
                .map_err(|error| WriteError { done, error })?;
        }
        Ok(())
    }
}

fn sizes_of(table: Table) -> (usize, usize) {
    (
        table.def().key_size as usize,
        table.def().value_size as usize,
    )
}

/// A store whose writes fail as the test says.
#[derive(Debug)]
pub struct FaultyStore<S> {
    /// The store that does what does not fail.
    pub inner: S,
    /// Writes left (elements, not calls) until one fails; `None` for never.
    pub fail_after: Option<usize>,
    /// Only writes to this map count; `None` for all.
    pub only: Option<Table>,
    /// The error of the failing write.
    pub errno: i32,
    /// Whether later writes fail too.
    pub forever: bool,
}

impl<S: MapStore> FaultyStore<S> {
    /// A store whose `nth` written element (from 0) fails once, with `errno`.
    pub fn nth(inner: S, nth: usize, errno: i32) -> Self {
        Self {
            inner,
            fail_after: Some(nth),
            only: None,
            errno,
            forever: false,
        }
    }

    /// How many of `count` elements are written before one fails.
    fn admit(&mut self, table: Table, count: usize) -> Result<(), WriteError> {
        if self.only.is_some_and(|only| only != table) {
            return Ok(());
        }
        match self.fail_after {
            Some(left) if left < count => {
                self.fail_after = self.forever.then_some(0);
                Err(WriteError {
                    done: left,
                    error: io::Error::from_raw_os_error(self.errno),
                })
            }
            Some(left) => {
                self.fail_after = Some(left - count);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl<S: MapStore> MapStore for FaultyStore<S> {
    fn capacity(&self, table: Table) -> u32 {
        self.inner.capacity(table)
    }

    fn update(&mut self, table: Table, keys: &[u8], values: &[u8]) -> Result<(), WriteError> {
        let (key_size, value_size) = sizes_of(table);
        let admitted = self.admit(table, keys.len() / key_size);
        let count = admitted
            .as_ref()
            .map_or_else(|e| e.done, |()| keys.len() / key_size);
        self.inner.update(
            table,
            &keys[..count * key_size],
            &values[..count * value_size],
        )?;
        admitted
    }

    fn delete(&mut self, table: Table, keys: &[u8]) -> Result<(), WriteError> {
        let key_size = sizes_of(table).0;
        let admitted = self.admit(table, keys.len() / key_size);
        let count = admitted
            .as_ref()
            .map_or_else(|e| e.done, |()| keys.len() / key_size);
        self.inner.delete(table, &keys[..count * key_size])?;
        admitted
    }

    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.inner.get(table, key)
    }

    fn entries(&self, table: Table) -> io::Result<Entries> {
        self.inner.entries(table)
    }

    fn store(&mut self, table: Table, first: u32, values: &[u8]) -> io::Result<()> {
        self.admit(table, 1).map_err(|failure| failure.error)?;
        self.inner.store(table, first, values)
    }

    fn load(&self, table: Table, first: u32, count: u32) -> io::Result<Vec<u8>> {
        self.inner.load(table, first, count)
    }

    fn zero(&mut self, table: Table, ids: &[u32]) -> Result<(), WriteError> {
        let admitted = self.admit(table, ids.len());
        let count = admitted.as_ref().map_or_else(|e| e.done, |()| ids.len());
        self.inner.zero(table, &ids[..count])?;
        admitted
    }
}
