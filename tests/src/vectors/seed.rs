//! What was in the datapath's own maps before, at a given time.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use lb_common::{
    Addr, Affinity, AffinityKey, Backend, Be16, Be32, CtEntry, CtEntry4, CtEntry6, CtKey, CtKey4,
    CtKey6,
    conntrack::{FRAGMENT, HEAD_LOCK},
    ct_flags,
};
use lb_datapath::{Family, Insert, V4, V6, host};

use crate::host::empty;

use super::{
    dump::convert,
    reference::{Bit, filter_bit},
    world::{Seed, World},
};

/// Conntrack of one family.
type Entries<K, E> = Vec<(K, E)>;

/// A key and its entry.
type Pair<F> = (CtKey<<F as Family>::Addr>, CtEntry<<F as Family>::Addr>);

fn narrow(addr: Addr) -> Be32 {
    addr.0[3]
}

fn aged(seed: &Seed, now: u32) -> CtEntry6 {
    let mut entry = seed.entry;
    entry.created = now.wrapping_sub(seed.age);
    entry.last_seen = entry.created;
    entry
}

/// The bit without which packets of an entry are not looked up on their way to a client, if they
/// are translated there: what the kernel translates passes either way.
pub(super) fn reply_bit(key: &CtKey6, entry: &CtEntry6) -> Option<u32> {
    let is_reply = entry.flags & (ct_flags::REPLY | ct_flags::LEFT) == ct_flags::REPLY;
    let is_ours = is_reply && key.proto & FRAGMENT == 0;
    let protocol = u8::try_from(key.proto).ok().filter(|_| is_ours)?;
    let (addr, port) = (key.src.into(), key.sport.get());
    Some(filter_bit(Bit::Backend, addr, port, protocol))
}

/// A stranger's flow, which takes room.
fn stranger(port: u16) -> (CtKey6, CtEntry6) {
    let port = Be16::new(port);
    let addr = Addr::v4(Be32::new(0xc612_0001));
    let key = CtKey {
        src: addr,
        dst: addr,
        sport: port,
        dport: port,
        proto: 17,
    };
    let zero: CtEntry6 = bytemuck::Zeroable::zeroed();
    let entry = CtEntry {
        src: addr,
        dst: addr,
        ..zero
    };
    (key, entry)
}

/// A table with these entries; filled up with strangers' where it is to be full.
fn table<F: Family>(
    entries: &[Pair<F>],
    strangers: &[Pair<F>],
    (buckets, now): (u32, u32),
) -> Vec<AtomicU64> {
    let words = empty::<F>(buckets);
    let table = host::Table {
        words: &words,
        seed: 0,
    };
    let put = |(key, entry): &Pair<F>| {
        lb_datapath::table::insert::<F, _>(&table, key, entry, Insert::Any, now)
    };
    for entry in entries {
        put(entry).expect("vectors have few flows");
    }
    // In a table of one bucket what does not fit any more is at its end.
    for entry in strangers {
        if put(entry).is_err() {
            break;
        }
    }
    words
}

impl World {
    /// Conntrack of both families as it is at a time, in ticks, in tables of so many
    /// buckets.
    ///
    /// # Panics
    /// The world has more flows than there is room for.
    #[must_use]
    pub fn conntrack(&self, now: u32, buckets: u32) -> (Vec<AtomicU64>, Vec<AtomicU64>) {
        let of = |v4: bool| -> Entries<CtKey6, CtEntry6> {
            let seeds = self.flows.iter().filter(|seed| seed.v4 == v4);
            seeds.map(|seed| (seed.key, aged(seed, now))).collect()
        };
        let strangers: Entries<CtKey6, CtEntry6> = match self.full {
            true => (1..=200).map(stranger).collect(),
            false => Vec::new(),
        };
        let new = |(key, mut entry): (CtKey6, CtEntry6)| {
            (entry.created, entry.last_seen) = (now, now);
            (key, entry)
        };
        let strangers: Entries<CtKey6, CtEntry6> = strangers.into_iter().map(new).collect();
        let narrowed = |entries: &[(CtKey6, CtEntry6)]| -> Entries<CtKey4, CtEntry4> {
            let narrow_key = |key: &CtKey6| CtKey {
                src: narrow(key.src),
                dst: narrow(key.dst),
                sport: key.sport,
                dport: key.dport,
                proto: key.proto,
            };
            entries
                .iter()
                .map(|(key, entry)| (narrow_key(key), convert(entry, narrow)))
                .collect()
        };
        let at = (buckets, now);
        let tables = (
            table::<V4>(&narrowed(&of(true)), &narrowed(&strangers), at),
            table::<V6>(&of(false), &strangers, at),
        );
        if let Some(age) = self.locked {
            let lock = 1 << 32 | u64::from(now.wrapping_sub(age));
            // The head of the first bucket lies behind the last one.
            let lock_of = |words: usize| buckets as usize * words + HEAD_LOCK;
            tables.0[lock_of(V4::BUCKET_WORDS)].store(lock, Ordering::Relaxed);
            tables.1[lock_of(V6::BUCKET_WORDS)].store(lock, Ordering::Relaxed);
        }
        tables
    }

    /// Bits of the filter of replies that flows have left behind.
    #[must_use]
    pub fn replies(&self) -> BTreeSet<u32> {
        let seeds = self.flows.iter();
        seeds
            .filter_map(|seed| reply_bit(&seed.key, &seed.entry))
            .collect()
    }

    /// Bits of the filter of replies that may be set: those, and of all backends.
    #[must_use]
    pub fn possible_replies(&self) -> BTreeSet<u32> {
        let of = |b: &Backend| filter_bit(Bit::Backend, b.addr.into(), b.port.get(), b.proto);
        let mut bits = self.replies();
        bits.extend(self.backends.values().map(of));
        bits
    }

    /// Affinity as it is at a time, in ticks.
    #[must_use]
    pub fn bindings(&self, now: u32) -> Vec<(AffinityKey, Affinity)> {
        let at = |(key, backend, age): &(AffinityKey, u32, u32)| {
            let last_use = now.wrapping_sub(*age);
            let backend = *backend;
            (*key, Affinity { backend, last_use })
        };
        self.affinity.iter().map(at).collect()
    }
}
