//! Rewriting a packet: addresses, ports, TTL, checksums, link addresses.

use bytemuck::{Pod, Zeroable};
use lb_common::{Addr, Be16, Be32, proto};

use crate::{
    crc32c,
    csum::{Sum, pseudo},
    family::Family,
    packet::{Delta, ETH_LEN, EthHeader, Packet},
    parse::Headers,
    tables::Hit,
};

/// Writes the addresses and ports of a conntrack entry, and corrects every
/// checksum. `hop` says that the packet is forwarded here and not by the stack,
/// so that its TTL or hop limit must be decremented.
#[inline(always)]
#[must_use]
pub fn apply<F: Family, P: Packet>(
    p: &mut P,
    h: &Headers<F::Addr>,
    to: &Hit<F::Addr>,
    hop: bool,
) -> Option<()> {
    if F::V6 {
        rewrite_apart::<F, P>(p, h, to, hop)
    } else {
        rewrite::<F, P>(p, h, to, hop)
    }
}

/// [`rewrite`] with a stack frame of its own, which the wide addresses need: a
/// program and what it calls share 512 bytes.
#[inline(never)]
fn rewrite_apart<F: Family, P: Packet>(
    p: &mut P,
    h: &Headers<F::Addr>,
    to: &Hit<F::Addr>,
    hop: bool,
) -> Option<()> {
    rewrite::<F, P>(p, h, to, hop)
}

#[inline(always)]
fn rewrite<F: Family, P: Packet>(
    p: &mut P,
    h: &Headers<F::Addr>,
    to: &Hit<F::Addr>,
    hop: bool,
) -> Option<()> {
    let from = &h.tuple;
    let addrs = Sum::ZERO
        .without(&from.src)
        .without(&from.dst)
        .with(&to.src)
        .with(&to.dst);
    let ports = Sum::ZERO
        .sub16(from.sport.raw())
        .sub16(from.dport.raw())
        .add16(to.sport.raw())
        .add16(to.dport.raw());
    let l4_len = h.len.wrapping_sub(h.l4() - ETH_LEN);
    if h.proto() == proto::SCTP {
        fix_sctp_csum::<F, P>(p, h, to, l4_len)?;
        return F::write(p, h, to, addrs, h.ttl - u8::from(hop));
    }
    let udp = h.proto() == proto::UDP;
    let field = h.l4() + if udp { 6 } else { 16 };
    let delta = Delta {
        addrs,
        ports,
        pseudo: pseudo(&from.src, &from.dst, h.proto(), l4_len),
    };
    p.fix_l4_csum(field, &delta, udp)?;
    F::write(p, h, to, addrs, h.ttl - u8::from(hop))
}

/// Corrects an SCTP packet's checksum, of which addresses are no part. It is of the
/// whole datagram, so that a fragment's ports cannot change. A checksum of zero is
/// left to a device that is to compute it (`CHECKSUM_PARTIAL`), as is one packet in
/// four billion, which is then lost.
#[inline(never)]
fn fix_sctp_csum<F: Family, P: Packet>(
    p: &mut P,
    h: &Headers<F::Addr>,
    to: &Hit<F::Addr>,
    len: u32,
) -> Option<()> {
    let from = &h.tuple;
    let word = |sport: Be16, dport: Be16| u32::from(dport.raw()) << 16 | u32::from(sport.raw());
    let ports = word(from.sport, from.dport) ^ word(to.sport, to.dport);
    if ports == 0 {
        return Some(());
    }
    if h.is_first_fragment() {
        return None;
    }
    let field: u32 = p.read(h.l4() + 8)?;
    if field == 0 {
        return Some(());
    }
    p.write(
        h.l4() + 8,
        &(field ^ crc32c::change(ports, len & 0xffff, P::crc32c_times)),
    )
}

/// Exchanges source and destination of the Ethernet header.
#[inline(always)]
#[must_use]
pub fn swap_link_addrs<P: Packet>(p: &mut P) -> Option<()> {
    let eth: EthHeader = p.read(0)?;
    set_link_addrs(p, eth.src, eth.dst)
}

/// Writes the addresses of the Ethernet header.
#[inline(always)]
#[must_use]
pub fn set_link_addrs<P: Packet>(p: &mut P, dst: [u16; 3], src: [u16; 3]) -> Option<()> {
    p.write(0, &[dst, src])
}

/// What follows the fragment offset of an IPv4 header, and the ports behind a
/// header without options: one write does it all.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Tail4 {
    ttl: u8,
    proto: u8,
    csum: u16,
    src: Be32,
    dst: Be32,
}

/// The ports.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Ports {
    sport: Be16,
    dport: Be16,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Tail4AndPorts {
    tail: Tail4,
    ports: Ports,
}

/// The tail of an IPv4 header with these addresses, which differ from the old ones by
/// `addrs`, and this TTL.
#[inline(always)]
pub(crate) fn tail4(h: &Headers<Be32>, to: (Be32, Be32), addrs: Sum, ttl: u8) -> Tail4 {
    let word = |ttl: u8| u16::from_ne_bytes([ttl, h.proto()]);
    let delta = addrs.sub16(word(h.ttl)).add16(word(ttl));
    Tail4 {
        ttl,
        proto: h.proto(),
        csum: delta.update(h.csum),
        src: to.0,
        dst: to.1,
    }
}

/// [`Family::write`] for IPv4.
#[inline(always)]
pub(crate) fn write4<P: Packet>(
    p: &mut P,
    h: &Headers<Be32>,
    to: &Hit<Be32>,
    addrs: Sum,
    ttl: u8,
) -> Option<()> {
    let tail = tail4(h, (to.src, to.dst), addrs, ttl);
    let ports = Ports {
        sport: to.sport,
        dport: to.dport,
    };
    if h.l4() == ETH_LEN + 20 {
        p.write(ETH_LEN + 8, &Tail4AndPorts { tail, ports })
    } else {
        p.write(ETH_LEN + 8, &tail)?;
        p.write(h.l4(), &ports)
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Addrs6 {
    src: Addr,
    dst: Addr,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Addrs6AndPorts {
    addrs: Addrs6,
    ports: Ports,
}

/// [`Family::write`] for IPv6.
#[inline(always)]
pub(crate) fn write6<P: Packet>(
    p: &mut P,
    h: &Headers<Addr>,
    to: &Hit<Addr>,
    hops: u8,
) -> Option<()> {
    if hops != h.ttl {
        p.write(ETH_LEN + 7, &hops)?;
    }
    let addrs = Addrs6 {
        src: to.src,
        dst: to.dst,
    };
    let ports = Ports {
        sport: to.sport,
        dport: to.dport,
    };
    if h.l4() == ETH_LEN + 40 {
        p.write(ETH_LEN + 8, &Addrs6AndPorts { addrs, ports })
    } else {
        p.write(ETH_LEN + 8, &addrs)?;
        p.write(h.l4(), &ports)
    }
}
