//! Keys and values of the maps that the agent fills, and of the small tables
//! that the datapath keeps beside conntrack.

use bytemuck::{Pod, Zeroable};

use crate::addr::{Addr, Be16};

/// What a client dials. A key with port 0 and protocol 0 stands for the vip
/// itself: it is found when a client asks for a port that the vip does not have.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Pod, Zeroable)]
pub struct FrontendKey {
    /// The vip.
    pub addr: Addr,
    /// The port; 0 for the vip itself.
    pub port: Be16,
    /// IP protocol number; 0 for the vip itself.
    pub proto: u8,
    /// One of [`crate::scope`].
    pub scope: u8,
}

/// Where a frontend leads.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Pod, Zeroable)]
pub struct Frontend {
    /// Service id: index of the service's counters, and key of its source ranges
    /// and affinity.
    pub service: u32,
    /// [`frontend_flags`].
    pub flags: u32,
    /// First slot of the maglev table; with `len` 1 the backend id itself.
    pub slots: u32,
    /// Slots in the table (a prime): 0 when there is no backend, 1 when there is
    /// one and no table.
    pub len: u32,
    /// Session affinity by client address, in seconds; 0 for none.
    pub affinity: u32,
}

/// Flags of [`Frontend`].
pub mod frontend_flags {
    /// Only clients within the service's source ranges may come in.
    pub const SOURCE_RANGES: u32 = 1 << 0;
    /// Without a backend: drop silently (policy `Local`), instead of refusing.
    pub const DROP_IF_EMPTY: u32 = 1 << 1;
    /// The client's address reaches the backend (policy `Local`): never SNAT.
    pub const NO_SNAT: u32 = 1 << 2;
    /// This is the entry of a vip, not of one of its ports.
    pub const VIP: u32 = 1 << 3;
    /// The vip is an address of this node: what is none of its frontends belongs
    /// to the node itself.
    pub const NODE_ADDR: u32 = 1 << 4;
    /// The frontend is a NodePort.
    pub const NODE_PORT: u32 = 1 << 5;
    /// No frontend of the vip has a backend: pings are not answered.
    pub const EMPTY: u32 = 1 << 6;
}

/// A backend, at the index of its id. Id 0 is never used.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Pod, Zeroable)]
pub struct Backend {
    /// The endpoint's address.
    pub addr: Addr,
    /// The endpoint's port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Always 0.
    pub reserved: u8,
    /// [`backend_flags`]; 0 where there is no backend.
    pub flags: u32,
}

/// Flags of [`Backend`].
pub mod backend_flags {
    /// The entry is in use.
    pub const LIVE: u32 = 1 << 0;
    /// The backend runs on this node.
    pub const LOCAL: u32 = 1 << 1;
}

/// Key of the source ranges: a prefix of (service id, client address).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Pod, Zeroable)]
pub struct RangeKey {
    /// Bits that count: 32 for the service id and the prefix of the address
    /// (96 more for IPv4, whose addresses are in mapped form).
    pub prefix_len: u32,
    /// Service id in network byte order, so that the trie compares it whole.
    pub service: crate::Be32,
    /// The network's address.
    pub addr: Addr,
}

/// Key of session affinity.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Pod, Zeroable)]
pub struct AffinityKey {
    /// The client's address; for a local socket [`Addr`] with its network
    /// namespace's cookie in the last two words and `0xffff_ffff` in the first.
    pub client: Addr,
    /// Service id.
    pub service: u32,
    /// One of [`crate::scope`]: the scopes may have different backends.
    pub scope: u32,
}

/// The backend that a client is bound to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Pod, Zeroable)]
pub struct Affinity {
    /// Backend id.
    pub backend: u32,
    /// Last use, in ticks ([`crate::conntrack::TICK_SHIFT`]).
    pub last_use: u32,
}

/// Key of the socket rev-NAT: a socket and the backend that it was sent to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Pod, Zeroable)]
pub struct SockNatKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// The backend's address.
    pub addr: Addr,
    /// The backend's port.
    pub port: Be16,
    /// Always 0.
    pub reserved: [u16; 3],
}

/// The frontend that the socket believes to talk to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Pod, Zeroable)]
pub struct SockNat {
    /// The frontend's vip.
    pub addr: Addr,
    /// The frontend's port.
    pub port: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Always 0.
    pub reserved: u8,
    /// Backend id at the time of the choice.
    pub backend: u32,
}

const _: () = {
    assert!(size_of::<FrontendKey>() == 20);
    assert!(size_of::<Frontend>() == 20);
    assert!(size_of::<Backend>() == 24);
    assert!(size_of::<RangeKey>() == 24);
    assert!(size_of::<AffinityKey>() == 24);
    assert!(size_of::<Affinity>() == 8);
    assert!(size_of::<SockNatKey>() == 32);
    assert!(size_of::<SockNat>() == 24);
    assert!(core::mem::offset_of!(FrontendKey, port) == 16);
    assert!(core::mem::offset_of!(FrontendKey, proto) == 18);
    assert!(core::mem::offset_of!(FrontendKey, scope) == 19);
    assert!(core::mem::offset_of!(Frontend, slots) == 8);
    assert!(core::mem::offset_of!(Frontend, affinity) == 16);
    assert!(core::mem::offset_of!(Backend, port) == 16);
    assert!(core::mem::offset_of!(Backend, flags) == 20);
    assert!(core::mem::offset_of!(RangeKey, addr) == 8);
    assert!(core::mem::offset_of!(AffinityKey, service) == 16);
    assert!(core::mem::offset_of!(SockNatKey, addr) == 8);
    assert!(core::mem::offset_of!(SockNatKey, port) == 24);
    assert!(core::mem::offset_of!(SockNat, backend) == 20);
};
