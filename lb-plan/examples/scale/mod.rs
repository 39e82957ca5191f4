//! The cluster that the examples measure at scale, here and in lb-userspace:
//! services of one port, each with one slice whose endpoints are on another node.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use lb_common::{Be16, proto};
use lb_plan::{maglev, model::*};

/// Name of the node whose maps are planned; no endpoint is here.
pub(crate) const NODE: &str = "node-0";

/// The services with their slices.
pub(crate) fn cluster(services: u32, endpoints: u32) -> Vec<(Service, EndpointSlice)> {
    (0..services)
        .map(|i| (service(i), slice(i, endpoints, 0)))
        .collect()
}

/// The `n`th change of a cluster: which service has another endpoint, and its slice.
pub(crate) fn change(n: u32, services: u32, endpoints: u32) -> (u32, EndpointSlice) {
    // A prime apart: neighbours in time are none in the maps.
    let i = n.wrapping_mul(7919) % services;
    (i, slice(i, endpoints, n + 1))
}

/// The node, as planning sees it.
pub(crate) fn view() -> NodeView {
    let address = Ipv4Addr::new(192, 168, 0, 1).into();
    NodeView {
        name: NODE.into(),
        primary: vec![address],
        addresses: vec![address],
        ipv4: true,
        ..NodeView::default()
    }
}

/// Builds the maglev table of so many backends: its slots, and how long it took.
pub(crate) fn maglev_table(backends: u32) -> (u32, Duration) {
    let members: Vec<_> = (0..backends)
        .map(|i| maglev::Member {
            addr: IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + i)).into(),
            port: Be16::new(8080),
            proto: proto::TCP,
            weight: 1,
            id: i + 1,
        })
        .collect();
    let size = maglev::table_size(members.len()).expect("within the largest table");
    let start = Instant::now();
    let table = maglev::build(&maglev::eligible(&members), size);
    let took = start.elapsed();
    assert_eq!(std::hint::black_box(table).len(), size as usize);
    (size, took)
}

fn key(i: u32) -> ServiceKey {
    ServiceKey {
        namespace: format!("ns-{}", i % 100).into(),
        name: format!("service-{i}").into(),
    }
}

/// A service of one port.
pub(crate) fn service(i: u32) -> Service {
    Service {
        key: key(i),
        kind: ServiceType::ClusterIp,
        cluster_ips: vec![Ipv4Addr::from_bits(0x0a60_0000 + i + 1).into()],
        external_ips: Vec::new(),
        load_balancer: Vec::new(),
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: 0,
        }],
        affinity_seconds: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        source_ranges: Vec::new(),
        health_check_node_port: 0,
        publish_not_ready: false,
        traffic_distribution: None,
        topology_mode: None,
        proxy_name: None,
        external_name: None,
    }
}

/// The slice of a service; the last endpoint's address differs by `variant`.
pub(crate) fn slice(i: u32, endpoints: u32, variant: u32) -> EndpointSlice {
    let endpoint = |n: u32| {
        let own = if n + 1 == endpoints { variant << 20 } else { 0 };
        Endpoint {
            addresses: vec![
                Ipv4Addr::from_bits((0x0b00_0000 + i * endpoints + n).wrapping_add(own)).into(),
            ],
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
            node: Some("node-1".into()),
            zone: None,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
            weight: 1,
        }
    };
    EndpointSlice {
        name: format!("service-{i}-abcde").into(),
        service: key(i),
        endpoints: (0..endpoints).map(endpoint).collect(),
        ports: vec![EndpointPort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
    }
}
