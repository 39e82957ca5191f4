//! What the agent finds on its node and does not expect: no bpffs, maps that are not its own,
//! too few privileges.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use bascule_tests::e2e::{beside, eventually};
use serde_json::json;

const GOOD: &str = "10.97.0.1:80";

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
    node.apply("good", &with_pods(dual("good", 1, json!({})), &[&pod]));
    Cluster {
        client,
        _pod: pod,
        node,
        _world: world,
    }
}

/// The agent under setpriv(1), without some capabilities.
fn without(node: &Node, capabilities: &str) -> Agent {
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--inh-caps={capabilities}"))
        .arg(format!("--bounding-set={capabilities}"))
        .arg("--")
        .arg(beside("bascule"))
        .args(Agent::arguments(node))
        .arg("--source")
        .arg(node.manifests());
    Agent::spawn(node, command, node.path("setpriv.log"))
}

#[test]
fn a_missing_capability_is_named() {
    let c = cluster();
    let mut agent = without(&c.node, "-net_admin");
    assert_eq!(agent.ended().code(), Some(1));
    agent.says(&["missing privilege: CAP_NET_ADMIN", "run the agent as root"]);
    let mut agent = without(&c.node, "-sys_admin,-bpf,-perfmon");
    assert_eq!(agent.ended().code(), Some(1));
    agent.says(&["CAP_BPF", "CAP_PERFMON"]);
}

#[test]
fn the_capabilities_that_the_message_names_suffice() {
    let mut c = cluster();
    let agent = without(&c.node, "-all,+bpf,+net_admin,+perfmon");
    agent.ready(c.node.netns());
    c.client.peer.dial(GOOD, How::Tcp, 3).well().unwrap();
    c.node.host().dial(GOOD, How::Tcp, 3).well().unwrap();
}

/// What a container mounts goes with it, and the pins too: a restart would leave the node
/// unserved.
#[test]
fn in_a_pod_a_bpffs_is_not_mounted() {
    let mut c = cluster();
    c.node.unmount_bpffs();
    let mut command = Command::new(beside("bascule"));
    command
        .args(Agent::arguments(&c.node))
        .arg("--source")
        .arg(c.node.manifests())
        .env("KUBERNETES_SERVICE_HOST", "10.97.0.1");
    let mut agent = Agent::spawn(&c.node, command, c.node.path("pod.log"));
    assert_eq!(agent.ended().code(), Some(1));
    agent.says(&["not a bpffs", "mount it with: mount -t bpf bpf"]);
}

#[test]
fn a_bpffs_that_is_not_mounted_is_mounted() {
    let mut c = cluster();
    c.node.unmount_bpffs();
    {
        let _agent = c.node.agent(&[]);
        c.client.peer.dial(GOOD, How::Tcp, 3).well().unwrap();
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let path = c.node.bpffs().display().to_string();
    assert!(
        mounts
            .lines()
            .any(|l| l.contains(&path) && l.contains(" bpf ")),
        "{mounts}"
    );
    c.node.adopt_bpffs();
}

#[test]
fn a_bpffs_that_cannot_be_mounted_is_named_with_the_command() {
    let mut c = cluster();
    c.node.unmount_bpffs();
    let mut agent = without(&c.node, "-sys_admin");
    assert_eq!(agent.ended().code(), Some(1));
    let path = c.node.bpffs().display().to_string();
    agent.says(&[&path, "mount -t bpf"]);
}

#[test]
fn pinned_maps_of_another_build_are_replaced_and_named() {
    let mut c = cluster();
    let pins = c.node.bpffs().join("bascule");
    std::fs::create_dir_all(&pins).unwrap();
    // The right name and a wrong layout; a map of an older version; something else's map.
    for (name, value) in [("lb_frontends_v1", 4), ("lb_backends_v0", 8), ("other", 4)] {
        foreign(&pins.join(name), "hash", value, 262_144);
    }
    let agent = c.node.agent(&[]);
    agent.says(&["lb_frontends_v1", "of another build", "made anew"]);
    agent.says(&["lb_backends_v0", "another version"]);
    agent.says(&["other", "left alone"]);
    assert!(pins.join("other").exists(), "what is not ours stays");
    assert!(!pins.join("lb_backends_v0").exists());
    c.client.peer.dial(GOOD, How::Tcp, 3).well().unwrap();
    c.node.host().dial(GOOD, How::Tcp, 3).well().unwrap();
}

#[test]
fn of_maps_of_another_build_what_can_be_read_is_shown() {
    let c = cluster();
    c.node.agent(&[]).kill();
    let pins = c.node.bpffs().join("bascule");
    for name in ["lb_reasons_v1", "lb_mon_cpu_v1"] {
        std::fs::remove_file(pins.join(name)).unwrap();
        foreign(&pins.join(name), "array", 4, 1);
    }
    let told = "the pinned map lb_reasons_v1 is of another build (";
    let status = c.node.bascule(&["status"]);
    assert_eq!(status.status, Some(3), "{status:?}");
    assert!(status.out.contains(told), "{status:?}");
    assert!(status.out.contains("lb_frontends_v1"), "{status:?}");
    let maps = c.node.bascule(&["maps"]);
    assert_eq!(maps.status, Some(1), "{maps:?}");
    assert!(
        maps.err.starts_with(&format!("bascule: {told}")),
        "{maps:?}"
    );
    assert!(maps.out.contains("lb_frontends_v1"), "{maps:?}");
    let list = c.node.bascule(&["service", "list"]);
    assert!(
        list.status == Some(0) && list.out.contains(GOOD),
        "{list:?}"
    );
    let monitor = c.node.bascule(&["monitor"]);
    assert_eq!(monitor.status, Some(1), "{monitor:?}");
    let told = "the pinned map lb_mon_cpu_v1 is of another build (";
    assert!(monitor.err.contains(told), "{monitor:?}");
    // Frontends are needed to count slots, too; what is wrong with them is told once.
    std::fs::remove_file(pins.join("lb_frontends_v1")).unwrap();
    foreign(&pins.join("lb_frontends_v1"), "array", 4, 1);
    for command in ["status", "maps"] {
        let said = c.node.bascule(&[command]);
        for name in ["lb_frontends_v1", "lb_reasons_v1"] {
            let told = format!("the pinned map {name} is of another build (");
            let times = [&said.out, &said.err].map(|text| text.matches(&told).count());
            assert_eq!(times.iter().sum::<usize>(), 1, "{command}: {said:?}");
        }
    }
}

/// Pins a map that is not of this build, with keys of four bytes.
fn foreign(pin: &Path, kind: &str, value: usize, entries: usize) {
    let [value, entries] = [value, entries].map(|n| n.to_string());
    let made = Command::new("bpftool")
        .args(["map", "create"])
        .arg(pin)
        .args(["type", kind, "key", "4", "value", &value])
        .args(["entries", &entries, "name", "foreign"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn who_may_not_look_is_told_what_it_takes() {
    let c = cluster();
    let _agent = c.node.agent(&[]);
    for command in ["status", "monitor"] {
        let mut denied = Command::new("setpriv");
        denied.args(["--bounding-set", "-all", "--inh-caps", "-all"]);
        denied.args(["--reuid", "65534", "--clear-groups", "--"]);
        denied.arg(beside("bascule")).arg(command);
        denied.arg("--bpffs").arg(c.node.bpffs());
        let said = c.node.netns().inside(|| denied.output()).unwrap();
        let err = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(1), "{command}: {err}");
        let lines = err.lines().count();
        assert!(lines == 1 && err.contains("root"), "{command}: {err}");
    }
}

#[test]
fn a_changed_size_is_told_and_what_the_maps_hold_is_kept() {
    let mut c = cluster();
    c.node.agent(&[]).kill();
    c.client.peer.open(1, GOOD, How::Tcp).well().unwrap();
    let agent = c
        .node
        .agent(&["--max-conntrack", "1000", "--max-frontends", "1000"]);
    agent.says(&["lb_frontends_v1", "resized", "--max-frontends"]);
    agent.says(&["lb_ct4_v1", "resized", "--max-conntrack"]);
    c.client.peer.again(1).well().unwrap();
    c.client.peer.dial(GOOD, How::Tcp, 3).well().unwrap();
}

#[test]
fn a_cgroup_that_is_none_is_named() {
    let c = cluster();
    let dir = c.node.path("no-cgroup");
    std::fs::create_dir_all(&dir).unwrap();
    let mut arguments = Agent::arguments(&c.node);
    let at = arguments.iter().position(|a| a == "--cgroup").unwrap() + 1;
    arguments[at] = dir.display().to_string();
    let mut command = Command::new(beside("bascule"));
    command
        .args(arguments)
        .arg("--source")
        .arg(c.node.manifests());
    let mut agent = Agent::spawn(&c.node, command, c.node.path("cgroup.log"));
    assert_eq!(agent.ended().code(), Some(1));
    agent.says(&["no-cgroup", "--cgroup"]);
}

#[test]
fn an_address_that_is_taken_is_named_and_the_datapath_works() {
    let mut c = cluster();
    let taken = c
        .node
        .netns()
        .inside(|| std::net::TcpListener::bind("127.0.0.1:10256").unwrap());
    let agent = c.node.agent_unready(&[]);
    agent.says(&["127.0.0.1:10256", "--healthz-bind-address"]);
    eventually(Duration::from_secs(10), || {
        c.client.peer.dial_for(GOOD, How::Tcp, 3, 300).well()
    });
    drop(taken);
    agent.ready(c.node.netns());
}
