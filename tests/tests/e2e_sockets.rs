//! The socket hooks: a local socket that dials a frontend is connected to a backend, and
//! believes that it talks to the frontend.

use std::time::Duration;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, node_ports, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::{How, Outcome};
use bascule_tests::e2e::world::World;
use serde_json::json;

const ALL: [How; 3] = [How::Tcp, How::Udp, How::UdpUnconnected];
const BOTH: [&str; 2] = ["10.97.0.10:80", "[fd97::a]:80"];

/// Two backends and a client on one node. Fields are dropped in this order.
struct Cluster {
    agent: Agent,
    client: Pod,
    backends: [Pod; 2],
    node: Node,
    _world: World,
}

fn cluster(flags: &[&str]) -> Cluster {
    let world = World::new();
    let node = Node::new(&world, 1);
    let backends = [node.pod(2), node.pod(3)];
    let client = node.pod(4);
    let spec = json!({"type": "NodePort", "ports": node_ports(30_080, 30_081)});
    let pods: Vec<&Pod> = backends.iter().collect();
    node.apply("web", &with_pods(dual("web", 10, spec), &pods));
    node.apply("empty", &with_pods(dual("empty", 11, json!({})), &[]));
    let sticky = json!({"sessionAffinity": "ClientIP"});
    node.apply("sticky", &with_pods(dual("sticky", 12, sticky), &pods));
    let agent = node.agent(flags);
    Cluster {
        agent,
        client,
        backends,
        node,
        _world: world,
    }
}

impl Cluster {
    /// How many sockets were connected to a backend.
    fn sockets(&self) -> u64 {
        let text = self.agent.metrics(self.node.netns()).unwrap();
        // A reason that never occurred is not listed.
        let of = |line: &&str| line.starts_with("bascule_packets") && line.contains("\"socket\"");
        let line = text.lines().find(of).unwrap_or("none 0");
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
    }
}

/// 20 answers of both backends, from the frontend that was dialled.
fn spread(outcome: Outcome, frontend: &str) {
    let outcome = outcome.well().unwrap();
    assert_eq!(outcome.answered(), 20);
    assert_eq!(outcome.answers.keys().collect::<Vec<_>>(), ["n1-2", "n1-3"]);
    let peers: Vec<String> = outcome.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, [frontend]);
}

#[test]
fn a_pods_socket_reaches_backends_and_sees_the_frontend() {
    let mut c = cluster(&[]);
    for how in ALL {
        for frontend in BOTH {
            let before = c.sockets();
            let outcome = c.client.peer.dial(frontend, how, 20);
            let own = c.client.addr(frontend.starts_with('['));
            assert_eq!(outcome.clients, [own].into(), "{how:?} {frontend}");
            spread(outcome, frontend);
            assert_eq!(
                c.sockets() - before,
                20,
                "{how:?} {frontend}: by the socket hooks"
            );
        }
    }
}

#[test]
fn a_nodes_socket_reaches_backends_and_sees_the_frontend() {
    let c = cluster(&[]);
    for how in ALL {
        for frontend in BOTH {
            spread(c.node.host().dial(frontend, how, 20), frontend);
        }
    }
}

#[test]
fn an_ipv6_socket_may_dial_an_ipv4_frontend_in_mapped_form() {
    let mut c = cluster(&[]);
    for how in ALL {
        let outcome = c.client.peer.dial("[::ffff:10.97.0.10]:80", how, 20);
        spread(outcome, "[::ffff:10.97.0.10]:80");
    }
}

#[test]
fn a_node_port_answers_on_loopback_for_the_nodes_own_sockets_only() {
    let mut c = cluster(&[]);
    for (how, port) in [
        (How::Tcp, 30_080),
        (How::Udp, 30_081),
        (How::UdpUnconnected, 30_081),
    ] {
        for ip in ["127.0.0.1", "[::1]"] {
            let frontend = format!("{ip}:{port}");
            spread(c.node.host().dial(&frontend, how, 20), &frontend);
            let refused = c.client.peer.dial_for(&frontend, how, 2, 300);
            // A UDP socket that is not connected does not learn of it.
            let error = if how == How::UdpUnconnected {
                "timeout"
            } else {
                "ECONNREFUSED"
            };
            refused.all_failed(error).unwrap();
        }
        for ip in ["172.29.0.11", "[fd29::11]"] {
            let frontend = format!("{ip}:{port}");
            spread(c.node.host().dial(&frontend, how, 20), &frontend);
            spread(c.client.peer.dial(&frontend, how, 20), &frontend);
        }
    }
    drop(c.agent);
    c.agent = c.node.agent(&["--localhost-nodeports", "false"]);
    let outcome = c.node.host().dial("127.0.0.1:30080", How::Tcp, 2);
    outcome.all_failed("ECONNREFUSED").unwrap();
}

#[test]
fn what_nobody_serves_is_refused_at_once() {
    let mut c = cluster(&[]);
    for how in ALL {
        for target in [
            "10.97.0.11:80",
            "[fd97::b]:80",
            "10.97.0.10:81",
            "[fd97::a]:81",
        ] {
            c.client
                .peer
                .dial(target, how, 2)
                .all_failed("ECONNREFUSED")
                .unwrap();
            c.node
                .host()
                .dial(target, how, 2)
                .all_failed("ECONNREFUSED")
                .unwrap();
        }
    }
}

#[test]
fn affinity_holds_for_all_sockets_of_a_pod() {
    let mut c = cluster(&[]);
    for target in ["10.97.0.12:80", "[fd97::c]:80"] {
        for client in [&mut c.client.peer, &mut c.node.host()] {
            let mut pods = Vec::new();
            for how in ALL {
                let outcome = client.dial(target, how, 12).well().unwrap();
                assert_eq!(outcome.answers.len(), 1, "{target} {how:?} {outcome:?}");
                pods.extend(outcome.answers.into_keys());
            }
            // Affinity is a service port's: UDP may be bound to another pod than TCP.
            assert_eq!(pods[1], pods[2], "{target}");
        }
    }
    assert_eq!(c.backends[0].node(), "n1");
}

#[test]
fn with_socket_lb_host_pods_are_served_packet_by_packet() {
    let mut c = cluster(&["--socket-lb", "host"]);
    for how in ALL {
        for frontend in BOTH {
            let before = c.sockets();
            spread(c.client.peer.dial(frontend, how, 20), frontend);
            assert_eq!(
                c.sockets(),
                before,
                "{how:?} {frontend}: not by the socket hooks"
            );
            spread(c.node.host().dial(frontend, how, 20), frontend);
            assert_eq!(
                c.sockets() - before,
                20,
                "{how:?} {frontend}: by the socket hooks"
            );
        }
    }
}

#[test]
fn a_backend_that_is_gone_gets_no_new_socket() {
    let mut c = cluster(&[]);
    c.node.apply(
        "web",
        &with_pods(dual("web", 10, json!({})), &[&c.backends[1]]),
    );
    eventually(Duration::from_secs(5), || {
        let outcome = c.client.peer.dial(BOTH[0], How::Tcp, 10).well()?;
        if outcome.answers.contains_key("n1-2") {
            Err(format!("{outcome:?}"))
        } else {
            Ok(())
        }
    });
    // The NodePort went, too.
    let outcome = c.node.host().dial("127.0.0.1:30080", How::Tcp, 2);
    outcome.all_failed("ECONNREFUSED").unwrap();
}
