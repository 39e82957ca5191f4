//! `bascule cleanup`: a node is afterwards what it was before its first agent.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, node_ports, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use bascule_tests::e2e::{beside, eventually};
use serde_json::json;

const VIP: &str = "10.97.0.1:80";

struct Cluster {
    client: Pod,
    _pod: Pod,
    node: Node,
    _world: World,
}

fn cluster() -> Cluster {
    let world = World::new();
    let node = Node::new(&world, 1);
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

/// Runs a program in the node's namespace.
fn run(node: &Node, program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("RUST_LOG");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = node.netns().spawn(command, &node.cgroup().join("host"));
    child.wait_with_output().unwrap()
}

fn text(node: &Node, program: &str, arguments: &[&str]) -> String {
    let output = run(node, Path::new(program), arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

fn cleanup(node: &Node) -> Output {
    let (bpffs, state) = (node.bpffs(), node.path("state"));
    let arguments = [
        "cleanup",
        "--bpffs",
        bpffs.to_str().unwrap(),
        "--state-dir",
        state.to_str().unwrap(),
    ];
    run(node, &beside("bascule"), &arguments)
}

fn cleaned(node: &Node) {
    let output = cleanup(node);
    assert!(output.status.success(), "{output:?}");
}

/// Every file below a directory of `/proc/sys`, with its content.
fn sysctls(dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sysctls(&path, found);
        } else if let Ok(value) = fs::read_to_string(&path) {
            found.insert(path, value);
        }
    }
}

/// What an agent could leave on a node, by where it is.
fn state(node: &Node) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for arguments in [
        // With the details come XDP programs and settings of each device.
        &["-d", "link"][..],
        &["addr"],
        &["rule"],
        &["-6", "rule"],
        &["route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
    ] {
        found.insert(format!("ip {arguments:?}"), text(node, "ip", arguments));
    }
    found.insert("qdiscs".into(), text(node, "tc", &["qdisc", "show"]));
    found.insert(
        "programs of devices".into(),
        text(node, "bpftool", &["net", "show"]),
    );
    let cgroup = node.cgroup();
    let tree = text(
        node,
        "bpftool",
        &["cgroup", "tree", cgroup.to_str().unwrap()],
    );
    found.insert("programs of cgroups".into(), tree);
    let mut settings = BTreeMap::new();
    node.netns().inside(|| {
        for dir in ["ipv4", "ipv6", "core"] {
            sysctls(&Path::new("/proc/sys/net").join(dir), &mut settings);
        }
    });
    let settings = settings.into_iter();
    found.extend(settings.map(|(path, value)| (path.display().to_string(), value)));
    let bpffs = node.bpffs();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let own = mounts
        .lines()
        .filter(|l| l.contains(bpffs.to_str().unwrap()));
    found.insert("mounts".into(), own.collect::<Vec<_>>().join("\n"));
    for dir in [bpffs, node.path("state")] {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let names: Vec<_> = entries.map(|e| e.file_name()).collect();
        found.insert(dir.display().to_string(), format!("{names:?}"));
    }
    found
}

/// The kernel's ids of the pinned maps, and of the programs that are pinned or behind
/// pinned links.
fn objects(node: &Node) -> (Vec<u64>, Vec<u64>) {
    let ids = |kind: &str, dir: &Path, field: &str| {
        let pins = fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
        let of = |path: PathBuf| {
            let arguments = ["-j", kind, "show", "pinned", path.to_str().unwrap()];
            let shown: serde_json::Value =
                serde_json::from_str(&text(node, "bpftool", &arguments)).unwrap();
            shown[field].as_u64().unwrap()
        };
        pins.filter(|p| p.is_file()).map(of).collect::<Vec<_>>()
    };
    let dir = node.bpffs().join("bascule");
    let mut programs = ids("link", &dir.join("links"), "prog_id");
    programs.extend(ids("prog", &dir.join("programs"), "id"));
    (ids("map", &dir, "id"), programs)
}

/// Waits until the kernel has let go of all of them.
fn are_gone(node: &Node, (maps, programs): &(Vec<u64>, Vec<u64>)) {
    assert!(
        maps.len() > 10 && programs.len() > 10,
        "{maps:?} {programs:?}"
    );
    let all = maps.iter().map(|id| ("map", id));
    let all = all.chain(programs.iter().map(|id| ("prog", id)));
    for (kind, id) in all {
        let id = id.to_string();
        eventually(Duration::from_secs(10), || {
            let shown = run(node, Path::new("bpftool"), &[kind, "show", "id", &id]);
            (!shown.status.success())
                .then_some(())
                .ok_or_else(|| format!("{kind} {id} is still there"))
        });
    }
}

#[track_caller]
fn assert_same(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    for (place, was) in before {
        assert_eq!(Some(was), after.get(place), "{place}");
    }
    assert_eq!(before.len(), after.len());
}

#[test]
fn a_node_is_what_it_was() {
    let mut c = cluster();
    let mut before = state(&c.node);
    // The directory goes too, and is made when an agent starts.
    fs::remove_dir_all(c.node.path("state")).unwrap();
    before.insert(c.node.path("state").display().to_string(), "[]".into());
    let agent = c.node.agent(&["--xdp", "generic"]);
    c.client.peer.dial(VIP, How::Tcp, 3).well().unwrap();
    c.node.host().dial(VIP, How::Tcp, 3).well().unwrap();
    let late = c.node.pod(9);
    drop(late);
    c.node.can_explain();
    let held = objects(&c.node);
    agent.kill();
    c.client.peer.dial(VIP, How::Tcp, 3).well().unwrap();

    cleaned(&c.node);
    assert_same(&before, &state(&c.node));
    are_gone(&c.node, &held);
    assert!(!c.node.path("state").exists());
    let refused = c.client.peer.dial_for(VIP, How::Tcp, 2, 300);
    assert_eq!(refused.answered(), 0, "{refused:?}");

    // Once more, with nothing there; and the next agent starts anew.
    cleaned(&c.node);
    let _agent = c.node.agent(&[]);
    c.client.peer.dial(VIP, How::Tcp, 3).well().unwrap();
}

#[test]
fn a_device_that_came_later_keeps_no_qdisc() {
    let c = cluster();
    let agent = c.node.agent(&[]);
    let mut late = c.node.sandboxed_pod(9);
    late.peer.dial(VIP, How::Tcp, 3).well().unwrap();
    let qdiscs = || text(&c.node, "tc", &["qdisc", "show", "dev", "pod9"]);
    assert!(
        qdiscs().contains("clsact"),
        "new devices have filters first"
    );
    agent.kill();
    cleaned(&c.node);
    assert!(!qdiscs().contains("clsact"), "{}", qdiscs());
}

#[test]
fn a_qdisc_that_others_use_stays() {
    let c = cluster();
    // The client's.
    let device = "pod3";
    text(&c.node, "tc", &["qdisc", "add", "dev", device, "clsact"]);
    let filter = ["filter", "add", "dev", device, "ingress", "prio", "7"];
    // A classic program that admits every packet whole.
    let pass = ["bpf", "bytecode", "1,6 0 0 4294967295,"];
    text(&c.node, "tc", &[&filter[..], &pass].concat());
    let before = state(&c.node);
    c.node.agent(&[]).kill();
    cleaned(&c.node);
    let mut after = state(&c.node);
    let dir = c.node.path("state").display().to_string();
    after.insert(dir.clone(), before[&dir].clone());
    assert_same(&before, &after);
    let shown = text(&c.node, "tc", &["filter", "show", "dev", device, "ingress"]);
    assert!(shown.contains("pref 7 bpf"), "{shown}");
}

#[test]
fn while_an_agent_runs_nothing_is_removed() {
    let mut c = cluster();
    let _agent = c.node.agent(&[]);
    let output = cleanup(&c.node);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("an agent runs") && said.contains("end it first"),
        "{said}"
    );
    c.client.peer.dial(VIP, How::Tcp, 3).well().unwrap();
    c.node.host().dial(VIP, How::Tcp, 3).well().unwrap();
}

/// An agent under setpriv(1), which may not mount.
fn unprivileged(node: &Node, source: &Path) -> Agent {
    let mut command = Command::new("setpriv");
    let capabilities = "-all,+bpf,+net_admin,+perfmon";
    command
        .arg(format!("--inh-caps={capabilities}"))
        .arg(format!("--bounding-set={capabilities}"))
        .arg("--")
        .arg(beside("bascule"))
        .args(Agent::arguments(node))
        .arg("--source")
        .arg(source);
    Agent::spawn(node, command, node.path("setpriv.log"))
}

#[test]
fn what_init_only_mounts_an_agent_without_privilege_uses_and_cleanup_unmounts() {
    let mut c = cluster();
    c.node.unmount_bpffs();
    let before = state(&c.node)["mounts"].clone();
    assert_eq!(before, "");
    let (bpffs, dir) = (c.node.bpffs(), c.node.path("state"));
    let paths = [
        "--bpffs",
        bpffs.to_str().unwrap(),
        "--state-dir",
        dir.to_str().unwrap(),
    ];
    let output = run(
        &c.node,
        &beside("bascule"),
        &[&["agent", "--init-only"], &paths[..]].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    assert_ne!(state(&c.node)["mounts"], before);
    {
        let agent = unprivileged(&c.node, &c.node.manifests());
        agent.ready(c.node.netns());
        c.client.peer.dial(VIP, How::Tcp, 3).well().unwrap();
    }
    let output = run(
        &c.node,
        &beside("bascule"),
        &[&["agent", "--cleanup"], &paths[..]].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    assert_eq!(state(&c.node)["mounts"], before);
}
