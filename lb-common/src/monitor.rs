//! The contract of `bascule monitor`: how the programs are told to tell of packets and of calls
//! of sockets, and what they tell.
//!
//! Three maps that hold nothing lasting: what is wanted ([`Control`], the programs' `.bss`, so
//! that a program reads it without a lookup), one record for each CPU ([`Watch`]), and the ring
//! of [`Event`]s and [`CallEvent`]s, which their sizes tell apart. They are pinned beside the maps
//! of [`crate::schema`], and a layout that changes gets another name.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Be16, reason::COUNT};

/// Bytes of a frame that an event has at most, before and after.
pub const SNAP: usize = 128;
/// Bytes of the ring: a power of two, and pages.
pub const RING: u32 = 512 << 10;

/// A map of the monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MonitorMap {
    /// Its name in the object.
    pub name: &'static str,
    /// Name of its pin.
    pub pin: &'static str,
    /// Bytes of a value.
    pub value_size: u32,
    /// What it holds.
    pub doc: &'static str,
}

/// What is wanted.
pub const CONTROL: MonitorMap = MonitorMap {
    name: ".bss",
    pin: "lb_mon_ctl_v1",
    value_size: size_of::<Control>() as u32,
    doc: "What `bascule monitor` wants to be told.",
};
/// The record of each CPU.
pub const WATCH: MonitorMap = MonitorMap {
    name: "lb_mon_cpu_v1",
    pin: "lb_mon_cpu_v1",
    value_size: size_of::<Watch>() as u32,
    doc: "Events that `bascule monitor` lost, and the packet at hand, of each CPU.",
};
/// The ring.
pub const EVENTS: MonitorMap = MonitorMap {
    name: "lb_mon_ring_v2",
    pin: "lb_mon_ring_v2",
    value_size: 0,
    doc: "Events on their way to `bascule monitor`, in bytes.",
};
/// Every map of the monitor.
pub const MAPS: [MonitorMap; 3] = [CONTROL, WATCH, EVENTS];

/// What is wanted. All of it is 0 while nobody looks.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Control {
    /// The tick ([`crate::conntrack::TICK_SHIFT`]) after which nobody looks any more; 0 for
    /// nobody. The first program that finds it past writes 0.
    pub until: u64,
    /// Always 0. What a program that nobody watches reads in place of [`taken`]: a number
    /// that the verifier does not know, so that it follows both cases as one.
    pub nothing: u64,
    /// [`taken::OVER`], of which the verifier must not know either.
    pub over: u64,
    /// Of so many packets one is looked at, on each CPU.
    pub every: u64,
    /// Events that may still be told of. Whoever looks fills it up.
    pub budget: i64,
    /// Bits of the [`crate::Reason`]s that are told of.
    pub reasons: u64,
    /// [`control_flags`].
    pub flags: u64,
}

/// Flags of [`Control`].
pub mod control_flags {
    /// Packets that end a TCP connection are told of, whatever their reason but that they
    /// are none of ours.
    pub const CLOSED: u64 = 1 << 0;
}

/// What the first half of a look says to the second.
pub mod taken {
    /// The packet is not looked at.
    pub const NO: u64 = 0;
    /// Its bytes were taken.
    pub const YES: u64 = 1;
    /// There was no budget for it: if it is wanted, it is counted as lost.
    pub const OVER: u64 = 2;
}

/// A packet, and what became of it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Event {
    /// Nanoseconds of the kernel's monotonic clock.
    pub time: u64,
    /// Index of the device.
    pub device: u32,
    /// Length of the frame as it came.
    pub len: u32,
    /// Length of the frame as it left.
    pub len_after: u32,
    /// One of [`hook`].
    pub hook: u8,
    /// Number of the [`crate::Reason`].
    pub reason: u8,
    /// What the program returned, cut to a byte.
    pub action: u8,
    /// Always 0.
    pub reserved: u8,
    /// The first bytes of the frame as it came; beyond its length, anything.
    pub before: [u8; SNAP],
    /// The same of the frame as it left.
    pub after: [u8; SNAP],
}

/// A call of a socket that dials, and what became of it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct CallEvent {
    /// Nanoseconds of the kernel's monotonic clock.
    pub time: u64,
    /// The cookie of the socket's network namespace.
    pub netns: u64,
    /// What was dialled; IPv4 in mapped form.
    pub addr: Addr,
    /// Where the call goes on; the same, where it fails.
    pub backend: Addr,
    /// The dialled port.
    pub port: Be16,
    /// The backend's.
    pub backend_port: Be16,
    /// IP protocol number of the socket.
    pub proto: u8,
    /// [`hook::CONNECT`] or [`hook::SENDMSG`].
    pub hook: u8,
    /// Number of the [`crate::Reason`].
    pub reason: u8,
    /// Always 0.
    pub reserved: u8,
}

/// Where a packet, or a socket's call, met the datapath.
pub mod hook {
    /// XDP of an uplink.
    pub const XDP: u8 = 1;
    /// TC ingress of an uplink.
    pub const UPLINK: u8 = 2;
    /// TC ingress of a pod's device.
    pub const POD: u8 = 3;
    /// TC egress of either.
    pub const EGRESS: u8 = 4;
    /// `connect` of a local socket.
    pub const CONNECT: u8 = 5;
    /// `sendmsg` of a local socket that is not connected.
    pub const SENDMSG: u8 = 6;
}

/// A CPU's record: packets of one CPU come one after the other.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct Watch {
    /// Packets since one was looked at.
    pub seen: u64,
    /// Events that the ring had no room for.
    pub full: u64,
    /// Events that there was no budget for.
    pub over: u64,
    /// The packet that is looked at.
    pub event: Event,
}

/// What a program decided, as its parts hand it to each other: the reason above what is
/// returned.
#[inline(always)]
pub const fn pack(action: u32, reason: crate::Reason) -> u32 {
    ((reason as u32) << 8) | (action & 0xff)
}

/// Whether a frame, of which these are the first bytes, ends a TCP connection: FIN or RST.
#[inline(always)]
pub fn closes(frame: &[u8; SNAP]) -> bool {
    const TCP: u8 = crate::proto::TCP;
    const FIN_RST: u8 = 0b101;
    // Ethernet's 14 bytes, then the IP header; the flags are 13 bytes into TCP's.
    let flags = match (frame[12], frame[13]) {
        (0x08, 0x00) if frame[23] == TCP => 14 + (frame[14] & 0xf) as usize * 4 + 13,
        (0x86, 0xdd) if frame[20] == TCP => 14 + 40 + 13,
        _ => return false,
    };
    // An IPv4 header has 60 bytes at most.
    frame[flags & (SNAP - 1)] & FIN_RST != 0
}

const _: () = {
    assert!(COUNT <= 64, "a word has a bit for each reason");
    assert!(SNAP.is_power_of_two() && SNAP > 14 + 60 + 13);
    assert!(RING.is_power_of_two());
    assert!(size_of::<Event>() == 24 + 2 * SNAP);
    assert!(size_of::<CallEvent>() == 56);
    assert!(size_of::<Watch>() == 24 + size_of::<Event>());
    assert!(size_of::<Control>() == 56);
    assert!(core::mem::offset_of!(Event, device) == 8);
    assert!(core::mem::offset_of!(Event, hook) == 20);
    assert!(core::mem::offset_of!(Event, before) == 24);
    assert!(core::mem::offset_of!(Control, budget) == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(start: &[u8], flags_at: usize, flags: u8) -> [u8; SNAP] {
        let mut frame = [0; SNAP];
        frame[12..12 + start.len()].copy_from_slice(start);
        frame[flags_at] = flags;
        frame
    }

    #[test]
    fn the_end_of_a_connection_is_seen_by_its_flags() {
        let v4 = |ihl: u8, proto, flags| {
            let mut f = frame(&[8, 0, 0x40 | ihl], 14 + usize::from(ihl) * 4 + 13, flags);
            f[23] = proto;
            f
        };
        let v6 = |proto, flags| {
            let mut f = frame(&[0x86, 0xdd, 0x60], 14 + 40 + 13, flags);
            f[20] = proto;
            f
        };
        for (flags, ends) in [
            (0x01, true),
            (0x11, true),
            (0x14, true),
            (0x12, false),
            (0x18, false),
        ] {
            assert_eq!(closes(&v4(5, 6, flags)), ends, "{flags:#x}");
            assert_eq!(closes(&v4(15, 6, flags)), ends, "{flags:#x}");
            assert_eq!(closes(&v6(6, flags)), ends, "{flags:#x}");
            assert!(!closes(&v4(5, 17, flags)) && !closes(&v6(17, flags)));
        }
        assert!(!closes(&[0xff; SNAP]));
    }

    #[test]
    fn what_is_packed_holds_both() {
        for reason in crate::Reason::ALL {
            assert_eq!(pack(u32::MAX, *reason), (*reason as u32) << 8 | 0xff);
            assert_eq!(pack(7, *reason) & 0xff, 7);
        }
    }
}
