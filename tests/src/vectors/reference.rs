//! The hashes of the contract once more, written from their description alone:
//! unbounded integers, reduced at the end, and addresses as numbers.

use std::net::IpAddr;

const WORD: u128 = 1 << 64;
const K0: u128 = 0x9e37_79b9_7f4a_7c15;
const K1: u128 = 0xff51_afd7_ed55_8ccd;
const K2: u128 = 0xc4ce_b9fe_1a85_ec53;
/// Bits of the filter: 32,768 words of 64.
const FILTER_BITS: u32 = 21;

/// Kinds of bits of the filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bit {
    /// A vip.
    Vip = 0,
    /// A frontend.
    Frontend = 2,
    /// A backend.
    Backend = 3,
}

fn times(a: u128, b: u128) -> u128 {
    a % WORD * (b % WORD) % WORD
}

/// The finaliser of MurmurHash3 (fmix64).
fn fmix(mut h: u128) -> u128 {
    h ^= h >> 33;
    h = times(h, K1);
    h ^= h >> 33;
    h = times(h, K2);
    h ^ (h >> 33)
}

fn packed(low: u16, high: u16, proto: u8) -> u128 {
    u128::from(low) + u128::from(high) * (1 << 16) + u128::from(proto) * (1 << 32)
}

/// An IPv6 address as a number, or an IPv4 address as its mapped form's.
fn wide(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => 0xffff_0000_0000 + u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn fold(addr: IpAddr) -> u128 {
    let number = wide(addr);
    times(number / WORD, K0) ^ (number % WORD)
}

fn upper(h: u128) -> u32 {
    u32::try_from(h >> 32).expect("a hash has 64 bits")
}

/// The hash of a flow.
///
/// # Panics
/// The addresses are of two families.
#[must_use]
pub fn flow(src: (IpAddr, u16), dst: (IpAddr, u16), proto: u8) -> u32 {
    let ports = times(packed(src.1, dst.1, proto), K0);
    match (src.0, dst.0) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let addrs = u128::from(s.to_bits()) * (1 << 32) + u128::from(d.to_bits());
            upper(fmix(addrs ^ ports))
        }
        (IpAddr::V6(_), IpAddr::V6(_)) => {
            let s = (fmix(fold(src.0)) + K0) % WORD;
            upper(fmix(s ^ fold(dst.0) ^ ports))
        }
        _ => panic!("{src:?} and {dst:?} are of two families"),
    }
}

/// The hash of a socket, by its cookie, and a frontend.
#[must_use]
pub fn socket(cookie: u64, dst: (IpAddr, u16), proto: u8) -> u32 {
    let ports = times(packed(0, dst.1, proto), K0);
    upper(fmix(u128::from(cookie) ^ fold(dst.0) ^ ports))
}

/// The slot of a hash in a table.
#[must_use]
pub fn slot(hash: u32, len: u32) -> u32 {
    u32::try_from(u128::from(hash) * u128::from(len) / (1 << 32)).expect("less than the table")
}

/// The bit of the filter.
#[must_use]
pub fn filter_bit(kind: Bit, addr: IpAddr, port: u16, proto: u8) -> u32 {
    let mut h = times(fold(addr), K1);
    h ^= h >> 29;
    h ^= packed(kind as u16, port, proto);
    u32::try_from(times(h, K2) >> (64 - FILTER_BITS)).expect("21 bits")
}

/// The one's complement sum of RFC 1071, by its definition: 16-bit words in
/// network byte order, carries added back, not complemented.
#[must_use]
pub fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) * 256 + u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = sum % 65536 + sum / 65536;
    }
    u16::try_from(sum).expect("carries were added back")
}

/// The sum of a pseudo header, which a sender with checksum offload leaves in
/// the field.
#[must_use]
pub fn pseudo_sum(src: IpAddr, dst: IpAddr, proto: u8, len: u16) -> u16 {
    let mut bytes = Vec::new();
    for addr in [src, dst] {
        match addr {
            IpAddr::V4(a) => bytes.extend(a.octets()),
            IpAddr::V6(a) => bytes.extend(a.octets()),
        }
    }
    bytes.extend([0, proto]);
    bytes.extend(len.to_be_bytes());
    ones_sum(&bytes)
}
