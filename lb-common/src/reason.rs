//! Why the datapath did what it did with a packet or a socket.

/// What kind of outcome a [`Reason`] stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// The packet goes on, translated or not.
    Pass,
    /// The client is told: TCP reset, ICMP unreachable, ECONNREFUSED.
    Refuse,
    /// The packet is dropped silently.
    Drop,
}

macro_rules! reasons {
    ($($num:literal $name:ident $label:literal $class:ident $doc:literal;)+) => {
        /// Why a packet or socket was treated as it was: index of its counter.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Reason { $(#[doc = $doc] $name = $num,)+ }

        impl Reason {
            /// Every reason, in the order of its counter.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name in metrics, in the CLI and in the docs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
            /// What kind of outcome it is.
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)+ }
            }
            /// One sentence for users.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$name => $doc,)+ }
            }
        }
    };
}

reasons! {
    0 NotOurs "not_ours" Pass "The packet is no business of any frontend.";
    1 Established "established" Pass "A packet of a known flow, towards its backend.";
    2 Reply "reply" Pass "A packet of a known flow, back to its client.";
    3 NewFlow "new_flow" Pass "The first packet of a flow; a backend was chosen.";
    4 Socket "socket" Pass "A local socket was connected to a backend.";
    5 NoNeighbour "no_neighbour" Pass "XDP left the packet to TC: the next hop's link address is not known yet.";
    6 EchoReply "echo_reply" Pass "A ping to a vip was answered.";
    7 NoEndpoints "no_endpoints" Refuse "The service has no endpoint.";
    8 UnknownPort "unknown_port" Refuse "The vip has no such port.";
    9 NoLocalEndpoint "no_local_endpoint" Drop "The traffic policy is Local and the node has no endpoint.";
    10 SourceRange "source_range" Drop "The client is outside loadBalancerSourceRanges.";
    11 Malformed "malformed" Drop "The packet ends before its headers do, or its headers contradict themselves.";
    12 Fragment "fragment" Drop "A later fragment whose first fragment is not known.";
    13 ConntrackFull "conntrack_full" Drop "The conntrack map has no room for a new flow.";
    14 SnatExhausted "snat_exhausted" Drop "No free port was found for SNAT.";
    15 NoNodeAddress "no_node_address" Drop "SNAT is needed and the node has no address of the family.";
    16 NoRoute "no_route" Drop "The FIB has no route to the backend or client.";
    17 TooBig "too_big" Drop "The packet is larger than the path's MTU.";
    18 TtlExceeded "ttl_exceeded" Drop "The packet's TTL or hop limit ended here.";
    19 BackendMissing "backend_missing" Drop "A table names a backend that is not live.";
    20 WriteFailed "write_failed" Drop "The packet could not be rewritten.";
    21 LeftToTc "left_to_tc" Pass "XDP left the packet to TC: it exceeds the MTU, as joined segments do that fit one by one.";
    22 ConntrackBusy "conntrack_busy" Drop "Other CPUs kept the flow's bucket of conntrack locked.";
    23 IcmpError "icmp_error" Pass "An ICMP error about a known flow was translated.";
}

/// Number of reasons, and of counters.
pub const COUNT: u32 = Reason::ALL.len() as u32;

const _: () = {
    let mut i = 0;
    while i < Reason::ALL.len() {
        assert!(Reason::ALL[i] as usize == i);
        i += 1;
    }
};
