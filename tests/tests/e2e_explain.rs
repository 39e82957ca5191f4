//! `bascule explain` on a node that serves: what it says is what then happens, and nothing
//! happens by saying it.

use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, node_ports, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use serde_json::{Value, json};

fn explain(node: &Node, words: &[&str]) -> Value {
    node.can_explain();
    node.bascule(&[&["explain", "--json"], words].concat())
        .json()
}

fn step(told: &Value, step: &str) -> String {
    let steps = told["steps"].as_array().expect("steps");
    let found: Vec<&str> = steps
        .iter()
        .filter(|line| line["step"] == step)
        .map(|line| line["text"].as_str().expect("a text"))
        .collect();
    found.join(" | ")
}

/// What the datapath has counted and remembers.
fn traces(node: &Node) -> Vec<Value> {
    let lists = [
        &["service", "list", "--json"][..],
        &["backend", "list", "--json"],
        &["conntrack", "list", "--json"],
        &["affinity", "list", "--json"],
    ];
    lists.map(|words| node.bascule(words).json()).to_vec()
}

fn name_of(backend: &Value, pods: &[Pod]) -> String {
    let found = pods
        .iter()
        .find(|pod| backend == &json!(format!("{}:8080", pod.v4())));
    found.unwrap_or_else(|| panic!("{backend}")).name()
}

#[test]
fn what_is_explained_is_what_happens() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pods = [node.pod(2), node.pod(3), node.pod(5)];
    let (mut client, mut outside) = (node.pod(4), world.outside(100));
    let all: Vec<&Pod> = pods.iter().collect();
    let sticky = json!({"sessionAffinity": "ClientIP", "type": "NodePort",
                        "ports": node_ports(30_090, 30_091)});
    node.apply("sticky", &with_pods(dual("sticky", 12, sticky), &all));
    // Pods packet by packet.
    let _agent = node.agent(&["--socket-lb", "host"]);
    let before = explain(&node, &[&client.v4().to_string(), "svc/sticky:80"]);
    let silent = traces(&node);
    let again = explain(&node, &[&client.v4().to_string(), "svc/default/sticky:tcp"]);
    assert_eq!(before, again);
    assert_eq!(traces(&node), silent, "explaining leaves a trace");
    assert_eq!(
        (&before["result"], &before["to"]),
        (&json!("balanced"), &json!("10.97.0.12:80"))
    );
    assert!(
        step(&before, "affinity").contains("not bound yet"),
        "{before}"
    );
    assert!(step(&before, "source").contains("stays"), "{before}");
    // With affinity the ports do not matter: the very backend answers.
    let dialled = client
        .peer
        .dial("10.97.0.12:80", How::Tcp, 3)
        .well()
        .unwrap();
    let answered: Vec<&String> = dialled.answers.keys().collect();
    assert_eq!(answered, [&name_of(&before["backend"], &pods)]);
    let after = explain(&node, &[&client.v4().to_string(), "svc/sticky:80"]);
    assert!(step(&after, "affinity").contains("is bound"), "{after}");
    assert_eq!(after["backend"], before["backend"]);

    let port = "172.29.0.11:30090";
    let told = explain(&node, &["172.29.0.100", port]);
    assert!(step(&told, "frontend").contains("a NodePort"), "{told}");
    assert!(step(&told, "from").contains("from outside"), "{told}");
    let dialled = outside.peer.dial(port, How::Tcp, 1).well().unwrap();
    let answered: Vec<&String> = dialled.answers.keys().collect();
    assert_eq!(answered, [&name_of(&told["backend"], &pods)]);
    // The node's own sockets meet the socket hooks.
    let own = explain(&node, &["node", "svc/sticky:80"]);
    assert!(
        step(&own, "result").contains("the socket is connected"),
        "{own}"
    );
}

/// Who dials whom, what becomes of it, why, and what in Kubernetes is the cause.
const NOS: [[&str; 5]; 4] = [
    [
        "POD",
        "svc/empty:80",
        "refused",
        "no_endpoints",
        ".spec.selector",
    ],
    [
        "POD",
        "10.97.0.11:81",
        "refused",
        "unknown_port",
        ".spec.ports",
    ],
    [
        "172.29.0.100",
        "10.97.0.201:80",
        "dropped",
        "source_range",
        ".spec.loadBalancerSourceRanges",
    ],
    [
        "172.29.0.100",
        "172.29.0.11:30090",
        "dropped",
        "no_local_endpoint",
        ".spec.externalTrafficPolicy",
    ],
];

#[test]
fn every_no_has_its_reason_and_its_cause() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let other = Node::new(&world, 2);
    let (pod, client, remote) = (node.pod(2), node.pod(4), other.pod(2));
    let _outside = world.outside(100);
    node.apply("empty", &[dual("empty", 10, json!({}))]);
    let ranges = json!({"type": "LoadBalancer", "ports": node_ports(30_080, 30_081),
                        "externalIPs": ["10.97.0.200"],
                        "loadBalancerSourceRanges": ["172.29.0.101/32"]});
    let ranged =
        bascule_tests::e2e::objects::load_balancer(dual("ranged", 11, ranges), &["10.97.0.201"]);
    node.apply("ranged", &with_pods(ranged, &[&pod]));
    let local = json!({"type": "NodePort", "externalTrafficPolicy": "Local",
                       "ports": node_ports(30_090, 30_091)});
    node.apply("local", &with_pods(dual("local", 12, local), &[&remote]));
    let _agent = node.agent(&[]);
    let client = client.v4().to_string();
    for no in NOS {
        let [from, to, result, reason, cause] = no;
        let from = if from == "POD" { &client } else { from };
        let told = explain(&node, &[from, to]);
        assert_eq!(
            (&told["result"], &told["reason"]),
            (&json!(result), &json!(reason)),
            "{told}"
        );
        assert!(
            told["cause"].as_str().expect("a cause").contains(cause),
            "{told}"
        );
    }
    let nobody = explain(&node, &["172.29.0.100", "172.29.0.11:22"]);
    assert_eq!(
        (&nobody["result"], &nobody["cause"]),
        (&json!("untouched"), &Value::Null)
    );
    // By the socket hooks of a pod.
    let pods = explain(&node, &[&client, "svc/ranged:80"]);
    assert!(step(&pods, "hook").starts_with("socket hooks"), "{pods}");
    assert_eq!(pods["backend"], json!(format!("{}:8080", pod.v4())));
    let text = node.bascule(&["explain", &client, "svc/empty:80"]);
    let expected = "cause      no endpoint of the Service is ready";
    assert!(
        text.out.lines().any(|line| line.starts_with(expected)),
        "{text:?}"
    );
}

/// Of a service by its name the agent says where it is dialled; what the maps hold counts.
#[test]
fn a_service_is_found_by_its_name_wherever_the_agent_says_it_is() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pod = node.pod(2);
    let (web, api) = (json!({}), json!({}));
    node.apply("web", &with_pods(dual("web", 10, web), &[&pod]));
    node.apply("api", &with_pods(dual("api", 11, api), &[&pod]));
    let _agent = node.agent(&[]);
    let told = explain(&node, &["node", "svc/web:tcp"]);
    assert_eq!(told["to"], json!("10.97.0.10:80"), "{told}");
    let path = node.path("state/names.json");
    let written = std::fs::read_to_string(&path).expect("names");
    assert!(written.contains("\"10.97.0.10:80\""), "{written}");
    let names: Vec<Value> = serde_json::from_str(&written).expect("names");
    // What an earlier agent wrote, one that was too late, and one that knows a part.
    for vips in [
        Value::Null,
        json!(["10.97.0.11:80"]),
        json!(["10.97.0.99:80"]),
        json!([]),
    ] {
        let mut names = names.clone();
        for name in &mut names {
            let fields = name.as_object_mut().expect("a name");
            match &vips {
                Value::Null => fields.remove("vips"),
                vips => fields.insert("vips".to_owned(), vips.clone()),
            };
        }
        std::fs::write(&path, json!(names).to_string()).expect("names");
        assert_eq!(
            explain(&node, &["node", "svc/web:tcp"])["to"],
            json!("10.97.0.10:80"),
            "{vips}"
        );
    }
}

#[test]
fn who_asks_wrongly_is_told() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let port = |name, port| json!({"name": name, "port": port, "protocol": "TCP"});
    let ports = json!([port("http", 80), port("https", 443)]);
    node.apply("web", &[dual("web", 10, json!({"ports": ports}))]);
    let none = node.bascule(&["explain", "node", "svc/web:80"]);
    assert_eq!(none.status, Some(1));
    assert!(none.err.contains("start the agent"), "{none:?}");
    let _agent = node.agent(&[]);
    explain(&node, &["node", "svc/web:80"]);
    for (words, status, part) in [
        (["node", "svc/nobody:80"], 1, "no service is called nobody"),
        (
            ["node", "svc/web"],
            1,
            "has several ports: say which, of 443 (default/web:https), 80 (default/web:http)",
        ),
        (
            ["node", "svc/web:81"],
            1,
            "it has 443 (default/web:https), 80",
        ),
        (["node", "10.97.0.10"], 2, "neither IP:PORT nor svc/"),
        (["pod/", "svc/web:80"], 2, "not pod/[NAMESPACE/]NAME"),
        (
            ["2001:db8::1", "10.97.0.10:80"],
            1,
            "FROM has no address of the family",
        ),
        (
            ["pod/web-1", "svc/web:80"],
            1,
            "give it in place of the name",
        ),
    ] {
        let said = node.bascule(&[&["explain"], &words[..]].concat());
        assert_eq!(
            (said.status, said.out.as_str()),
            (Some(status), ""),
            "{said:?}"
        );
        assert!(said.err.contains(part), "{said:?}");
    }
}
