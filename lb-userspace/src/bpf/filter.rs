//! The filter's bits that live flows need.

use lb_common::{
    Addr, Be16, CtSlot,
    hash::{filter_bit, filter_kind},
    limits::FILTER_WORDS,
};

use super::conntrack::is_forward;

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
    pub(super) fn add(&mut self, slot: &CtSlot<Addr>) {
        let key = &slot.key;
        let protocol = key.proto as u8;
        if is_forward(&slot.entry) {
            self.insert(filter_bit(filter_kind::VIP, key.dst, Be16::new(0), 0));
            self.insert(filter_bit(
                filter_kind::FRONTEND,
                key.dst,
                key.dport,
                protocol,
            ));
        } else {
            self.insert(filter_bit(
                filter_kind::BACKEND,
                key.src,
                key.sport,
                protocol,
            ));
        }
    }
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
        assert!(forward.contains(bit(filter_kind::VIP, ip(9), 0, 0)));
        assert!(forward.contains(bit(filter_kind::FRONTEND, ip(9), 80, proto::TCP)));
        assert!(!forward.contains(bit(filter_kind::BACKEND, ip(2), 8080, proto::TCP)));
        entry.flags = ct_flags::REPLY;
        let mut reply = FilterBits::default();
        reply.add(&CtSlot { key, entry });
        assert!(reply.contains(bit(filter_kind::BACKEND, ip(2), 8080, proto::TCP)));
        assert!(!reply.contains(bit(filter_kind::VIP, ip(9), 0, 0)));
    }
}
