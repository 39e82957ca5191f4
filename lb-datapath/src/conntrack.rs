//! The states of flows, and how long a flow may be idle in each: one table.
//!
//! Each entry knows by itself what state its flow is in: what was seen in the
//! other direction is told to it (`table::hit`).

use lb_common::{
    conntrack::{FRAGMENT, NEWS_TICKS, TICK_SHIFT},
    ct_flags::{FIN, LIVE, PEER_SHIFT, REPLY, RST, SEEN, SIGHTS},
    proto,
};

macro_rules! states {
    ($($name:ident $text:literal $seconds:literal $source:literal;)+) => {
        /// The state of a flow.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum State {
            $(#[doc = $text] $name,)+
        }

        impl State {
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Seconds without a packet in either direction.
            #[inline(always)]
            pub const fn seconds(self) -> u32 {
                match self { $(Self::$name => $seconds,)+ }
            }
            /// The timeout in ticks, rounded up. A table: worked out from the seconds, it
            /// would be worked out for each packet.
            #[inline(always)]
            pub const fn ticks(self) -> u32 {
                match self { $(Self::$name => const { ticks($seconds) },)+ }
            }
            /// Its name, for users.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
            /// Where the number of seconds comes from.
            pub const fn source(self) -> &'static str {
                match self { $(Self::$name => $source,)+ }
            }
        }
    };
}

states! {
    Opening "opening" 60
        "Linux TCP_CONNTRACK_SYN_RECV 60 s; Cilium bpf-ct-timeout-regular-tcp-syn 1m";
    Established "TCP, established" 8000
        "Cilium bpf-ct-timeout-service-tcp 2h13m20s: longer than Linux's tcp_keepalive_time of 7200 s";
    HalfClosed "TCP, closed by one side" 3600
        "kube-proxy conntrack.tcpCloseWaitTimeout 1h";
    Closed "TCP, closed by both sides" 30
        "Linux TCP_CONNTRACK_LAST_ACK 30 s";
    Reset "reset" 10
        "Linux TCP_CONNTRACK_CLOSE and SCTP_CONNTRACK_CLOSED 10 s; Cilium bpf-ct-timeout-regular-tcp-fin 10s";
    Udp "UDP, no reply yet" 30
        "Linux UDP_CT_UNREPLIED 30 s";
    UdpReplied "UDP, replied" 120
        "Linux UDP_CT_REPLIED 120 s";
    Sctp "SCTP, established" 210
        "Linux SCTP_CONNTRACK_ESTABLISHED 210 s: heartbeats come every 30 s";
    Fragments "fragments of a datagram" 30
        "Linux net.ipv4.ipfrag_time 30 s";
    Other "other protocols" 60
        "Cilium bpf-ct-timeout-regular-any 1m";
}

/// Ticks of so many seconds, rounded up.
const fn ticks(seconds: u64) -> u32 {
    (seconds * 1_000_000_000).div_ceil(1 << TICK_SHIFT) as u32
}

impl State {
    /// The state of a flow by the flags of either of its entries.
    #[inline(always)]
    pub const fn of(protocol: u32, flags: u32) -> Self {
        let own = flags & SIGHTS;
        let peer = (flags >> PEER_SHIFT) & SIGHTS;
        let (either, both) = (own | peer, own & peer);
        if protocol == proto::TCP as u32 {
            return if either & (RST | FIN) == 0 {
                if both & SEEN == 0 {
                    Self::Opening
                } else {
                    Self::Established
                }
            } else if either & RST != 0 {
                Self::Reset
            } else if both & FIN != 0 {
                Self::Closed
            } else if both & SEEN == 0 {
                Self::Opening
            } else {
                Self::HalfClosed
            };
        }
        if protocol == proto::UDP as u32 {
            let replies = if flags & REPLY != 0 { own } else { peer };
            return if replies & SEEN != 0 {
                Self::UdpReplied
            } else {
                Self::Udp
            };
        }
        if protocol == proto::SCTP as u32 {
            return if either & RST != 0 {
                Self::Reset
            } else if both & SEEN == 0 {
                Self::Opening
            } else {
                Self::Sctp
            };
        }
        if protocol & FRAGMENT != 0 {
            Self::Fragments
        } else {
            Self::Other
        }
    }

    /// Whether nobody answered yet, or the flow is over: what is given up first
    /// when there is no room.
    #[inline(always)]
    pub const fn is_expendable(self) -> bool {
        matches!(
            self,
            Self::Opening | Self::Closed | Self::Reset | Self::Udp | Self::Fragments
        )
    }
}

/// Ticks since a time that another CPU may have written a moment from now.
#[inline(always)]
pub const fn age(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX / 2 { 0 } else { age }
}

/// Most ticks that an entry is valid after its `last_seen`. The other direction
/// may have been heard of later, by [`NEWS_TICKS`] at most.
#[inline(always)]
pub const fn lifetime(protocol: u32, flags: u32) -> u32 {
    State::of(protocol, flags).ticks() + NEWS_TICKS
}

/// Ticks for which an entry is valid whatever its state. Most packets come sooner after the
/// one before, and need not know the state.
const SHORTEST: u32 = State::Reset.ticks() + NEWS_TICKS;

/// Whether an entry is valid.
#[inline(always)]
pub const fn is_live(protocol: u32, flags: u32, last_seen: u32, now: u32) -> bool {
    let age = age(now, last_seen);
    flags & LIVE != 0 && (age <= SHORTEST || age <= lifetime(protocol, flags))
}

/// Ticks between an entry's end and the use of its slot by another: whoever still
/// reads it is done by then, and needs no lock.
pub const GRACE: u32 = 2;

/// Whether a slot that was used may be used again.
#[inline(always)]
pub const fn is_vacant(protocol: u32, flags: u32, last_seen: u32, now: u32) -> bool {
    let age = age(now, last_seen);
    age > GRACE && (flags & LIVE == 0 || age > lifetime(protocol, flags) + GRACE)
}

/// Whether a flow is over, though its entries may live on for a while.
#[inline(always)]
pub const fn is_over(flags: u32) -> bool {
    let (own, peer) = (flags, flags >> PEER_SHIFT);
    (own | peer) & RST != 0 || own & peer & FIN != 0
}

#[cfg(test)]
mod tests {
    use lb_common::ct_flags::SYN;

    use super::*;

    const TCP: u32 = proto::TCP as u32;
    const UDP: u32 = proto::UDP as u32;

    /// The first second after which an entry that was touched at 1000 is gone,
    /// counted by the definition of a tick, 2^30 ns.
    fn lives(protocol: u32, own: u32, peer: u32, kind: u32) -> u32 {
        let flags = LIVE | own | peer << PEER_SHIFT | kind;
        let tick = |seconds: u32| 1000 + (f64::from(seconds) * 1e9 / 1_073_741_824.0) as u32;
        (0..20_000)
            .find(|s| !is_live(protocol, flags, 1000, tick(*s)))
            .unwrap_or(u32::MAX)
    }

    #[track_caller]
    fn about(found: u32, seconds: u32) {
        // Eight ticks until news of the other direction, rounding up and "longer
        // than" cost up to twelve seconds; never less.
        assert!(
            (seconds..=seconds + 12).contains(&found),
            "{found} instead of {seconds}"
        );
    }

    #[test]
    fn a_flow_lives_as_long_as_its_state_allows() {
        for (own, peer, seconds) in [
            (SYN, 0, 60),
            (SYN, SYN | SEEN, 60),
            (SEEN, 0, 60),
            (SYN | SEEN, SYN | SEEN, 8000),
            (SEEN | FIN, SEEN, 3600),
            (SEEN, SEEN | FIN, 3600),
            (SEEN | FIN, SEEN | FIN, 30),
            (SEEN | RST, SEEN | FIN, 10),
            (SEEN, SEEN | RST, 10),
            (SYN | FIN, SYN, 60),
        ] {
            about(lives(TCP, own, peer, 0), seconds);
            about(lives(TCP, own, peer, REPLY), seconds);
        }
        // Replies of UDP count, not requests.
        about(lives(UDP, SEEN, 0, 0), 30);
        about(lives(UDP, SEEN, SEEN, 0), 120);
        about(lives(UDP, 0, SEEN, REPLY), 30);
        about(lives(UDP, SEEN, SEEN, REPLY), 120);
        for (own, peer, seconds) in [
            (SYN, 0, 60),
            (SYN | SEEN, SYN | SEEN, 210),
            (SEEN | RST, SEEN, 10),
            (SEEN, SEEN | RST, 10),
        ] {
            about(lives(u32::from(proto::SCTP), own, peer, 0), seconds);
        }
        about(lives(FRAGMENT | UDP, 0, 0, REPLY), 30);
        about(lives(1, 0, 0, 0), 60);
    }

    #[test]
    fn the_other_direction_may_have_been_quiet_for_a_news_interval_and_no_longer() {
        let flags = LIVE | SEEN | SEEN << PEER_SHIFT;
        let end = State::UdpReplied.ticks() + NEWS_TICKS;
        assert!(is_live(UDP, flags, 100, 100 + end));
        assert!(!is_live(UDP, flags, 100, 101 + end));
    }

    #[test]
    fn no_state_is_shorter_than_the_shortest() {
        assert!(
            State::ALL
                .iter()
                .all(|s| s.ticks() + NEWS_TICKS >= SHORTEST)
        );
    }

    #[test]
    fn an_entry_without_the_flag_is_gone_and_its_slot_is_free_after_a_grace() {
        assert!(!is_live(TCP, SEEN, 100, 100));
        assert!(!is_vacant(TCP, SEEN, 100, 100 + GRACE));
        assert!(is_vacant(TCP, SEEN, 100, 101 + GRACE));
    }

    #[test]
    fn no_slot_is_free_while_its_entry_is_valid_or_was_until_just_now() {
        for protocol in [TCP, UDP, u32::from(proto::SCTP), 1] {
            for flags in [0, SEEN, SEEN | FIN, RST, SEEN | SEEN << PEER_SHIFT] {
                let end = (0..).find(|t| !is_live(protocol, LIVE | flags, 7, 7 + t));
                let free = (0..).find(|t| is_vacant(protocol, LIVE | flags, 7, 7 + t));
                assert_eq!(free, end.map(|end| end + GRACE));
            }
        }
    }

    #[test]
    fn a_packet_that_came_after_the_clock_was_read_does_no_harm() {
        assert_eq!(age(999, 1000), 0);
        assert!(is_live(TCP, LIVE | RST, 1000, 999));
        assert!(!is_vacant(TCP, LIVE | RST, 1000, 999));
        // The clock of ticks may wrap.
        assert_eq!(age(3, u32::MAX), 4);
    }

    #[test]
    fn a_flow_is_over_by_a_reset_or_when_both_have_finished() {
        assert!(is_over(RST) && is_over(RST << PEER_SHIFT));
        assert!(is_over(FIN | FIN << PEER_SHIFT));
        assert!(!is_over(FIN | SEEN << PEER_SHIFT) && !is_over(FIN << PEER_SHIFT | SEEN));
    }
}
