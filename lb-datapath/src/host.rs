//! A flow table in ordinary memory: a map that the agent has mapped, or a test's.

use core::sync::atomic::{AtomicU64, Ordering};

use lb_common::{CtEntry, CtKey, conntrack::buckets_in};

use crate::{
    family::Family,
    table::{self, Buckets, Insert, InsertError, Words},
    tables::Hit,
};

impl Words for &[AtomicU64] {
    fn from(self, word: usize) -> Self {
        &self[word..]
    }
    fn load(self, word: usize) -> u64 {
        self[word].load(Ordering::Acquire)
    }
    fn store(self, word: usize, value: u64) {
        self[word].store(value, Ordering::Relaxed);
    }
    fn publish(self, word: usize, value: u64) {
        self[word].store(value, Ordering::Release);
    }
    fn set(self, word: usize, bits: u64) {
        self[word].fetch_or(bits, Ordering::AcqRel);
    }
    fn keep(self, word: usize, bits: u64) {
        self[word].fetch_and(bits, Ordering::AcqRel);
    }
    fn compare_exchange(self, word: usize, old: u64, new: u64) -> u64 {
        let exchanged = self[word].compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
        exchanged.unwrap_or_else(|found| found)
    }
}

/// A family's table.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Its elements, one after the other.
    pub words: &'a [AtomicU64],
    /// Seed of its hash.
    pub seed: u64,
}

impl<'a, F: Family> Buckets<F> for Table<'a> {
    type Bucket = &'a [AtomicU64];

    fn buckets(&self) -> u32 {
        buckets_in((self.words.len() / F::BUCKET_WORDS) as u32)
    }
    fn seed(&self) -> u64 {
        self.seed
    }
    fn element(&self, index: u32) -> Option<Self::Bucket> {
        let words = F::BUCKET_WORDS;
        let start = index as usize * words;
        self.words.get(start..start + words)
    }
    fn search(&self, key: &CtKey<F::Addr>, hash: u64) -> u32 {
        table::search::<F, _>(self, key, hash)
    }
    fn vacancy(&self, bucket: u32, home: u32, now: u32) -> u32 {
        table::vacancy::<F, _>(self, bucket, home, now)
    }
    fn tell(&self, hit: &Hit<F::Addr>, proto: u32, news: u64) {
        table::tell::<F, _>(self, hit, proto, news);
    }
    fn insert(
        &self,
        key: &CtKey<F::Addr>,
        entry: &CtEntry<F::Addr>,
        how: Insert,
        now: u32,
    ) -> Result<(), InsertError> {
        table::insert::<F, _>(self, key, entry, how, now)
    }
}
