//! The maps, as the datapath asks them.

use lb_common::{
    Affinity, AffinityKey, Backend, CtEntry, CtKey, Frontend, FrontendKey, NodeConfig, Reason,
    SockNat, SockNatKey,
};

use crate::{family::Family, table::Buckets};

/// What a packet leaves behind in the conntrack entry that it hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touch {
    /// Now, in ticks.
    pub now: u32,
    /// Bytes of the frame.
    pub bytes: u32,
    /// [`lb_common::ct_flags`] to add.
    pub flags: u32,
}

/// What an established packet needs of its conntrack entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit<A> {
    /// Source address to write.
    pub src: A,
    /// Destination address to write.
    pub dst: A,
    /// Source port to write.
    pub sport: lb_common::Be16,
    /// Destination port to write.
    pub dport: lb_common::Be16,
    /// [`lb_common::ct_flags`] as they were before this packet.
    pub flags: u32,
    /// Backend id.
    pub backend: u32,
    /// Service id.
    pub service: u32,
}

impl<A: Copy> Hit<A> {
    /// A translation that changes nothing: room for another. (Room of zeros would
    /// be cleared by a call of `memset`, a loop over bytes on the BPF target.)
    #[inline(always)]
    pub fn nothing(tuple: &CtKey<A>) -> Self {
        Self {
            src: tuple.src,
            dst: tuple.dst,
            sport: tuple.sport,
            dport: tuple.dport,
            flags: 0,
            backend: 0,
            service: 0,
        }
    }

    /// What a packet of the flow, or the one that opens it, adds to the counters.
    #[inline(always)]
    pub fn account(&self, bytes: u32, opens: bool) -> Account {
        Account {
            service: self.service,
            backend: self.backend,
            packets: 1,
            bytes,
            connections: u32::from(opens),
        }
    }
}

/// Which counters a flow or packet adds to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Account {
    /// Service id.
    pub service: u32,
    /// Backend id.
    pub backend: u32,
    /// Packets.
    pub packets: u32,
    /// Bytes.
    pub bytes: u32,
    /// New flows.
    pub connections: u32,
}

/// The agent's maps, and the counters.
pub trait Maps {
    /// A word of the filter.
    fn filter(&self, word: u32) -> u64;
    /// A word of the filter of replies.
    fn replies(&self, word: u32) -> u64;
    /// Sets bits of a word of the filter of replies, whoever else sets or clears some.
    fn expect_replies(&self, word: u32, bits: u64);
    /// A frontend.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    /// A slot of a maglev table.
    fn slot(&self, index: u32) -> Option<u32>;
    /// A backend; its flags are 0 where there is none.
    fn backend(&self, id: u32) -> Option<Backend>;
    /// Whether a client is within a service's source ranges.
    fn in_source_ranges(&self, service: u32, client: lb_common::Addr) -> bool;
    /// The node, as far as it is configured.
    fn node(&self) -> Option<NodeConfig>;
    /// The backend that a client is bound to.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Binds a client to a backend.
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity);
    /// The frontend that a socket believes to talk to.
    fn sock_nat(&self, key: &SockNatKey) -> Option<SockNat>;
    /// Remembers the frontend that a socket believes to talk to.
    fn set_sock_nat(&self, key: &SockNatKey, value: &SockNat);
    /// Counts a packet by its reason.
    fn count(&self, reason: Reason, bytes: u32);
    /// Counts by service and by backend.
    fn account(&self, account: &Account);
}

/// All maps, with the conntrack of one family.
pub trait Tables<F: Family>: Maps + Buckets<F> {
    /// Lends room for an entry of unknown content: in IPv6 there is too little
    /// stack for it. `None` where the kernel has none.
    fn with_entry<R>(&self, write: impl FnOnce(&mut CtEntry<F::Addr>) -> R) -> Option<R>;
}
