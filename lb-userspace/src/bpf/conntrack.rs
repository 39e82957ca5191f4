//! When a flow is over: one table of timeouts, and a pure decision over a flow's
//! two entries.

use lb_common::{
    CtEntry, CtKey,
    conntrack::TICK_SHIFT,
    ct_flags::{FIN, RST, SEEN},
    proto,
};

/// How long a flow in some state may be idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeout {
    /// The state.
    pub state: &'static str,
    /// Seconds without a packet in either direction.
    pub seconds: u32,
    /// Where the number comes from.
    pub source: &'static str,
}

macro_rules! timeouts {
    ($($name:ident $state:literal $seconds:literal $source:literal;)+) => {
        $(const $name: Timeout = Timeout { state: $state, seconds: $seconds, source: $source };)+
        /// Every timeout.
        pub const TIMEOUTS: &[Timeout] = &[$($name,)+];
    };
}

timeouts! {
    SYN "TCP, opening" 60
        "Linux TCP_CONNTRACK_SYN_RECV 60 s; Cilium bpf-ct-timeout-regular-tcp-syn 1m";
    ESTABLISHED "TCP, established" 8000
        "Cilium bpf-ct-timeout-service-tcp 2h13m20s: longer than Linux's tcp_keepalive_time of 7200 s";
    HALF_CLOSED "TCP, closed by one side" 3600
        "kube-proxy conntrack.tcpCloseWaitTimeout 1h";
    CLOSED "TCP, closed by both sides" 30
        "Linux TCP_CONNTRACK_LAST_ACK 30 s";
    RESET "TCP, reset" 10
        "Linux TCP_CONNTRACK_CLOSE 10 s; Cilium bpf-ct-timeout-regular-tcp-fin 10s";
    UDP "UDP, no reply yet" 30
        "Linux UDP_CT_UNREPLIED 30 s";
    UDP_REPLIED "UDP, replied" 120
        "Linux UDP_CT_REPLIED 120 s";
    SCTP "SCTP" 210
        "Linux SCTP_CONNTRACK_ESTABLISHED 210 s: heartbeats come every 30 s";
    OTHER "other protocols" 60
        "Cilium bpf-ct-timeout-regular-any 1m";
}

impl Timeout {
    /// The same in ticks, rounded up.
    pub const fn ticks(&self) -> u32 {
        (((self.seconds as u64) * 1_000_000_000).div_ceil(1 << TICK_SHIFT)) as u32
    }
}

/// What the decision needs of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Side {
    /// [`lb_common::ct_flags`].
    pub flags: u32,
    /// When the last packet came, in ticks.
    pub last_seen: u32,
}

impl<A> From<&CtEntry<A>> for Side {
    fn from(entry: &CtEntry<A>) -> Self {
        Self {
            flags: entry.flags,
            last_seen: entry.last_seen,
        }
    }
}

/// The state of a flow. A direction whose entry is gone counts as one without a
/// packet.
pub fn state(protocol: u32, forward: Option<&Side>, reply: Option<&Side>) -> Timeout {
    let flags = |side: Option<&Side>| side.map_or(0, |side| side.flags);
    let (either, both) = (flags(forward) | flags(reply), flags(forward) & flags(reply));
    match u8::try_from(protocol) {
        Ok(proto::TCP) if either & RST != 0 => RESET,
        Ok(proto::TCP) if both & FIN != 0 => CLOSED,
        Ok(proto::TCP) if both & SEEN == 0 => SYN,
        Ok(proto::TCP) if either & FIN != 0 => HALF_CLOSED,
        Ok(proto::TCP) => ESTABLISHED,
        Ok(proto::UDP) if flags(reply) & SEEN != 0 => UDP_REPLIED,
        Ok(proto::UDP) => UDP,
        Ok(proto::SCTP) => SCTP,
        _ => OTHER,
    }
}

/// Whether a flow has been idle for longer than its state allows. Times are
/// ticks of [`TICK_SHIFT`]; a packet that came after `now` was taken counts as
/// one that came now.
pub fn expired(protocol: u32, forward: Option<&Side>, reply: Option<&Side>, now: u32) -> bool {
    let idle =
        |side: Option<&Side>| side.map_or(u32::MAX, |side| now.saturating_sub(side.last_seen));
    idle(forward).min(idle(reply)) > state(protocol, forward, reply).ticks()
}

/// Whether one direction's entry alone leaves open that the flow has expired:
/// only then the other one need be looked up.
pub fn may_be_expired(protocol: u32, side: &Side, now: u32) -> bool {
    let shortest = match u8::try_from(protocol) {
        Ok(proto::TCP) => RESET,
        Ok(proto::UDP) => UDP,
        Ok(proto::SCTP) => SCTP,
        _ => OTHER,
    };
    now.saturating_sub(side.last_seen) > shortest.ticks()
}

/// Whether a reply's entry is so old that its flow cannot be alive: only then
/// its other half is looked for, which normally leads to it.
pub fn may_be_orphan(protocol: u32, side: &Side, now: u32) -> bool {
    let longest = match u8::try_from(protocol) {
        Ok(proto::TCP) => ESTABLISHED,
        Ok(proto::UDP) => UDP_REPLIED,
        Ok(proto::SCTP) => SCTP,
        _ => OTHER,
    };
    now.saturating_sub(side.last_seen) > longest.ticks()
}

/// The key of a flow's other direction: what a packet of this direction turns
/// into, seen from its receiver.
pub fn peer_key<A: Copy>(key: &CtKey<A>, entry: &CtEntry<A>) -> CtKey<A> {
    CtKey {
        src: entry.dst,
        dst: entry.src,
        sport: entry.dport,
        dport: entry.sport,
        proto: key.proto,
    }
}

pub use super::clock::now;

#[cfg(test)]
mod tests {
    use lb_common::{Be16, Be32, ct_flags::SYN as SYN_FLAG};

    use super::*;

    const TCP: u32 = proto::TCP as u32;
    const UDP_PROTO: u32 = proto::UDP as u32;

    fn side(flags: u32) -> Side {
        Side {
            flags,
            last_seen: 1000,
        }
    }

    /// The first second after which a flow is gone, counted by the definition of
    /// a tick, 2^30 ns.
    fn lives(protocol: u32, forward: Option<u32>, reply: Option<u32>) -> u32 {
        let (forward, reply) = (forward.map(side), reply.map(side));
        let tick = |seconds: u32| 1000 + (f64::from(seconds) * 1e9 / 1_073_741_824.0) as u32;
        (0..20_000)
            .find(|s| expired(protocol, forward.as_ref(), reply.as_ref(), tick(*s)))
            .unwrap_or(u32::MAX)
    }

    #[track_caller]
    fn about(found: u32, seconds: u32) {
        // Rounding up and "longer than" cost up to three ticks; never less.
        assert!(
            (seconds..=seconds + 4).contains(&found),
            "{found} instead of {seconds}"
        );
    }

    #[test]
    fn tcp_flows_end_as_their_state_says() {
        about(lives(TCP, Some(SYN_FLAG), Some(0)), 60);
        about(lives(TCP, Some(SYN_FLAG), Some(SYN_FLAG | SEEN)), 60);
        about(
            lives(TCP, Some(SYN_FLAG | SEEN), Some(SYN_FLAG | SEEN)),
            8000,
        );
        about(lives(TCP, Some(SEEN | FIN), Some(SEEN)), 3600);
        about(lives(TCP, Some(SEEN), Some(SEEN | FIN)), 3600);
        about(lives(TCP, Some(SEEN | FIN), Some(SEEN | FIN)), 30);
        about(lives(TCP, Some(SEEN), Some(SEEN | RST)), 10);
        about(lives(TCP, Some(SYN_FLAG), Some(RST)), 10);
    }

    #[test]
    fn a_flow_admitted_in_mid_life_is_established_with_its_first_reply() {
        about(lives(TCP, Some(SEEN), Some(0)), 60);
        about(lives(TCP, Some(SEEN), Some(SEEN)), 8000);
    }

    #[test]
    fn udp_flows_live_longer_once_they_are_answered() {
        about(lives(UDP_PROTO, Some(SEEN), Some(0)), 30);
        about(lives(UDP_PROTO, Some(SEEN), Some(SEEN)), 120);
    }

    #[test]
    fn half_a_flow_ends_soon() {
        about(lives(TCP, Some(SEEN), None), 60);
        about(lives(TCP, None, Some(SEEN)), 60);
        about(lives(UDP_PROTO, Some(SEEN), None), 30);
    }

    #[test]
    fn either_direction_keeps_a_flow_alive() {
        let old = Side {
            flags: SEEN,
            last_seen: 0,
        };
        let new = Side {
            flags: SEEN,
            last_seen: 100_000,
        };
        assert!(!expired(TCP, Some(&old), Some(&new), 100_001));
        assert!(!expired(TCP, Some(&new), Some(&old), 100_001));
        assert!(expired(TCP, Some(&old), Some(&old), 100_001));
    }

    #[test]
    fn a_packet_that_came_after_the_clock_was_read_does_no_harm() {
        assert!(!expired(TCP, Some(&side(RST)), None, 999));
        assert!(!may_be_expired(TCP, &side(RST), 0));
    }

    #[test]
    fn what_one_direction_rules_out_the_other_cannot_bring_about() {
        let flags = [0, SEEN, SEEN | FIN, SEEN | RST, SYN_FLAG];
        for protocol in [TCP, UDP_PROTO, u32::from(proto::SCTP), 1] {
            for (forward, reply) in flags.into_iter().flat_map(|f| flags.map(|r| (f, r))) {
                for now in (1000..12_000).step_by(3) {
                    let (f, r) = (side(forward), side(reply));
                    if expired(protocol, Some(&f), Some(&r), now) {
                        assert!(may_be_expired(protocol, &f, now));
                    }
                    if may_be_orphan(protocol, &r, now) {
                        assert!(expired(protocol, None, Some(&r), now));
                    }
                }
            }
        }
    }

    #[test]
    fn each_direction_leads_to_the_other() {
        let ip = |last: u32| Be32::new(0x0a00_0000 | last);
        let port = Be16::new;
        let key = |src, dst, sport, dport| CtKey {
            src,
            dst,
            sport,
            dport,
            proto: TCP,
        };
        // A client (1) that dials a vip (9) and reaches a backend (2) through
        // the node's address (5): the packet and its reply on the wire.
        let forward = key(ip(1), ip(9), port(4000), port(80));
        let reply = key(ip(2), ip(5), port(8080), port(6000));
        let mut there: CtEntry<Be32> = bytemuck::Zeroable::zeroed();
        (there.src, there.dst, there.sport, there.dport) = (ip(5), ip(2), port(6000), port(8080));
        let mut back: CtEntry<Be32> = bytemuck::Zeroable::zeroed();
        (back.src, back.dst, back.sport, back.dport) = (ip(9), ip(1), port(80), port(4000));
        assert_eq!(peer_key(&forward, &there), reply);
        assert_eq!(peer_key(&reply, &back), forward);
    }
}
