//! The datapath's own flow table.
//!
//! A flow has two entries, one for each direction, each keyed by the tuple that
//! a packet of that direction carries on the wire before it is translated. An
//! entry says what to write into the packet, so that an established packet
//! costs one lookup (`docs/adr/0002-conntrack.md`).
//!
//! The table is an array of buckets of 56 slots, and behind them elements that
//! hold the buckets' heads. The code that reads and writes it is
//! `lb_datapath::table`, in the kernel as in the agent; it sees them as 64-bit
//! words.

use bytemuck::{Pod, Zeroable};

use crate::addr::{Addr, Be16, Be32};

/// Times in conntrack and affinity count ticks of 2^30 ns (1.07 s) of the
/// kernel's jiffies: a shift is cheaper than a division, and jiffies cost a
/// program one load.
pub const TICK_SHIFT: u32 = 30;

/// Key of a flow's direction: the tuple on the wire. Aligned so that it can be
/// read as words.
#[repr(C, align(8))]
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
    /// IP protocol number, zero-extended, so that no byte of the key is padding;
    /// with [`FRAGMENT`] for fragments.
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
    /// When the last packet came, in ticks; a packet of the other direction tells
    /// this one too, at least every [`NEWS_TICKS`].
    pub last_seen: u32,
}

/// Set in [`CtKey::proto`] where the entry says where the later fragments of a
/// datagram go: the key's ports are then the datagram's identification.
pub const FRAGMENT: u32 = 1 << 8;

/// How often a flow's directions tell each other that they are alive, in ticks.
pub const NEWS_TICKS: u32 = 8;

/// A key and its entry. In IPv4 one cache line.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CtSlot<A> {
    /// The key.
    pub key: CtKey<A>,
    /// The entry.
    pub entry: CtEntry<A>,
}

/// Slots of a bucket.
pub const BUCKET_SLOTS: u32 = 56;

/// An element of the table.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CtBucket<A> {
    /// The slots.
    pub slots: [CtSlot<A>; BUCKET_SLOTS as usize],
}

/// What the slots of a bucket hold: one cache line. The heads of all buckets lie
/// together, since they are read much more often than each slot is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
pub struct CtHead {
    /// A byte of each slot's hash; 0 where the slot was never used.
    pub tags: [u64; BUCKET_SLOTS as usize / 8],
    /// 0, or when the lock was taken, in ticks; the high half says that it was.
    /// Only insertions take it.
    pub lock: u64,
}

/// Words of a head.
pub const HEAD_WORDS: usize = size_of::<CtHead>() / 8;
/// Place of [`CtHead::lock`] among them.
pub const HEAD_LOCK: usize = HEAD_WORDS - 1;
/// Heads in an element. There is room for more, but this is a power of two.
pub const ELEMENT_HEADS: u32 = 32;

/// Buckets that hold so many entries, one at least.
pub const fn buckets(entries: u32) -> u32 {
    match entries.div_ceil(BUCKET_SLOTS) {
        0 => 1,
        buckets => buckets,
    }
}

/// Elements of a table of so many buckets: these, then their heads.
pub const fn elements(buckets: u32) -> u32 {
    buckets + buckets.div_ceil(ELEMENT_HEADS)
}

/// Buckets of a table of so many elements.
pub const fn buckets_in(elements: u32) -> u32 {
    elements - elements.div_ceil(ELEMENT_HEADS + 1)
}

/// Key of an IPv4 flow's direction.
pub type CtKey4 = CtKey<Be32>;
/// Key of an IPv6 flow's direction.
pub type CtKey6 = CtKey<Addr>;
/// Entry of an IPv4 flow's direction.
pub type CtEntry4 = CtEntry<Be32>;
/// Entry of an IPv6 flow's direction.
pub type CtEntry6 = CtEntry<Addr>;
/// Bucket of the IPv4 table.
pub type CtBucket4 = CtBucket<Be32>;
/// Bucket of the IPv6 table.
pub type CtBucket6 = CtBucket<Addr>;

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
    /// The entry is there. Cleared, it is forgotten.
    pub const LIVE: u32 = 1 << 4;
    /// A TCP FIN was seen in this direction.
    pub const FIN: u32 = 1 << 8;
    /// A TCP SYN was seen in this direction.
    pub const SYN: u32 = 1 << 9;
    /// A TCP RST was seen in this direction.
    pub const RST: u32 = 1 << 10;
    /// A packet other than the first SYN was seen in this direction.
    pub const SEEN: u32 = 1 << 11;
    /// The entry's packets pass as they are. Of a reply: its flow is over, while its
    /// tuple lives on in a connection that goes to the backend without us. Of both
    /// directions: the kernel's NAT translates the flow
    /// (`docs/adr/0007-takeover.md`).
    pub const LEFT: u32 = 1 << 12;
    /// What was seen in this direction, as far as the flow's state depends on it.
    pub const SIGHTS: u32 = FIN | SYN | RST | SEEN;
    /// [`SIGHTS`] of the other direction lie so many bits higher.
    pub const PEER_SHIFT: u32 = 8;
    /// What was seen in either direction.
    pub const ALL_SIGHTS: u32 = SIGHTS | SIGHTS << PEER_SHIFT;
}

macro_rules! plain {
    ($($kind:ident)+) => {
        $(
            // SAFETY: repr(C), every field is Pod, and the assertions below show that the
            // fields fill the struct without padding for both address types.
            unsafe impl Zeroable for $kind<Be32> {}
            // SAFETY: as above.
            unsafe impl Zeroable for $kind<Addr> {}
            // SAFETY: as above.
            unsafe impl Pod for $kind<Be32> {}
            // SAFETY: as above.
            unsafe impl Pod for $kind<Addr> {}
        )+
    };
}
plain!(CtKey CtEntry CtSlot CtBucket);

const _: () = {
    assert!(size_of::<CtKey4>() == 4 + 4 + 2 + 2 + 4);
    assert!(size_of::<CtKey6>() == 16 + 16 + 2 + 2 + 4);
    assert!(size_of::<CtEntry4>() == 8 + 8 + 4 + 4 + 2 + 2 + 5 * 4);
    assert!(size_of::<CtEntry6>() == 8 + 8 + 16 + 16 + 2 + 2 + 5 * 4);
    assert!(size_of::<CtSlot<Be32>>() == size_of::<CtKey4>() + size_of::<CtEntry4>());
    assert!(size_of::<CtSlot<Addr>>() == size_of::<CtKey6>() + size_of::<CtEntry6>());
    assert!(size_of::<CtHead>() == 64 && HEAD_LOCK == BUCKET_SLOTS as usize / 8);
    assert!(size_of::<CtBucket4>() == 56 * size_of::<CtSlot<Be32>>());
    assert!(size_of::<CtHead>() * ELEMENT_HEADS as usize <= size_of::<CtBucket4>());
    assert!(size_of::<CtBucket6>() == 56 * size_of::<CtSlot<Addr>>());
    assert!(buckets_in(elements(1)) == 1 && buckets_in(elements(18_725)) == 18_725);
    // Words are read as integers.
    assert!(cfg!(target_endian = "little"));
};
