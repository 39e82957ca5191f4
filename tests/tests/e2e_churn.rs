//! Backends that come and go under load.

use std::time::{Duration, Instant};

use bascule_tests::e2e::clients::{Clients, unharmed};
use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, load_balancer, node_ports, slices, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use serde_json::json;

const INSIDE: [&str; 2] = ["10.97.0.1:80", "[fd97::1]:80"];
const OUTSIDE: [&str; 4] = [
    "172.29.0.11:30001",
    "[fd29::11]:30001",
    "10.97.2.1:80",
    "[fd97::2:1]:80",
];

#[test]
fn a_backend_of_ten_comes_or_goes_every_100_ms_and_no_connection_fails() {
    let world = World::new();
    let (node, other) = (Node::new(&world, 1), Node::new(&world, 2));
    let mut pods: Vec<Pod> = (2..9).map(|n| node.pod(n)).collect();
    pods.extend((2..5).map(|n| other.pod(n)));
    let all: Vec<&Pod> = pods.iter().collect();
    let spec = json!({"type": "LoadBalancer", "ports": node_ports(30_001, 31_001)});
    let service = load_balancer(dual("web", 1, spec), &["10.97.2.1", "fd97::2:1"]);
    node.apply("web", &[service]);
    node.apply("web-slices", &slices("web", &all));
    let mut clients = Clients::new(&world, &node);
    let _agent = node.agent(&[]);
    clients.load(&INSIDE, &OUTSIDE);
    let start = Instant::now();
    let mut changes: u32 = 0;
    // Each goes and comes back in turn: the process stays, so that a failed connection is the
    // datapath's fault and not the pod's.
    while start.elapsed() < Duration::from_secs(20) {
        let gone = all[(changes as usize / 2) % all.len()].name();
        let present: Vec<&Pod> = match changes % 2 {
            0 => all
                .iter()
                .copied()
                .filter(|pod| pod.name() != gone)
                .collect(),
            _ => all.clone(),
        };
        node.apply("web-slices", &slices("web", &present));
        changes += 1;
        let due = Duration::from_millis(100) * changes;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    let time = start.elapsed();
    let outcomes = clients.rest();
    assert!(changes >= 190, "only {changes} changes in {time:?}");
    unharmed(&outcomes, time);
    for (by, outcome) in &outcomes {
        assert_eq!(
            outcome.answers.len(),
            10,
            "{by}: every backend is used: {:?}",
            outcome.answers
        );
    }
}

#[test]
fn a_change_is_in_force_soon_after_it_is_written() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (one, two, mut client) = (node.pod(2), node.pod(3), node.sandboxed_pod(4));
    let _agent = node.agent(&[]);
    let mut times = Vec::new();
    for round in 0..10 {
        let pod = if round % 2 == 0 { &one } else { &two };
        node.apply("web", &with_pods(dual("web", 1, json!({})), &[pod]));
        let start = Instant::now();
        eventually(Duration::from_secs(5), || {
            let outcome = client.peer.dial_for(INSIDE[0], How::Tcp, 1, 300).well()?;
            outcome
                .answers
                .contains_key(&pod.name())
                .then_some(())
                .ok_or_else(|| format!("{outcome:?}"))
        });
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("from file to traffic: {times:?}");
    assert!(times[5] < Duration::from_millis(500), "{times:?}");
}
