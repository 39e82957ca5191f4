//! The keys of an Ingress, and what is known of each.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use lru::LruCache;
use sha2::{Digest as _, Sha256};

use super::{Counts, KeyId, Life, Told, ZoneId};
use crate::{
    input::Name,
    limits::{SHARDS, locked},
};

/// Proxies that a key is counted of: what more have to tell is left out.
pub(super) const LIVES: usize = 128;

/// The identity of an Ingress with a window.
pub(super) fn zone_id(ingress: &Name, uid: &str, window: Duration) -> ZoneId {
    let mut hash = Sha256::new();
    // None of them has a byte 0.
    for part in [&*ingress.namespace, &*ingress.name, uid] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(window.as_secs().to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    ZoneId(u64::from_be_bytes(first(&hash)))
}

/// The first bytes of a hash.
fn first<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    std::array::from_fn(|at| hash[at])
}

/// The keys of an Ingress.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) id: ZoneId,
    /// Milliseconds of a window.
    pub(super) length: u64,
    shards: [Mutex<Shard>; SHARDS],
    /// Random: nobody can choose keys that are all in one part.
    hasher: RandomState,
}

impl Zone {
    pub(super) fn new(id: ZoneId, window: Duration) -> Self {
        let length = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Self {
            id,
            length: length.max(1),
            shards: Default::default(),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn key(&self, key: &[u8]) -> KeyId {
        let hash = Sha256::new().chain_update(self.id.0.to_be_bytes());
        KeyId(first(&hash.chain_update(key).finalize().into()))
    }

    /// The window of a time, and milliseconds that have passed of it.
    pub(super) fn window(&self, now: Duration) -> (u64, u64) {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        (now / self.length, now % self.length)
    }

    /// The parts, one after the other.
    pub(super) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(locked)
    }

    pub(super) fn shard(&self, key: KeyId) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        locked(&self.shards[hash as usize % SHARDS])
    }
}

/// A part of a zone.
#[derive(Debug)]
pub(super) struct Shard {
    /// What was seen last is first.
    keys: LruCache<KeyId, Key>,
    untold: Vec<KeyId>,
    again: Vec<KeyId>,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            keys: LruCache::unbounded(),
            untold: Vec::new(),
            again: Vec::new(),
        }
    }
}

/// What is known of a key.
#[derive(Debug, Default)]
struct Key {
    own: Counts,
    others: Vec<(Life, Counts)>,
    is_untold: bool,
    is_again: bool,
}

impl Key {
    fn all(&self) -> impl Iterator<Item = Counts> {
        let others = self.others.iter().map(|(_, counts)| *counts);
        std::iter::once(self.own).chain(others)
    }

    fn is_in_force(&self, window: u64) -> bool {
        self.all().any(|counts| counts.is_in_force(window))
    }
}

impl Shard {
    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Requests of a key in a window, and in the one before.
    pub(super) fn sums(&mut self, key: KeyId, window: u64) -> (u64, u64) {
        let Some(known) = self.keys.get(&key) else {
            return (0, 0);
        };
        let seen = known.all().map(|counts| counts.seen_from(window));
        seen.fold((0, 0), |(now, before), (more, more_before)| {
            (now + u64::from(more), before + u64::from(more_before))
        })
    }

    /// Counts a request. How many counts are forgotten for it.
    pub(super) fn add(&mut self, key: KeyId, window: u64, is_told: bool, capacity: usize) -> u64 {
        let (known, forgotten) = room(&mut self.keys, key, window, capacity);
        known.own.add(window);
        if is_told && !std::mem::replace(&mut known.is_untold, true) {
            self.untold.push(key);
        }
        forgotten
    }

    /// Takes in what another proxy has counted. How many counts are forgotten for it.
    pub(super) fn hear(
        &mut self,
        key: KeyId,
        (life, counts): (Life, Counts),
        window: u64,
        capacity: usize,
    ) -> u64 {
        let (known, forgotten) = room(&mut self.keys, key, window, capacity);
        let others = &mut known.others;
        if let Some((_, known)) = others.iter_mut().find(|(known, _)| *known == life) {
            known.merge(counts);
            return forgotten;
        }
        // Those that have ended go when another comes.
        others.retain(|(_, counts)| counts.is_in_force(window));
        if others.len() >= LIVES {
            return forgotten + 1;
        }
        others.push((life, counts));
        forgotten
    }

    pub(super) fn take_untold(&mut self, zone: ZoneId) -> Vec<Told> {
        let untold = std::mem::take(&mut self.untold).into_iter();
        let told = untold.filter_map(|key| {
            let known = self.keys.peek_mut(&key)?;
            known.is_untold = false;
            if !std::mem::replace(&mut known.is_again, true) {
                self.again.push(key);
            }
            Some(Told::new(zone, key, known.own))
        });
        told.collect()
    }

    pub(super) fn take_again(&mut self, zone: ZoneId) -> Vec<Told> {
        let again = std::mem::take(&mut self.again).into_iter();
        let told = again.filter_map(|key| {
            let known = self.keys.peek_mut(&key)?;
            known.is_again = false;
            Some(Told::new(zone, key, known.own))
        });
        told.collect()
    }

    /// What is in force in a window: of this proxy (`None`), and of others.
    pub(super) fn all(&self, window: u64) -> impl Iterator<Item = (Option<Life>, KeyId, Counts)> {
        let all = self.keys.iter().flat_map(|(key, known)| {
            let others = known.others.iter();
            let others = others.map(|(life, counts)| (Some(*life), *key, *counts));
            std::iter::once((None, *key, known.own)).chain(others)
        });
        all.filter(move |(_, _, counts)| counts.is_in_force(window))
    }
}

/// A key, which is seen now, and how many counts in force are forgotten for it. Of those that were
/// not seen for the longest time, up to two that have nothing in force go for another, and one
/// that has, if there is no room.
fn room(
    keys: &mut LruCache<KeyId, Key>,
    key: KeyId,
    window: u64,
    capacity: usize,
) -> (&mut Key, u64) {
    let mut forgotten = 0;
    if !keys.contains(&key) {
        for _ in 0..2 {
            let last = keys.peek_lru();
            if last.is_some_and(|(_, last)| !last.is_in_force(window)) {
                keys.pop_lru();
            }
        }
        if keys.len() >= capacity {
            keys.pop_lru();
            forgotten = 1;
        }
    }
    (keys.get_or_insert_mut(key, Key::default), forgotten)
}
