//! Every decision of the datapath.
//!
//! The same code runs in the kernel, inside the programs of `lb-ebpf`, and on
//! the host, in tests. It knows neither packet pointers nor maps: it is generic
//! over a [`Packet`], the [`Tables`] and the [`Env`].
//!
//! ```text
//! packet ─ parse ─ filter ─ conntrack ─ lookup ─ select ─ NAT ─ Verdict
//! ```
#![no_std]
#![deny(unsafe_code)]

pub mod conntrack;
pub mod crc32c;
pub mod csum;
pub mod egress;
pub mod env;
pub mod family;
pub mod flow;
#[cfg(not(target_arch = "bpf"))]
pub mod host;
pub mod ingress;
pub mod nat;
pub mod packet;
pub mod parse;
pub mod portless;
pub mod refuse;
pub mod select;
pub mod socket;
pub mod table;
pub mod tables;

pub use env::{Env, Route, Run, Step, Way};
pub use family::{Family, V4, V6};
pub use packet::Packet;
pub use table::{Buckets, Insert, InsertError, Words};
pub use tables::{Maps, Tables};

use lb_common::Reason;

/// What becomes of a packet. Whatever had to be written into it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// On to the stack.
    Pass,
    /// Dropped.
    Drop,
    /// Back out of the device by which it came.
    TurnAround,
    /// Out of [`Outcome::ifindex`], link addresses written.
    Redirect,
    /// Out of [`Outcome::ifindex`]; the stack finds the next hop's link address.
    RedirectNeigh,
    /// Not decided: a later fragment or an ICMP message, for the part of the pipeline
    /// that takes [`portless`] packets.
    Portless,
}

/// A verdict and why. No field is ever undefined: the verifier of older kernels
/// refuses a program that copies what it has not written, as an enum's payload
/// may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// Why: its counter is incremented where [`Outcome::counted`] says so.
    pub reason: Reason,
    /// Index of the device of a redirect, else 0.
    pub ifindex: u32,
}

impl Outcome {
    /// A verdict that needs no device.
    #[inline(always)]
    pub const fn new(verdict: Verdict, reason: Reason) -> Self {
        Self {
            verdict,
            reason,
            ifindex: 0,
        }
    }
    /// On to the stack.
    #[inline(always)]
    pub const fn pass(reason: Reason) -> Self {
        Self::new(Verdict::Pass, reason)
    }
    /// Dropped.
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self::new(Verdict::Drop, reason)
    }
    /// Whether the reason has a counter of its own. Established flows are
    /// counted by service and backend, and what is none of ours is not counted,
    /// so that neither pays for it.
    #[inline(always)]
    pub const fn counted(&self) -> bool {
        !matches!(
            self.reason,
            Reason::NotOurs | Reason::Established | Reason::Reply
        )
    }
    /// Whether a packet that has no ports is still to be looked at.
    #[inline(always)]
    pub fn or_portless(self, decide: impl FnOnce() -> Self) -> Self {
        match self.verdict {
            Verdict::Portless => decide(),
            _ => self,
        }
    }
}

/// Where a packet meets the datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook {
    /// One of [`lb_common::scope`]: the client is a pod, or outside.
    pub scope: u8,
    /// Whether a packet without a next hop's link address can be handed to the
    /// stack for resolution (TC), or must be left to another hook (XDP).
    pub can_resolve: bool,
}

impl Hook {
    /// TC ingress of a pod's device.
    pub const POD: Self = Self {
        scope: lb_common::scope::INTERNAL,
        can_resolve: true,
    };
    /// TC ingress of an uplink.
    pub const UPLINK: Self = Self {
        scope: lb_common::scope::EXTERNAL,
        can_resolve: true,
    };
    /// XDP of an uplink.
    pub const XDP: Self = Self {
        scope: lb_common::scope::EXTERNAL,
        can_resolve: false,
    };
}
