//! From a frame to addresses, protocol and ports.

use core::num::NonZeroU32;

use bytemuck::{Pod, Zeroable};
use lb_common::{Addr, Be16, Be32, CtKey, ct_flags, proto};

use crate::packet::{ETH_LEN, Ipv4Header, Ipv6Header, Packet, tcp_flags};

/// What the datapath keeps of a packet's headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers<A> {
    /// The tuple, as the packet carries it: the key of its flow's direction. The
    /// ports are 0 until [`ports`] has read them.
    pub tuple: CtKey<A>,
    /// Offset of the transport header from the start of the frame. Never 0, so that
    /// "no headers" is: the verifier knows of a byte in memory that it is 0, and not
    /// that it is, say, 2.
    l4: NonZeroU32,
    /// Bytes of the datagram, IP header included, as the header says.
    pub len: u32,
    /// [`ct_flags`] that this packet adds to its direction.
    pub flags: u32,
    /// The IPv4 header checksum as it lies in memory; 0 in IPv6.
    pub csum: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Offset and "more fragments" of a fragment, in the form of IPv4's header; 0
    /// where the datagram is whole.
    pub fragment: Be16,
    /// Identification of a fragment's datagram, as it lies in memory.
    pub id: u32,
}

impl<A> Headers<A> {
    /// IP protocol number of the transport header.
    #[inline(always)]
    pub fn proto(&self) -> u8 {
        self.tuple.proto as u8
    }
    /// Offset of the transport header from the start of the frame.
    #[inline(always)]
    pub fn l4(&self) -> u32 {
        self.l4.get()
    }
    /// Whether the packet opens a connection: TCP SYN without ACK, SCTP INIT. Known
    /// when [`ports`] has read the flags.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.flags & (ct_flags::SYN | ct_flags::SEEN) == ct_flags::SYN
    }
    /// Whether a TCP, UDP or SCTP header is here.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        matches!(self.proto(), proto::TCP | proto::UDP | proto::SCTP) && !self.is_later_fragment()
    }
    /// Whether a packet without ports may belong to a flow: a later fragment, an ICMP
    /// error.
    #[inline(always)]
    pub fn may_follow(&self) -> bool {
        self.is_later_fragment() || matches!(self.proto(), proto::ICMP | proto::ICMPV6)
    }
    /// Whether this is a fragment that the transport header is not in.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.raw() & OFFSET.raw() != 0
    }
    /// Whether the transport header is here, and others of the datagram follow.
    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        self.fragment == MORE
    }
}

/// The fragment offset in words of eight bytes (RFC 791).
const OFFSET: Be16 = Be16::new(0x1fff);
/// More fragments.
const MORE: Be16 = Be16::new(0x2000);

/// The tuple of a packet whose ports are not known yet.
#[inline(always)]
fn portless<A>(src: A, dst: A, proto: u8) -> CtKey<A> {
    CtKey {
        src,
        dst,
        sport: Be16::new(0),
        dport: Be16::new(0),
        proto: u32::from(proto),
    }
}

/// Parses an IPv4 header at an offset; `None` where there is none.
#[inline(always)]
pub fn ipv4<P: Packet>(p: &P, at: u32) -> Option<Headers<Be32>> {
    let h: Ipv4Header = p.read(at)?;
    let header_len = u32::from(h.version_ihl & 0xf) * 4;
    if h.version_ihl >> 4 != 4 || header_len < 20 {
        return None;
    }
    Some(Headers {
        tuple: portless(h.src, h.dst, h.proto),
        l4: NonZeroU32::new(at + header_len)?,
        len: u32::from(h.total_len.get()),
        flags: 0,
        csum: h.csum,
        ttl: h.ttl,
        fragment: Be16::from_raw(h.frag.raw() & (OFFSET.raw() | MORE.raw())),
        id: u32::from(h.id.raw()),
    })
}

/// Parses an IPv6 header and the extension headers that follow it. A function of
/// its own in the kernel, so that eight words of addresses lie in memory once and
/// not in spill slots besides.
#[inline(never)]
pub fn ipv6<P: Packet>(p: &P) -> Option<Headers<Addr>> {
    let mut headers = ipv6_header(p, ETH_LEN)?;
    if !matches!(headers.proto(), proto::TCP | proto::UDP | proto::ICMPV6) {
        skip_extensions(p, &mut headers)?;
    }
    Some(headers)
}

/// Parses an IPv6 header at an offset; `None` where there is none.
#[inline(always)]
pub fn ipv6_header<P: Packet>(p: &P, at: u32) -> Option<Headers<Addr>> {
    let h: Ipv6Header = p.read(at)?;
    // A mapped IPv4 address is not for the wire (RFC 4942, section 2.2): in the maps
    // it stands for an IPv4 frontend.
    if h.version_flow.get() >> 28 != 6 || h.src.is_v4() | h.dst.is_v4() {
        return None;
    }
    Some(Headers {
        tuple: portless(h.src, h.dst, h.next),
        l4: NonZeroU32::new(at + 40)?,
        len: u32::from(h.payload_len.get()) + 40,
        flags: 0,
        csum: 0,
        ttl: h.hops,
        fragment: Be16::new(0),
        id: 0,
    })
}

/// The start of an IPv6 extension header (RFC 8200, section 4).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Extension {
    next: u8,
    len: u8,
    /// In a fragment header: offset and flags.
    frag: Be16,
}

/// Extension headers that are followed; hosts that send more send nothing for us.
const MAX_EXTENSIONS: u32 = 6;
/// Offset beyond which no transport header is looked for.
const MAX_L4: u32 = 511;

#[inline(always)]
fn skip_extensions<P: Packet>(p: &P, h: &mut Headers<Addr>) -> Option<()> {
    // RFC 8200, section 4: hop-by-hop options, routing, fragment, destination options.
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const OPTIONS: u8 = 60;
    let mut l4 = h.l4();
    for _ in 0..MAX_EXTENSIONS {
        let ext = match h.proto() {
            HOP_BY_HOP | ROUTING | OPTIONS | FRAGMENT => p.read::<Extension>(l4)?,
            _ => return Some(()),
        };
        if h.proto() == FRAGMENT {
            let field = ext.frag.get();
            h.fragment = Be16::new(field >> 3 | (field & 1) << 13);
            h.id = p.read::<u32>(l4 + 4)?;
            l4 += 8;
        } else {
            l4 += (u32::from(ext.len) + 1) * 8;
        }
        h.tuple.proto = u32::from(ext.next);
        if l4 > MAX_L4 {
            return None;
        }
        h.l4 = NonZeroU32::new(l4)?;
        if h.is_later_fragment() {
            return Some(());
        }
    }
    None
}

/// A UDP header, and the start of a TCP or SCTP header.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Head {
    sport: Be16,
    dport: Be16,
    rest: Be32,
}

/// What follows the acknowledgment number in a TCP header, up to the checksum.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TcpTail {
    data_offset: u8,
    flags: u8,
    window: Be16,
    csum: u16,
}

/// Reads the ports, and in TCP and SCTP what the packet means for the flow; `None`
/// where the frame ends before the checksum does.
#[inline(always)]
pub fn ports<A, P: Packet>(p: &P, h: &mut Headers<A>) -> Option<()> {
    only_ports(p, h)?;
    h.flags = ct_flags::SEEN;
    if h.proto() == proto::SCTP {
        return chunk(p, h);
    }
    if h.proto() != proto::TCP {
        return Some(());
    }
    let flags = p.read::<TcpTail>(h.l4() + 12)?.flags;
    if flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN {
        h.flags = 0;
    }
    // FIN, SYN and RST are the lowest bits of the header's flags.
    h.flags |= u32::from(flags & (tcp_flags::FIN | tcp_flags::SYN | tcp_flags::RST)) << TCP_SHIFT;
    Some(())
}

/// Reads the ports, where the frame goes on for eight bytes: as much as ICMP errors
/// quote at least (RFC 792).
#[inline(always)]
pub fn only_ports<A, P: Packet>(p: &P, h: &mut Headers<A>) -> Option<()> {
    let head: Head = p.read(h.l4())?;
    h.tuple.sport = head.sport;
    h.tuple.dport = head.dport;
    Some(())
}

/// Reads the type of the first chunk of an SCTP packet (RFC 9260, section 3.2): those
/// that open or end an association are alone, or come first.
#[inline(always)]
fn chunk<A, P: Packet>(p: &P, h: &mut Headers<A>) -> Option<()> {
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    const ABORT: u8 = 6;
    const SHUTDOWN_COMPLETE: u8 = 14;
    let [kind, _flags] = p.read::<[u8; 2]>(h.l4() + SCTP_LEN)?;
    h.flags = match kind {
        INIT => ct_flags::SYN,
        INIT_ACK => ct_flags::SEEN | ct_flags::SYN,
        ABORT | SHUTDOWN_COMPLETE => ct_flags::SEEN | ct_flags::RST,
        _ => ct_flags::SEEN,
    };
    Some(())
}

/// Bytes of SCTP's common header.
pub(crate) const SCTP_LEN: u32 = 12;

/// Distance of the TCP flags in [`ct_flags`] from those in the header.
const TCP_SHIFT: u32 = 8;
const _: () = assert!(
    ct_flags::FIN == (tcp_flags::FIN as u32) << TCP_SHIFT
        && ct_flags::SYN == (tcp_flags::SYN as u32) << TCP_SHIFT
        && ct_flags::RST == (tcp_flags::RST as u32) << TCP_SHIFT
);
