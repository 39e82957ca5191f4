//! What the datapath has written, as text: equal texts are equal maps.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::atomic::AtomicU64,
};

use lb_common::{
    Addr, Affinity, AffinityKey, Be16, CtEntry, CtEntry6, CtKey, CtKey6, PacketCounter, Reason,
    ServiceCounter, conntrack::buckets_in, ct_flags,
};
use lb_datapath::{Family, V4, V6, table};

use super::seed::reply_bit;

/// One direction of a flow: the tuple of its packets, and what they are given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Direction {
    /// IP protocol number, with [`FRAGMENT`](lb_common::conntrack::FRAGMENT) where the
    /// source's ports are a datagram's identification.
    pub proto: u32,
    /// Source and destination on the wire.
    pub from: (SocketAddr, SocketAddr),
    /// Source and destination to write.
    pub to: (SocketAddr, SocketAddr),
}

/// A conntrack entry, without its times and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryLine {
    /// The direction.
    pub direction: Direction,
    /// [`ct_flags`].
    pub flags: u32,
    /// Service id and backend id.
    pub ids: (u32, u32),
    /// Packets seen.
    pub packets: u64,
}

const FLAGS: [(u32, &str); 8] = [
    (ct_flags::REPLY, "reply"),
    (ct_flags::SNAT, "snat"),
    (ct_flags::HAIRPIN, "hairpin"),
    (ct_flags::EXTERNAL, "external"),
    (ct_flags::FIN, "fin"),
    (ct_flags::SYN, "syn"),
    (ct_flags::RST, "rst"),
    (ct_flags::SEEN, "seen"),
];

impl fmt::Display for EntryLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Direction { proto, from, to } = self.direction;
        let names: Vec<&str> = FLAGS
            .iter()
            .filter(|(flag, _)| self.flags & flag != 0)
            .map(|(_, name)| *name)
            .collect();
        write!(
            f,
            "{proto} {} > {} => {} > {} [{}] service {} backend {} packets {}",
            from.0,
            from.1,
            to.0,
            to.1,
            names.join(" "),
            self.ids.0,
            self.ids.1,
            self.packets
        )
    }
}

/// Everything that the datapath has written, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Conntrack, an entry a line, without bytes and times.
    pub conntrack: Vec<String>,
    /// Bytes and times of the same entries, affinity, counters.
    pub rest: Vec<String>,
    /// Bits of the filter of replies.
    pub replies: BTreeSet<u32>,
    /// Those of them that the entries need.
    pub needed: BTreeSet<u32>,
}

/// Ticks within which something is new: a packet's run may cross one.
const FRESH: u32 = 2;

fn age(now: u32, then: u32) -> &'static str {
    if now.wrapping_sub(then).cast_signed().unsigned_abs() <= FRESH {
        "now"
    } else {
        "earlier"
    }
}

fn socket(addr: Addr, port: Be16) -> SocketAddr {
    SocketAddr::new(IpAddr::from(addr), port.get())
}

impl State {
    /// Adds the live entries of both tables.
    pub fn conntrack(&mut self, now: u32, ct4: &[AtomicU64], ct6: &[AtomicU64]) {
        for bucket in buckets::<V4>(ct4) {
            for (_, slot) in table::entries::<V4, _>(bucket, now) {
                let key = wide_key(&slot.key, Addr::v4);
                self.entry(now, &key, &convert(&slot.entry, Addr::v4));
            }
        }
        for bucket in buckets::<V6>(ct6) {
            for (_, slot) in table::entries::<V6, _>(bucket, now) {
                self.entry(now, &slot.key, &slot.entry);
            }
        }
    }
    /// Adds a conntrack entry, in wide addresses.
    fn entry(&mut self, now: u32, key: &CtKey6, entry: &CtEntry6) {
        let line = EntryLine {
            direction: Direction {
                proto: key.proto,
                from: (socket(key.src, key.sport), socket(key.dst, key.dport)),
                to: (
                    socket(entry.src, entry.sport),
                    socket(entry.dst, entry.dport),
                ),
            },
            flags: entry.flags,
            ids: (entry.service, entry.backend),
            packets: entry.packets,
        };
        self.rest.push(format!(
            "{line} bytes {} created {} seen {} all flags {:#x}",
            entry.bytes,
            age(now, entry.created),
            age(now, entry.last_seen),
            entry.flags
        ));
        self.conntrack.push(line.to_string());
        self.needed.extend(reply_bit(key, entry));
    }
    /// Adds words of the filter of replies.
    pub fn replies(&mut self, words: impl IntoIterator<Item = (u32, u64)>) {
        for (index, word) in words {
            let set = (0..64).filter(|bit| word >> bit & 1 != 0);
            self.replies.extend(set.map(|bit| index * 64 + bit));
        }
    }
    /// Adds a binding of a client.
    pub fn bound(&mut self, now: u32, key: &AffinityKey, value: &Affinity) {
        self.rest.push(format!(
            "affinity {} service {} scope {} => backend {} used {}",
            key.client,
            key.service,
            key.scope,
            value.backend,
            age(now, value.last_use)
        ));
    }
    /// Adds a reason's counter, where it is not zero.
    pub fn reason(&mut self, reason: Reason, counter: PacketCounter) {
        if counter != PacketCounter::default() {
            let PacketCounter { packets, bytes } = counter;
            let label = reason.label();
            self.rest
                .push(format!("reason {label}: {packets} packets, {bytes} bytes"));
        }
    }
    /// Adds a service's or a backend's counter, where it is not zero.
    pub fn counter(&mut self, kind: &str, id: u32, counter: ServiceCounter) {
        if counter != ServiceCounter::default() {
            self.rest.push(format!(
                "{kind} {id}: {} packets, {} bytes, {} connections",
                counter.packets, counter.bytes, counter.connections
            ));
        }
    }
    /// Puts the lines in order.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.conntrack.sort_unstable();
        self.rest.sort_unstable();
        self
    }
}

/// The buckets of a table, without their heads.
fn buckets<F: Family>(words: &[AtomicU64]) -> impl Iterator<Item = &[AtomicU64]> {
    let elements = words.len() / F::BUCKET_WORDS;
    let count = buckets_in(elements as u32) as usize;
    words.chunks_exact(F::BUCKET_WORDS).take(count)
}

/// A key of either family in wide addresses.
fn wide_key<A: Copy>(key: &CtKey<A>, wide: impl Fn(A) -> Addr) -> CtKey6 {
    CtKey {
        src: wide(key.src),
        dst: wide(key.dst),
        sport: key.sport,
        dport: key.dport,
        proto: key.proto,
    }
}

/// An entry of either family in wide addresses, or in narrow ones.
pub fn convert<A: Copy, B>(entry: &CtEntry<A>, to: impl Fn(A) -> B) -> CtEntry<B> {
    CtEntry {
        packets: entry.packets,
        bytes: entry.bytes,
        src: to(entry.src),
        dst: to(entry.dst),
        sport: entry.sport,
        dport: entry.dport,
        flags: entry.flags,
        backend: entry.backend,
        service: entry.service,
        created: entry.created,
        last_seen: entry.last_seen,
    }
}
