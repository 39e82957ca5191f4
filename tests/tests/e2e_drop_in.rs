//! In kube-proxy's place in a cluster: its configuration file alone, its health checks and
//! its metrics, with a real API server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::apiserver::ApiServer;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{change_now, dual, load_balancer, slices, with_pods};
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use bascule_tests::e2e::{beside, eventually};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(20);
const CHECK: u16 = 32_123;

/// The node's Node, with taints.
fn node_object(taints: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
           "spec": {"taints": taints},
           "status": {"addresses": [{"type": "InternalIP", "address": "172.29.0.11"},
                                    {"type": "InternalIP", "address": "fd29::11"}]}})
}

/// An agent that is told everything by a file.
fn agent(node: &Node, api: &ApiServer<'_>) -> Agent {
    let path = node.path("config.conf");
    let kube = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": api.kubeconfig()},
        // Names of nodes are in lower case.
        "hostnameOverride": "N1",
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": "nftables",
    });
    let own = json!({
        "apiVersion": "config.bascule.dev/v1alpha1", "kind": "BasculeConfiguration",
        "bpffs": node.bpffs(), "cgroup": node.cgroup(), "stateDir": node.path("state"),
        "uplinks": ["eth0"], "podDevices": ["pod*"],
        "max": {"slots": 1 << 20},
    });
    fs::write(&path, format!("{kube}\n---\n{own}\n")).unwrap();
    let mut command = Command::new(beside("bascule"));
    command.arg("agent").arg("--config").arg(&path);
    command.env_remove("NODE_NAME").env_remove("KUBECONFIG");
    let agent = Agent::spawn(node, command, node.path("agent.log"));
    agent.ready(node.netns());
    agent
}

/// What `/healthz` and `/livez` say.
fn health(agent: &Agent, node: &Node) -> [u16; 2] {
    ["/healthz", "/livez"].map(|path| agent.health(node.netns(), path).unwrap())
}

fn will_be(agent: &Agent, node: &Node, expected: [u16; 2]) {
    eventually(WITHIN, || {
        let found = health(agent, node);
        (found == expected)
            .then_some(())
            .ok_or_else(|| format!("{found:?}, not {expected:?}"))
    });
}

/// The answer of the health check of a Service.
fn check(node: &Node, address: &str) -> Result<String, String> {
    node.netns().inside(|| {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(format!("{address}:{CHECK}"))?;
            write!(
                stream,
                "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        ask().map_err(|e| e.to_string())
    })
}

fn checked(node: &Node, status: u16, endpoints: u32) {
    for address in ["127.0.0.1", "172.29.0.11", "[fd29::11]"] {
        let answer = eventually(WITHIN, || {
            let answer = check(node, address)?;
            let well = answer.starts_with(&format!("HTTP/1.1 {status} "));
            if well { Ok(answer) } else { Err(answer) }
        });
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let weight = format!("x-load-balancing-endpoint-weight: {endpoints}");
        assert!(head.contains(&weight), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        let expected = json!({"service": {"namespace": "default", "name": "web"},
                              "localEndpoints": endpoints, "serviceProxyHealthy": true});
        assert_eq!(body, expected);
    }
}

/// Count and sum of a histogram of IPv4.
fn programmed(agent: &Agent, node: &Node) -> Result<(f64, f64), String> {
    let text = agent.metrics(node.netns())?;
    let sample = |what: &str| {
        let series =
            format!("kubeproxy_network_programming_duration_seconds_{what}{{ip_family=\"IPv4\"}} ");
        let line = text.lines().find_map(|l| l.strip_prefix(&series));
        line.and_then(|value| value.parse::<f64>().ok())
    };
    let both = sample("count").zip(sample("sum"));
    both.ok_or_else(|| "nothing is measured yet".to_owned())
}

#[test]
fn a_file_health_checks_and_latency_are_as_with_kube_proxy() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (pod, mut client) = (node.pod(2), node.sandboxed_pod(3));
    let mut api = ApiServer::start(&node);
    api.create(&[node_object(json!([]))]);
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
                      "healthCheckNodePort": CHECK});
    let web = load_balancer(dual("web", 20, spec), &["10.97.2.1", "fd97::2:1"]);
    api.create(&with_pods(web, &[&pod]));
    let agent = agent(&node, &api);
    client
        .peer
        .dial("10.97.0.20:80", How::Tcp, 10)
        .well()
        .unwrap();
    assert_eq!(health(&agent, &node), [200, 200]);
    checked(&node, 200, 1);

    // A change of endpoints is measured from its trigger.
    let mut none = slices("web", &[]);
    change_now(&mut none);
    api.replace(&none);
    let (count, sum) = eventually(WITHIN, || programmed(&agent, &node));
    assert_eq!(count as u32, 1);
    println!("a change of endpoints took {sum:.4} s");
    assert!(sum > 0.0 && sum < 5.0, "{sum}");
    checked(&node, 503, 0);

    // A node that leaves takes no new connections, and is alive.
    let taint = json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
    api.replace(&[node_object(taint)]);
    will_be(&agent, &node, [503, 200]);
    api.replace(&[node_object(json!([]))]);
    will_be(&agent, &node, [200, 200]);
    api.delete(&[node_object(json!([]))]);
    will_be(&agent, &node, [503, 200]);
    api.create(&[node_object(json!([]))]);
    will_be(&agent, &node, [200, 200]);
    api.down();
}

#[test]
fn a_health_check_whose_port_is_taken_is_a_problem_of_its_service() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (pod, mut client) = (node.pod(2), node.sandboxed_pod(3));
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
                      "healthCheckNodePort": CHECK});
    let web = load_balancer(dual("web", 20, spec), &["10.97.2.1", "fd97::2:1"]);
    node.apply("web", &with_pods(web, &[&pod]));
    let bind = || TcpListener::bind(("0.0.0.0", CHECK)).unwrap();
    let taken = node.netns().inside(bind);
    let agent = node.agent(&[]);
    agent.says(&[
        "Service default/web",
        "FailedToStartServiceHealthcheck",
        "healthCheckNodePort: 32123 cannot be listened on",
    ]);
    client
        .peer
        .dial("10.97.0.20:80", How::Tcp, 10)
        .well()
        .unwrap();
    drop(taken);
    agent.says(&["1 problems are gone, 0 stand"]);
    checked(&node, 200, 1);
}
