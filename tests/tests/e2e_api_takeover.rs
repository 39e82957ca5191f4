//! Taking over from a real kube-proxy, in each of its modes, under load.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::apiserver::ApiServer;
use bascule_tests::e2e::clients::unharmed_at;
use bascule_tests::e2e::eventually;
use bascule_tests::e2e::kube_proxy::KubeProxy;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, node_ports, with_pods};
use bascule_tests::e2e::peer::Peer;
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::{How, Outcome};
use bascule_tests::e2e::world::{Outside, World};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(90);
/// New connections a second and streams of each of four clients.
const EACH: u32 = 50;

/// The kernel forgets a connection that was closed before the takeover begins: clients are
/// bound by what kube-proxy knows of them. Datagrams it knows while the test needs it.
const FORGETS: [(&str, &str); 3] = [
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "2"),
    ("netfilter/nf_conntrack_udp_timeout", "40"),
    ("netfilter/nf_conntrack_udp_timeout_stream", "40"),
];

const INSIDE: [&str; 2] = ["10.97.0.20:80", "[fd97::14]:80"];
/// Whatever backend, and the node's own.
const OUTSIDE: [&str; 4] = [
    "172.29.0.11:30001",
    "[fd29::11]:30001",
    "172.29.0.11:30005",
    "[fd29::11]:30005",
];
const STICKY: [&str; 2] = ["10.97.0.21:80", "[fd97::15]:80"];
const STICKY_OUTSIDE: [&str; 2] = ["172.29.0.11:30003", "[fd29::11]:30003"];

fn node_object() -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
           "status": {"addresses": [{"type": "InternalIP", "address": "172.29.0.11"},
                                    {"type": "InternalIP", "address": "fd29::11"}]}})
}

/// kube-proxy's pod, of which only the cluster knows: its process is the test's.
fn pod_object() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"name": "kube-proxy-x7k2p", "namespace": "kube-system",
                        "labels": {"k8s-app": "kube-proxy"}},
           "spec": {"nodeName": "n1", "containers": [{"name": "kube-proxy", "image": "none"}]}})
}

/// Two nodes, three backends, and everybody who dials.
struct Clients {
    sockets: Pod,
    packets: Pod,
    outside: Outside,
    host: Peer,
}

impl Clients {
    fn new(world: &World, node: &Node) -> Self {
        Self {
            sockets: node.pod(100),
            packets: node.sandboxed_pod(101),
            outside: world.outside(100),
            host: node.host(),
        }
    }

    fn load(&mut self) {
        self.sockets.peer.load(&INSIDE, EACH, EACH);
        self.packets.peer.load(&INSIDE, EACH, EACH);
        self.host.load(&INSIDE, EACH, EACH);
        self.outside.peer.load(&OUTSIDE, EACH, EACH);
    }

    fn rest(&mut self) -> [(&'static str, Outcome); 4] {
        [
            ("by socket hooks", self.sockets.peer.rest()),
            ("by packets of a pod", self.packets.peer.rest()),
            ("by the host", self.host.rest()),
            ("by packets from outside", self.outside.peer.rest()),
        ]
    }

    /// Who answers each client of the service with affinity, by each way to it.
    fn bound(&mut self) -> Vec<String> {
        let peers = [
            (&mut self.sockets.peer, STICKY),
            (&mut self.packets.peer, STICKY),
            (&mut self.host, STICKY),
            (&mut self.outside.peer, STICKY_OUTSIDE),
        ];
        let mut answers = Vec::new();
        for (peer, targets) in peers {
            for target in targets {
                let outcome = peer.dial(target, How::Tcp, 4).well().unwrap();
                let pods: Vec<&String> = outcome.answers.keys().collect();
                assert_eq!(pods.len(), 1, "{target}: {outcome:?}");
                answers.push(format!("{target} {}", pods[0]));
            }
        }
        answers
    }
}

fn services(api: &ApiServer<'_>, pods: &[&Pod; 3]) {
    let spec = |tcp, udp, more: Value| {
        let mut spec = json!({"type": "NodePort", "ports": node_ports(tcp, udp)});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        spec
    };
    let sticky = json!({"sessionAffinity": "ClientIP"});
    let local = json!({"externalTrafficPolicy": "Local"});
    api.create(&with_pods(
        dual("web", 20, spec(30_001, 30_002, json!({}))),
        pods,
    ));
    api.create(&with_pods(
        dual("sticky", 21, spec(30_003, 30_004, sticky)),
        pods,
    ));
    api.create(&with_pods(
        dual("local", 22, spec(30_005, 30_006, local)),
        pods,
    ));
}

fn run(node: &Node, words: &[&str]) -> String {
    node.netns().inside(|| {
        let out = Command::new(words[0]).args(&words[1..]).output();
        let out = out.unwrap_or_else(|e| panic!("{words:?}: {e}"));
        assert!(out.status.success(), "{words:?}: {out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    })
}

/// The rules of a node, but for their counters.
fn rules(node: &Node) -> Vec<String> {
    let text = run(node, &["nft", "list", "ruleset"]);
    let without = |line: &str| -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let at = words.iter().position(|word| word.trim_start() == "counter");
        let skip = |i: usize| at.is_some_and(|at| (at..at + 5).contains(&i));
        let kept = words.iter().enumerate().filter(|(i, _)| !skip(*i));
        kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
    };
    text.lines().map(without).collect()
}

/// How many connections the kernel translates to a pod, as it says itself.
fn translated(node: &Node) -> usize {
    let text = run(node, &["cat", "/proc/net/nf_conntrack"]);
    let of = |line: &str, nth: usize, name: &str| -> Option<IpAddr> {
        let mut words = line.split_whitespace().filter_map(|w| w.strip_prefix(name));
        words.nth(nth)?.parse().ok()
    };
    let is_translated = |line: &&str| {
        let (dialled, answers) = (of(line, 0, "dst="), of(line, 1, "src="));
        line.contains("ESTABLISHED") && dialled.is_some() && dialled != answers
    };
    text.lines().filter(is_translated).count()
}

/// Rules and chains of others, which must stay.
fn foreign_rules(node: &Node, mode: &str) {
    run(
        node,
        &[
            "nft",
            "add table ip other; add chain ip other in { type filter hook input priority 5; }; add rule ip other in tcp dport 9 drop",
        ],
    );
    if mode == "iptables" {
        for family in ["iptables", "ip6tables"] {
            for line in [
                "-t mangle -N KUBE-KUBELET-CANARY",
                "-t nat -N CNI-TEST",
                "-t nat -A PREROUTING -p tcp --dport 9 -j CNI-TEST",
            ] {
                let words: Vec<&str> = [family].into_iter().chain(line.split(' ')).collect();
                run(node, &words);
            }
        }
    }
}

fn starts_beside(node: &Node, api: &ApiServer<'_>) -> Agent {
    let kubeconfig = api.kubeconfig().display().to_string();
    let agent = node.agent_unready(&["--kubeconfig", &kubeconfig, "--takeover"]);
    agent.says(&["the maps are programmed"]);
    agent
}

/// What the agent says while kube-proxy's process and its pod are there, and then the
/// pod alone.
fn waits_for_kube_proxy(node: &Node, api: &ApiServer<'_>, agent: &Agent, proxy: KubeProxy) {
    let process = format!("process {}", proxy.pid());
    let pod = "pod kube-system/kube-proxy-x7k2p";
    agent.says(&[
        "TakeoverWaits",
        pod,
        &process,
        "delete daemonset kube-proxy",
    ]);
    assert!(
        rules(node)
            .iter()
            .any(|line| line.contains("kube-proxy") || line.contains("KUBE-SERVICES"))
    );
    let status = node.bascule(&["status"]).out;
    assert!(
        status.contains(pod) && status.contains("TakeoverWaits"),
        "{status}"
    );
    let listed = node.bascule(&["conntrack", "list"]).out;
    assert!(listed.contains("left to the kernel"), "{listed}");
    proxy.kill();
    eventually(WITHIN, || {
        // Of the whole the last errors of the log still name the process.
        let said = node.bascule(&["status", "--json"]).out;
        let status: Value = serde_json::from_str(&said).expect("JSON");
        let problems = status["agent"]["problems"].to_string();
        let gone = problems.contains(pod) && !problems.contains(&process);
        gone.then_some(()).ok_or(problems)
    });
    api.delete(&[pod_object()]);
    agent.says(&["kube-proxy's rules are gone"]);
}

/// The rules that stay, when all of kube-proxy's are gone: what it leaves itself when it is
/// told to clean up, and others'.
fn clean(node: &Node, api: &ApiServer<'_>, clients: &mut Clients, mode: &str) -> Vec<String> {
    foreign_rules(node, mode);
    let proxy = KubeProxy::start(node, api, mode);
    serves(clients);
    proxy.kill();
    KubeProxy::clean_up(node);
    rules(node)
}

/// Starts the load, and waits until kube-proxy translates all its streams.
fn load(clients: &mut Clients, node: &Node, mode: &str) {
    clients.load();
    let streams = eventually(WITHIN, || {
        let streams = translated(node);
        let all = streams >= 4 * EACH as usize;
        all.then_some(streams)
            .ok_or_else(|| format!("{streams} streams are translated"))
    });
    println!("{mode}: the kernel translates {streams} connections");
}

/// Connections are left to the kernel by a table of the agent's, and counted.
fn leaves_connections(node: &Node, agent: &Agent) {
    let rules = rules(node);
    assert!(
        rules.iter().any(|line| line.contains("bascule-takeover")),
        "{rules:?}"
    );
    let metrics = eventually(WITHIN, || agent.metrics(node.netns()));
    let mut lines = metrics.lines();
    let left = lines.find_map(|l| l.strip_prefix("bascule_takeover_connections "));
    assert!(
        left.unwrap().parse::<u32>().unwrap() >= 2 * EACH,
        "{metrics}"
    );
}

fn takes_over(mode: &str) {
    let world = World::new();
    let (node, other) = (Node::new(&world, 1), Node::new(&world, 2));
    let pods = [node.pod(2), node.pod(3), other.pod(2)];
    let mut clients = Clients::new(&world, &node);
    let api = ApiServer::start(&node);
    api.create(&[node_object(), pod_object()]);
    services(&api, &pods.each_ref());
    node.netns().set(&FORGETS);
    let clean = clean(&node, &api, &mut clients, mode);

    let proxy = KubeProxy::start(&node, &api, mode);
    serves(&mut clients);
    let before = clients.bound();
    clients
        .packets
        .peer
        .open(1, INSIDE[0], How::Udp)
        .well()
        .unwrap();
    let start = Instant::now();
    load(&mut clients, &node, mode);
    let agent = starts_beside(&node, &api);
    waits_for_kube_proxy(&node, &api, &agent, proxy);
    println!("{mode}: the rules were gone after {:?}", start.elapsed());
    std::thread::sleep(Duration::from_secs(3));
    leaves_connections(&node, &agent);
    unharmed_at(&clients.rest(), start.elapsed(), f64::from(EACH));
    assert_eq!(clients.bound(), before);
    clients.packets.peer.again(1).well().unwrap();

    // The last of what was left ends, and with it what the takeover needs.
    agent.ready(node.netns());
    drop(clients);
    eventually(WITHIN, || {
        let now = rules(&node);
        (now == clean)
            .then_some(())
            .ok_or_else(|| format!("{now:#?}\ninstead of {clean:#?}"))
    });
    agent.says(&["no connection is left to the kernel any more"]);
}

/// Waits until everything is served.
fn serves(clients: &mut Clients) {
    for target in INSIDE.iter().chain(&STICKY) {
        eventually(WITHIN, || {
            clients
                .packets
                .peer
                .dial_for(target, How::Tcp, 2, 500)
                .well()
        });
    }
    for target in OUTSIDE.iter().chain(&STICKY_OUTSIDE) {
        eventually(WITHIN, || {
            clients
                .outside
                .peer
                .dial_for(target, How::Tcp, 2, 500)
                .well()
        });
    }
}

#[test]
fn nothing_breaks_when_rules_of_nftables_are_taken_over() {
    takes_over("nftables");
}

#[test]
fn nothing_breaks_when_rules_of_iptables_are_taken_over() {
    takes_over("iptables");
}
