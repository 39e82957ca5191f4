//! Flows, to look at.

use std::collections::BTreeMap;

use lb_common::{Addr, CtEntry, CtKey, PacketCounter, conntrack::TICK_SHIFT, ct_flags};

use super::{
    conntrack::{Side, peer_key, state},
    gc::Family,
};

/// A flow, both directions.
#[derive(Clone, Copy, Debug)]
pub struct FlowView {
    /// The client's address.
    pub client: (Addr, u16),
    /// The frontend that it dialled.
    pub frontend: (Addr, u16),
    /// The backend.
    pub backend: (Addr, u16),
    /// The source that the backend sees.
    pub source: (Addr, u16),
    /// IP protocol number.
    pub protocol: u8,
    /// Service id.
    pub service: u32,
    /// Backend id.
    pub backend_id: u32,
    /// Its state, one of [`super::conntrack::TIMEOUTS`].
    pub state: &'static str,
    /// Seconds since its first packet.
    pub age: u64,
    /// Seconds since its last packet in either direction.
    pub idle: u64,
    /// Packets and bytes to the backend.
    pub forward: PacketCounter,
    /// Packets and bytes to the client.
    pub reply: PacketCounter,
    /// [`ct_flags`] of the forward direction.
    pub flags: u32,
}

/// Joins the two entries of each flow; `now` in ticks.
pub(super) fn flows<A: Family + Ord>(
    entries: &[(CtKey<A>, CtEntry<A>)],
    now: u32,
) -> Vec<FlowView> {
    let by_key: BTreeMap<&CtKey<A>, &CtEntry<A>> = entries.iter().map(|(k, e)| (k, e)).collect();
    let forward = entries
        .iter()
        .filter(|(_, entry)| entry.flags & ct_flags::REPLY == 0);
    let view = |(key, entry): &(CtKey<A>, CtEntry<A>)| {
        let reply = by_key.get(&peer_key(key, entry)).copied();
        let (there, back) = (Side::from(entry), reply.map(Side::from));
        let last = back.map_or(there.last_seen, |side| side.last_seen.max(there.last_seen));
        FlowView {
            client: (key.src.wide(), key.sport.get()),
            frontend: (key.dst.wide(), key.dport.get()),
            backend: (entry.dst.wide(), entry.dport.get()),
            source: (entry.src.wide(), entry.sport.get()),
            protocol: key.proto as u8,
            service: entry.service,
            backend_id: entry.backend,
            state: state(key.proto, Some(&there), back.as_ref()).state,
            age: seconds(now.saturating_sub(entry.created)),
            idle: seconds(now.saturating_sub(last)),
            forward: PacketCounter {
                packets: entry.packets,
                bytes: entry.bytes,
            },
            reply: reply.map_or_else(PacketCounter::default, |entry| PacketCounter {
                packets: entry.packets,
                bytes: entry.bytes,
            }),
            flags: entry.flags,
        }
    };
    forward.map(view).collect()
}

fn seconds(ticks: u32) -> u64 {
    (u64::from(ticks) << TICK_SHIFT) / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use lb_common::{Be16, Be32, proto};

    use super::*;

    #[test]
    fn the_two_entries_of_a_flow_are_shown_as_one() {
        let ip = |last: u32| Be32::new(0x0a00_0000 | last);
        let key = |src, dst, sport, dport| CtKey {
            src: ip(src),
            dst: ip(dst),
            sport: Be16::new(sport),
            dport: Be16::new(dport),
            proto: u32::from(proto::TCP),
        };
        let entry = |to: CtKey<Be32>, flags, packets, last_seen| CtEntry {
            packets,
            bytes: packets * 100,
            src: to.src,
            dst: to.dst,
            sport: to.sport,
            dport: to.dport,
            flags: flags | ct_flags::SEEN,
            backend: 7,
            service: 3,
            created: 1000,
            last_seen,
            reserved: [0; 4],
        };
        let entries = [
            (
                key(2, 1, 8080, 4000),
                entry(key(9, 1, 80, 4000), ct_flags::REPLY, 4, 1060),
            ),
            (
                key(1, 9, 4000, 80),
                entry(key(1, 2, 4000, 8080), 0, 5, 1050),
            ),
        ];
        let found = flows(&entries, 1100);
        let [flow] = &found[..] else {
            panic!("{found:?}")
        };
        let addr = |last, port| (Addr::v4(ip(last)), port);
        assert_eq!((flow.client, flow.frontend), (addr(1, 4000), addr(9, 80)));
        assert_eq!((flow.backend, flow.source), (addr(2, 8080), addr(1, 4000)));
        assert_eq!((flow.forward.packets, flow.reply.packets), (5, 4));
        assert_eq!(
            (flow.state, flow.service, flow.backend_id),
            ("TCP, established", 3, 7)
        );
        // 100 and 40 ticks of 1.074 s.
        assert_eq!((flow.age, flow.idle), (107, 42));
    }
}
