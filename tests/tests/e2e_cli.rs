//! What the command line says of a node that serves.

use std::time::Duration;

use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::{Node, Said};
use bascule_tests::e2e::objects::{dual, node_ports, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use serde_json::{Value, json};

const WEB: &str = "10.97.0.10:80";
const STICKY: &str = "10.97.0.12:80";

fn rows(said: &Said) -> Vec<Value> {
    said.json().as_array().expect("a list").clone()
}

/// Address and port of the pod that answered everything.
fn backend(name: &str, pods: &[Pod]) -> String {
    let pod = pods.iter().find(|pod| pod.name() == name);
    let pod = pod.unwrap_or_else(|| panic!("{name} is no pod"));
    format!("{}:8080", pod.v4())
}

#[test]
fn lists_say_what_is_served_and_to_whom() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pods = [node.pod(2), node.pod(3)];
    let mut client = node.pod(4);
    let both: Vec<&Pod> = pods.iter().collect();
    let web = json!({"type": "NodePort", "ports": node_ports(30_080, 30_081)});
    node.apply("web", &with_pods(dual("web", 10, web), &both));
    let sticky = json!({"sessionAffinity": "ClientIP", "ports": node_ports(30_090, 30_091),
                        "type": "NodePort"});
    node.apply("sticky", &with_pods(dual("sticky", 12, sticky), &both));
    // Pods packet by packet, the node's own sockets straight.
    let _agent = node.agent(&["--socket-lb", "host"]);
    let dialled = client.peer.dial(WEB, How::Tcp, 30).well().unwrap();
    let from_pod = client.peer.dial(STICKY, How::Tcp, 5).well().unwrap();
    let from_node = node.host().dial(STICKY, How::Tcp, 5).well().unwrap();
    services(&node);
    shares(&node);
    flows(&node, dialled.answered());

    let bound = rows(&node.bascule(&["affinity", "list", "--json", "--service", "sticky"]));
    assert_eq!(bound.len(), 2, "{bound:?}");
    let of_pod = bound.iter().find(|row| row["client"] == json!(client.v4()));
    let of_node = bound.iter().find(|row| row["namespace"].is_u64());
    for (row, outcome) in [(of_pod, &from_pod), (of_node, &from_node)] {
        let row = row.unwrap_or_else(|| panic!("{bound:?}"));
        let name = outcome.answers.keys().next().unwrap();
        assert_eq!(row["backend"], json!(backend(name, &pods)), "{row}");
        let state = (&row["bound"], &row["timeout"]);
        assert_eq!(state, (&json!(true), &json!(10_800)));
    }
    let address = client.v4().to_string();
    let one = ["affinity", "list", "--client", &address, "--json"];
    assert_eq!(rows(&node.bascule(&one)).len(), 1);
}

fn services(node: &Node) {
    let listed = rows(&node.bascule(&["service", "list", "--json", "--service", "web:tcp"]));
    assert!(!listed.is_empty());
    for row in &listed {
        assert_eq!(row["service"], "default/web:tcp", "{row}");
    }
    let text = node.bascule(&["service", "list", "--service", "default/sticky"]);
    let (sticky, web) = ("sticky 10800s", "/web");
    assert!(
        text.out.contains(sticky) && !text.out.contains(web),
        "{text:?}"
    );
    let backends = rows(&node.bascule(&["backend", "list", "--json", "--service", "web:tcp"]));
    // Both pods, by both families.
    assert_eq!(backends.len(), 4, "{backends:?}");
}

fn shares(node: &Node) {
    let tables = rows(&node.bascule(&["maglev", "show", "web:tcp", "--json"]));
    let table = tables
        .iter()
        .find(|table| table["frontends"].to_string().contains(WEB))
        .expect("the frontend has a table");
    let shares = table["backends"].as_array().unwrap();
    let sum = |what: &str| -> f64 { shares.iter().map(|s| s[what].as_f64().unwrap()).sum() };
    assert_eq!(shares.len(), 2, "{table}");
    assert_eq!(sum("slots"), table["slots"].as_f64().unwrap());
    assert!((sum("share") - 1.0).abs() < 1e-9, "{table}");
    for share in shares {
        assert!(share["connections"].as_u64() > Some(0), "{table}");
    }
    // The other service leads to the same pods: its connections are theirs too.
    assert_eq!(sum("connections"), 40.0, "{table}");
    let drawn = node.bascule(&["maglev", "show", "default/web"]);
    assert!(
        drawn.out.contains('█') && drawn.out.contains(WEB),
        "{drawn:?}"
    );
}

fn flows(node: &Node, dialled: u64) {
    let flows = rows(&node.bascule(&["conntrack", "list", "--json", "--service", "web"]));
    assert_eq!(flows.len() as u64, dialled, "{flows:?}");
    for flow in &flows {
        let of = (&flow["service"], &flow["frontend"]);
        assert_eq!(of, (&json!("default/web:tcp"), &json!(WEB)));
    }
}

#[test]
fn who_asks_for_nobody_is_told() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pod = node.pod(2);
    node.apply("web", &with_pods(dual("web", 10, json!({})), &[&pod]));
    let none = node.bascule(&["service", "list"]);
    assert_eq!(none.status, Some(1), "{none:?}");
    assert!(none.err.contains("start the agent"), "{none:?}");
    let _agent = node.agent(&[]);
    for words in [
        &["service", "list", "--service", "nobody"][..],
        &["backend", "list", "--service", "nobody"],
        &["conntrack", "list", "--service", "nobody"],
        &["affinity", "list", "--service", "nobody"],
        &["maglev", "show", "nobody"],
    ] {
        let said = node.bascule(words);
        assert_eq!((said.status, said.out.as_str()), (Some(1), ""), "{words:?}");
        let line = "bascule: no service is called nobody: `bascule service list` shows what this \
                    node serves\n";
        assert_eq!(said.err, line, "{words:?}");
    }
    let empty = node.bascule(&["affinity", "list"]);
    assert_eq!(
        (empty.status, empty.out.lines().count()),
        (Some(0), 1),
        "{empty:?}"
    );
}

/// The report, and the exit status.
fn status(node: &Node) -> (Value, Option<i32>) {
    let said = node.bascule(&["status", "--json"]);
    let report = serde_json::from_str(&said.out);
    (
        report.unwrap_or_else(|e| panic!("{e}: {said:?}")),
        said.status,
    )
}

/// Waits for a status of which the first finding has `what`, with its remedy.
fn finds(node: &Node, what: &str, remedy: &str) -> Value {
    eventually(Duration::from_secs(10), || {
        let (report, status) = status(node);
        let first = &report["findings"][0];
        let has = |field: &str, words| first[field].as_str().is_some_and(|t| t.contains(words));
        let judged = status == Some(3) && report["verdict"] == "degraded";
        match judged && has("what", what) && has("remedy", remedy) {
            true => Ok(report),
            false => Err(format!("{status:?}: {first}")),
        }
    })
}

#[test]
fn status_tells_scripts_and_operators_how_the_node_is() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pod = node.pod(2);
    node.apply("web", &with_pods(dual("web", 10, json!({})), &[&pod]));
    let none = node.bascule(&["status"]);
    assert_eq!((none.status, none.out.as_str()), (Some(1), ""), "{none:?}");

    let agent = node.agent(&[]);
    let report = eventually(Duration::from_secs(10), || match status(&node) {
        (report, Some(0)) => Ok(report),
        (report, status) => Err(format!("{status:?}: {report}")),
    });
    let verdict = (&report["verdict"], &report["findings"]);
    assert_eq!(verdict, (&json!("well"), &json!([])));
    assert_eq!(report["agent"]["datapath"]["socket_lb"], "all");
    let hooks = report["agent"]["datapath"]["sockets"].as_array().unwrap();
    assert_eq!(hooks.len(), 8, "{hooks:?}");
    assert!(
        hooks.iter().all(|hook| hook["error"].is_null()),
        "{hooks:?}"
    );
    assert!(
        report["update_age"].as_u64().is_some_and(|age| age < 60),
        "{report}"
    );
    let health = json!({"healthy": true, "alive": true});
    assert_eq!(report["health"], health);

    node.write("web.yaml", "kind: [");
    let report = finds(&node, "web.yaml", "correct the place");
    assert_eq!(report["health"], health);
    // The log's lines are written every second.
    eventually(Duration::from_secs(10), || {
        let errors = status(&node).0["errors"].to_string();
        let told = errors.contains("web.yaml") && errors.contains("WARN");
        told.then_some(()).ok_or(errors)
    });
    drop(agent);
    let report = finds(&node, "no agent runs", "start it");
    assert_eq!(report["running"], false);
    let text = node.bascule(&["status"]).out;
    assert!(
        text.contains("not running") && text.contains("LAST ERRORS"),
        "{text}"
    );

    std::fs::write(node.path("state").join("status.json"), "[").unwrap();
    let (report, status) = status(&node);
    assert_eq!((status, &report["verdict"]), (Some(1), &json!("unknown")));
}
