//! What goes wrong outside the agent: each is told with the object and the remedy, and
//! everything else goes on.

use std::time::Duration;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, node_ports, service, slices, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use serde_json::{Value, json};

const GOOD: [&str; 2] = ["10.97.0.1:80", "[fd97::1]:80"];

/// A node with a service that must not suffer.
struct Cluster {
    client: Pod,
    pod: Pod,
    node: Node,
    _world: World,
}

impl Cluster {
    fn new() -> Self {
        let world = World::new();
        let node = Node::new(&world, 1);
        let (pod, client) = (node.pod(2), node.sandboxed_pod(3));
        let c = Self {
            client,
            pod,
            node,
            _world: world,
        };
        c.node
            .apply("good", &c.with_pod(dual("good", 1, json!({}))));
        c
    }

    fn with_pod(&self, service: Value) -> Vec<Value> {
        with_pods(service, &[&self.pod])
    }

    fn serves(&mut self, target: &str) {
        eventually(Duration::from_secs(5), || {
            self.client.peer.dial_for(target, How::Tcp, 3, 500).well()
        });
    }

    /// The good service is served, and so is one that comes now.
    fn goes_on(&mut self, agent: &mut Agent) {
        assert!(agent.is_alive(), "{}", agent.log());
        self.client.peer.dial(GOOD[0], How::Tcp, 3).well().unwrap();
        self.node
            .apply("new", &self.with_pod(dual("new", 200, json!({}))));
        self.serves("10.97.0.200:80");
        self.node.withdraw("new");
    }
}

#[test]
fn a_malformed_manifest_is_named_and_the_last_good_one_stays() {
    let mut c = Cluster::new();
    let mut agent = c.node.agent(&[]);
    c.node.write("bad.yaml", "kind: Service\nmetadata: [");
    agent.says(&["bad.yaml", "document 1"]);
    c.goes_on(&mut agent);
    c.node
        .write("good.yaml", "kind: Service\nmetadata: {name: good");
    agent.says(&[
        "good.yaml",
        "the last good content of the file stays in force",
    ]);
    c.goes_on(&mut agent);
    c.node
        .apply("good", &c.with_pod(dual("good", 1, json!({}))));
    agent.says(&["good.yaml", "is well again"]);
}

#[test]
fn an_unknown_protocol_costs_its_port_and_no_other() {
    let mut c = Cluster::new();
    let mut agent = c.node.agent(&[]);
    let ports = json!([{"name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 8080},
                       {"name": "quic", "protocol": "QUIC", "port": 443, "targetPort": 8080}]);
    c.node
        .apply("odd", &c.with_pod(dual("odd", 2, json!({"ports": ports}))));
    agent.says(&["default/odd", "\"QUIC\"", "TCP, UDP and SCTP"]);
    c.serves("10.97.0.2:80");
    c.goes_on(&mut agent);
}

#[test]
fn an_endpoint_slice_without_its_service_waits_for_it() {
    let mut c = Cluster::new();
    let mut agent = c.node.agent(&[]);
    c.node.apply("slices", &slices("late", &[&c.pod]));
    c.goes_on(&mut agent);
    c.node.apply("late", &[dual("late", 2, json!({}))]);
    c.serves("10.97.0.2:80");
    // One that says not whose it is can never be used.
    let mut stray = slices("late", &[&c.pod]).remove(0);
    stray["metadata"] = json!({"name": "stray", "namespace": "default"});
    c.node.apply("stray", &[stray]);
    agent.says(&["default/stray", "kubernetes.io/service-name"]);
    c.goes_on(&mut agent);
}

#[test]
fn a_node_port_that_two_services_want_is_the_firsts() {
    let mut c = Cluster::new();
    let mut agent = c.node.agent(&[]);
    let spec = || json!({"type": "NodePort", "ports": node_ports(30_001, 30_002)});
    c.node
        .apply("a-first", &c.with_pod(dual("a-first", 2, spec())));
    c.serves("172.29.0.11:30001");
    c.node
        .apply("b-second", &c.with_pod(dual("b-second", 3, spec())));
    let line = agent.says(&["default/b-second", "30001"]);
    assert!(line.contains("default/a-first"), "{line}");
    // Its other frontends are served.
    c.serves("10.97.0.3:80");
    c.serves("172.29.0.11:30001");
    c.goes_on(&mut agent);
    c.node.withdraw("a-first");
    c.serves("172.29.0.11:30001");
}

#[test]
fn a_family_that_the_node_lacks_is_named() {
    let mut c = Cluster::new();
    c.node.netns().ip("addr del fd29::11/64 dev eth0\naddr del fd20:1:0:1::1/128 dev pod2\naddr del fd20:1:0:1::1/128 dev pod3\n");
    let mut agent = c.node.agent(&[]);
    let six = service(
        "six",
        json!({"clusterIP": "fd97::2", "clusterIPs": ["fd97::2"], "ipFamilies": ["IPv6"]}),
    );
    c.node.apply("six", &c.with_pod(six));
    agent.says(&["default/six", "no address of the service's IP family"]);
    c.goes_on(&mut agent);
}

#[test]
fn a_full_map_costs_the_services_that_came_last() {
    let mut c = Cluster::new();
    // The good service has 2 vips and 4 frontends in each of 2 scopes.
    let mut agent = c.node.agent(&["--max-frontends", "64"]);
    c.serves(GOOD[0]);
    for n in 10..22 {
        c.node.apply(
            &format!("more{n}"),
            &c.with_pod(dual(&format!("more{n}"), n, json!({}))),
        );
    }
    let line = agent.says(&["default/more", "no room for more frontends"]);
    assert!(
        line.contains("--max-frontends"),
        "the remedy is named: {line}"
    );
    assert!(agent.is_alive());
    c.client.peer.dial(GOOD[0], How::Tcp, 3).well().unwrap();
    // Whoever gets in, gets in whole.
    let mut inside = Vec::new();
    for n in 10..22 {
        let targets = [format!("10.97.0.{n}:80"), format!("[fd97::{n:x}]:80")];
        let reached = targets.map(|t| c.client.peer.dial_for(&t, How::Tcp, 1, 300).answered());
        assert!(
            reached[0] == reached[1],
            "more{n} is half there: {reached:?}"
        );
        inside.extend((reached[0] == 1).then_some(n));
    }
    assert!((1..12).contains(&inside.len()), "{inside:?}");
    // Room that is given back is used.
    let outside = (10..22).find(|n| !inside.contains(n)).unwrap();
    for n in inside {
        c.node.withdraw(&format!("more{n}"));
    }
    c.serves(&format!("10.97.0.{outside}:80"));
}

#[test]
fn more_backends_than_there_is_room_for_leave_the_service_as_it_was() {
    let mut c = Cluster::new();
    let mut agent = c.node.agent(&["--max-backends", "16"]);
    c.serves(GOOD[0]);
    let endpoints: Vec<Value> = (1..40)
        .map(|n| json!({"addresses": [format!("10.201.9.{n}")], "conditions": {"ready": true}}))
        .collect();
    let mut all = c.with_pod(dual("good", 1, json!({})));
    all[1]["endpoints"]
        .as_array_mut()
        .unwrap()
        .extend(endpoints);
    c.node.apply("good", &all);
    let line = agent.says(&["default/good", "no room for more backends"]);
    assert!(
        line.contains("--max-backends"),
        "the remedy is named: {line}"
    );
    c.client.peer.dial(GOOD[0], How::Tcp, 20).well().unwrap();
    c.node
        .apply("good", &c.with_pod(dual("good", 1, json!({}))));
    c.goes_on(&mut agent);
}

#[test]
fn an_api_server_that_is_down_is_named_and_what_was_served_is_served() {
    let mut c = Cluster::new();
    c.node.agent(&[]).kill();
    let kubeconfig = c.node.path("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
                clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]\n\
                contexts: [{name: x, context: {cluster: x, user: x}}]\nusers: [{name: x, user: {}}]\n";
    std::fs::write(&kubeconfig, text).unwrap();
    let path = kubeconfig.display().to_string();
    let mut agent = c.node.agent_unready(&["--kubeconfig", &path]);
    agent.says(&["127.0.0.1:1"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(agent.is_alive(), "{}", agent.log());
    for target in GOOD {
        c.client.peer.dial(target, How::Tcp, 5).well().unwrap();
        c.node.host().dial(target, How::Tcp, 5).well().unwrap();
    }
}

#[test]
fn a_second_agent_on_the_same_node_is_refused() {
    let mut c = Cluster::new();
    let mut agent = c.node.agent(&[]);
    let mut second = c.node.agent_unready(&[]);
    assert!(!second.ended().success());
    second.says(&["another agent", "--state-dir"]);
    c.goes_on(&mut agent);
}
