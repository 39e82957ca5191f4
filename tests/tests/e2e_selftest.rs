//! The self-test on a node that serves: what somebody does to the maps is found, repaired
//! and counted.

use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, with_pods};
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use lb_common::{Frontend, FrontendKey};
use serde_json::json;

const WEB: &str = "10.97.0.10:80";

/// A frontend's entry: its bytes are the map's.
type Entries = HashMap<MapData, [u8; size_of::<FrontendKey>()], [u8; size_of::<Frontend>()]>;

fn frontends(node: &Node) -> Entries {
    let path = node.bpffs().join("bascule/lb_frontends_v1");
    let map = Map::HashMap(MapData::from_pin(path).expect("a pinned map"));
    Entries::try_from(map).expect("a map of frontends")
}

fn metric(node: &Node, agent: &Agent, name: &str) -> u64 {
    let text = agent.metrics(node.netns()).expect("metrics");
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{name}: {text}"))
}

#[test]
fn what_others_do_to_the_maps_is_repaired() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pods = [node.pod(2), node.pod(3)];
    let mut client = node.pod(4);
    node.apply(
        "web",
        &with_pods(dual("web", 10, json!({})), &[&pods[0], &pods[1]]),
    );
    let agent = node.agent(&["--socket-lb", "host"]);
    client.peer.dial(WEB, How::Tcp, 3).well().unwrap();
    node.can_explain();
    // Several rounds over all frontends, with the programs asked, and nothing is found.
    eventually(Duration::from_secs(20), || {
        let examined = metric(&node, &agent, "bascule_selftest_examined_total");
        (examined > 40)
            .then_some(())
            .ok_or(format!("{examined} examined"))
    });
    for name in ["drifts", "astray"] {
        assert_eq!(
            metric(&node, &agent, &format!("bascule_selftest_{name}_total")),
            0
        );
    }

    let mut entries = frontends(&node);
    let keys: Vec<_> = entries.keys().flatten().collect();
    assert!(keys.len() >= 8, "{}", keys.len());
    for key in &keys {
        entries.remove(key).expect("an entry is removed");
    }
    eventually(Duration::from_secs(10), || {
        let back = frontends(&node).keys().count();
        (back == keys.len())
            .then_some(())
            .ok_or(format!("{back} of {}", keys.len()))
    });
    assert!(metric(&node, &agent, "bascule_selftest_drifts_total") > 0);
    client.peer.dial(WEB, How::Tcp, 10).well().unwrap();
}
