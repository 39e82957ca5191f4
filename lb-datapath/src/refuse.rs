//! Answers of the datapath itself: TCP resets, ICMP port unreachables, and
//! replies to pings. The packet becomes its own answer and turns around.

use bytemuck::{NoUninit, Pod, Zeroable};
use lb_common::{Addr, Be16, Be32, Reason, proto};

use crate::{
    Outcome, Verdict,
    csum::{Sum, pseudo},
    family::Family,
    nat,
    packet::{ETH_LEN, Ipv4Header, Ipv6Header, Packet, TcpHeader, tcp_flags},
    parse::Headers,
};

/// TTL and hop limit of answers: Linux's default.
const TTL: u8 = 64;

/// Tells the client that there is nobody: TCP by a reset (RFC 9293, section
/// 3.10.7.1), UDP and others by an ICMP port unreachable (RFC 792, RFC 4443). A packet
/// that deserves no answer, or for which there is no room, is dropped.
#[inline(never)]
pub fn refuse<F: Family, P: Packet>(p: &mut P, h: &Headers<F::Addr>, reason: Reason) -> Outcome {
    let written = if h.proto() == proto::TCP {
        reset::<F, P>(p, h)
    } else {
        F::unreachable(p, h)
    };
    match written.and_then(|()| nat::swap_link_addrs(p)) {
        Some(()) => Outcome::new(Verdict::TurnAround, reason),
        None => Outcome::drop(reason),
    }
}

/// Answers a ping to a vip that is `served`, and drops one to a vip without backends;
/// other ICMP messages pass.
#[inline(never)]
pub fn echo<F: Family, P: Packet>(p: &mut P, h: &Headers<F::Addr>, served: bool) -> Outcome {
    let (request, reply) = if F::V6 { (128, 129) } else { (8, 0) };
    let Some(head) = p.read::<[u8; 4]>(h.l4()) else {
        return Outcome::drop(Reason::Malformed);
    };
    if head[0] != request || head[1] != 0 {
        return Outcome::pass(Reason::NotOurs);
    }
    if !served {
        return Outcome::drop(Reason::NoEndpoints);
    }
    let word = |kind: u8| u16::from_ne_bytes([kind, 0]);
    let delta = Sum::ZERO.sub16(word(request)).add16(word(reply));
    let mut csum = delta.update(u16::from_ne_bytes([head[2], head[3]]));
    if !F::V6 && csum == 0 {
        // Of an answer of nothing but zeros only this is right (RFC 1624, section
        // 3); of any other it is as good, being zero in one's complement too.
        csum = 0xffff;
    }
    let [hi, lo] = csum.to_ne_bytes();
    let written = p
        .write(h.l4(), &[reply, 0, hi, lo])
        .and_then(|()| F::write_addrs(p, h))
        .and_then(|()| nat::swap_link_addrs(p));
    match written {
        Some(()) => Outcome::new(Verdict::TurnAround, Reason::EchoReply),
        None => Outcome::drop(Reason::WriteFailed),
    }
}

#[inline(always)]
fn reset<F: Family, P: Packet>(p: &mut P, h: &Headers<F::Addr>) -> Option<()> {
    let tcp: TcpHeader = p.read(h.l4())?;
    if tcp.flags & tcp_flags::RST != 0 {
        return None;
    }
    let l4_len = h.len.checked_sub(h.l4() - ETH_LEN)?;
    let (seq, ack, flags) = if tcp.flags & tcp_flags::ACK != 0 {
        (tcp.ack, Be32::new(0), tcp_flags::RST)
    } else {
        let data = l4_len.checked_sub(u32::from(tcp.data_offset >> 4) * 4)?;
        let syn = u32::from(tcp.flags & tcp_flags::SYN != 0);
        let fin = u32::from(tcp.flags & tcp_flags::FIN != 0);
        let len = data + syn + fin;
        let ack = Be32::new(tcp.seq.get().wrapping_add(len));
        (Be32::new(0), ack, tcp_flags::RST | tcp_flags::ACK)
    };
    let mut answer = TcpHeader {
        sport: tcp.dport,
        dport: tcp.sport,
        seq,
        ack,
        data_offset: 5 << 4,
        flags,
        window: Be16::new(0),
        csum: 0,
        urgent: Be16::new(0),
    };
    let header = pseudo(&h.tuple.dst, &h.tuple.src, proto::TCP, 20);
    // A device that computes checksums later (CHECKSUM_PARTIAL) left the sum of
    // the pseudo header in the field, and will complete ours in the same way.
    let partial = tcp.csum == pseudo(&h.tuple.src, &h.tuple.dst, proto::TCP, l4_len).fold16();
    answer.csum = if partial {
        header.fold16()
    } else {
        header.with(&answer).checksum()
    };
    F::answer(p, h, (proto::TCP, 20))?;
    let l4 = ETH_LEN + if F::V6 { 40 } else { 20 };
    p.write(l4, &answer)
}

/// An ICMP or ICMPv6 header of the kind that quotes a packet.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct IcmpHeader {
    kind: u8,
    code: u8,
    csum: u16,
    unused: Be32,
}

/// An ICMP message that quotes an IP header and eight bytes more.
#[repr(C)]
#[derive(Clone, Copy)]
struct Quote<H> {
    icmp: IcmpHeader,
    ip: H,
    l4: [Be32; 2],
}

#[inline(always)]
fn write_quote<H: NoUninit, P: Packet>(p: &mut P, at: u32, quote: &Quote<H>) -> Option<()> {
    p.write(at, &quote.icmp)?;
    p.write(at + 8, &quote.ip)?;
    p.write(at + 8 + size_of::<H>() as u32, &quote.l4)
}

/// [`Family::unreachable`] for IPv4: type 3, code 3. A header with options is
/// not quoted: the packet is dropped.
#[inline(always)]
pub(crate) fn unreachable4<P: Packet>(p: &mut P, h: &Headers<Be32>) -> Option<()> {
    if h.l4() != ETH_LEN + 20 {
        return None;
    }
    let mut quote = Quote {
        icmp: IcmpHeader {
            kind: 3,
            code: 3,
            csum: 0,
            unused: Be32::new(0),
        },
        ip: p.read::<Ipv4Header>(ETH_LEN)?,
        l4: p.read(h.l4())?,
    };
    let sum = Sum::ZERO.with(&quote.icmp).with(&quote.ip).with(&quote.l4);
    quote.icmp.csum = sum.checksum();
    answer4(p, h, (proto::ICMP, 36))?;
    write_quote(p, ETH_LEN + 20, &quote)
}

/// [`Family::unreachable`] for IPv6: type 1, code 4.
#[inline(always)]
pub(crate) fn unreachable6<P: Packet>(p: &mut P, h: &Headers<Addr>) -> Option<()> {
    if h.l4() != ETH_LEN + 40 {
        return None;
    }
    let mut quote = Quote {
        icmp: IcmpHeader {
            kind: 1,
            code: 4,
            csum: 0,
            unused: Be32::new(0),
        },
        ip: p.read::<Ipv6Header>(ETH_LEN)?,
        l4: p.read(h.l4())?,
    };
    let sum = pseudo(&h.tuple.dst, &h.tuple.src, proto::ICMPV6, 56)
        .with(&quote.icmp)
        .with(&quote.ip)
        .with(&quote.l4);
    quote.icmp.csum = sum.checksum();
    answer6(p, h, (proto::ICMPV6, 56))?;
    write_quote(p, ETH_LEN + 40, &quote)
}

/// [`Family::answer`] for IPv4.
#[inline(always)]
pub(crate) fn answer4<P: Packet>(
    p: &mut P,
    h: &Headers<Be32>,
    (proto, len): (u8, u32),
) -> Option<()> {
    p.resize(ETH_LEN + 20 + len)?;
    let mut header = Ipv4Header {
        version_ihl: 0x45,
        tos: 0,
        total_len: Be16::new(20 + len as u16),
        id: Be16::new(0),
        // Don't fragment.
        frag: Be16::new(0x4000),
        ttl: TTL,
        proto,
        csum: 0,
        src: h.tuple.dst,
        dst: h.tuple.src,
    };
    header.csum = Sum::ZERO.with(&header).checksum();
    p.write(ETH_LEN, &header)
}

/// [`Family::answer`] for IPv6.
#[inline(always)]
pub(crate) fn answer6<P: Packet>(
    p: &mut P,
    h: &Headers<Addr>,
    (proto, len): (u8, u32),
) -> Option<()> {
    p.resize(ETH_LEN + 40 + len)?;
    let header = Ipv6Header {
        version_flow: Be32::new(6 << 28),
        payload_len: Be16::new(len as u16),
        next: proto,
        hops: TTL,
        src: h.tuple.dst,
        dst: h.tuple.src,
    };
    p.write(ETH_LEN, &header)
}
