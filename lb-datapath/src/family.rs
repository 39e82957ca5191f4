//! The two IP families, as a type parameter.

use bytemuck::Pod;
use lb_common::{
    Addr, Be16, Be32, CtBucket4, CtBucket6, CtEntry, CtEntry4, CtEntry6, CtKey, CtKey4, CtKey6,
    CtSlot, hash,
};

use crate::{
    csum::Sum,
    nat,
    packet::{ETH_LEN, Packet},
    parse::{self, Headers},
    refuse,
    table::Words,
    tables::Hit,
};

/// An IP family: how wide its addresses are, and how they are hashed.
pub trait Family: Copy + 'static {
    /// An address as it lies in a packet.
    type Addr: Copy + Eq + Pod;
    /// Whether this is IPv6.
    const V6: bool;
    /// Words of a bucket of conntrack.
    const BUCKET_WORDS: usize;

    /// The address as maps hold it.
    fn wide(addr: Self::Addr) -> Addr;
    /// The address of a map's entry of this family.
    fn narrow(addr: &Addr) -> Self::Addr;
    /// Parses the IP header; `None` where there is none of this family.
    fn parse<P: Packet>(p: &P) -> Option<Headers<Self::Addr>>;
    /// Parses an IP header at an offset, and no extension headers.
    fn parse_quoted<P: Packet>(p: &P, at: u32) -> Option<Headers<Self::Addr>>;
    /// Writes addresses, ports and TTL; `addrs` is the change of the addresses' sum.
    #[must_use]
    fn write<P: Packet>(
        p: &mut P,
        h: &Headers<Self::Addr>,
        to: &Hit<Self::Addr>,
        addrs: Sum,
        ttl: u8,
    ) -> Option<()>;
    /// Writes source and destination address and TTL, and in IPv4 the header's checksum.
    #[must_use]
    fn write_ip<P: Packet>(
        p: &mut P,
        h: &Headers<Self::Addr>,
        to: (Self::Addr, Self::Addr),
        ttl: u8,
    ) -> Option<()>;
    /// Exchanges source and destination address: no checksum changes.
    #[must_use]
    fn write_addrs<P: Packet>(p: &mut P, h: &Headers<Self::Addr>) -> Option<()> {
        let at = ETH_LEN + if Self::V6 { 8 } else { 12 };
        p.write(at, &h.tuple.dst)?;
        p.write(at + size_of::<Self::Addr>() as u32, &h.tuple.src)
    }
    /// Makes the packet an answer to itself: an IP header back to its source,
    /// before a payload of a protocol and so many bytes, which are left to write.
    #[must_use]
    fn answer<P: Packet>(p: &mut P, h: &Headers<Self::Addr>, payload: (u8, u32)) -> Option<()>;
    /// Makes the packet an ICMP port unreachable to its source.
    #[must_use]
    fn unreachable<P: Packet>(p: &mut P, h: &Headers<Self::Addr>) -> Option<()>;
    /// A conntrack key as words.
    fn key_words(key: &CtKey<Self::Addr>) -> &[u64];
    /// A conntrack entry as words.
    fn entry_words(entry: &CtEntry<Self::Addr>) -> &[u64];
    /// A slot, of which other CPUs may write the times and counters meanwhile.
    fn load_slot<W: Words>(slot: W) -> CtSlot<Self::Addr>;
    /// Source and destination address, which lie in words one after the other.
    fn load_addrs<W: Words>(words: W) -> (Self::Addr, Self::Addr);
    /// Hash of a flow, [`hash::flow4`] or [`hash::flow6`].
    fn hash(src: Self::Addr, dst: Self::Addr, sport: Be16, dport: Be16, proto: u8) -> u32;
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V4;

/// IPv6 (RFC 8200).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V6;

impl Family for V4 {
    type Addr = Be32;
    const V6: bool = false;
    const BUCKET_WORDS: usize = size_of::<CtBucket4>() / 8;

    #[inline(always)]
    fn wide(addr: Be32) -> Addr {
        Addr::v4(addr)
    }
    #[inline(always)]
    fn narrow(addr: &Addr) -> Be32 {
        addr.0[3]
    }
    #[inline(always)]
    fn parse<P: Packet>(p: &P) -> Option<Headers<Be32>> {
        parse::ipv4(p, ETH_LEN)
    }
    #[inline(always)]
    fn parse_quoted<P: Packet>(p: &P, at: u32) -> Option<Headers<Be32>> {
        parse::ipv4(p, at)
    }
    #[inline(always)]
    fn write<P: Packet>(
        p: &mut P,
        h: &Headers<Be32>,
        to: &Hit<Be32>,
        addrs: Sum,
        ttl: u8,
    ) -> Option<()> {
        nat::write4(p, h, to, addrs, ttl)
    }
    #[inline(always)]
    fn write_ip<P: Packet>(
        p: &mut P,
        h: &Headers<Be32>,
        (src, dst): (Be32, Be32),
        ttl: u8,
    ) -> Option<()> {
        let addrs = Sum::ZERO
            .without(&h.tuple.src)
            .without(&h.tuple.dst)
            .with(&src)
            .with(&dst);
        p.write(ETH_LEN + 8, &nat::tail4(h, (src, dst), addrs, ttl))
    }
    #[inline(always)]
    fn answer<P: Packet>(p: &mut P, h: &Headers<Be32>, payload: (u8, u32)) -> Option<()> {
        refuse::answer4(p, h, payload)
    }
    #[inline(always)]
    fn unreachable<P: Packet>(p: &mut P, h: &Headers<Be32>) -> Option<()> {
        refuse::unreachable4(p, h)
    }
    #[inline(always)]
    fn key_words(key: &CtKey4) -> &[u64] {
        bytemuck::cast_ref::<CtKey4, [u64; size_of::<CtKey4>() / 8]>(key)
    }
    #[inline(always)]
    fn entry_words(entry: &CtEntry4) -> &[u64] {
        bytemuck::cast_ref::<CtEntry4, [u64; size_of::<CtEntry4>() / 8]>(entry)
    }
    #[inline(always)]
    fn load_slot<W: Words>(slot: W) -> CtSlot<Be32> {
        const WORDS: usize = size_of::<CtSlot<Be32>>() / 8;
        bytemuck::cast::<[u64; WORDS], _>(core::array::from_fn(|at| slot.load(at)))
    }
    #[inline(always)]
    fn load_addrs<W: Words>(words: W) -> (Be32, Be32) {
        let [src, dst] = bytemuck::cast::<u64, [Be32; 2]>(words.load(0));
        (src, dst)
    }
    #[inline(always)]
    fn hash(src: Be32, dst: Be32, sport: Be16, dport: Be16, proto: u8) -> u32 {
        hash::flow4(src, dst, sport, dport, proto)
    }
}

impl Family for V6 {
    type Addr = Addr;
    const V6: bool = true;
    const BUCKET_WORDS: usize = size_of::<CtBucket6>() / 8;

    #[inline(always)]
    fn wide(addr: Addr) -> Addr {
        addr
    }
    #[inline(always)]
    fn narrow(addr: &Addr) -> Addr {
        *addr
    }
    #[inline(always)]
    fn parse<P: Packet>(p: &P) -> Option<Headers<Addr>> {
        parse::ipv6(p)
    }
    #[inline(always)]
    fn parse_quoted<P: Packet>(p: &P, at: u32) -> Option<Headers<Addr>> {
        parse::ipv6_header(p, at)
    }
    #[inline(always)]
    fn write<P: Packet>(
        p: &mut P,
        h: &Headers<Addr>,
        to: &Hit<Addr>,
        _addrs: Sum,
        ttl: u8,
    ) -> Option<()> {
        nat::write6(p, h, to, ttl)
    }
    #[inline(always)]
    fn write_ip<P: Packet>(
        p: &mut P,
        h: &Headers<Addr>,
        (src, dst): (Addr, Addr),
        ttl: u8,
    ) -> Option<()> {
        if ttl != h.ttl {
            p.write(ETH_LEN + 7, &ttl)?;
        }
        p.write(ETH_LEN + 8, &src)?;
        p.write(ETH_LEN + 24, &dst)
    }
    #[inline(always)]
    fn answer<P: Packet>(p: &mut P, h: &Headers<Addr>, payload: (u8, u32)) -> Option<()> {
        refuse::answer6(p, h, payload)
    }
    #[inline(always)]
    fn unreachable<P: Packet>(p: &mut P, h: &Headers<Addr>) -> Option<()> {
        refuse::unreachable6(p, h)
    }
    #[inline(always)]
    fn key_words(key: &CtKey6) -> &[u64] {
        bytemuck::cast_ref::<CtKey6, [u64; size_of::<CtKey6>() / 8]>(key)
    }
    #[inline(always)]
    fn entry_words(entry: &CtEntry6) -> &[u64] {
        bytemuck::cast_ref::<CtEntry6, [u64; size_of::<CtEntry6>() / 8]>(entry)
    }
    #[inline(always)]
    fn load_slot<W: Words>(slot: W) -> CtSlot<Addr> {
        const WORDS: usize = size_of::<CtSlot<Addr>>() / 8;
        bytemuck::cast::<[u64; WORDS], _>(core::array::from_fn(|at| slot.load(at)))
    }
    #[inline(always)]
    fn load_addrs<W: Words>(words: W) -> (Addr, Addr) {
        let addr = |at| bytemuck::cast([words.load(at), words.load(at + 1)]);
        (addr(0), addr(2))
    }
    #[inline(always)]
    fn hash(src: Addr, dst: Addr, sport: Be16, dport: Be16, proto: u8) -> u32 {
        hash::flow6(src, dst, sport, dport, proto)
    }
}
