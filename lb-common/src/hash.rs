//! The two hashes of the contract. Every node and every version must agree on
//! [`flow4`] and [`flow6`], which choose a backend; the agent and the datapath
//! of one node must agree on [`filter_bit`]. All are pinned by golden values.

use crate::addr::{Addr, Be16, Be32};

// Odd constants with well-mixed bits, from the fractional part of the golden
// ratio and from MurmurHash3's 64-bit finaliser.
const K0: u64 = 0x9e37_79b9_7f4a_7c15;
/// Odd, its bits well mixed.
pub const K1: u64 = 0xff51_afd7_ed55_8ccd;
/// As [`K1`].
pub const K2: u64 = 0xc4ce_b9fe_1a85_ec53;

/// MurmurHash3's finaliser: every input bit reaches every output bit.
#[inline(always)]
const fn mix(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(K1);
    h ^= h >> 33;
    h = h.wrapping_mul(K2);
    h ^ (h >> 33)
}

#[inline(always)]
const fn ports(sport: Be16, dport: Be16, proto: u8) -> u64 {
    (sport.get() as u64) | ((dport.get() as u64) << 16) | ((proto as u64) << 32)
}

/// Hash of an IPv4 flow as the client sent it. With affinity, ports are given as 0.
#[inline(always)]
pub const fn flow4(src: Be32, dst: Be32, sport: Be16, dport: Be16, proto: u8) -> u32 {
    let addrs = ((src.get() as u64) << 32) | dst.get() as u64;
    (mix(addrs ^ ports(sport, dport, proto).wrapping_mul(K0)) >> 32) as u32
}

/// Hash of an IPv6 flow as the client sent it. With affinity, ports are given as 0.
#[inline(always)]
pub const fn flow6(src: Addr, dst: Addr, sport: Be16, dport: Be16, proto: u8) -> u32 {
    let s = mix(fold(src)).wrapping_add(K0);
    let d = fold(dst);
    (mix(s ^ d ^ ports(sport, dport, proto).wrapping_mul(K0)) >> 32) as u32
}

/// Hash of a socket (its cookie, or its namespace's with affinity) and a frontend.
#[inline(always)]
pub const fn socket(cookie: u64, dst: Addr, dport: Be16, proto: u8) -> u32 {
    (mix(cookie ^ fold(dst) ^ ports(Be16::new(0), dport, proto).wrapping_mul(K0)) >> 32) as u32
}

/// The slot of a hash in a table of `len` slots: the high half of the product,
/// which spreads 32-bit hashes evenly and costs no division.
#[inline(always)]
pub const fn slot(hash: u32, len: u32) -> u32 {
    ((hash as u64 * len as u64) >> 32) as u32
}

#[inline(always)]
const fn fold(a: Addr) -> u64 {
    let hi = ((a.0[0].get() as u64) << 32) | a.0[1].get() as u64;
    let lo = ((a.0[2].get() as u64) << 32) | a.0[3].get() as u64;
    hi.wrapping_mul(K0) ^ lo
}

/// What a bit of the filter stands for; [`BACKEND`](filter_kind::BACKEND) is of the filter of
/// replies.
pub mod filter_kind {
    /// (vip, 0, 0): the destination is a vip.
    pub const VIP: u32 = 0;
    /// (vip, port, protocol): the destination is a frontend.
    pub const FRONTEND: u32 = 2;
    /// (address, port, protocol): the source is a backend.
    pub const BACKEND: u32 = 3;
}

/// The bit of the filter for an address, port and protocol: the word's index is
/// `bit >> 6`, below [`crate::limits::FILTER_WORDS`].
#[inline(always)]
pub const fn filter_bit(kind: u32, addr: Addr, port: Be16, proto: u8) -> u32 {
    // The address is mixed first and alone: a packet asks for its vip and then
    // for its frontend, and the compiler computes the common part once.
    let h = fold(addr).wrapping_mul(K1);
    let h = h ^ (h >> 29) ^ ports(Be16::new(kind as u16), port, proto);
    (h.wrapping_mul(K2) >> (64 - FILTER_SHIFT)) as u32
}

const FILTER_SHIFT: u32 = (crate::limits::FILTER_WORDS * 64).ilog2();
