//! `bascule conntrack list`: the flows, both directions of each in one row. Pure.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use lb_common::{Addr, Be16, Be32, CtEntry, CtKey, conntrack::TICK_SHIFT, ct_flags};
use lb_plan::model::ServicePortKey;
use serde::Serialize;

use super::text::{Side, Table, duration, size};
use crate::bpf::{
    conntrack::{self, peer_key},
    failure::protocol_name,
};

/// A flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FlowRow {
    /// Protocol.
    pub protocol: String,
    /// Who dialled.
    pub client: SocketAddr,
    /// What was dialled.
    pub frontend: SocketAddr,
    /// Who answers.
    pub backend: SocketAddr,
    /// The source that the backend sees, where it is not the client.
    pub snat: Option<SocketAddr>,
    /// The service, or `#id`.
    pub service: String,
    /// State of the flow.
    pub state: &'static str,
    /// Whether the client came in by an uplink.
    pub external: bool,
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes, both directions.
    pub bytes: u64,
    /// Seconds since the first packet.
    pub age: u64,
    /// Seconds since the last one.
    pub idle: u64,
}

impl FlowRow {
    /// Whether an address is at either end, before or after translation.
    pub fn touches(&self, address: IpAddr) -> bool {
        let ends = [
            Some(self.client),
            Some(self.frontend),
            Some(self.backend),
            self.snat,
        ];
        ends.into_iter().flatten().any(|end| end.ip() == address)
    }
}

/// An address as it lies in a conntrack map.
pub trait WireAddr: Copy + Eq + Hash {
    /// The address.
    fn ip(self) -> IpAddr;
}

impl WireAddr for Be32 {
    fn ip(self) -> IpAddr {
        Ipv4Addr::from_bits(self.get()).into()
    }
}

impl WireAddr for Addr {
    fn ip(self) -> IpAddr {
        self.into()
    }
}

fn socket<A: WireAddr>(addr: A, port: Be16) -> SocketAddr {
    SocketAddr::new(addr.ip(), port.get())
}

fn seconds(ticks: u32) -> u64 {
    (u64::from(ticks) << TICK_SHIFT) / 1_000_000_000
}

/// The flows of one family's entries; `now` is in ticks of the kernel's clock.
pub fn flows<A: WireAddr>(
    entries: &[(CtKey<A>, CtEntry<A>)],
    names: &BTreeMap<u32, ServicePortKey>,
    now: u32,
) -> Vec<FlowRow> {
    let by_key: HashMap<_, _> = entries.iter().map(|(k, e)| (*k, e)).collect();
    let mut paired = HashSet::new();
    let mut rows = Vec::new();
    for (key, entry) in entries
        .iter()
        .filter(|(_, e)| e.flags & ct_flags::REPLY == 0)
    {
        let peer = peer_key(key, entry);
        let reply = by_key.get(&peer).copied();
        paired.insert(peer);
        let ends = (
            socket(entry.src, entry.sport),
            socket(entry.dst, entry.dport),
        );
        rows.push(row(key, (Some(entry), reply), ends, names, now));
    }
    // A reply without its other half is shown as what its other half was.
    for (key, entry) in entries
        .iter()
        .filter(|(_, e)| e.flags & ct_flags::REPLY != 0)
    {
        if !paired.contains(key) {
            let ends = (socket(key.dst, key.dport), socket(key.src, key.sport));
            rows.push(row(
                &peer_key(key, entry),
                (None, Some(entry)),
                ends,
                names,
                now,
            ));
        }
    }
    rows.sort_by(|a, b| {
        let key = |r: &FlowRow| (r.service.clone(), r.frontend, r.client, r.protocol.clone());
        key(a).cmp(&key(b))
    });
    rows
}

/// `key` is that of the forward direction, `source` and `backend` what its
/// packets carry after translation.
fn row<A: WireAddr>(
    key: &CtKey<A>,
    (forward, reply): (Option<&CtEntry<A>>, Option<&CtEntry<A>>),
    (source, backend): (SocketAddr, SocketAddr),
    names: &BTreeMap<u32, ServicePortKey>,
    now: u32,
) -> FlowRow {
    let both = || [forward, reply].into_iter().flatten();
    let service = both().next().map_or(0, |e| e.service);
    let sides = (forward.map(Into::into), reply.map(Into::into));
    let client = socket(key.src, key.sport);
    let since = |tick: u32| seconds(now.saturating_sub(tick));
    FlowRow {
        protocol: protocol_name(key.proto as u8).into_owned(),
        client,
        frontend: socket(key.dst, key.dport),
        backend,
        snat: (source != client).then_some(source),
        service: names
            .get(&service)
            .map_or_else(|| format!("#{service}"), ToString::to_string),
        state: conntrack::state(key.proto, sides.0.as_ref(), sides.1.as_ref()).state,
        external: both().any(|e| e.flags & ct_flags::EXTERNAL != 0),
        packets: both().map(|e| e.packets).sum(),
        bytes: both().map(|e| e.bytes).sum(),
        age: both().map(|e| since(e.created)).max().unwrap_or(0),
        idle: both().map(|e| since(e.last_seen)).min().unwrap_or(0),
    }
}

/// Flows as text.
pub fn flows_text(rows: &[FlowRow]) -> String {
    let words = ["STATE", "CLIENT", "FRONTEND", "BACKEND", "SNAT", "SERVICE"];
    let numbers = ["PACKETS", "BYTES", "AGE", "IDLE"];
    let columns: Vec<_> = words
        .into_iter()
        .map(|w| (w, Side::Left))
        .chain(numbers.into_iter().map(|w| (w, Side::Right)))
        .collect();
    let mut table = Table::new(&columns);
    for row in rows {
        table.row(vec![
            row.state.to_owned(),
            row.client.to_string(),
            row.frontend.to_string(),
            row.backend.to_string(),
            row.snat.map_or_else(|| "-".into(), |s| s.to_string()),
            row.service.clone(),
            row.packets.to_string(),
            size(row.bytes),
            duration(row.age),
            duration(row.idle),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Be32 {
        Be32::new(text.parse::<Ipv4Addr>().unwrap().to_bits())
    }

    fn key(src: (&str, u16), dst: (&str, u16)) -> CtKey<Be32> {
        CtKey {
            src: ip(src.0),
            dst: ip(dst.0),
            sport: Be16::new(src.1),
            dport: Be16::new(dst.1),
            proto: 6,
        }
    }

    /// Rewrites to `src` and `dst`; 10 ticks old, last seen 2 ticks ago, at tick 100.
    fn entry(src: (&str, u16), dst: (&str, u16), flags: u32) -> CtEntry<Be32> {
        CtEntry {
            packets: 3,
            bytes: 500,
            src: ip(src.0),
            dst: ip(dst.0),
            sport: Be16::new(src.1),
            dport: Be16::new(dst.1),
            flags,
            backend: 1,
            service: 7,
            created: 90,
            last_seen: 98,
            reserved: [0; 4],
        }
    }

    const CLIENT: (&str, u16) = ("172.30.0.100", 40_000);
    const VIP: (&str, u16) = ("10.96.0.1", 80);
    const NODE: (&str, u16) = ("172.30.0.2", 2000);
    const BACKEND: (&str, u16) = ("10.244.2.5", 8080);

    #[test]
    fn the_two_directions_of_a_flow_are_one_row() {
        let seen = ct_flags::SEEN;
        let entries = [
            (
                key(CLIENT, VIP),
                entry(NODE, BACKEND, seen | ct_flags::EXTERNAL),
            ),
            (
                key(BACKEND, NODE),
                entry(VIP, CLIENT, seen | ct_flags::REPLY),
            ),
        ];
        let rows = flows(&entries, &BTreeMap::new(), 100);
        let expected = "\
STATE             CLIENT              FRONTEND      BACKEND          SNAT             SERVICE  PACKETS    BYTES  AGE  IDLE
TCP, established  172.30.0.100:40000  10.96.0.1:80  10.244.2.5:8080  172.30.0.2:2000  #7             6  1.0 KiB  10s    2s
";
        assert_eq!(flows_text(&rows), expected);
        assert!(rows[0].external);
        for (address, touched) in [
            ("10.244.2.5", true),
            ("172.30.0.2", true),
            ("10.244.2.6", false),
        ] {
            assert_eq!(
                rows[0].touches(address.parse().unwrap()),
                touched,
                "{address}"
            );
        }
    }

    #[test]
    fn a_lonely_reply_is_shown_as_its_flow() {
        let entries = [(key(BACKEND, CLIENT), entry(VIP, CLIENT, ct_flags::REPLY))];
        let rows = flows(&entries, &BTreeMap::new(), 100);
        let ends = (
            rows[0].client.to_string(),
            rows[0].frontend.to_string(),
            rows[0].snat,
        );
        assert_eq!(
            ends,
            ("172.30.0.100:40000".into(), "10.96.0.1:80".into(), None)
        );
    }
}
