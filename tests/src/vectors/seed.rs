//! What was in the datapath's own maps before, at a given time.

use lb_common::{
    Addr, Affinity, AffinityKey, Be16, CtEntry, CtEntry4, CtEntry6, CtKey, CtKey4, CtKey6,
};

use super::{
    dump::convert,
    world::{Seed, World},
};

/// Conntrack of one family.
type Entries<K, E> = Vec<(K, E)>;

fn narrow(addr: Addr) -> lb_common::Be32 {
    addr.0[3]
}

fn aged(seed: &Seed, now: u32) -> CtEntry6 {
    let mut entry = seed.entry;
    entry.created = now.wrapping_sub(seed.age);
    entry.last_seen = entry.created;
    entry
}

/// A stranger's flow, which takes room.
fn stranger(n: usize) -> (CtKey6, CtEntry6) {
    let port = Be16::new(u16::try_from(n).expect("conntrack is small in vectors"));
    let addr = Addr::v4(lb_common::Be32::new(0xc612_0001));
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

impl World {
    /// Conntrack of both families as it is at a time, in ticks, in maps of a size.
    #[must_use]
    pub fn entries(
        &self,
        now: u32,
        capacity: usize,
    ) -> (Entries<CtKey4, CtEntry4>, Entries<CtKey6, CtEntry6>) {
        let of = |v4: bool| -> Entries<CtKey6, CtEntry6> {
            let seeds = self.conntrack.iter().filter(|seed| seed.v4 == v4);
            let mut all: Vec<_> = seeds.map(|seed| (seed.key, aged(seed, now))).collect();
            if self.full {
                all.extend((all.len()..capacity).map(stranger));
            }
            all
        };
        let narrow_key = |key: &CtKey6| CtKey {
            src: narrow(key.src),
            dst: narrow(key.dst),
            sport: key.sport,
            dport: key.dport,
            proto: key.proto,
        };
        let v4 = of(true)
            .iter()
            .map(|(key, entry)| (narrow_key(key), convert(entry, narrow)))
            .collect();
        (v4, of(false))
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
