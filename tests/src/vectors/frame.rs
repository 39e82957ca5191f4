//! Frames from their description. Every checksum comes from `etherparse`.

mod transport;

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Type, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header,
    Ipv6Header,
};

use super::net::{PEER, UP0};

/// Flags of a TCP header (RFC 9293, section 3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 16;
}

/// What is in the checksum field of TCP, UDP or SCTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Csum {
    /// The checksum.
    Right,
    /// These two bytes.
    Is(u16),
    /// The sum of the pseudo header, for a device to complete.
    Partial,
}

/// What an IP header carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum L4 {
    /// TCP: ports, flags, sequence and acknowledgment numbers, options.
    Tcp(u16, u16, Tcp),
    /// UDP: ports.
    Udp(u16, u16),
    /// SCTP: ports, and the type of the only chunk, whose value is the payload.
    Sctp(u16, u16, u8),
    /// ICMP.
    Icmp4(Icmpv4Type),
    /// ICMPv6.
    Icmp6(Icmpv6Type),
    /// The payload as it is, under a protocol number.
    Raw(u8),
}

/// The rest of a TCP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// [`flag`].
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Window.
    pub window: u16,
    /// Options, in whole words.
    pub options: Vec<u8>,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Link addresses: source, destination.
    pub link: ([u8; 6], [u8; 6]),
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Identification, fragment offset in words of eight bytes, more fragments,
    /// don't fragment (IPv4 only).
    pub frag: (u16, u16, bool, bool),
    /// Type of service or traffic class.
    pub tos: u8,
    /// Options of an IPv4 header.
    pub options: Vec<u8>,
    /// Extension headers of IPv6: number, and bytes after the next header field.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// What it carries.
    pub l4: L4,
    /// The checksum field of TCP or UDP.
    pub csum: Csum,
    /// Payload.
    pub payload: Vec<u8>,
    /// Bytes after the IP header and its extensions that are there, of a first fragment
    /// of a datagram that has all of the payload.
    pub cut: Option<usize>,
}

/// A TCP segment.
#[must_use]
pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8) -> Frame {
    let rest = Tcp {
        flags,
        seq: 1000,
        ack: if flags & flag::ACK != 0 { 5000 } else { 0 },
        window: 64000,
        options: Vec::new(),
    };
    Frame::new(src.ip(), dst.ip(), L4::Tcp(src.port(), dst.port(), rest))
}

/// A UDP datagram.
#[must_use]
pub fn udp(src: SocketAddr, dst: SocketAddr) -> Frame {
    Frame::new(src.ip(), dst.ip(), L4::Udp(src.port(), dst.port())).payload(b"bascule")
}

/// Types of SCTP's chunks (RFC 9260, section 3.2).
pub mod chunk {
    /// User data.
    pub const DATA: u8 = 0;
    /// Opens an association.
    pub const INIT: u8 = 1;
    /// Answers that.
    pub const INIT_ACK: u8 = 2;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;
    /// Ends an association that both have shut down.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// An SCTP packet with one chunk.
#[must_use]
pub fn sctp(src: SocketAddr, dst: SocketAddr, kind: u8) -> Frame {
    Frame::new(src.ip(), dst.ip(), L4::Sctp(src.port(), dst.port(), kind)).payload(b"bascule!")
}

/// The first packet of a flow of TCP (6), UDP (17) or SCTP (132).
#[must_use]
pub fn first(proto: u8, src: SocketAddr, dst: SocketAddr) -> Frame {
    match proto {
        6 => tcp(src, dst, flag::SYN),
        132 => sctp(src, dst, chunk::INIT),
        _ => udp(src, dst),
    }
}

/// A later packet of a flow of TCP (6), UDP (17) or SCTP (132).
#[must_use]
pub fn later(proto: u8, src: SocketAddr, dst: SocketAddr) -> Frame {
    match proto {
        6 => tcp(src, dst, flag::ACK | flag::PSH).payload(b"established"),
        132 => sctp(src, dst, chunk::DATA),
        _ => udp(src, dst).payload(b"once more"),
    }
}

impl Frame {
    /// A frame from whoever sends to the node.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, l4: L4) -> Self {
        Self {
            link: (PEER, UP0.mac),
            src,
            dst,
            ttl: 60,
            frag: (0x1234, 0, false, true),
            tos: 0,
            options: Vec::new(),
            extensions: Vec::new(),
            l4,
            csum: Csum::Right,
            payload: Vec::new(),
            cut: None,
        }
    }
    /// With other link addresses.
    #[must_use]
    pub fn link(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        self.link = (src, dst);
        self
    }
    /// From another address and port.
    #[must_use]
    pub fn from(mut self, addr: SocketAddr) -> Self {
        self.src = addr.ip();
        if let L4::Tcp(port, ..) | L4::Udp(port, _) | L4::Sctp(port, ..) = &mut self.l4 {
            *port = addr.port();
        }
        self
    }
    /// To another address and port.
    #[must_use]
    pub fn to(mut self, addr: SocketAddr) -> Self {
        self.dst = addr.ip();
        if let L4::Tcp(_, port, _) | L4::Udp(_, port) | L4::Sctp(_, port, _) = &mut self.l4 {
            *port = addr.port();
        }
        self
    }
    /// Back to where it came from, by link address.
    #[must_use]
    pub fn turned(mut self) -> Self {
        self.link = (self.link.1, self.link.0);
        self
    }
    /// With another TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }
    /// With a payload.
    #[must_use]
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }
    /// With a checksum field of TCP or UDP.
    #[must_use]
    pub fn csum(mut self, csum: Csum) -> Self {
        self.csum = csum;
        self
    }
    /// With an extension header: number, and bytes after its next header field.
    #[must_use]
    pub fn extension(mut self, number: u8, bytes: &[u8]) -> Self {
        self.extensions.push((number, bytes.to_vec()));
        self
    }
    /// With options of the IPv4 header.
    #[must_use]
    pub fn options(mut self, bytes: &[u8]) -> Self {
        self.options = bytes.to_vec();
        self
    }
    /// With other sequence and acknowledgment numbers.
    #[must_use]
    pub fn seq(mut self, seq: u32, ack: u32) -> Self {
        if let L4::Tcp(_, _, tcp) = &mut self.l4 {
            (tcp.seq, tcp.ack) = (seq, ack);
        }
        self
    }
    /// With identification, fragment offset in words of eight bytes, more
    /// fragments and don't fragment.
    #[must_use]
    pub fn frag(mut self, frag: (u16, u16, bool, bool)) -> Self {
        self.frag = frag;
        self
    }
    /// With options of the TCP header.
    #[must_use]
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        if let L4::Tcp(_, _, tcp) = &mut self.l4 {
            tcp.options = bytes.to_vec();
        }
        self
    }

    fn proto(&self) -> u8 {
        match &self.l4 {
            L4::Tcp(..) => 6,
            L4::Udp(..) => 17,
            L4::Sctp(..) => 132,
            L4::Icmp4(_) => 1,
            L4::Icmp6(_) => 58,
            L4::Raw(number) => *number,
        }
    }

    /// The bytes.
    ///
    /// # Panics
    /// The description is of no frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut l4 = self.transport();
        l4.truncate(self.cut.unwrap_or(l4.len()));
        let (ether_type, header) = match (self.src, self.dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) => (EtherType::IPV4, self.ipv4(l4.len())),
            (IpAddr::V6(_), IpAddr::V6(_)) => (EtherType::IPV6, self.ipv6(l4.len())),
            _ => panic!("{} and {} are of two families", self.src, self.dst),
        };
        let ethernet = Ethernet2Header {
            source: self.link.0,
            destination: self.link.1,
            ether_type,
        };
        [&ethernet.to_bytes()[..], &header, &l4].concat()
    }

    fn ipv4(&self, len: usize) -> Vec<u8> {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (self.src, self.dst) else {
            unreachable!("the caller looked");
        };
        let len = u16::try_from(len).expect("it fits");
        let number = IpNumber(self.proto());
        let mut h =
            Ipv4Header::new(len, self.ttl, number, src.octets(), dst.octets()).expect("it fits");
        let (id, offset, more, dont) = self.frag;
        h.identification = id;
        h.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
        (h.more_fragments, h.dont_fragment) = (more, dont);
        h.dscp = (self.tos >> 2).try_into().expect("six bits");
        h.ecn = (self.tos & 3).try_into().expect("two bits");
        h.options = self.options.as_slice().try_into().expect("whole words");
        h.total_len = u16::try_from(h.header_len()).expect("60 at most") + len;
        h.header_checksum = h.calc_header_checksum();
        h.to_bytes().to_vec()
    }

    fn ipv6(&self, len: usize) -> Vec<u8> {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (self.src, self.dst) else {
            unreachable!("the caller looked");
        };
        let numbers = self.extensions.iter().map(|(number, _)| *number);
        let next: Vec<u8> = numbers.chain([self.proto()]).collect();
        let chain: Vec<u8> = self
            .extensions
            .iter()
            .zip(&next[1..])
            .flat_map(|((_, bytes), next)| [&[*next][..], bytes].concat())
            .collect();
        let h = Ipv6Header {
            traffic_class: self.tos,
            flow_label: etherparse::Ipv6FlowLabel::try_new(0).expect("0 is one"),
            payload_length: u16::try_from(chain.len() + len).expect("it fits"),
            next_header: IpNumber(next[0]),
            hop_limit: self.ttl,
            source: src.octets(),
            destination: dst.octets(),
        };
        [&h.to_bytes()[..], &chain].concat()
    }
}
