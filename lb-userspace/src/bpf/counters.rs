//! Reading the per-CPU counters: each is the sum over all CPUs.

use std::io;

use bytemuck::Pod;
use lb_common::{PacketCounter, Reason, ServiceCounter};

use super::{
    map::{BpfMap, Entries, possible_cpus},
    store::values_of,
};

/// A counter whose parts on several CPUs add up.
trait Sum: Pod + Default {
    fn add(&mut self, other: &Self);
}

impl Sum for PacketCounter {
    fn add(&mut self, other: &Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

impl Sum for ServiceCounter {
    fn add(&mut self, other: &Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.connections = self.connections.wrapping_add(other.connections);
    }
}

/// The sum over the CPUs of one element; each CPU's value is padded to 8 bytes.
fn sum<C: Sum>(cpus: &[u8]) -> C {
    let mut total = C::default();
    for cpu in cpus.chunks_exact(size_of::<C>().next_multiple_of(8)) {
        values_of::<C>(cpu).for_each(|part| total.add(&part));
    }
    total
}

/// The counters of ids below `count`, by id.
fn read<C: Sum>(map: &BpfMap, count: u32) -> io::Result<Vec<C>> {
    let count = count.min(map.info().max_entries) as usize;
    let bytes = size_of::<C>().next_multiple_of(8) * possible_cpus()?;
    // One call copies a megabyte or so, whatever the number of CPUs.
    let chunk = ((1 << 20) / bytes).max(1);
    let mut totals = Vec::with_capacity(count);
    let mut cursor = None;
    let mut entries = Entries::default();
    while totals.len() < count {
        entries.keys.clear();
        entries.values.clear();
        let end = map.read_some(&mut cursor, chunk.min(count - totals.len()), &mut entries)?;
        totals.extend(entries.values.chunks_exact(bytes).map(sum::<C>));
        if end {
            break;
        }
    }
    Ok(totals)
}

/// Packets and bytes by reason.
pub(super) fn reasons(map: &BpfMap) -> io::Result<Vec<(Reason, PacketCounter)>> {
    let totals = read::<PacketCounter>(map, lb_common::reason::COUNT)?;
    Ok(Reason::ALL.iter().copied().zip(totals).collect())
}

/// What services or backends carried, by id, for ids below `count`.
pub(super) fn carried(map: &BpfMap, count: u32) -> io::Result<Vec<ServiceCounter>> {
    read(map, count)
}

/// What one service or backend carried.
pub(super) fn one(map: &BpfMap, id: u32) -> io::Result<ServiceCounter> {
    let cpus = map.lookup(&id.to_ne_bytes())?;
    Ok(cpus.map_or_else(ServiceCounter::default, |cpus| sum(&cpus)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_all_cpus_add_up() {
        let cpu = |packets, bytes, connections| ServiceCounter {
            packets,
            bytes,
            connections,
        };
        let parts = [cpu(1, 100, 1), cpu(0, 0, 0), cpu(5, 700, 2)];
        let total: ServiceCounter = sum(bytemuck::cast_slice(&parts));
        assert_eq!(total, cpu(6, 800, 3));
    }
}
