//! Collecting flows that are over, and searching conntrack.
//!
//! The map is walked in slices, so that no call runs long; what is over is
//! deleted in batches. A flow is judged where its forward entry is met.

use std::{
    io,
    time::{Duration, Instant},
};

use bytemuck::{Pod, bytes_of};
use lb_common::{
    Addr, Be32, CtEntry, CtKey, ct_flags,
    hash::{filter_bit, filter_kind},
    limits::FILTER_WORDS,
};

use super::{
    conntrack::{Side, expired, may_be_expired, may_be_orphan, peer_key},
    map::{BpfMap, Entries},
    store::values_of,
    sys::Cursor,
};

/// Entries read at a time: some 300 KiB of an IPv4 table.
const SLICE: usize = 4096;

/// An address as conntrack's keys hold it.
pub(super) trait Family: Pod {
    /// The address as the other maps hold it.
    fn wide(self) -> Addr;
}

impl Family for Be32 {
    fn wide(self) -> Addr {
        Addr::v4(self)
    }
}

impl Family for Addr {
    fn wide(self) -> Addr {
        self
    }
}

/// A walk over one family's table.
#[derive(Debug)]
pub(super) struct Walk {
    map: BpfMap,
    cursor: Option<Cursor>,
    slice: usize,
}

impl Walk {
    /// From the beginning.
    pub(super) fn new(map: BpfMap) -> Self {
        let slice = SLICE.min(map.info().max_entries as usize);
        Self {
            map,
            cursor: None,
            slice,
        }
    }

    /// The next entries; whether they were the last. The walk starts over then.
    fn next(&mut self, entries: &mut Entries) -> io::Result<bool> {
        entries.keys.clear();
        entries.values.clear();
        match self.map.read_some(&mut self.cursor, self.slice, entries) {
            Ok(end) => {
                if end {
                    self.cursor = None;
                }
                Ok(end)
            }
            // A bucket holds more than a slice: hardly ever, and then larger slices.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                self.slice *= 2;
                Ok(false)
            }
            Err(error) => {
                self.cursor = None;
                Err(error)
            }
        }
    }

    /// Walks the whole table.
    fn all<A: Family>(
        &mut self,
        mut visit: impl FnMut(&BpfMap, &[(CtKey<A>, CtEntry<A>)]) -> io::Result<()>,
    ) -> io::Result<()>
    where
        CtKey<A>: Pod,
        CtEntry<A>: Pod,
    {
        self.cursor = None;
        let mut entries = Entries::default();
        loop {
            let end = self.next(&mut entries)?;
            visit(&self.map, &typed(&entries))?;
            if end {
                return Ok(());
            }
        }
    }
}

fn typed<A: Family>(entries: &Entries) -> Vec<(CtKey<A>, CtEntry<A>)>
where
    CtKey<A>: Pod,
    CtEntry<A>: Pod,
{
    values_of(&entries.keys)
        .zip(values_of(&entries.values))
        .collect()
}

/// What a stretch of collecting did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Entries looked at.
    pub(super) seen: u64,
    /// Entries deleted.
    pub(super) deleted: u64,
    /// Whether the walk came to its end.
    pub(super) finished: bool,
}

/// Goes on with a walk for `budget` at most (one slice at least), and deletes
/// flows that are over.
pub(super) fn collect<A: Family>(
    walk: &mut Walk,
    now: u32,
    budget: Duration,
) -> io::Result<Progress>
where
    CtKey<A>: Pod,
    CtEntry<A>: Pod,
{
    let start = Instant::now();
    let mut progress = Progress::default();
    let mut entries = Entries::default();
    while !progress.finished {
        progress.finished = walk.next(&mut entries)?;
        let slice = typed::<A>(&entries);
        let dead = judge(&walk.map, &slice, now)?;
        progress.seen += slice.len() as u64;
        progress.deleted += (dead.len() / size_of::<CtKey<A>>()) as u64;
        walk.map
            .delete_batch(&dead)
            .map_err(|failure| failure.error)?;
        if start.elapsed() >= budget {
            break;
        }
    }
    Ok(progress)
}

/// Keys of the entries that are over, the other directions' included.
fn judge<A: Family>(map: &BpfMap, slice: &[(CtKey<A>, CtEntry<A>)], now: u32) -> io::Result<Vec<u8>>
where
    CtKey<A>: Pod,
    CtEntry<A>: Pod,
{
    let mut dead = Vec::new();
    for (key, entry) in slice {
        let side = Side::from(entry);
        let is_reply = entry.flags & ct_flags::REPLY != 0;
        let suspect = if is_reply {
            may_be_orphan
        } else {
            may_be_expired
        };
        if !suspect(key.proto, &side, now) {
            continue;
        }
        let peer = peer_key(key, entry);
        let found = map.lookup(bytes_of(&peer))?;
        let other =
            found.map(|value| Side::from(&bytemuck::pod_read_unaligned::<CtEntry<A>>(&value)));
        let over = match is_reply {
            // Its forward entry, if there is one, judges the flow.
            true => other.is_none(),
            false => expired(key.proto, Some(&side), other.as_ref(), now),
        };
        if over {
            dead.extend_from_slice(bytes_of(key));
            if other.is_some() {
                dead.extend_from_slice(bytes_of(&peer));
            }
        }
    }
    Ok(dead)
}

/// Deletes every entry that `over` chooses; returns how many.
pub(super) fn delete_where<A: Family>(
    map: &BpfMap,
    over: impl Fn(&CtKey<A>, &CtEntry<A>) -> bool,
) -> io::Result<u64>
where
    CtKey<A>: Pod,
    CtEntry<A>: Pod,
{
    let mut deleted = 0;
    Walk::new(map.try_clone()?).all::<A>(|map, slice| {
        let chosen = slice.iter().filter(|(key, entry)| over(key, entry));
        let dead: Vec<u8> = chosen.flat_map(|(key, _)| bytes_of(key)).copied().collect();
        deleted += (dead.len() / size_of::<CtKey<A>>()) as u64;
        map.delete_batch(&dead).map_err(|failure| failure.error)
    })?;
    Ok(deleted)
}

/// Bits of the filter without which packets of a flow would not be recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterBits {
    words: Vec<u64>,
}

impl Default for FilterBits {
    fn default() -> Self {
        Self {
            words: vec![0; FILTER_WORDS as usize],
        }
    }
}

impl FilterBits {
    /// Whether a bit is needed.
    pub fn contains(&self, bit: u32) -> bool {
        let word = self.words.get((bit >> 6) as usize).copied().unwrap_or(0);
        word & (1 << (bit & 63)) != 0
    }

    fn insert(&mut self, bit: u32) {
        self.words[(bit >> 6) as usize] |= 1 << (bit & 63);
    }

    /// Adds the bits of an entry: of its vip and frontend, or of its backend.
    fn add<A: Family>(&mut self, key: &CtKey<A>, entry: &CtEntry<A>) {
        let protocol = key.proto as u8;
        if entry.flags & ct_flags::REPLY != 0 {
            self.insert(filter_bit(
                filter_kind::BACKEND,
                key.src.wide(),
                key.sport,
                protocol,
            ));
        } else {
            let vip = key.dst.wide();
            self.insert(filter_bit(
                filter_kind::VIP,
                vip,
                lb_common::Be16::new(0),
                0,
            ));
            self.insert(filter_bit(filter_kind::FRONTEND, vip, key.dport, protocol));
        }
    }

    /// Adds the bits of every entry of a table.
    pub(super) fn add_all<A: Family>(&mut self, map: &BpfMap) -> io::Result<()>
    where
        CtKey<A>: Pod,
        CtEntry<A>: Pod,
    {
        Walk::new(map.try_clone()?).all::<A>(|_, slice| {
            slice.iter().for_each(|(key, entry)| self.add(key, entry));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{Be16, proto};

    use super::*;

    #[test]
    fn a_flow_needs_the_bits_by_which_its_packets_are_recognised() {
        let ip = |last: u32| Be32::new(0x0a00_0000 | last);
        let key = CtKey {
            src: ip(2),
            dst: ip(9),
            sport: Be16::new(8080),
            dport: Be16::new(80),
            proto: u32::from(proto::TCP),
        };
        let mut entry: CtEntry<Be32> = bytemuck::Zeroable::zeroed();
        let bit = |kind, ip: Be32, port, protocol| {
            filter_bit(kind, Addr::v4(ip), Be16::new(port), protocol)
        };
        let mut forward = FilterBits::default();
        forward.add(&key, &entry);
        assert!(forward.contains(bit(filter_kind::VIP, ip(9), 0, 0)));
        assert!(forward.contains(bit(filter_kind::FRONTEND, ip(9), 80, proto::TCP)));
        assert!(!forward.contains(bit(filter_kind::BACKEND, ip(2), 8080, proto::TCP)));
        entry.flags = ct_flags::REPLY;
        let mut reply = FilterBits::default();
        reply.add(&key, &entry);
        assert!(reply.contains(bit(filter_kind::BACKEND, ip(2), 8080, proto::TCP)));
        assert!(!reply.contains(bit(filter_kind::VIP, ip(9), 0, 0)));
    }
}
