//! What the datapath may do with a packet, and the headers that it reads.

use bytemuck::{NoUninit, Pod, Zeroable, checked::CheckedBitPattern};
use lb_common::{Addr, Be16, Be32};

use crate::{crc32c, csum::Sum};

/// A frame that starts with its Ethernet header.
pub trait Packet {
    /// Bytes of the frame.
    fn len(&self) -> u32;

    /// Whether the frame is empty, which no hook ever sees.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a value at an offset; `None` where the frame ends before it does. Of two
    /// bytes at least: the verifier does not understand the check of a single one
    /// (`find_good_pkt_pointers`).
    fn read<T: CheckedBitPattern + Pod>(&self, off: u32) -> Option<T>;

    /// Writes a value at an offset; `None` where the frame ends before it does.
    #[must_use]
    fn write<T: NoUninit>(&mut self, off: u32, value: &T) -> Option<()>;

    /// Corrects the TCP or UDP checksum at an offset. A UDP checksum of zero, which
    /// means none (RFC 768), stays.
    #[must_use]
    fn fix_l4_csum(&mut self, off: u32, delta: &Delta, udp: bool) -> Option<()>;

    /// Runs [`crc32c::multiply`].
    fn crc32c_times(a: u32, b: u32) -> u32 {
        crc32c::multiply(a, b)
    }

    /// Whether the link layer brought the frame for the node, and not for another
    /// station, or for many: a switch floods what it has not learned, to every
    /// node that has the vip.
    fn is_for_node(&self) -> bool {
        true
    }

    /// Whether a device has joined segments (GSO): not the frame must fit, but
    /// each of them.
    fn is_gso(&self) -> bool {
        false
    }

    /// Makes the frame longer or shorter at its end. What is new is undefined.
    #[must_use]
    fn resize(&mut self, len: u32) -> Option<()>;
}

/// What changes in a packet, for [`Packet::fix_l4_csum`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delta {
    /// Of the addresses, which the pseudo header has.
    pub addrs: Sum,
    /// Of the ports, which it has not.
    pub ports: Sum,
    /// The sum of the pseudo header as it was.
    pub pseudo: Sum,
}

/// Corrects a checksum that is complete in the packet, for [`Packet::fix_l4_csum`].
#[inline(always)]
pub fn fix_complete_csum<P: Packet>(p: &mut P, off: u32, delta: Sum, udp: bool) -> Option<()> {
    let field: u16 = p.read(off)?;
    if udp && field == 0 {
        return Some(());
    }
    let mut fixed = delta.update(field);
    if udp && fixed == 0 {
        // 0 would mean that there is none: RFC 768.
        fixed = 0xffff;
    }
    p.write(off, &fixed)
}

/// Bytes of an Ethernet header.
pub const ETH_LEN: u32 = 14;

/// An Ethernet header (IEEE 802.3).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct EthHeader {
    /// Destination.
    pub dst: [u16; 3],
    /// Source.
    pub src: [u16; 3],
    /// EtherType.
    pub ethertype: Be16,
}

/// EtherTypes.
pub mod ethertype {
    use lb_common::Be16;
    /// IPv4.
    pub const IPV4: Be16 = Be16::new(0x0800);
    /// IPv6.
    pub const IPV6: Be16 = Be16::new(0x86dd);
}

/// An IPv4 header without options (RFC 791).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv4Header {
    /// Version, and length of the header in words of four bytes.
    pub version_ihl: u8,
    /// Differentiated services.
    pub tos: u8,
    /// Bytes of the datagram, header included.
    pub total_len: Be16,
    /// Identification.
    pub id: Be16,
    /// Flags, and offset of the fragment in words of eight bytes.
    pub frag: Be16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub proto: u8,
    /// Header checksum, as it lies in memory.
    pub csum: u16,
    /// Source.
    pub src: Be32,
    /// Destination.
    pub dst: Be32,
}

/// An IPv6 header (RFC 8200).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv6Header {
    /// Version, traffic class, flow label.
    pub version_flow: Be32,
    /// Bytes after this header.
    pub payload_len: Be16,
    /// Protocol of what follows.
    pub next: u8,
    /// Hop limit.
    pub hops: u8,
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
}

/// A TCP header without options (RFC 9293).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TcpHeader {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// Sequence number.
    pub seq: Be32,
    /// Acknowledgment number.
    pub ack: Be32,
    /// Length of the header in words of four bytes, in the upper half.
    pub data_offset: u8,
    /// [`tcp_flags`].
    pub flags: u8,
    /// Window.
    pub window: Be16,
    /// Checksum, as it lies in memory.
    pub csum: u16,
    /// Urgent pointer.
    pub urgent: Be16,
}

/// Flags of a TCP header.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 16;
}

const _: () = {
    assert!(size_of::<EthHeader>() == ETH_LEN as usize);
    assert!(size_of::<Ipv4Header>() == 20);
    assert!(size_of::<Ipv6Header>() == 40);
    assert!(size_of::<TcpHeader>() == 20);
};
