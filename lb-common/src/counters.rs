//! Values of the per-CPU counters.

use bytemuck::{Pod, Zeroable};

/// Packets and bytes (Ethernet header included), by [`crate::Reason`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct PacketCounter {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a service or a backend carried. Traffic that the socket hooks send
/// straight to a backend shows in `connections` only: its packets never meet
/// a program.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct ServiceCounter {
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes, both directions.
    pub bytes: u64,
    /// New flows, or connects of local sockets.
    pub connections: u64,
}

const _: () = assert!(size_of::<PacketCounter>() == 16 && size_of::<ServiceCounter>() == 24);
