//! A node and its surroundings, for tests of what is translated packet by packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde_json::{Value, json};

use super::agent::Agent;
use super::eventually;
use super::node::Node;
use super::objects::{dual, load_balancer, node_ports, with_pods};
use super::pod::Pod;
use super::proto::How;
use super::world::{Outside, World};

/// Flags of an agent whose socket hooks leave pods alone.
pub const PER_PACKET: [&str; 2] = ["--socket-lb", "host"];

/// A node with the agent, one without, a pod on each, a client pod and two outside.
/// Fields are dropped in this order.
#[derive(Debug)]
pub struct Cluster {
    /// The agent of the node.
    pub agent: Agent,
    /// A client outside.
    pub outside: Outside,
    /// Another one.
    pub stranger: Outside,
    /// A pod of the node, to dial from.
    pub client: Pod,
    /// A pod of the node, to serve.
    pub local: Pod,
    /// A pod of the other node.
    pub remote: Pod,
    /// The node.
    pub node: Node,
    _other: Node,
    _world: World,
}

/// Service `N`, with more in its spec, has the ClusterIP, NodePorts, external IP and load balancer's IP of that number.
///
/// # Panics
/// There is no more that is an object.
#[must_use]
pub fn spec(n: u8, more: Value) -> Value {
    let mut spec = json!({
        "type": "LoadBalancer",
        "ports": node_ports(30_000 + u16::from(n), 31_000 + u16::from(n)),
        "externalIPs": [format!("10.97.1.{n}"), format!("fd97::1:{n:x}")],
    });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let ips = [format!("10.97.2.{n}"), format!("fd97::2:{n:x}")];
    load_balancer(
        dual(&format!("s{n}"), n, spec),
        &ips.each_ref().map(String::as_str),
    )
}

/// Every frontend of service N for clients outside.
#[must_use]
pub fn outside_frontends(n: u8, how: How) -> Vec<String> {
    let port = if how == How::Tcp { 30_000 } else { 31_000 } + u16::from(n);
    vec![
        format!("172.29.0.11:{port}"),
        format!("[fd29::11]:{port}"),
        format!("10.97.1.{n}:80"),
        format!("[fd97::1:{n:x}]:80"),
        format!("10.97.2.{n}:80"),
        format!("[fd97::2:{n:x}]:80"),
    ]
}

/// The ClusterIPs of service N.
#[must_use]
pub fn cluster_ips(n: u8) -> [String; 2] {
    [format!("10.97.0.{n}:80"), format!("[fd97::{n:x}]:80")]
}

/// A cluster with services, when the agent of its node serves them.
///
/// # Panics
/// It does not come to that.
pub fn cluster(services: impl FnOnce(&Cluster) -> Vec<Vec<Value>>, flags: &[&str]) -> Cluster {
    let world = World::new();
    let (node, other) = (Node::new(&world, 1), Node::new(&world, 2));
    let (local, client, remote) = (node.pod(2), node.pod(4), other.pod(3));
    let (outside, stranger) = (world.outside(100), world.outside(101));
    let agent = node.agent_unready(flags);
    let c = Cluster {
        agent,
        outside,
        stranger,
        client,
        local,
        remote,
        node,
        _other: other,
        _world: world,
    };
    for (i, service) in services(&c).iter().enumerate() {
        c.node.apply(&format!("s{i}"), service);
    }
    c.agent.ready(c.node.netns());
    c.settled();
    c
}

impl Cluster {
    /// The node's address of a family.
    #[must_use]
    pub fn node_addr(&self, v6: bool) -> IpAddr {
        if v6 {
            Ipv6Addr::new(0xfd29, 0, 0, 0, 0, 0, 0, 0x11).into()
        } else {
            Ipv4Addr::new(172, 29, 0, 11).into()
        }
    }

    /// Waits until the last service is there.
    fn settled(&self) {
        let marker = dual("zz-marker", 250, json!({}));
        self.node
            .apply("zz-marker", &with_pods(marker, &[&self.local]));
        eventually(Duration::from_secs(5), || {
            self.node
                .host()
                .dial_for("10.97.0.250:80", How::Tcp, 1, 300)
                .well()
        });
    }
}
