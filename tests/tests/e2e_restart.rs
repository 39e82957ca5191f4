//! Restarts of the agent under load: no connection fails, no stream breaks.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::build::other_build;
use bascule_tests::e2e::clients::{Clients, unharmed};
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, load_balancer, node_ports, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use lb_userspace::bpf::{Settings, views::Views};
use serde_json::json;

const INSIDE: [&str; 2] = ["10.97.0.1:80", "[fd97::1]:80"];
const OUTSIDE: [&str; 4] = [
    "172.29.0.11:30001",
    "[fd29::11]:30001",
    "10.97.2.1:80",
    "[fd97::2:1]:80",
];

/// A node with two backends, and another one's.
struct Cluster {
    clients: Clients,
    _pods: [Pod; 3],
    node: Node,
    _other: Node,
    _world: World,
}

fn cluster() -> Cluster {
    let world = World::new();
    let (node, other) = (Node::new(&world, 1), Node::new(&world, 2));
    let pods = [node.pod(2), node.pod(3), other.pod(2)];
    let spec = json!({"type": "LoadBalancer", "ports": node_ports(30_001, 31_001)});
    let service = load_balancer(dual("web", 1, spec), &["10.97.2.1", "fd97::2:1"]);
    node.apply("web", &with_pods(service, &pods.each_ref()));
    let clients = Clients::new(&world, &node);
    Cluster {
        clients,
        _pods: pods,
        node,
        _other: other,
        _world: world,
    }
}

impl Cluster {
    /// The tags of the programs behind the pinned links: digests of their instructions.
    fn programs(&self) -> BTreeMap<String, String> {
        let bpffs = self.node.bpffs();
        let views = Views::open(&Settings {
            bpffs,
            ..Settings::default()
        })
        .unwrap();
        views
            .links()
            .unwrap()
            .into_iter()
            .map(|link| (link.name, tag(link.program)))
            .collect()
    }
}

/// A program's tag, by its id.
fn tag(program: u32) -> String {
    let out = Command::new("bpftool")
        .args(["-j", "prog", "show", "id", &program.to_string()])
        .output()
        .unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    shown["tag"].as_str().unwrap().to_owned()
}

#[test]
fn twenty_kills_and_starts_harm_no_connection() {
    let mut c = cluster();
    let mut agent = c.node.agent(&[]);
    c.clients.load(&INSIDE, &OUTSIDE);
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    for round in 0..20 {
        agent.kill();
        // Half of the agents are killed somewhere on their way to serving.
        let half_way = round % 2 == 1;
        agent = if half_way {
            c.node.agent_unready(&[])
        } else {
            c.node.agent(&[])
        };
        std::thread::sleep(Duration::from_millis(if half_way {
            60 * round
        } else {
            200
        }));
    }
    agent.ready(c.node.netns());
    std::thread::sleep(Duration::from_secs(1));
    let outcomes = c.clients.rest();
    unharmed(&outcomes, start.elapsed());
}

#[test]
fn programs_of_another_build_take_their_place_without_a_gap() {
    let mut c = cluster();
    let build = other_build(&c.node.path("other-bascule"));
    let agent = c.node.agent(&[]);
    let before = c.programs();
    assert!(before.len() >= 8 + 2 * 4, "{before:?}");
    c.clients.load(&INSIDE, &OUTSIDE);
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    agent.kill();
    let mut command = Command::new(&build);
    command
        .args(Agent::arguments(&c.node))
        .arg("--source")
        .arg(c.node.manifests());
    let agent = Agent::spawn(&c.node, command, c.node.path("other.log"));
    agent.ready(c.node.netns());
    std::thread::sleep(Duration::from_secs(2));
    let other = c.programs();
    agent.kill();
    let _agent = c.node.agent(&[]);
    std::thread::sleep(Duration::from_secs(2));
    let outcomes = c.clients.rest();
    let after = c.programs();
    for programs in [&other, &after] {
        assert!(before.keys().eq(programs.keys()), "{before:?} {programs:?}");
    }
    for (link, tag) in &before {
        assert_ne!(tag, &other[link], "{link} has the program that it had");
        assert_eq!(tag, &after[link], "{link} has not got its program back");
    }
    unharmed(&outcomes, start.elapsed());
}

#[test]
fn maps_of_another_size_take_their_place_without_a_gap() {
    let mut c = cluster();
    let mut agent = c.node.agent(&[]);
    c.clients.load(&INSIDE, &OUTSIDE);
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    for flags in [
        ["--max-frontends", "1000"],
        ["--max-slots", "100000"],
        ["--max-backends", "1000"],
    ] {
        agent.kill();
        agent = c.node.agent(&flags);
        std::thread::sleep(Duration::from_millis(500));
    }
    agent.kill();
    let _agent = c.node.agent(&[]);
    std::thread::sleep(Duration::from_secs(1));
    let outcomes = c.clients.rest();
    unharmed(&outcomes, start.elapsed());
}

/// Programs are switched one after the other, and each sees one table: a connection whose
/// first packet met an old one and whose answer meets a new one, within the milliseconds until
/// the last flows are copied, is lost. Nothing else is.
#[test]
fn conntrack_of_another_size_has_all_flows_but_those_that_just_begin() {
    const STARTS: u64 = 4;
    let mut c = cluster();
    let mut agent = c.node.agent(&[]);
    c.clients.load(&INSIDE, &OUTSIDE);
    std::thread::sleep(Duration::from_secs(1));
    for start in 0..STARTS {
        agent.kill();
        let size = if start % 2 == 0 { "200000" } else { "300000" };
        agent = c.node.agent(&["--max-conntrack", size]);
        std::thread::sleep(Duration::from_millis(500));
    }
    for (by, outcome) in c.clients.rest() {
        println!(
            "{by}: {} connections, {} failed, {} streams",
            outcome.answered(),
            outcome.failed(),
            outcome.streams.len()
        );
        assert!(outcome.answered() > 100, "{by}: {outcome:?}");
        assert!(outcome.failed() <= 3 * STARTS, "{by}: {:?}", outcome.errors);
        let streams = outcome.streams.iter();
        let broken: Vec<_> = streams
            .filter(|s| s.error.is_some() || s.pods.len() != 1)
            .collect();
        assert!(broken.is_empty(), "{by}: {broken:?}");
    }
}

#[test]
fn nothing_is_forgotten_while_the_manifests_are_away() {
    let mut c = cluster();
    c.node.agent(&[]).kill();
    let (here, away) = (c.node.manifests(), c.node.path("away"));
    std::fs::rename(&here, &away).unwrap();
    c.clients.load(&INSIDE, &OUTSIDE);
    let start = Instant::now();
    let agent = c.node.agent_unready(&[]);
    agent.says(&[&here.display().to_string(), "--source"]);
    std::thread::sleep(Duration::from_secs(2));
    std::fs::rename(&away, &here).unwrap();
    agent.ready(c.node.netns());
    let outcomes = c.clients.rest();
    unharmed(&outcomes, start.elapsed());
    // And it follows them again.
    c.node.withdraw("web");
    bascule_tests::e2e::eventually(Duration::from_secs(10), || {
        c.node
            .host()
            .dial_for(INSIDE[0], How::Tcp, 1, 300)
            .well()
            .map_or(Ok(()), |o| Err(format!("{o:?}")))
    });
}
