//! SCTP's checksum, and its update (RFC 9260, appendix A).
//!
//! A CRC is linear: what a change of some bits adds to it depends on these bits and on
//! how many bytes follow them, and on nothing else. Polynomials are written with the
//! highest power in the lowest bit, as the bits of a packet arrive.

/// The Castagnoli polynomial, without its highest power.
const POLY: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// The product of two polynomials, modulo [`POLY`].
#[inline(always)]
#[must_use]
pub const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    // Without branches: the verifier would follow each.
    while bit < 32 {
        product ^= b & 0u32.wrapping_sub((a >> (31 - bit)) & 1);
        b = (b >> 1) ^ (POLY & 0u32.wrapping_sub(b & 1));
        bit += 1;
    }
    product
}

/// x to the power of 8 · 2^i: what 2^i bytes that follow do to a CRC.
const BYTES: [u32; 16] = {
    let mut powers = [0; 16];
    // x^8.
    let mut power = ONE >> 8;
    let mut i = 0;
    while i < 16 {
        powers[i] = power;
        power = multiply(power, power);
        i += 1;
    }
    powers
};

/// The change of the CRC of `len` bytes, 65,535 at most, whose first four change by
/// `change`: the exclusive or of old and new, the first byte lowest. `multiply` runs
/// [`multiply`].
#[inline(always)]
#[must_use]
pub fn change(change: u32, len: u32, multiply: impl Fn(u32, u32) -> u32) -> u32 {
    // The four bytes themselves move on by their own length, so all of `len` counts.
    let mut crc = change;
    for (i, power) in BYTES.iter().enumerate() {
        if (len >> i) & 1 != 0 {
            crc = multiply(crc, *power);
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9260's CRC, bit by bit, with nothing before and nothing after it.
    fn plain(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ if crc & 1 == 0 { 0 } else { POLY }
            })
        })
    }

    #[test]
    fn a_change_moves_past_the_bytes_that_follow() {
        for len in [4usize, 5, 12, 16, 100, 1460, 9000, 65_535] {
            for bits in [1u32, 0x8000_0000, 0x1234_5678, u32::MAX] {
                let mut room = [0; 65_535];
                let bytes = &mut room[..len];
                bytes[..4].copy_from_slice(&bits.to_le_bytes());
                assert_eq!(
                    change(bits, len as u32, multiply),
                    plain(bytes),
                    "{len} {bits:x}"
                );
            }
        }
        assert_eq!(change(0, 1460, multiply), 0);
    }
}
