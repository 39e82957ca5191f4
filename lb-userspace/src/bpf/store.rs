//! The seam between programming and the kernel: maps as bytes. The real store
//! is [`super::kernel::KernelStore`]; a fake and a faulty twin serve the tests.

use std::io;

use bytemuck::{bytes_of, cast_slice};

pub use super::map::{Entries, WriteError};
use super::table::{Table, Typed};

/// Maps that can be read and written. Keys and values are those of the schema;
/// several lie end to end.
pub trait MapStore: Send {
    /// Most entries of a map.
    fn capacity(&self, table: Table) -> u32;

    /// Writes entries of a hash or trie, in order.
    fn update(&mut self, table: Table, keys: &[u8], values: &[u8]) -> Result<(), WriteError>;

    /// Removes entries of a hash or trie; one that is not there counts as removed.
    fn delete(&mut self, table: Table, keys: &[u8]) -> Result<(), WriteError>;

    /// Reads one entry of a hash.
    fn get(&self, table: Table, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Reads all entries of a hash or trie.
    fn entries(&self, table: Table) -> io::Result<Entries>;

    /// Writes consecutive elements of an array, from `first` on. Whoever reads an
    /// element in the meantime finds the old one, the new one, or one whose last
    /// 8 bytes are zero (for a backend: one that is not live).
    fn store(&mut self, table: Table, first: u32, values: &[u8]) -> io::Result<()>;

    /// Reads consecutive elements of an array.
    fn load(&self, table: Table, first: u32, count: u32) -> io::Result<Vec<u8>>;

    /// Zeroes elements of a per-CPU array of counters.
    fn zero(&mut self, table: Table, ids: &[u32]) -> Result<(), WriteError>;
}

/// Typed access to any store.
pub trait MapStoreExt: MapStore {
    /// Reads one entry.
    fn get_one<T: Typed>(&self, key: &T::Key) -> io::Result<Option<T::Value>> {
        let value = self.get(T::TABLE, bytes_of(key))?;
        Ok(value.map(|bytes| bytemuck::pod_read_unaligned(&bytes)))
    }

    /// Reads all entries.
    fn all<T: Typed>(&self) -> io::Result<Vec<(T::Key, T::Value)>> {
        Ok(self.entries(T::TABLE)?.typed::<T>().collect())
    }

    /// Writes one element of an array.
    fn store_one<T: Typed<Key = u32>>(&mut self, index: u32, value: &T::Value) -> io::Result<()> {
        self.store(T::TABLE, index, bytes_of(value))
    }

    /// Reads consecutive elements of an array.
    fn load_many<T: Typed<Key = u32>>(&self, first: u32, count: u32) -> io::Result<Vec<T::Value>> {
        let bytes = self.load(T::TABLE, first, count)?;
        Ok(values_of::<T::Value>(&bytes).collect())
    }

    /// Writes consecutive elements of an array.
    fn store_many<T: Typed<Key = u32>>(
        &mut self,
        first: u32,
        values: &[T::Value],
    ) -> io::Result<()> {
        self.store(T::TABLE, first, cast_slice(values))
    }
}

impl<S: MapStore + ?Sized> MapStoreExt for S {}

/// Keys and values of a map.
pub(super) type Pairs<T> = Vec<(<T as Typed>::Key, <T as Typed>::Value)>;

/// Values that lie end to end.
pub(super) fn values_of<V: bytemuck::Pod>(bytes: &[u8]) -> impl Iterator<Item = V> + '_ {
    bytes
        .chunks_exact(size_of::<V>())
        .map(bytemuck::pod_read_unaligned)
}

impl Entries {
    /// The entries as keys and values of a map.
    pub fn typed<T: Typed>(&self) -> impl Iterator<Item = (T::Key, T::Value)> + '_ {
        values_of::<T::Key>(&self.keys).zip(values_of::<T::Value>(&self.values))
    }
}

/// The error of an index or a size that a map does not have.
pub(super) fn out_of_range() -> io::Error {
    io::Error::from_raw_os_error(libc::E2BIG)
}
