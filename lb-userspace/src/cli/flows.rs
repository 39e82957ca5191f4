//! `bascule conntrack list`: the flows, both directions of each in one row. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::{Addr, ct_flags};
use lb_plan::model::ServicePortKey;
use serde::Serialize;

use super::{
    rows::service_name,
    text::{Side, Table, duration, size},
};
use crate::bpf::{failure::protocol_name, views::FlowView};

/// A flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FlowRow {
    /// State of the flow.
    pub state: &'static str,
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
    /// The service, or `#id`; or that a takeover has left the flow to the kernel.
    pub service: String,
    /// Whether the client came in by an uplink.
    pub external: bool,
    /// Packets to the backend.
    pub packets_forward: u64,
    /// Packets to the client.
    pub packets_reply: u64,
    /// Bytes, both directions.
    pub bytes: u64,
    /// Seconds since the first packet.
    pub age: u64,
    /// Seconds since the last one.
    pub idle: u64,
}

/// What stands for the service of a flow that the kernel translates.
const LEFT: &str = "left to the kernel";

impl FlowRow {
    /// A flow, with the names of services as far as they are known.
    pub fn new(flow: &FlowView, names: &BTreeMap<u32, ServicePortKey>) -> Self {
        Self {
            state: flow.state,
            protocol: protocol_name(flow.protocol).into_owned(),
            client: socket(flow.client),
            frontend: socket(flow.frontend),
            backend: socket(flow.backend),
            snat: (flow.source != flow.client).then(|| socket(flow.source)),
            service: match flow.flags & ct_flags::LEFT {
                0 => service_name(names, flow.service),
                // The kernel knows of no services.
                _ => LEFT.to_owned(),
            },
            external: flow.flags & ct_flags::EXTERNAL != 0,
            packets_forward: flow.forward.packets,
            packets_reply: flow.reply.packets,
            bytes: flow.forward.bytes + flow.reply.bytes,
            age: flow.age,
            idle: flow.idle,
        }
    }

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

    /// The order of the list.
    pub fn order(&self) -> impl Ord + use<> {
        (
            self.service.clone(),
            self.frontend,
            self.client,
            self.protocol.clone(),
        )
    }
}

fn socket((addr, port): (Addr, u16)) -> SocketAddr {
    SocketAddr::new(addr.into(), port)
}

/// Flows as text.
pub fn flows_text(rows: &[FlowRow]) -> String {
    let words = ["STATE", "CLIENT", "FRONTEND", "BACKEND", "SNAT", "SERVICE"];
    let numbers = ["SENT", "REPLIED", "BYTES", "AGE", "IDLE"];
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
            row.packets_forward.to_string(),
            row.packets_reply.to_string(),
            size(row.bytes),
            duration(row.age),
            duration(row.idle),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use lb_common::{PacketCounter, proto};

    use super::*;

    fn addr(text: &str) -> Addr {
        Addr::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_flow_is_shown_with_its_translations() {
        let flow = FlowView {
            client: (addr("172.30.0.100"), 40_000),
            frontend: (addr("10.96.0.1"), 80),
            backend: (addr("10.244.2.5"), 8080),
            source: (addr("172.30.0.2"), 2000),
            protocol: proto::TCP,
            service: 7,
            backend_id: 1,
            state: "TCP, established",
            age: 3700,
            idle: 2,
            forward: PacketCounter {
                packets: 3,
                bytes: 500,
            },
            reply: PacketCounter {
                packets: 4,
                bytes: 800,
            },
            flags: ct_flags::EXTERNAL,
        };
        let snat = FlowRow::new(&flow, &BTreeMap::new());
        let direct = FlowRow::new(
            &FlowView {
                source: flow.client,
                ..flow
            },
            &BTreeMap::new(),
        );
        let expected = "\
STATE             CLIENT              FRONTEND      BACKEND          SNAT             SERVICE  SENT  REPLIED    BYTES    AGE  IDLE
TCP, established  172.30.0.100:40000  10.96.0.1:80  10.244.2.5:8080  172.30.0.2:2000  #7          3        4  1.3 KiB  1h01m    2s
TCP, established  172.30.0.100:40000  10.96.0.1:80  10.244.2.5:8080  -                #7          3        4  1.3 KiB  1h01m    2s
";
        assert_eq!(flows_text(&[snat.clone(), direct.clone()]), expected);
        let left = FlowView {
            flags: ct_flags::LEFT,
            ..flow
        };
        assert_eq!(FlowRow::new(&left, &BTreeMap::new()).service, LEFT);
        let node = "172.30.0.2".parse().unwrap();
        assert_eq!((snat.touches(node), direct.touches(node)), (true, false));
        assert!(snat.external);
    }
}
