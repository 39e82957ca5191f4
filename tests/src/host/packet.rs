//! A frame in memory.

use bytemuck::{NoUninit, Pod, checked::CheckedBitPattern};
use lb_datapath::{
    Packet,
    packet::{Delta, fix_complete_csum},
};

/// A frame in memory, as XDP sees it: its checksums are complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemPacket {
    bytes: Vec<u8>,
    max: usize,
    gso: bool,
    station: Station,
}

/// How the link layer tells what is for the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Station {
    /// Everything is: a pod's device, which may be a port of a bridge.
    Any,
    /// Whatever is for one station: a network card lets nothing else in (XDP).
    One,
    /// What is for this link address (TC of an uplink).
    This([u8; 6]),
}

/// Bytes that a frame can grow to: a page, less what the kernel keeps of it for
/// headroom and `skb_shared_info`; no test grows a frame that far.
const MAX: usize = 3520;

impl MemPacket {
    /// A frame.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            max: MAX.max(bytes.len()),
            gso: false,
            station: Station::Any,
        }
    }

    /// Says whether segments were joined in it.
    #[must_use]
    pub fn gso(mut self, gso: bool) -> Self {
        self.gso = gso;
        self
    }

    /// Says how the link layer tells what is for the node.
    #[must_use]
    pub fn station(mut self, station: Station) -> Self {
        self.station = station;
        self
    }

    /// What it has become.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn range(&self, off: u32, size: usize) -> Option<std::ops::Range<usize>> {
        let start = off as usize;
        let end = start.checked_add(size)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}

impl Packet for MemPacket {
    fn len(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a frame is no longer than memory is for it")
    }
    fn read<T: CheckedBitPattern + Pod>(&self, off: u32) -> Option<T> {
        let range = self.range(off, size_of::<T>())?;
        Some(bytemuck::pod_read_unaligned(&self.bytes[range]))
    }
    fn write<T: NoUninit>(&mut self, off: u32, value: &T) -> Option<()> {
        let range = self.range(off, size_of::<T>())?;
        self.bytes[range].copy_from_slice(bytemuck::bytes_of(value));
        Some(())
    }
    fn fix_l4_csum(&mut self, off: u32, delta: &Delta, udp: bool) -> Option<()> {
        fix_complete_csum(self, off, delta.addrs.plus(delta.ports), udp)
    }
    fn is_for_node(&self) -> bool {
        match self.station {
            Station::Any => true,
            Station::One => self.bytes.first().is_some_and(|b| b & 1 == 0),
            Station::This(mac) => self.bytes.starts_with(&mac),
        }
    }
    fn is_gso(&self) -> bool {
        self.gso
    }
    fn resize(&mut self, len: u32) -> Option<()> {
        let len = len as usize;
        if len > self.max {
            return None;
        }
        self.bytes.resize(len, 0);
        Some(())
    }
}
