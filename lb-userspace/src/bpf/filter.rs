//! The filters' bits that live flows need, and those that the datapath sets.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use lb_common::{
    Addr, Be16, CtSlot,
    hash::{filter_bit, filter_kind},
    limits::FILTER_WORDS,
};

use super::{
    conntrack::{TABLES, each, is_forward},
    datapath::Datapath,
    map::BpfMap,
    mmap::Window,
    table::Table,
};

/// Some bits of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
}

impl Default for Bits {
    fn default() -> Self {
        Self {
            words: vec![0; FILTER_WORDS as usize],
        }
    }
}

impl Bits {
    /// Whether a bit is among them.
    pub fn contains(&self, bit: u32) -> bool {
        let word = self.words.get((bit >> 6) as usize).copied().unwrap_or(0);
        word & (1 << (bit & 63)) != 0
    }

    fn insert(&mut self, bit: u32) {
        self.words[(bit >> 6) as usize] |= 1 << (bit & 63);
    }
}

impl Extend<u32> for Bits {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, bits: I) {
        bits.into_iter().for_each(|bit| self.insert(bit));
    }
}

/// Bits without which packets of flows would not be recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterBits {
    /// Of the filter: of vips and frontends.
    pub requests: Bits,
    /// Of the filter of replies: of backends.
    pub replies: Bits,
}

impl FilterBits {
    /// Adds the bits of an entry: of its vip and frontend, or of its backend.
    pub(super) fn add(&mut self, slot: &CtSlot<Addr>) {
        let key = &slot.key;
        let protocol = key.proto as u8;
        if is_forward(&slot.entry) {
            self.requests.extend([
                filter_bit(filter_kind::VIP, key.dst, Be16::new(0), 0),
                filter_bit(filter_kind::FRONTEND, key.dst, key.dport, protocol),
            ]);
        } else {
            let bit = filter_bit(filter_kind::BACKEND, key.src, key.sport, protocol);
            self.replies.insert(bit);
        }
    }
}

impl Datapath {
    /// Bits of the filters that live flows need: the others may be cleared once
    /// nothing planned needs them. Only flows are found that were there when this
    /// was called, so call it after the frontends in question are gone. It walks
    /// all of conntrack.
    ///
    /// # Errors
    /// The kernel refuses the read.
    pub fn filter_bits_in_use(&self) -> io::Result<FilterBits> {
        let mut bits = FilterBits::default();
        for table in TABLES {
            each(table, self.map(table), |slot| {
                bits.add(slot);
                false
            })?;
        }
        Ok(bits)
    }

    /// Clears the bits of the filter of replies but these: those that live flows need, and those
    /// of backends that flows may begin to lead to. The datapath may set others meanwhile.
    ///
    /// # Errors
    /// The map cannot be mapped.
    pub fn clear_replies(&self, keep: &Bits) -> io::Result<()> {
        let window = words(self.map(Table::lb_replies_v1))?;
        for (word, keep) in window.elements().iter().zip(&keep.words) {
            if word.load(Relaxed) & !keep != 0 {
                word.fetch_and(*keep, Relaxed);
            }
        }
        Ok(())
    }
}

/// Sets all bits of the filter of replies: which ones flows need is not known. Until they are
/// cleared, all that a pod sends is looked up.
pub(super) fn expect_all_replies(map: &BpfMap) -> io::Result<()> {
    let all = |word: &AtomicU64| word.store(u64::MAX, Relaxed);
    words(map)?.elements().iter().for_each(all);
    Ok(())
}

fn words(map: &BpfMap) -> io::Result<Window> {
    Window::new(map.fd(), size_of::<u64>(), 0, map.info().max_entries, true)
}

#[cfg(test)]
mod tests {
    use lb_common::{Be32, CtEntry, CtKey, ct_flags, proto};

    use super::*;

    #[test]
    fn a_flow_needs_the_bits_by_which_its_packets_are_recognised() {
        let ip = |last: u32| Addr::v4(Be32::new(0x0a00_0000 | last));
        let key = CtKey {
            src: ip(2),
            dst: ip(9),
            sport: Be16::new(8080),
            dport: Be16::new(80),
            proto: u32::from(proto::TCP),
        };
        let mut entry: CtEntry<Addr> = bytemuck::Zeroable::zeroed();
        let bit = |kind, ip: Addr, port, protocol| filter_bit(kind, ip, Be16::new(port), protocol);
        let mut forward = FilterBits::default();
        forward.add(&CtSlot { key, entry });
        assert!(
            forward
                .requests
                .contains(bit(filter_kind::VIP, ip(9), 0, 0))
        );
        assert!(
            forward
                .requests
                .contains(bit(filter_kind::FRONTEND, ip(9), 80, proto::TCP))
        );
        assert_eq!(forward.replies, Bits::default());
        entry.flags = ct_flags::REPLY;
        let mut reply = FilterBits::default();
        reply.add(&CtSlot { key, entry });
        assert!(
            reply
                .replies
                .contains(bit(filter_kind::BACKEND, ip(2), 8080, proto::TCP))
        );
        assert_eq!(reply.requests, Bits::default());
    }
}
