//! Flows, to look at.

use std::collections::BTreeMap;

use lb_common::{Addr, Be16, CtEntry, CtKey, CtSlot, PacketCounter, conntrack::TICK_SHIFT};
use lb_datapath::conntrack::{State, age};

use super::conntrack::{is_forward, peer_key};

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
    /// Its [`State`].
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

impl FlowView {
    /// The keys of its entries.
    pub(super) fn keys(&self) -> [CtKey<Addr>; 2] {
        let key = |src: (Addr, u16), dst: (Addr, u16)| CtKey {
            src: src.0,
            dst: dst.0,
            sport: Be16::new(src.1),
            dport: Be16::new(dst.1),
            proto: u32::from(self.protocol),
        };
        [
            key(self.client, self.frontend),
            key(self.backend, self.source),
        ]
    }
}

/// Joins the two entries of each flow; `now` in ticks.
pub(super) fn flows(slots: &[CtSlot<Addr>], now: u32) -> Vec<FlowView> {
    let by_key: BTreeMap<&CtKey<Addr>, &CtEntry<Addr>> =
        slots.iter().map(|slot| (&slot.key, &slot.entry)).collect();
    let view = |CtSlot { key, entry }: &CtSlot<Addr>| {
        let reply = by_key.get(&peer_key(key, entry));
        let idle = |entry: &CtEntry<Addr>| age(now, entry.last_seen);
        FlowView {
            client: (key.src, key.sport.get()),
            frontend: (key.dst, key.dport.get()),
            backend: (entry.dst, entry.dport.get()),
            source: (entry.src, entry.sport.get()),
            protocol: key.proto as u8,
            service: entry.service,
            backend_id: entry.backend,
            state: State::of(key.proto, entry.flags).describe(),
            age: seconds(age(now, entry.created)),
            idle: seconds(reply.map_or(idle(entry), |reply| idle(reply).min(idle(entry)))),
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
    let forward = slots.iter().filter(|slot| is_forward(&slot.entry));
    forward.map(view).collect()
}

pub(super) fn seconds(ticks: u32) -> u64 {
    (u64::from(ticks) << TICK_SHIFT) / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use lb_common::{Be32, ct_flags, proto};

    use super::*;

    #[test]
    fn the_two_entries_of_a_flow_are_shown_as_one() {
        let ip = |last: u32| Addr::v4(Be32::new(0x0a00_0000 | last));
        let key = |src, dst, sport, dport| CtKey {
            src: ip(src),
            dst: ip(dst),
            sport: Be16::new(sport),
            dport: Be16::new(dport),
            proto: u32::from(proto::TCP),
        };
        let entry = |to: CtKey<Addr>, flags, packets, last_seen| CtEntry {
            packets,
            bytes: packets * 100,
            src: to.src,
            dst: to.dst,
            sport: to.sport,
            dport: to.dport,
            flags: flags | ct_flags::SEEN | ct_flags::SEEN << ct_flags::PEER_SHIFT,
            backend: 7,
            service: 3,
            created: 1000,
            last_seen,
        };
        let entries = [
            CtSlot {
                key: key(2, 1, 8080, 4000),
                entry: entry(key(9, 1, 80, 4000), ct_flags::REPLY, 4, 1060),
            },
            CtSlot {
                key: key(1, 9, 4000, 80),
                entry: entry(key(1, 2, 4000, 8080), 0, 5, 1050),
            },
        ];
        let found = flows(&entries, 1100);
        let [flow] = &found[..] else {
            panic!("{found:?}")
        };
        let addr = |last, port| (ip(last), port);
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
