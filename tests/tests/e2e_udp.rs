//! UDP when a backend goes: its flows are forgotten and the sockets that were connected to it
//! by a socket hook are closed, and nothing else is.

use std::time::Duration;

use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, with_pods};
use bascule_tests::e2e::peer::Peer;
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use serde_json::json;

const VIPS: [&str; 2] = ["10.97.0.1:80", "[fd97::1]:80"];
/// Sockets that each test opens by the frontend.
const SOCKETS: u32 = 16;

/// Opens sockets in turn on the frontends of both families; which pod each has.
fn open(peer: &mut Peer, how: How, first: u32) -> Vec<(u32, String)> {
    let one = |id: u32| {
        let outcome = peer.open(id, VIPS[id as usize % 2], how).well().unwrap();
        (id, outcome.answers.into_keys().next().unwrap())
    };
    (first..first + SOCKETS).map(one).collect()
}

struct Cluster {
    stays: Pod,
    goes: Pod,
    node: Node,
    _world: World,
}

impl Cluster {
    fn new() -> Self {
        let world = World::new();
        let node = Node::new(&world, 1);
        let (stays, goes) = (node.pod(2), node.pod(3));
        node.apply(
            "web",
            &with_pods(dual("web", 1, json!({})), &[&stays, &goes]),
        );
        Self {
            stays,
            goes,
            node,
            _world: world,
        }
    }

    fn take_one_away(&self) {
        self.node
            .apply("web", &with_pods(dual("web", 1, json!({})), &[&self.stays]));
    }
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one scenario, told from beginning to end"
)]
fn connected_sockets_of_a_backend_that_is_gone_are_closed_and_no_others() {
    let c = Cluster::new();
    let mut client = c.node.pod(4);
    let mut host = c.node.host();
    let _agent = c.node.agent(&[]);
    for peer in [&mut client.peer, &mut host] {
        let udp = open(peer, How::Udp, 0);
        let tcp = open(peer, How::Tcp, 100);
        let gone = |id: u32, pod: &String| (*pod == c.goes.name()).then_some(id);
        let doomed: Vec<u32> = udp.iter().filter_map(|(id, pod)| gone(*id, pod)).collect();
        assert!(!doomed.is_empty() && doomed.len() < udp.len(), "{udp:?}");
        // A socket that knows the pod by its own address is not ours to close.
        peer.open(200, "10.201.1.3:8080", How::Udp).well().unwrap();
        peer.open(201, "[fd20:1:0:1::3]:8080", How::Udp)
            .well()
            .unwrap();
        c.take_one_away();
        for id in &doomed {
            eventually(Duration::from_secs(5), || {
                let outcome = peer.again(*id);
                // udp_abort (net/ipv4/udp.c) leaves an error for the reader and disconnects:
                // the writer has nobody to write to.
                let closed = outcome
                    .errors
                    .keys()
                    .all(|e| ["ECONNABORTED", "EDESTADDRREQ"].contains(&e.as_str()));
                if closed && outcome.answered() == 0 {
                    Ok(())
                } else {
                    Err(format!("{outcome:?}"))
                }
            });
        }
        for (id, pod) in udp
            .iter()
            .filter(|(id, _)| !doomed.contains(id))
            .chain(&tcp)
        {
            let outcome = peer
                .again(*id)
                .well()
                .unwrap_or_else(|e| panic!("socket {id} to {pod}: {e}"));
            assert!(
                outcome.answers.contains_key(pod),
                "socket {id} to {pod}: {outcome:?}"
            );
        }
        for id in [200, 201] {
            peer.again(id).well().unwrap();
        }
        let pods = [&c.stays, &c.goes];
        c.node
            .apply("web", &with_pods(dual("web", 1, json!({})), &pods));
        eventually(Duration::from_secs(5), || {
            let outcome = peer.dial(VIPS[0], How::Udp, 20).well()?;
            if outcome.answers.len() == 2 {
                Ok(())
            } else {
                Err(format!("{outcome:?}"))
            }
        });
    }
}

#[test]
fn flows_to_a_backend_that_is_gone_go_to_another() {
    let c = Cluster::new();
    let mut client = c.node.sandboxed_pod(4);
    let _agent = c.node.agent(&[]);
    let udp = open(&mut client.peer, How::Udp, 0);
    let tcp = open(&mut client.peer, How::Tcp, 100);
    assert!(udp.iter().any(|(_, pod)| *pod == c.goes.name()), "{udp:?}");
    c.take_one_away();
    for (id, _) in &udp {
        eventually(Duration::from_secs(5), || {
            let outcome = client.peer.again(*id).well()?;
            let stays = outcome.answers.contains_key(&c.stays.name());
            if stays {
                Ok(())
            } else {
                Err(format!("{outcome:?}"))
            }
        });
    }
    for (id, pod) in &tcp {
        let outcome = client.peer.again(*id).well().unwrap();
        assert!(
            outcome.answers.contains_key(pod),
            "stream {id} to {pod}: {outcome:?}"
        );
    }
}

#[test]
fn sockets_that_are_not_connected_go_to_another_backend() {
    let c = Cluster::new();
    let mut client = c.node.pod(4);
    let _agent = c.node.agent(&[]);
    let sockets = open(&mut client.peer, How::UdpUnconnected, 0);
    c.take_one_away();
    for (id, _) in &sockets {
        eventually(Duration::from_secs(5), || {
            let outcome = client.peer.again(*id).well()?;
            let stays = outcome.answers.contains_key(&c.stays.name());
            if stays {
                Ok(())
            } else {
                Err(format!("{outcome:?}"))
            }
        });
    }
}
