//! The datapath's own flow table.
//!
//! A flow has two entries, one for each direction, each keyed by the tuple that
//! a packet of that direction carries on the wire before it is translated. An
//! entry says what to write into the packet, so that an established packet
//! costs one lookup (`docs/adr/0002-conntrack.md`).

use bytemuck::{Pod, Zeroable};

use crate::addr::{Addr, Be16, Be32};

/// Times in conntrack and affinity count ticks of 2^30 ns (1.07 s) of the
/// kernel's jiffies: a shift is cheaper than a division, and jiffies cost a
/// program one load.
pub const TICK_SHIFT: u32 = 30;

/// Key of a flow's direction: the tuple on the wire.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CtKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// IP protocol number, zero-extended, so that no byte of the key is padding.
    pub proto: u32,
}

/// What conntrack knows of one direction of a flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CtEntry<A> {
    /// Packets seen in this direction. Written without atomics: exact as long as
    /// the direction is handled by one CPU, as RSS and RPS do.
    pub packets: u64,
    /// Bytes seen in this direction, Ethernet header included.
    pub bytes: u64,
    /// Source address to write.
    pub src: A,
    /// Destination address to write.
    pub dst: A,
    /// Source port to write.
    pub sport: Be16,
    /// Destination port to write.
    pub dport: Be16,
    /// [`ct_flags`].
    pub flags: u32,
    /// Backend id: index of its counters.
    pub backend: u32,
    /// Service id: index of its counters.
    pub service: u32,
    /// When the entry was made, in ticks.
    pub created: u32,
    /// When the last packet came, in ticks.
    pub last_seen: u32,
    /// Room for what later versions add.
    pub reserved: [u32; 4],
}

/// Key of an IPv4 flow's direction.
pub type CtKey4 = CtKey<Be32>;
/// Key of an IPv6 flow's direction.
pub type CtKey6 = CtKey<Addr>;
/// Entry of an IPv4 flow's direction.
pub type CtEntry4 = CtEntry<Be32>;
/// Entry of an IPv6 flow's direction.
pub type CtEntry6 = CtEntry<Addr>;

/// Flags of [`CtEntry`].
pub mod ct_flags {
    /// The direction from the backend to the client; applied on egress, unless
    /// [`SNAT`] says that replies arrive at the node itself.
    pub const REPLY: u32 = 1 << 0;
    /// The source is rewritten to the node's address: the packet leaves by the FIB.
    pub const SNAT: u32 = 1 << 1;
    /// Client and backend are the same pod: the packet turns around.
    pub const HAIRPIN: u32 = 1 << 2;
    /// The client came in by an uplink.
    pub const EXTERNAL: u32 = 1 << 3;
    /// A TCP FIN was seen in this direction.
    pub const FIN: u32 = 1 << 8;
    /// A TCP SYN was seen in this direction.
    pub const SYN: u32 = 1 << 9;
    /// A TCP RST was seen in this direction.
    pub const RST: u32 = 1 << 10;
    /// A packet other than the first SYN was seen in this direction.
    pub const SEEN: u32 = 1 << 11;
    /// A reply's entry whose flow is over, while its tuple lives on in a
    /// connection that goes to the backend without us.
    pub const LEFT: u32 = 1 << 12;
}

// SAFETY: repr(C), every field is Pod, and the assertions below show that the
// fields fill the struct without padding for both address types.
unsafe impl Zeroable for CtKey<Be32> {}
// SAFETY: as above.
unsafe impl Zeroable for CtKey<Addr> {}
// SAFETY: as above.
unsafe impl Pod for CtKey<Be32> {}
// SAFETY: as above.
unsafe impl Pod for CtKey<Addr> {}
// SAFETY: as above.
unsafe impl Zeroable for CtEntry<Be32> {}
// SAFETY: as above.
unsafe impl Zeroable for CtEntry<Addr> {}
// SAFETY: as above.
unsafe impl Pod for CtEntry<Be32> {}
// SAFETY: as above.
unsafe impl Pod for CtEntry<Addr> {}

const _: () = {
    assert!(size_of::<CtKey4>() == 4 + 4 + 2 + 2 + 4);
    assert!(size_of::<CtKey6>() == 16 + 16 + 2 + 2 + 4);
    assert!(size_of::<CtEntry4>() == 8 + 8 + 4 + 4 + 2 + 2 + 5 * 4 + 4 * 4);
    assert!(size_of::<CtEntry6>() == 8 + 8 + 16 + 16 + 2 + 2 + 5 * 4 + 4 * 4);
};
