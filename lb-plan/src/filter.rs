//! The filter: which of its bits stand for something.

use lb_common::{Addr, Be16, FrontendKey, hash, limits::FILTER_WORDS};

use crate::{Map, backends::Identity, op::Op};

/// Bits as they are in the map, and how many things need each.
#[derive(Debug)]
pub(crate) struct Filter {
    words: Vec<u64>,
    needed: Map<u32, u32>,
    /// Bits that something in the maps needs and that were not set there.
    missing: Vec<u32>,
}

/// The bit of a frontend, or of a vip.
pub(crate) fn frontend_bit(key: &FrontendKey) -> u32 {
    let kind = if key.proto == 0 {
        hash::filter_kind::VIP
    } else {
        hash::filter_kind::FRONTEND
    };
    hash::filter_bit(kind, key.addr, key.port, key.proto)
}

/// The bit of a vip.
pub(crate) fn vip_bit(addr: Addr) -> u32 {
    hash::filter_bit(hash::filter_kind::VIP, addr, Be16::new(0), 0)
}

/// The bit of a backend, of the filter of replies.
pub(crate) fn backend_bit(&(addr, port, proto): &Identity) -> u32 {
    hash::filter_bit(hash::filter_kind::BACKEND, addr, port, proto)
}

impl Filter {
    /// From the words of the map; missing ones are zero.
    pub(crate) fn new(mut words: Vec<u64>) -> Self {
        words.resize(FILTER_WORDS as usize, 0);
        Self {
            words,
            needed: Map::default(),
            missing: Vec::new(),
        }
    }

    /// Something with this bit is going to be written.
    pub(crate) fn need(&mut self, bit: u32) {
        *self.needed.entry(bit).or_insert(0) += 1;
        let word = &mut self.words[(bit >> 6) as usize];
        if *word >> (bit & 63) & 1 == 0 {
            *word |= 1 << (bit & 63);
            self.missing.push(bit);
        }
    }

    /// Something with this bit was deleted. The bit stays set until [`Self::clear`].
    pub(crate) fn forget(&mut self, bit: u32) {
        if let Some(count) = self.needed.get_mut(&bit) {
            *count -= 1;
            if *count == 0 {
                self.needed.remove(&bit);
            }
        }
    }

    /// The writes that set what [`Self::need`] found unset, sorted.
    pub(crate) fn take_missing(&mut self) -> impl Iterator<Item = Op> {
        let mut missing = std::mem::take(&mut self.missing);
        missing.sort_unstable();
        missing.into_iter().map(Op::SetFilterBit)
    }

    /// Whether [`Self::take_missing`] has something.
    pub(crate) fn is_behind(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Clears every bit that nothing needs and that `keep` does not claim.
    pub(crate) fn clear(&mut self, keep: impl Fn(u32) -> bool) -> Vec<Op> {
        let mut ops = Vec::new();
        for (index, word) in self.words.iter_mut().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                // FILTER_WORDS x 64 fits in 32 bits.
                let bit = index as u32 * 64 + rest.trailing_zeros();
                rest &= rest - 1;
                if !self.needed.contains_key(&bit) && !keep(bit) {
                    *word &= !(1 << (bit & 63));
                    ops.push(Op::ClearFilterBit(bit));
                }
            }
        }
        ops
    }
}
