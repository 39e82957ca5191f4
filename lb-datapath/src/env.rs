//! What the datapath asks of the kernel besides its maps.

use lb_common::{CtKey, Reason};

use crate::{Hook, family::Family, tables::Hit};

/// What the FIB knows of a packet's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Out of a device, to a next hop whose link address is known.
    Hop,
    /// Out of a device, to a next hop whose link address is not known yet.
    Unresolved,
    /// Nowhere, because of [`Route::reason`].
    None,
}

/// Where the FIB sends a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// What it knows.
    pub way: Way,
    /// Why it knows no way; [`Reason::NoRoute`] where it does.
    pub reason: Reason,
    /// Index of the device.
    pub ifindex: u32,
    /// Link address of the next hop.
    pub dst: [u16; 3],
    /// Link address of the device.
    pub src: [u16; 3],
}

/// A decision on the way, for [`Run::step`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Conntrack knows the flow: its service id and backend id.
    Conntrack(u32, u32),
    /// A frontend was found: its service id.
    Frontend(u32),
    /// Affinity named the backend.
    Affinity(u32),
    /// The maglev table named the backend: the slot, relative to its table.
    Slot(u32),
    /// The backend was chosen.
    Backend(u32),
    /// A source port was taken for SNAT; in a dry run the one that would be tried first.
    Snat(u16),
}

/// How the pipeline runs, and when.
pub trait Run {
    /// A dry run decides, and writes neither conntrack nor affinity nor counters.
    const DRY: bool;

    /// Now, in ticks ([`lb_common::conntrack::TICK_SHIFT`]).
    fn now(&self) -> u32;
    /// Records a decision; what a live packet decides is not recorded.
    fn step(&self, step: Step);
}

/// What packet hooks ask of the kernel besides.
pub trait Env<F: Family>: Run {
    /// Where the packet met the datapath.
    fn hook(&self) -> Hook;
    /// Whether a socket of this node owns a tuple: source is remote, destination local.
    fn socket_owns(&self, tuple: &CtKey<F::Addr>) -> bool;
    /// The FIB's answer for a packet as it will be, of `len` bytes after its
    /// Ethernet header; 0 where its length does not matter.
    fn route(&self, proto: u32, to: &Hit<F::Addr>, len: u32) -> Route;
}
