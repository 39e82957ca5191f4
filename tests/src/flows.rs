//! Flows in pinned conntrack, as the datapath writes them.

use std::sync::atomic::AtomicU64;

use aya::maps::{Array, Map, MapData};
use lb_common::{Be16, Be32, CtBucket4, CtEntry, CtKey, ct_flags, proto};
use lb_datapath::{Insert, V4, host, table::insert};
use lb_userspace::bpf::conntrack;

use crate::netns::Node;

/// A key and its entry.
pub type Entry = (CtKey<Be32>, CtEntry<Be32>);

/// Writes entries to a pinned table, as the datapath would.
pub fn write(node: &Node, table: &str, entries: &[Entry]) {
    const BUCKET: usize = size_of::<CtBucket4>();
    let path = node.bpffs.path().join("bascule").join(table);
    let map = Map::Array(MapData::from_pin(path).unwrap());
    let mut map = Array::<_, [u8; BUCKET]>::try_from(map).unwrap();
    let before: Vec<u64> = map
        .iter()
        .flat_map(|bucket| bytemuck::cast::<_, [u64; BUCKET / 8]>(bucket.unwrap()))
        .collect();
    let words: Vec<AtomicU64> = before.iter().map(|word| (*word).into()).collect();
    let to = host::Table {
        words: &words,
        seed: conntrack::seed().unwrap(),
    };
    for (key, entry) in entries {
        insert::<V4, _>(&to, key, entry, Insert::Any, conntrack::now()).unwrap();
    }
    let after: Vec<u64> = words.into_iter().map(AtomicU64::into_inner).collect();
    let buckets = before.chunks(BUCKET / 8).zip(after.chunks(BUCKET / 8));
    for (index, (before, after)) in (0..).zip(buckets) {
        if before != after {
            let bytes: &[u8] = bytemuck::cast_slice(after);
            map.set(index, <[u8; BUCKET]>::try_from(bytes).unwrap(), 0)
                .unwrap();
        }
    }
}

/// An address of 10.0.0.0/16.
#[must_use]
pub fn ip(last: u16) -> Be32 {
    Be32::new(0x0a00_0000 | u32::from(last))
}

/// A flow of client port `port` to vip .200 and a backend; `age` in ticks.
#[derive(Clone, Copy)]
pub struct Flow {
    /// The client's port.
    pub port: u16,
    /// Its protocol.
    pub proto: u8,
    /// [`ct_flags`] of the client's direction.
    pub forward: u32,
    /// Those of the replies.
    pub reply: u32,
    /// Ticks since its last packet.
    pub age: u32,
    /// Service id.
    pub service: u32,
    /// Backend id; the backend is 10.0.0.10 and as many more.
    pub backend: u32,
}

/// [`ct_flags::SEEN`].
pub const SEEN: u32 = ct_flags::SEEN;

impl Flow {
    /// One of TCP.
    #[must_use]
    pub fn tcp(port: u16, forward: u32, reply: u32, age: u32) -> Self {
        Self {
            port,
            proto: proto::TCP,
            forward,
            reply,
            age,
            service: 1,
            backend: 1,
        }
    }

    /// One of UDP, of which both directions were seen.
    #[must_use]
    pub fn udp(port: u16, service: u32, backend: u32) -> Self {
        let (forward, reply, age) = (SEEN, SEEN, 0);
        Self {
            port,
            proto: proto::UDP,
            forward,
            reply,
            age,
            service,
            backend,
        }
    }

    /// Both its entries.
    #[must_use]
    pub fn entries(self) -> [(CtKey<Be32>, CtEntry<Be32>); 2] {
        let (client, vip, backend) = (ip(1), ip(200), ip(10 + self.backend as u16));
        let key = |src, dst, sport, dport| CtKey {
            src,
            dst,
            sport: Be16::new(sport),
            dport: Be16::new(dport),
            proto: u32::from(self.proto),
        };
        let last_seen = conntrack::now().saturating_sub(self.age);
        let entry = |to: CtKey<Be32>, flags| CtEntry {
            packets: 1,
            bytes: 60,
            src: to.src,
            dst: to.dst,
            sport: to.sport,
            dport: to.dport,
            flags,
            backend: self.backend,
            service: self.service,
            created: last_seen,
            last_seen,
        };
        let seen = |flags: u32| (flags & ct_flags::SIGHTS) << ct_flags::PEER_SHIFT;
        let forward = entry(
            key(client, backend, self.port, 8080),
            self.forward | seen(self.reply),
        );
        let reply = entry(
            key(vip, client, 80, self.port),
            self.reply | seen(self.forward) | ct_flags::REPLY,
        );
        [
            (key(client, vip, self.port, 80), forward),
            (key(backend, client, 8080, self.port), reply),
        ]
    }

    /// Writes both.
    pub fn write(self, node: &Node) {
        write(node, "lb_ct4_v1", &self.entries());
    }
}
