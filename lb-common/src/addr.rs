//! Addresses and ports in network byte order, as types.

use bytemuck::{Pod, Zeroable};

/// A 16-bit number in network byte order (a port).
#[repr(C, align(2))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable, Default)]
pub struct Be16 {
    bytes: [u8; 2],
}

impl core::hash::Hash for Be16 {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.raw().hash(state);
    }
}

impl Be16 {
    /// From a number in host byte order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self::from_raw(host.to_be())
    }
    /// The number in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.raw())
    }
    /// The two bytes as they lie in a packet, read as a native integer.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        u16::from_ne_bytes(self.bytes)
    }
    /// From two bytes of a packet, read as a native integer.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self {
            bytes: raw.to_ne_bytes(),
        }
    }
}

/// A 32-bit number in network byte order (an IPv4 address, a word of an IPv6 address).
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable, Default)]
pub struct Be32 {
    bytes: [u8; 4],
}

impl core::hash::Hash for Be32 {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.raw().hash(state);
    }
}

impl Be32 {
    /// From a number in host byte order.
    #[inline(always)]
    pub const fn new(host: u32) -> Self {
        Self::from_raw(host.to_be())
    }
    /// The number in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        u32::from_be(self.raw())
    }
    /// The four bytes as they lie in a packet, read as a native integer.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        u32::from_ne_bytes(self.bytes)
    }
    /// From four bytes of a packet, read as a native integer.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        Self {
            bytes: raw.to_ne_bytes(),
        }
    }
}

/// An IPv6 address, or an IPv4 address in its mapped form `::ffff:a.b.c.d`
/// (RFC 4291, section 2.5.5.2), as four words in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Eq, PartialOrd, Ord, Pod, Zeroable, Default)]
pub struct Addr(pub [Be32; 4]);

impl Addr {
    /// `::`, which is no address of a frontend or backend.
    pub const UNSPECIFIED: Self = Self([Be32::new(0); 4]);

    /// The mapped form of an IPv4 address.
    #[inline(always)]
    pub const fn v4(addr: Be32) -> Self {
        Self([Be32::new(0), Be32::new(0), Be32::new(0xffff), addr])
    }
    /// The IPv4 address, if this is a mapped one.
    #[inline(always)]
    pub fn as_v4(self) -> Option<Be32> {
        self.is_v4().then_some(self.0[3])
    }
    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    pub fn is_v4(self) -> bool {
        (self.0[0].raw() | self.0[1].raw()) == 0 && self.0[2] == Be32::new(0xffff)
    }
    /// The sixteen bytes in network order.
    pub fn octets(self) -> [u8; 16] {
        bytemuck::cast(self)
    }
}

// By words: the derived comparison of an array calls `bcmp`, which on the BPF
// target is a loop over bytes.
impl PartialEq for Addr {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let differs = |i: usize| self.0[i].raw() ^ other.0[i].raw();
        differs(0) | differs(1) | differs(2) | differs(3) == 0
    }
}
impl core::hash::Hash for Addr {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl From<core::net::IpAddr> for Addr {
    fn from(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(v4) => Self::v4(Be32::new(v4.to_bits())),
            core::net::IpAddr::V6(v6) => bytemuck::cast(v6.octets()),
        }
    }
}

impl From<Addr> for core::net::IpAddr {
    fn from(addr: Addr) -> Self {
        match addr.as_v4() {
            Some(v4) => Self::V4(v4.get().into()),
            None => Self::V6(addr.octets().into()),
        }
    }
}

impl core::fmt::Display for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::net::IpAddr::from(*self).fmt(f)
    }
}
impl core::fmt::Debug for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}
impl core::fmt::Debug for Be16 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(&self.get(), f)
    }
}
impl core::fmt::Debug for Be32 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&core::net::Ipv4Addr::from_bits(self.get()), f)
    }
}

/// IP protocol numbers (IANA).
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Who dials a frontend.
pub mod scope {
    /// A client in the cluster: a local socket, or a pod of this node.
    pub const INTERNAL: u8 = 0;
    /// A client outside: whatever arrives by an uplink.
    pub const EXTERNAL: u8 = 1;
}
