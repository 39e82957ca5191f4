//! What docs/bpftool.md shows, run on the node that it tells of.

use std::fs;
use std::process::Command;

use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{service, with_pods};
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use lb_common::schema::MAPS;
use serde_json::json;

/// Where the page has the pins.
const PINS: &str = "/sys/fs/bpf/bascule";

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bpftool.md");
    fs::read_to_string(path).expect("docs/bpftool.md")
}

/// The commands of the page, each with the output that it shows.
fn commands(page: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut within = false;
    for line in page.lines() {
        match (line, within) {
            ("```console", false) => within = true,
            ("```", true) => within = false,
            (line, true) => match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => found.push((command.to_owned(), String::new())),
                (None, Some((_, output))) => *output += &format!("{line}\n"),
                (None, None) => panic!("output without a command: {line}"),
            },
            _ => {}
        }
    }
    found
}

#[test]
fn what_the_page_shows_is_what_bpftool_prints() {
    let page = page();
    for map in MAPS {
        assert!(
            page.contains(&format!("{PINS}/{} ", map.name)),
            "{}",
            map.name
        );
    }
    let world = World::new();
    let node = Node::new(&world, 1);
    let pods = [node.pod(2), node.pod(3)];
    let mut client = node.pod(4);
    let spec = json!({"clusterIP": "10.97.0.10", "sessionAffinity": "ClientIP",
                      "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    let mut objects = with_pods(service("web", spec), &[&pods[0], &pods[1]]);
    // The Service has one family and one port, and so have its slices.
    objects.retain(|object| object["addressType"] != "IPv6");
    for slice in &mut objects[1..] {
        slice["ports"] = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    }
    node.apply("web", &objects);
    let _agent = node.agent(&["--socket-lb", "host", "--max-conntrack", "64"]);
    client
        .peer
        .dial("10.97.0.10:80", How::Tcp, 1)
        .well()
        .unwrap();
    let pins = node.bpffs().join("bascule");
    node.can_explain();
    let commands = commands(&page);
    assert!(commands.len() > MAPS.len(), "{}", commands.len());
    let pins = pins.to_str().expect("a path in UTF-8");
    for (command, expected) in commands {
        let mut shell = Command::new("sh");
        shell.args(["-c", &command.replace(PINS, pins)]);
        let said = node.netns().inside(|| shell.output()).expect("a shell");
        let (out, err) = (
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr),
        );
        assert_eq!(
            (out.as_ref(), err.as_ref()),
            (expected.as_str(), ""),
            "{command}"
        );
    }
}
