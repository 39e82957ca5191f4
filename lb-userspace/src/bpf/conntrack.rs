//! Conntrack's flow tables as the agent reads and changes them: mapped, a bucket at
//! a time, by the code that the programs run (`lb_datapath::table`). Entries are
//! forgotten by one atomic instruction; nothing here holds a lock but the copying
//! of a table ([`carry_over`]).

use std::io;

use lb_common::{
    Addr, Be32, CtEntry, CtKey, CtSlot,
    conntrack::{FRAGMENT, buckets_in},
    ct_flags,
};
use lb_datapath::{
    Family, Insert, V4, V6, host,
    table::{entries, forget, insert, peek},
};

pub use super::clock::now;
use super::{
    map::BpfMap,
    mmap::{Mapped, Window},
    table::Table,
};

/// Both tables.
pub(super) const TABLES: [Table; 2] = [Table::lb_ct4_v1, Table::lb_ct6_v1];

/// Seed of the hash of conntrack's keys: secret to clients, and the same for every
/// agent of a boot, as pinned maps are.
///
/// # Errors
/// The kernel does not tell its boot's id.
pub fn seed() -> io::Result<u64> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok((id >> 64) as u64 ^ id as u64)
}

/// The key of a flow's other direction: what a packet of this direction turns
/// into, seen from its receiver.
pub fn peer_key<A: Copy>(key: &CtKey<A>, entry: &CtEntry<A>) -> CtKey<A> {
    CtKey {
        src: entry.dst,
        dst: entry.src,
        sport: entry.dport,
        dport: entry.sport,
        proto: key.proto,
    }
}

/// An entry in wide addresses.
pub(super) fn widen(slot: &CtSlot<Be32>) -> CtSlot<Addr> {
    let (key, entry) = (&slot.key, &slot.entry);
    CtSlot {
        key: CtKey {
            src: Addr::v4(key.src),
            dst: Addr::v4(key.dst),
            sport: key.sport,
            dport: key.dport,
            proto: key.proto,
        },
        entry: CtEntry {
            packets: entry.packets,
            bytes: entry.bytes,
            src: Addr::v4(entry.src),
            dst: Addr::v4(entry.dst),
            sport: entry.sport,
            dport: entry.dport,
            flags: entry.flags,
            backend: entry.backend,
            service: entry.service,
            created: entry.created,
            last_seen: entry.last_seen,
        },
    }
}

/// Shows every live entry of a flow in a table, in wide addresses, and forgets those
/// for which `visit` says so. Returns how many were forgotten.
pub(super) fn each(
    table: Table,
    map: &BpfMap,
    mut visit: impl FnMut(&CtSlot<Addr>) -> bool,
) -> io::Result<u64> {
    match table {
        Table::lb_ct6_v1 => walk::<V6>(table, map, |slot| is_flow(slot) && visit(slot)),
        _ => walk::<V4>(table, map, |slot| is_flow(slot) && visit(&widen(slot))),
    }
}

/// Whether an entry is a flow's; else it is of a datagram's fragments.
fn is_flow<A>(slot: &CtSlot<A>) -> bool {
    slot.key.proto & FRAGMENT == 0
}

fn walk<F: Family>(
    table: Table,
    map: &BpfMap,
    mut visit: impl FnMut(&CtSlot<F::Addr>) -> bool,
) -> io::Result<u64> {
    let mut mapped = Mapped::of(table, map, true);
    let (now, mut forgotten) = (now(), 0);
    for index in 0..buckets_in(map.info().max_entries) {
        let (window, at, _) = mapped.at(map.fd(), index)?;
        let bucket = window.element(at);
        for (slot, entry) in entries::<F, _>(bucket, now) {
            if visit(&entry) {
                forget::<F, _>(bucket, slot);
                forgotten += 1;
            }
        }
    }
    Ok(forgotten)
}

/// Live entries of a table.
pub(super) fn count(table: Table, map: &BpfMap) -> io::Result<u64> {
    let mut count = 0;
    each(table, map, |_| {
        count += 1;
        false
    })?;
    Ok(count)
}

/// Copies the live entries of a table to one of another size that programs may be
/// using. Returns how many had no room. With `late`, those that the new one has
/// are left as they are there.
pub(super) fn carry_over(
    table: Table,
    old: &BpfMap,
    new: &BpfMap,
    late: bool,
) -> io::Result<usize> {
    match table {
        Table::lb_ct6_v1 => copy::<V6>((table, old), new, late),
        _ => copy::<V4>((table, old), new, late),
    }
}

fn copy<F: Family>((table, old): (Table, &BpfMap), new: &BpfMap, late: bool) -> io::Result<usize> {
    let bytes = F::BUCKET_WORDS * 8;
    let window = Window::new(new.fd(), bytes, 0, new.info().max_entries, true)?;
    let to = host::Table {
        words: window.elements(),
        seed: seed()?,
    };
    let mut lost = 0;
    walk::<F>(table, old, |slot| {
        let there = late && peek::<F, _>(&to, &slot.key, now()).is_some();
        if !there && insert::<F, _>(&to, &slot.key, &slot.entry, Insert::Any, now()).is_err() {
            lost += 1;
        }
        false
    })?;
    Ok(lost)
}

/// Whether an entry is of the direction from the client to the backend.
pub(super) fn is_forward<A>(entry: &CtEntry<A>) -> bool {
    entry.flags & ct_flags::REPLY == 0
}

#[cfg(test)]
mod tests {
    use lb_common::{Be16, proto};

    use super::*;

    #[test]
    fn each_direction_leads_to_the_other() {
        let ip = |last: u32| Be32::new(0x0a00_0000 | last);
        let port = Be16::new;
        let key = |src, dst, sport, dport| CtKey {
            src,
            dst,
            sport,
            dport,
            proto: u32::from(proto::TCP),
        };
        // A client (1) that dials a vip (9) and reaches a backend (2) through
        // the node's address (5): the packet and its reply on the wire.
        let forward = key(ip(1), ip(9), port(4000), port(80));
        let reply = key(ip(2), ip(5), port(8080), port(6000));
        let mut there: CtEntry<Be32> = bytemuck::Zeroable::zeroed();
        (there.src, there.dst, there.sport, there.dport) = (ip(5), ip(2), port(6000), port(8080));
        let mut back: CtEntry<Be32> = bytemuck::Zeroable::zeroed();
        (back.src, back.dst, back.sport, back.dport) = (ip(9), ip(1), port(80), port(4000));
        assert_eq!(peer_key(&forward, &there), reply);
        assert_eq!(peer_key(&reply, &back), forward);
    }
}
