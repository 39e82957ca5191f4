//! The Internet checksum, and its incremental update (RFC 1071, RFC 1624).
//!
//! Sums are kept as native integers over words as they lie in memory: the
//! one's complement sum does not depend on byte order (RFC 1071, section 2(B)).

use bytemuck::Pod;
use lb_common::Be16;

/// A one's complement sum, folded to 16 bits only at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds the bytes of a value whose size and alignment are multiples of four.
    #[inline(always)]
    pub fn with<T: Pod>(mut self, value: &T) -> Self {
        for word in bytemuck::cast_slice::<T, u32>(core::slice::from_ref(value)) {
            self.0 += u64::from(*word);
        }
        self
    }
    /// Adds the complement of the bytes of a value: takes it out of the sum.
    #[inline(always)]
    pub fn without<T: Pod>(mut self, value: &T) -> Self {
        for word in bytemuck::cast_slice::<T, u32>(core::slice::from_ref(value)) {
            self.0 += u64::from(!*word);
        }
        self
    }
    /// Adds a 16-bit word as it lies in memory.
    #[inline(always)]
    pub const fn add16(self, raw: u16) -> Self {
        Self(self.0 + raw as u64)
    }
    /// Takes a 16-bit word out of the sum.
    #[inline(always)]
    pub const fn sub16(self, raw: u16) -> Self {
        Self(self.0 + !raw as u64)
    }
    /// Adds another sum.
    #[inline(always)]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
    /// Folded to 32 bits, the form of the kernel's helpers.
    #[inline(always)]
    pub const fn fold32(self) -> u32 {
        let s = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let s = (s & 0xffff_ffff) + (s >> 32);
        s as u32
    }
    /// Folded to 16 bits, not complemented.
    #[inline(always)]
    pub const fn fold16(self) -> u16 {
        let s = self.fold32();
        let s = (s & 0xffff) + (s >> 16);
        let s = (s & 0xffff) + (s >> 16);
        s as u16
    }
    /// The checksum field for this sum.
    #[inline(always)]
    pub const fn checksum(self) -> u16 {
        !self.fold16()
    }
    /// A checksum field after its data changed by this difference
    /// (RFC 1624, equation 3).
    #[inline(always)]
    pub const fn update(self, field: u16) -> u16 {
        Self(self.0 + !field as u64).checksum()
    }
}

/// The sum of a pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1).
#[inline(always)]
pub fn pseudo<A: Pod>(src: &A, dst: &A, proto: u8, len: u32) -> Sum {
    Sum::ZERO
        .with(src)
        .with(dst)
        .add16(Be16::new(u16::from(proto)).raw())
        .add16(Be16::new(len as u16).raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_its_published_value() {
        // RFC 1071, section 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2.
        let sum = Sum::ZERO.with(&[0x0001_f203u32.to_be(), 0xf4f5_f6f7u32.to_be()]);
        assert_eq!(sum.fold16().to_ne_bytes(), [0xdd, 0xf2]);
    }

    #[test]
    fn the_example_of_rfc_1624_updates_to_its_published_value() {
        // RFC 1624, section 4: field 0xdd2f, a word changes from 0x5555 to 0x3285.
        let delta = Sum::ZERO.sub16(0x5555u16.to_be()).add16(0x3285u16.to_be());
        assert_eq!(delta.update(0xdd2fu16.to_be()), 0x0000u16.to_be());
    }
}
