//! The contract of the dry program, `lb_dry`: what it is asked, and what it answers, in the
//! context of a run by `BPF_PROG_TEST_RUN` (`struct __sk_buff`, include/uapi/linux/bpf.h).
//!
//! It decides about a packet as the other programs do, with the same maps, and leaves no
//! trace in them. The question is the frame, the device (`ifindex`) and where the packet
//! comes from (`mark`); of a socket's call also the cookies of the socket and of its network
//! namespace, in `cb`: two words each, the low one first. The answer is what the program
//! returns ([`answer`]), the decisions on the way (`cb`, [`word`]), the device of a redirect
//! (`mark`), and the frame as it would leave.

use crate::Reason;

/// Version of this contract, part of each answer.
pub const VERSION: u32 = 1;

/// Where a packet comes from.
pub mod from {
    /// From a pod, by its device.
    pub const POD: u32 = 1;
    /// From the network, by an uplink.
    pub const UPLINK: u32 = 2;
    /// From a local socket that dials the packet's destination.
    pub const SOCKET: u32 = 3;
}

/// Words of the answer.
pub mod word {
    /// One of [`super::how`].
    pub const HOW: usize = 0;
    /// Service id.
    pub const SERVICE: usize = 1;
    /// Slot of the maglev table.
    pub const SLOT: usize = 2;
    /// Backend id.
    pub const BACKEND: usize = 3;
    /// Source port that SNAT tries first.
    pub const SNAT: usize = 4;
    /// How many there are.
    pub const COUNT: usize = 5;
}

/// A word of an answer that has no such decision.
pub const NONE: u32 = u32::MAX;

/// How a backend was found.
pub mod how {
    /// The flow was known.
    pub const CONNTRACK: u32 = 1;
    /// The client was bound to it.
    pub const AFFINITY: u32 = 2;
    /// By the service's table, or as the only one.
    pub const TABLE: u32 = 3;
}

/// What becomes of a packet.
pub mod verdict {
    /// On to the stack, or to the socket's destination.
    pub const PASS: u32 = 0;
    /// Dropped, or refused as a socket's call.
    pub const DROP: u32 = 1;
    /// Back out of the device by which it came.
    pub const TURN_AROUND: u32 = 2;
    /// Out of a device, link addresses written.
    pub const REDIRECT: u32 = 3;
    /// Out of a device; the stack finds the next hop's link address.
    pub const REDIRECT_NEIGH: u32 = 4;
    /// Neither TCP, UDP nor SCTP: not decided here.
    pub const PORTLESS: u32 = 5;
}

/// What the program returns: the version, a [`verdict`], and the reason.
#[inline(always)]
pub const fn answer(verdict: u32, reason: Reason) -> u32 {
    (VERSION << 16) | (verdict << 8) | reason as u32
}

/// Verdict and reason of what the program returned; `None` where it is of another version.
pub fn decode(returned: u32) -> Option<(u32, Reason)> {
    let reason = *Reason::ALL.get((returned & 0xff) as usize)?;
    (returned >> 16 == VERSION).then_some(((returned >> 8) & 0xff, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_were_given() {
        for reason in Reason::ALL {
            for verdict in verdict::PASS..=verdict::PORTLESS {
                assert_eq!(decode(answer(verdict, *reason)), Some((verdict, *reason)));
            }
        }
        assert_eq!(decode(answer(0, Reason::NotOurs) + (1 << 16)), None);
        assert_eq!(decode((VERSION << 16) | 0xff), None);
        // What another program of TC returns.
        assert_eq!(decode(u32::MAX), None);
    }
}
