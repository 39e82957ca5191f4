//! An agent with kube-proxy's configuration file.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, node_ports, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use serde_json::json;

/// Another address of the node than its primary one.
const SECOND: &str = "172.29.0.99:30001";

struct Cluster {
    client: Pod,
    _pod: Pod,
    node: Node,
    _world: World,
}

fn cluster() -> Cluster {
    let world = World::new();
    let node = Node::new(&world, 1);
    node.netns().ip("addr add 172.29.0.99/24 dev eth0\n");
    let (pod, client) = (node.pod(2), node.sandboxed_pod(3));
    let spec = json!({"type": "NodePort", "ports": node_ports(30_001, 31_001)});
    node.apply("web", &with_pods(dual("web", 1, spec), &[&pod]));
    Cluster {
        client,
        _pod: pod,
        node,
        _world: world,
    }
}

impl Cluster {
    fn write(&self, fields: &str) -> PathBuf {
        let path = self.node.path("config.conf");
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        fs::write(&path, format!("{head}{fields}\n")).unwrap();
        path
    }

    fn agent(&self, fields: &str) -> Agent {
        let path = self.write(fields);
        self.node
            .agent_unready(&["--config", path.to_str().unwrap()])
    }
}

#[test]
fn node_ports_answer_where_they_do_with_kube_proxy_in_that_mode() {
    let mut c = cluster();
    for (fields, answers) in [
        ("mode: \"\"", true),
        ("mode: nftables", false),
        ("nodePortAddresses: [172.29.0.64/26]", true),
    ] {
        let agent = c.agent(fields);
        agent.ready(c.node.netns());
        let outcome = c.client.peer.dial_for(SECOND, How::Tcp, 3, 300);
        assert_eq!(outcome.answered() == 3, answers, "{fields}: {outcome:?}");
        agent.says(&["--healthz-bind-address", "ignored beside --config"]);
    }
}

#[test]
fn a_changed_file_ends_the_agent_and_the_maps_serve_on() {
    let mut c = cluster();
    let mut agent = c.agent("clusterCIDR: 10.201.0.0/16");
    agent.ready(c.node.netns());
    agent.says(&["clusterCIDR has no meaning here", "10.201.0.0/16"]);
    c.write("mode: nftables");
    assert_eq!(agent.ended().code(), Some(1));
    agent.says(&["config.conf has changed"]);
    c.client.peer.dial(SECOND, How::Tcp, 3).well().unwrap();
}

#[test]
fn with_a_hard_failure_an_address_that_is_taken_ends_the_agent() {
    let c = cluster();
    let bind = || TcpListener::bind("127.0.0.1:10249").unwrap();
    let _taken = c.node.netns().inside(bind);
    let mut agent = c.agent("bindAddressHardFail: true");
    assert_eq!(agent.ended().code(), Some(1));
    agent.says(&["127.0.0.1:10249", "--metrics-bind-address"]);
}
