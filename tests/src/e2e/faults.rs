//! Five nodes, of which all but the first get faults of their own, and a Prometheus that
//! looks at them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::agent::Agent;
use super::eventually;
use super::node::Node;
use super::objects::{change_now, dual, with_pods};
use super::pod::Pod;
use super::prometheus::{Labels, Prometheus};
use super::proto::How;
use super::world::World;

/// The maps of n2 have room for five services and 512 flows. It has every series.
const FULL: [&str; 6] = [
    "--max-frontends",
    "64",
    "--max-conntrack",
    "1024",
    "--metrics-detail",
    "backends",
];
/// A kubeconfig of an API server that is away.
const NOBODY: &str = "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
                      clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]\n\
                      contexts: [{name: x, context: {cluster: x, user: x}}]\n\
                      users: [{name: x, user: {}}]\n";
/// How long something that is there takes to be scraped, on a machine that is busy.
const SOON: Duration = Duration::from_secs(15);

/// The nodes. Fields are dropped in this order.
#[derive(Debug)]
pub struct Faults {
    /// What looks at them.
    pub prometheus: Prometheus,
    agents: Vec<Agent>,
    client: Pod,
    pods: Vec<Pod>,
    nodes: Vec<Node>,
    _world: World,
}

fn address(node: u8) -> String {
    format!("172.29.0.1{node}:10249")
}

impl Faults {
    /// The nodes n1 to n5, with agents that are well on the first three; the API server of n4
    /// is away, and n5 has no agent. Prometheus judges by these alerts.
    ///
    /// # Panics
    /// Something cannot be made.
    #[must_use]
    pub fn new(alerts: &str) -> Self {
        let world = World::new();
        let nodes: Vec<Node> = (1..=5).map(|n| Node::new(&world, n)).collect();
        let pods = nodes[..3].iter().map(|node| node.pod(2)).collect();
        let client = nodes[1].sandboxed_pod(3);
        let rules = world.dir().join("alerts.yaml");
        fs::write(&rules, alerts).expect("a file can be written");
        let targets: Vec<_> = (1..=5).map(|n| (format!("n{n}"), address(n))).collect();
        let prometheus = Prometheus::start(&world, &targets, &rules);
        let mut faults = Self {
            prometheus,
            agents: Vec::new(),
            client,
            pods,
            nodes,
            _world: world,
        };
        for n in 1..=3 {
            faults.node(n).apply("s1", &faults.objects(n, 1));
            let flags: &[&str] = if n == 2 { &FULL } else { &[] };
            let agent = faults.ready(n, flags);
            faults.agents.push(agent);
        }
        let kubeconfig = faults.node(4).path("kubeconfig");
        fs::write(&kubeconfig, NOBODY).expect("a file can be written");
        let flags = ["--kubeconfig", &kubeconfig.display().to_string()];
        let agent = faults.agent(4, &flags);
        faults.agents.push(agent);
        faults.until("count(up == 1) == 4");
        faults
    }

    /// A node by its number.
    #[must_use]
    pub fn node(&self, n: u8) -> &Node {
        &self.nodes[usize::from(n) - 1]
    }

    fn agent(&self, n: u8, flags: &[&str]) -> Agent {
        let place = address(n);
        let mut all = vec!["--metrics-bind-address", &place];
        all.extend(flags);
        self.node(n).agent_unready(&all)
    }

    fn ready(&self, n: u8, flags: &[&str]) -> Agent {
        let agent = self.agent(n, flags);
        agent.ready(self.node(n).netns());
        agent
    }

    /// An agent of n1 to n4 gives way to another.
    fn replace(&mut self, n: u8, flags: &[&str]) {
        let place = usize::from(n) - 1;
        self.agents.remove(place).kill();
        let agent = self.ready(n, flags);
        self.agents.insert(place, agent);
    }

    /// Service `s` of node `n` with a pod there, whose endpoints have just changed.
    fn objects(&self, n: u8, s: u8) -> Vec<Value> {
        let pod = &self.pods[usize::from(n) - 1];
        let mut all = with_pods(dual(&format!("s{s}"), s, json!({})), &[pod]);
        change_now(&mut all[1..]);
        all
    }

    /// Waits until a query gives something.
    fn until(&self, query: &str) {
        eventually(SOON, || self.gives(query));
    }

    /// Whether a query gives something; else the query.
    fn gives(&self, query: &str) -> Result<(), String> {
        let found = self.prometheus.query(query);
        (!found.is_empty()).then_some(()).ok_or(query.to_owned())
    }

    /// The alerts that fire, each with its node.
    #[must_use]
    pub fn firing(&self) -> BTreeSet<(String, String)> {
        let text = |labels: &Labels, name: &str| labels.get(name).cloned().unwrap_or_default();
        let all = self.prometheus.firing().into_iter();
        all.map(|(labels, _)| (text(&labels, "alertname"), text(&labels, "instance")))
            .collect()
    }

    /// n3 has a map that the kernel refuses to write.
    pub fn freeze(&self) {
        let map = self.node(3).bpffs().join("bascule/lb_frontends_v1");
        let map = map.display().to_string();
        run(self.node(3), &["bpftool", "map", "freeze", "pinned", &map]);
        self.node(3).apply("s2", &self.objects(3, 2));
    }

    /// The frozen map of n3 gives way to one of another size.
    ///
    /// # Panics
    /// What could not be written is not served then.
    pub fn thaw(&mut self) {
        self.replace(3, &["--max-frontends", "300000"]);
        let mut host = self.node(3).host();
        let served = host.dial("10.97.0.2:80", How::Tcp, 3).well();
        served.expect("the new map has the service");
    }

    /// The agent of n5 ends again and again, and then for good.
    pub fn restart(&self) {
        for n in 0..4 {
            let agent = self.agent(5, &[]);
            self.until(&format!(
                "changes(process_start_time_seconds{{instance='n5'}}[15m]) == {n}"
            ));
            agent.kill();
        }
    }

    /// n2 gets a device whose hooks cannot be pinned, rules of kube-proxy, a manifest that is
    /// none, more services than there is room for, and more flows. What is found at a start
    /// only is found by its next agent. That one loses a frontend, which somebody deletes.
    ///
    /// # Panics
    /// The flows find room.
    pub fn burden(&mut self) {
        let node = &self.nodes[1];
        let pin = node.bpffs().join("bascule/links/dev_990_ingress");
        fs::create_dir(pin).expect("a bpffs has directories");
        node.netns()
            .ip("link add pod99 index 990 type veth peer name other\n");
        let rules = "add table ip kube-proxy; add chain ip kube-proxy services";
        run(node, &["nft", rules]);
        node.write("bad.yaml", "kind: Service\nmetadata: [");
        for s in 2..=6 {
            node.apply(&format!("s{s}"), &self.objects(2, s));
        }
        let flood = self.client.peer.dial_for("10.97.0.1:80", How::Udp, 700, 5);
        assert!(flood.answered() > 200 && flood.failed() > 50, "{flood:?}");
        self.replace(2, &FULL);
        let repaired = "bascule_selftest_drifts_total{instance='n2'} > 0";
        // A reconciliation that is due anyway writes the frontend again, and nothing was amiss.
        eventually(2 * SOON, || {
            forget(self.node(2));
            std::thread::sleep(Duration::from_secs(3));
            self.gives(repaired)
        });
    }

    /// An endpoint of n2 comes or goes, by the parity of `round`. Its file is quiet then for
    /// long enough to be read.
    pub fn change(&self, round: u32) {
        let mut objects = self.objects(2, 1);
        if round.is_multiple_of(2) {
            objects.truncate(2);
        }
        self.node(2).apply("s1", &objects);
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Deletes a frontend behind the agent's back.
fn forget(node: &Node) {
    let map = node.bpffs().join("bascule/lb_frontends_v1");
    let map = map.display().to_string();
    let first = run(node, &["bpftool", "-j", "map", "getnext", "pinned", &map]);
    let first: Value = serde_json::from_str(&first).expect("bpftool writes JSON");
    let key = first["next_key"].as_array().expect("the map has entries");
    let mut words = vec!["bpftool", "map", "delete", "pinned", &map, "key"];
    words.extend(key.iter().map(|byte| byte.as_str().expect("0x…")));
    run(node, &words);
}

/// Runs a command in a node's namespace, and returns what it says.
fn run(node: &Node, words: &[&str]) -> String {
    let out = node
        .netns()
        .inside(|| Command::new(words[0]).args(&words[1..]).output());
    let out = out.unwrap_or_else(|e| panic!("{words:?}: {e}"));
    assert!(out.status.success(), "{words:?}: {out:?}");
    String::from_utf8(out.stdout).expect("it writes text")
}
