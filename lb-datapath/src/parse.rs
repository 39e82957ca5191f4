//! From a frame to addresses, protocol and ports.

use bytemuck::{Pod, Zeroable};
use lb_common::{Addr, Be16, Be32, CtKey, ct_flags, proto};

use crate::packet::{ETH_LEN, Ipv4Header, Ipv6Header, Packet, tcp_flags};

/// What the datapath keeps of a packet's headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers<A> {
    /// The tuple, as the packet carries it: the key of its flow's direction. The
    /// ports are 0 until [`ports`] has read them.
    pub tuple: CtKey<A>,
    /// Offset of the transport header from the start of the frame.
    pub l4: u32,
    /// Bytes of the datagram, IP header included, as the header says.
    pub len: u32,
    /// [`ct_flags`] that this packet adds to its direction.
    pub flags: u32,
    /// The IPv4 header checksum as it lies in memory; 0 in IPv6.
    pub csum: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// A later fragment: the transport header is not here.
    pub later_fragment: bool,
    /// Opens a connection: TCP SYN without ACK.
    pub opens: bool,
}

impl<A> Headers<A> {
    /// IP protocol number of the transport header.
    #[inline(always)]
    pub fn proto(&self) -> u8 {
        self.tuple.proto as u8
    }
    /// Whether a TCP or UDP header is here.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        matches!(self.proto(), proto::TCP | proto::UDP) && !self.later_fragment
    }
}

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

/// Parses an IPv4 header; `None` where there is none.
#[inline(always)]
pub fn ipv4<P: Packet>(p: &P) -> Option<Headers<Be32>> {
    let h: Ipv4Header = p.read(ETH_LEN)?;
    let header_len = u32::from(h.version_ihl & 0xf) * 4;
    if h.version_ihl >> 4 != 4 || header_len < 20 {
        return None;
    }
    Some(Headers {
        tuple: portless(h.src, h.dst, h.proto),
        l4: ETH_LEN + header_len,
        len: u32::from(h.total_len.get()),
        flags: 0,
        csum: h.csum,
        ttl: h.ttl,
        later_fragment: h.frag.raw() & Be16::new(0x1fff).raw() != 0,
        opens: false,
    })
}

/// Parses an IPv6 header and the extension headers that follow it. A function of
/// its own in the kernel, so that eight words of addresses lie in memory once and
/// not in spill slots besides.
#[inline(never)]
pub fn ipv6<P: Packet>(p: &P) -> Option<Headers<Addr>> {
    let h: Ipv6Header = p.read(ETH_LEN)?;
    // A mapped IPv4 address is not for the wire (RFC 4942, section 2.2): in the maps
    // it stands for an IPv4 frontend.
    if h.version_flow.get() >> 28 != 6 || h.src.is_v4() | h.dst.is_v4() {
        return None;
    }
    let mut headers = Headers {
        tuple: portless(h.src, h.dst, h.next),
        l4: ETH_LEN + 40,
        len: u32::from(h.payload_len.get()) + 40,
        flags: 0,
        csum: 0,
        ttl: h.hops,
        later_fragment: false,
        opens: false,
    };
    if !matches!(h.next, proto::TCP | proto::UDP | proto::ICMPV6) {
        skip_extensions(p, &mut headers)?;
    }
    Some(headers)
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
    for _ in 0..MAX_EXTENSIONS {
        let ext = match h.proto() {
            HOP_BY_HOP | ROUTING | OPTIONS | FRAGMENT => p.read::<Extension>(h.l4)?,
            _ => return Some(()),
        };
        if h.proto() == FRAGMENT {
            h.later_fragment = ext.frag.get() & 0xfff8 != 0;
            h.l4 += 8;
        } else {
            h.l4 += (u32::from(ext.len) + 1) * 8;
        }
        h.tuple.proto = u32::from(ext.next);
        if h.l4 > MAX_L4 {
            return None;
        }
        if h.later_fragment {
            return Some(());
        }
    }
    None
}

/// A UDP header, and the start of a TCP header.
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

/// Reads the ports, and in TCP the flags; `None` where the frame ends before the
/// checksum does.
#[inline(always)]
pub fn ports<A, P: Packet>(p: &P, h: &mut Headers<A>) -> Option<()> {
    let head: Head = p.read(h.l4)?;
    h.tuple.sport = head.sport;
    h.tuple.dport = head.dport;
    h.flags = ct_flags::SEEN;
    if h.proto() != proto::TCP {
        return Some(());
    }
    let flags = p.read::<TcpTail>(h.l4 + 12)?.flags;
    h.opens = flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN;
    if h.opens {
        h.flags = 0;
    }
    // FIN, SYN and RST are the lowest bits of the header's flags.
    h.flags |= u32::from(flags & (tcp_flags::FIN | tcp_flags::SYN | tcp_flags::RST)) << TCP_SHIFT;
    Some(())
}

/// Distance of the TCP flags in [`ct_flags`] from those in the header.
const TCP_SHIFT: u32 = 8;
const _: () = assert!(
    ct_flags::FIN == (tcp_flags::FIN as u32) << TCP_SHIFT
        && ct_flags::SYN == (tcp_flags::SYN as u32) << TCP_SHIFT
        && ct_flags::RST == (tcp_flags::RST as u32) << TCP_SHIFT
);
