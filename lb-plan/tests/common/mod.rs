//! Builders of input, and maps that execute batches.
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod maps;
pub(crate) mod world;

use std::{net::IpAddr, sync::Arc};

use lb_plan::{Limits, Planner, ServicePlan, model::*, plan_service};

pub(crate) fn key(text: &str) -> ServiceKey {
    let (namespace, name) = text.split_once('/').expect("namespace/name");
    ServiceKey {
        namespace: namespace.into(),
        name: name.into(),
    }
}

/// A ClusterIP Service without ports.
pub(crate) fn service(name: &str, cluster_ips: &[&str]) -> Service {
    Service {
        key: key(name),
        kind: ServiceType::ClusterIp,
        cluster_ips: ips(cluster_ips),
        external_ips: Vec::new(),
        load_balancer: Vec::new(),
        ports: Vec::new(),
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

pub(crate) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts
        .iter()
        .map(|t| t.parse().expect("an address"))
        .collect()
}

/// `name:port/protocol` with an optional `>nodeport`.
pub(crate) fn port(text: &str) -> ServicePort {
    let (text, node_port) = text.split_once('>').unwrap_or((text, "0"));
    let EndpointPort {
        name,
        protocol,
        port,
    } = target(text);
    ServicePort {
        name,
        protocol,
        port,
        node_port: node_port.parse().expect("a port"),
    }
}

/// `name:port/protocol`.
pub(crate) fn target(text: &str) -> EndpointPort {
    let (name, rest) = text.split_once(':').expect("name:port/protocol");
    let (port, protocol) = rest.split_once('/').expect("port/protocol");
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => Protocol::Sctp,
    };
    EndpointPort {
        name: name.into(),
        protocol,
        port: port.parse().expect("a port"),
    }
}

/// A ready endpoint on another node.
pub(crate) fn endpoint(addr: &str) -> Endpoint {
    Endpoint {
        addresses: ips(&[addr]),
        ready: Some(true),
        serving: Some(true),
        terminating: Some(false),
        node: Some("other".into()),
        zone: None,
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
        weight: 1,
    }
}

/// A ready endpoint on this node.
pub(crate) fn local(addr: &str) -> Endpoint {
    Endpoint {
        node: Some("here".into()),
        ..endpoint(addr)
    }
}

/// A terminating endpoint that still serves.
pub(crate) fn serving_terminating(ep: Endpoint) -> Endpoint {
    Endpoint {
        ready: Some(false),
        serving: Some(true),
        terminating: Some(true),
        ..ep
    }
}

/// An endpoint that is not ready and does not serve.
pub(crate) fn unready(ep: Endpoint) -> Endpoint {
    Endpoint {
        ready: Some(false),
        serving: Some(false),
        ..ep
    }
}

pub(crate) fn names(texts: &[&str]) -> Vec<Arc<str>> {
    texts.iter().map(|&t| t.into()).collect()
}

/// A slice of a service, with ports as `name:port/protocol`.
pub(crate) fn slice(
    service: &str,
    name: &str,
    ports: &[&str],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        name: name.into(),
        service: key(service),
        endpoints,
        ports: ports.iter().map(|p| target(p)).collect(),
    }
}

pub(crate) const WEB: &str = "default/web";

/// The Service `default/web` with port 80.
pub(crate) fn web() -> Service {
    Service {
        ports: vec![port("http:80/TCP")],
        ..service(WEB, &["10.96.0.1"])
    }
}

/// One endpoint of it.
pub(crate) fn pods() -> Vec<EndpointSlice> {
    vec![slice(
        WEB,
        "web-1",
        &["http:8080/TCP"],
        vec![endpoint("10.1.0.1")],
    )]
}

/// The same with load-balancer IPs.
pub(crate) fn load_balancer(addresses: &[&str]) -> Service {
    Service {
        kind: ServiceType::LoadBalancer,
        load_balancer: ips(addresses)
            .into_iter()
            .map(|ip| LoadBalancerIngress {
                ip,
                proxy_mode: false,
            })
            .collect(),
        ..web()
    }
}

/// A Service with a NodePort: its ClusterIP frontend is internal traffic, its
/// NodePort frontend external traffic.
pub(crate) fn exposed() -> Service {
    Service {
        kind: ServiceType::NodePort,
        ports: vec![port("http:80/TCP>30080")],
        ..web()
    }
}

pub(crate) fn of(endpoints: Vec<Endpoint>) -> Vec<EndpointSlice> {
    vec![slice(WEB, "web-1", &["http:8080/TCP"], endpoints)]
}

/// Where the four frontends of [`exposed`] lead: ClusterIP from inside and
/// outside, NodePort from inside and outside. Addresses without their ports.
pub(crate) fn leads(svc: &Service, endpoints: Vec<Endpoint>, node: &NodeView) -> [String; 4] {
    let text = dump(svc, &of(endpoints), node);
    [
        "10.96.0.1:80/TCP internal",
        "10.96.0.1:80/TCP external",
        "192.168.0.1:30080/TCP internal",
        "192.168.0.1:30080/TCP external",
    ]
    .map(|frontend| {
        let line = lines(&text, &format!("frontend {frontend} "), "")
            .pop()
            .unwrap_or_default();
        let to = line.split(" to ").nth(1).unwrap_or_default();
        let dropped = if line.contains("drop-if-empty") {
            " dropped"
        } else {
            ""
        };
        let set = to.split(' ').next().unwrap_or_default();
        set.replace(":8080", "") + dropped
    })
}

/// The node `here` in zone `z1`, with 192.168.0.1 and fd00::1.
pub(crate) fn node() -> NodeView {
    NodeView {
        name: "here".into(),
        zone: Some("z1".into()),
        primary: ips(&["192.168.0.1", "fd00::1"]),
        addresses: ips(&["127.0.0.1", "::1", "192.168.0.1", "10.9.0.1", "fd00::1"]),
        ipv4: true,
        ipv6: true,
        ..NodeView::default()
    }
}

/// The dump of one service on a node.
pub(crate) fn dump(service: &Service, slices: &[EndpointSlice], node: &NodeView) -> String {
    let slices: Vec<_> = slices.iter().collect();
    dump_plans([plan_service(service, &slices, node)])
}

/// The dump of services by their plans.
pub(crate) fn dump_plans(plans: impl IntoIterator<Item = ServicePlan>) -> String {
    let mut planner = Planner::new(Limits::default());
    plans.into_iter().for_each(|plan| planner.upsert(plan));
    planner.finish_sync();
    while planner.has_pending() {
        planner.take_batch();
    }
    planner.dump()
}

/// The lines of a dump that start with a word and contain another.
pub(crate) fn lines(dump: &str, start: &str, with: &str) -> Vec<String> {
    let wanted = |l: &&str| l.starts_with(start) && l.contains(with);
    dump.lines().filter(wanted).map(str::to_owned).collect()
}

/// Compares a dump with text whose lines are indented.
#[track_caller]
pub(crate) fn expect(dump: &str, want: &str) {
    let want: Vec<_> = want
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let got: Vec<_> = dump.lines().collect();
    assert!(
        got == want,
        "got:\n{}\nwant:\n{}",
        got.join("\n"),
        want.join("\n")
    );
}

/// The services that there is no room for.
pub(crate) fn full(problems: &[lb_plan::op::Problem]) -> Vec<String> {
    let full = problems.iter().filter(|p| p.reason == "MapFull");
    full.map(|p| p.object.service.to_string()).collect()
}
