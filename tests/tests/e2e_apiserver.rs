//! A real API server: its objects are followed, and it may go away and forget.

use std::time::{Duration, Instant};

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::apiserver::ApiServer;
use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, node_ports, slices, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use serde_json::{Value, json};

const WEB: &str = "10.97.0.20:80";
const WITHIN: Duration = Duration::from_secs(20);

fn answered_by(client: &mut Pod, target: &str, pods: &[&Pod]) {
    let names: Vec<String> = pods.iter().map(|pod| pod.name()).collect();
    eventually(WITHIN, || {
        let outcome = client.peer.dial_for(target, How::Tcp, 20, 500).well()?;
        if outcome.answers.keys().eq(&names) {
            Ok(())
        } else {
            Err(format!("{outcome:?}"))
        }
    });
}

fn refused(client: &mut Pod, target: &str) {
    eventually(WITHIN, || {
        client
            .peer
            .dial_for(target, How::Tcp, 2, 300)
            .well()
            .map_or(Ok(()), |o| Err(format!("{target}: {o:?}")))
    });
}

fn node_object() -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
           "status": {"addresses": [{"type": "InternalIP", "address": "172.29.0.11"},
                                    {"type": "InternalIP", "address": "fd29::11"}]}})
}

fn signal(agent: &Agent, signal: i32) {
    let pid = i32::try_from(agent.pid()).unwrap();
    // SAFETY: a system call without memory, on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[test]
fn services_and_endpoints_of_a_cluster_are_followed_whatever_the_server_does() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (one, two, mut client) = (node.pod(2), node.pod(3), node.sandboxed_pod(4));
    let mut api = ApiServer::start(&node);
    api.create(&[node_object()]);
    let spec = json!({"type": "NodePort", "ports": node_ports(30_001, 30_002)});
    api.create(&with_pods(dual("web", 20, spec), &[&one]));
    let kubeconfig = api.kubeconfig().display().to_string();
    let mut agent = node.agent(&["--kubeconfig", &kubeconfig]);
    answered_by(&mut client, "10.97.0.20:80", &[&one]);
    answered_by(&mut client, "[fd97::14]:80", &[&one]);
    answered_by(&mut client, "172.29.0.11:30001", &[&one]);

    // Endpoints change, services come and go.
    api.replace(&slices("web", &[&one, &two]));
    answered_by(&mut client, "10.97.0.20:80", &[&one, &two]);
    let other = with_pods(dual("other", 21, json!({})), &[&two]);
    api.create(&other);
    answered_by(&mut client, "10.97.0.21:80", &[&two]);
    api.delete(&other);
    refused(&mut client, "10.97.0.21:80");

    // The server is away: what is known is served, to an agent's successor too.
    api.down();
    std::thread::sleep(Duration::from_secs(3));
    answered_by(&mut client, "10.97.0.20:80", &[&one, &two]);
    agent.kill();
    agent = node.agent_unready(&["--kubeconfig", &kubeconfig]);
    agent.says(&["127.0.0.1:6443"]);
    answered_by(&mut client, "10.97.0.20:80", &[&one, &two]);
    api.up();
    agent.ready(node.netns());
    api.replace(&slices("web", &[&two]));
    answered_by(&mut client, "10.97.0.20:80", &[&two]);

    // Much happens while the agent sleeps, and the server forgets it by a restart: a watch
    // that goes on from before gets 410 and must list again.
    signal(&agent, libc::SIGSTOP);
    api.delete(&with_pods(dual("web", 20, json!({})), &[]));
    api.create(&with_pods(dual("late", 22, json!({})), &[&one]));
    api.down();
    api.up();
    signal(&agent, libc::SIGCONT);
    answered_by(&mut client, "10.97.0.22:80", &[&one]);
    refused(&mut client, "10.97.0.20:80");
    assert!(agent.is_alive());
}

/// What `/healthz` and `/livez` say.
fn health(agent: &Agent, node: &Node) -> [u16; 2] {
    ["/healthz", "/livez"].map(|path| agent.health(node.netns(), path).unwrap())
}

#[test]
fn a_server_that_was_away_for_long_is_followed_again_within_seconds() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (one, two, mut client) = (node.pod(2), node.pod(3), node.sandboxed_pod(4));
    let mut api = ApiServer::start(&node);
    api.create(&[node_object()]);
    api.create(&with_pods(dual("web", 20, json!({})), &[&one]));
    let kubeconfig = api.kubeconfig().display().to_string();
    let agent = node.agent(&["--kubeconfig", &kubeconfig]);
    answered_by(&mut client, WEB, &[&one]);

    // Longer than it takes for every pause between two tries to be the longest.
    api.down();
    let end = Instant::now() + Duration::from_secs(75);
    client.peer.open(1, WEB, How::Tcp).well().unwrap();
    while Instant::now() < end {
        client.peer.dial(WEB, How::Tcp, 20).well().unwrap();
        // Nothing waits to be written, so the node takes new connections.
        assert_eq!(health(&agent, &node), [200, 200]);
        std::thread::sleep(Duration::from_secs(1));
    }
    client.peer.again(1).well().unwrap();
    agent.says(&["API server", "127.0.0.1:6443", "refused", "--apiserver"]);
    let log = agent.log();
    assert!(
        log.lines().count() < 40,
        "said once, not every time:\n{log}"
    );
    api.up();
    let back = Instant::now();
    api.replace(&slices("web", &[&two]));
    answered_by(&mut client, WEB, &[&two]);
    let took = back.elapsed();
    println!("followed again after {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    agent.says(&["API server", "well again"]);
}

#[test]
fn an_agent_that_starts_while_the_server_is_away_serves_what_the_maps_hold() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (pod, mut client) = (node.pod(2), node.sandboxed_pod(3));
    let mut api = ApiServer::start(&node);
    api.create(&[node_object()]);
    api.create(&with_pods(dual("web", 20, json!({})), &[&pod]));
    let kubeconfig = api.kubeconfig().display().to_string();
    let agent = node.agent(&["--kubeconfig", &kubeconfig]);
    answered_by(&mut client, WEB, &[&pod]);
    client.peer.open(1, WEB, How::Tcp).well().unwrap();
    agent.kill();
    api.down();
    let agent = node.agent_unready(&["--kubeconfig", &kubeconfig]);
    agent.says(&["API server", "127.0.0.1:6443", "refused"]);
    client.peer.dial(WEB, How::Tcp, 20).well().unwrap();
    client.peer.again(1).well().unwrap();
    // Nobody should send new clients to a node that cannot know what changed, and nobody
    // should restart an agent that only waits.
    assert_eq!(health(&agent, &node), [503, 200]);
    api.up();
    agent.ready(node.netns());
    assert_eq!(health(&agent, &node), [200, 200]);
}

/// The Events on objects of a name: reason, uid of the object, who wrote it, and what it says.
fn events(api: &ApiServer<'_>, name: &str) -> Vec<[String; 4]> {
    let all = api
        .get("/apis/events.k8s.io/v1/namespaces/default/events")
        .unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = all["items"].as_array().unwrap().iter();
    let of_object = items.filter(|e| e["regarding"]["name"] == name);
    of_object
        .map(|e| {
            let uid = text(&e["regarding"]["uid"]);
            [
                text(&e["reason"]),
                uid,
                text(&e["reportingInstance"]),
                text(&e["note"]),
            ]
        })
        .collect()
}

/// Waits until an object has so many Events of a reason; what they say.
fn told(api: &ApiServer<'_>, name: &str, reason: &str, times: usize) -> Vec<[String; 4]> {
    eventually(Duration::from_secs(60), || {
        let mut found = events(api, name);
        found.retain(|event| event[0] == reason);
        match found.len() == times {
            true => Ok(found),
            false => Err(format!("{reason} on {name}: {found:?}")),
        }
    })
}

/// The same external IP and ports as another service, a weight that is none, and more
/// frontends than there is room for.
fn create_bad(api: &ApiServer<'_>, pod: &Pod, spec: Value) {
    let mut second = with_pods(dual("second", 21, spec), &[pod]);
    second[1]["metadata"]["annotations"] = json!({"bascule.dev/weight": "heavy"});
    api.create(&second);
    for n in 30..42 {
        api.create(&with_pods(dual(&format!("more{n}"), n, json!({})), &[pod]));
    }
}

#[test]
fn what_cannot_be_served_as_written_has_an_event_where_its_users_look() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let (pod, mut client) = (node.pod(2), node.sandboxed_pod(3));
    let api = ApiServer::start(&node);
    api.create(&[node_object()]);
    let outside = json!({"externalIPs": ["198.51.100.7"]});
    api.create(&with_pods(dual("first", 20, outside.clone()), &[&pod]));
    let kubeconfig = api.kubeconfig().display().to_string();
    let flags = ["--kubeconfig", &kubeconfig, "--max-frontends", "64"];
    let agent = node.agent(&flags);
    answered_by(&mut client, WEB, &[&pod]);
    create_bad(&api, &pod, outside);

    // TCP and UDP.
    let service = api
        .get("/api/v1/namespaces/default/services/second")
        .unwrap();
    for [_, uid, writer, note] in told(&api, "second", "FrontendConflict", 2) {
        assert_eq!(Some(uid.as_str()), service["metadata"]["uid"].as_str());
        assert_eq!(writer, "n1");
        assert!(
            note.contains("198.51.100.7:80") && note.contains("default/first"),
            "{note}"
        );
    }
    let weight = &told(&api, "second-ipv4", "InvalidWeight", 1)[0][3];
    assert!(
        weight.contains("heavy") && weight.contains("1 is used"),
        "{weight}"
    );
    let full = agent.says(&["default/more", "--max-frontends"]);
    let name = full.split("default/").nth(1).unwrap();
    let name: String = name
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect();
    assert!(told(&api, &name, "MapFull", 1)[0][3].contains("--max-frontends"));

    // Everything else is served, and the next agent says nothing twice.
    answered_by(&mut client, WEB, &[&pod]);
    answered_by(&mut client, "10.97.0.21:80", &[&pod]);
    agent.kill();
    let agent = node.agent(&flags);
    agent.says(&["default/second", "198.51.100.7"]);
    std::thread::sleep(Duration::from_secs(15));
    told(&api, "second", "FrontendConflict", 2);
    told(&api, "second-ipv4", "InvalidWeight", 1);
}
