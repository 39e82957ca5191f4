//! The kernel's conntrack is set as kube-proxy sets it, for others on the node that use it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::world::World;

const DIR: &str = "/proc/sys/net/netfilter";

/// The settings of a namespace's conntrack, by their names.
fn sysctls(node: &Node) -> BTreeMap<String, i64> {
    node.netns().inside(|| {
        let entries = fs::read_dir(DIR)
            .expect("the kernel has netfilter")
            .flatten();
        let value = |path: &Path| fs::read_to_string(path).ok()?.trim().parse().ok();
        let all = entries.filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let counts = name.starts_with("nf_conntrack_") && name != "nf_conntrack_count";
            Some((name, value(&e.path())?)).filter(|_| counts)
        });
        all.collect()
    })
}

/// Waits until the settings are those of before, but for these.
#[track_caller]
fn become_(node: &Node, before: &BTreeMap<String, i64>, changed: &[(&str, i64)]) {
    let mut expected = before.clone();
    for (name, value) in changed {
        let name = format!("nf_conntrack_{name}");
        assert!(
            expected.insert(name.clone(), *value).is_some(),
            "there is no {name}"
        );
    }
    eventually(Duration::from_secs(20), || {
        let found = sysctls(node);
        let differs = |(name, value): (&String, &i64)| {
            let wanted = expected[name];
            (*value != wanted).then(|| format!("{name} is {value}, not {wanted}"))
        };
        let wrong: Vec<String> = found.iter().filter_map(differs).collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n"))
        }
    });
}

/// The module, which other tests on this machine do not need.
fn has_conntrack() {
    if !Path::new(DIR).join("nf_conntrack_max").exists() {
        let loaded = Command::new("modprobe").arg("nf_conntrack").status();
        assert!(
            loaded.is_ok_and(|s| s.success()),
            "the kernel has no conntrack: this test needs CONFIG_NF_CONNTRACK"
        );
    }
}

/// What kube-proxy 1.36.3 made of a namespace of this kind with the same configuration: its
/// defaults, and then every field.
#[test]
fn the_settings_are_those_that_kube_proxy_leaves() {
    has_conntrack();
    let world = World::new();
    let node = Node::new(&world, 1);
    let before = sysctls(&node);
    // Whoever runs in another namespace than the first cannot size the table.
    let size = ["--conntrack-max-per-core", "0"];
    let agent = node.agent(&size);
    let defaults = [
        ("tcp_timeout_established", 86_400),
        ("tcp_timeout_close_wait", 3_600),
    ];
    become_(&node, &before, &defaults);
    agent.says(&[
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait was",
        "3600 now",
    ]);
    agent.kill();
    // Zero leaves a setting as it is: also as the agent before made it.
    let flags = [
        "--conntrack-tcp-timeout-established",
        "0",
        "--conntrack-tcp-timeout-close-wait",
        "1m30s",
        "--conntrack-tcp-be-liberal",
        "--conntrack-udp-timeout",
        "45s",
        "--conntrack-udp-timeout-stream",
        "4m",
    ];
    let _agent = node.agent(&[&size[..], &flags].concat());
    let all = [
        ("tcp_timeout_established", 86_400),
        ("tcp_timeout_close_wait", 90),
        ("tcp_be_liberal", 1),
        ("udp_timeout", 45),
        ("udp_timeout_stream", 240),
    ];
    become_(&node, &before, &all);
}

#[test]
fn what_cannot_be_set_is_warned_of_and_nothing_is_set_when_it_is_off() {
    has_conntrack();
    let world = World::new();
    let node = Node::new(&world, 1);
    let before = sysctls(&node);
    let agent = node.agent(&["--netfilter-sysctls", "off"]);
    assert_eq!(sysctls(&node), before);
    agent.kill();
    // More than any machine has, and not this namespace's to say.
    let agent = node.agent(&[
        "--conntrack-max-per-core",
        "1",
        "--conntrack-min",
        "2147483647",
    ]);
    agent.says(&[
        "net.netfilter.nf_conntrack_max is",
        "cannot be made 2147483647",
        "sysctl -w net.netfilter.nf_conntrack_max=2147483647",
    ]);
    become_(
        &node,
        &before,
        &[
            ("tcp_timeout_established", 86_400),
            ("tcp_timeout_close_wait", 3_600),
        ],
    );
    drop(agent);
}

/// As the pod of the chart: an agent that sees another `/proc/sys` than the host's, and has no
/// other capability than its own.
#[test]
fn a_container_sets_the_nodes_by_a_mount() {
    has_conntrack();
    let world = World::new();
    let node = Node::new(&world, 1);
    let before = sysctls(&node);
    let mount = node.path("netfilter");
    fs::create_dir(&mount).unwrap();
    let script = format!(
        "mount --bind {DIR} {mount} && mount --bind /proc/sys /proc/sys && \
         mount -o remount,bind,ro /proc/sys && \
         exec setpriv --inh-caps=-all --bounding-set=-all,+bpf,+net_admin,+perfmon -- \"$0\" \"$@\"",
        mount = mount.display()
    );
    let agent = |flags: &[&str], log: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &script])
            .arg(bascule_tests::e2e::beside("bascule"))
            .args(Agent::arguments(&node))
            .args(["--conntrack-max-per-core", "0", "--source"])
            .arg(node.manifests())
            .args(flags);
        let agent = Agent::spawn(&node, command, node.path(log));
        agent.ready(node.netns());
        agent
    };
    let refused = agent(&[], "refused.log");
    refused.says(&[
        "nf_conntrack_tcp_timeout_established",
        "Read-only file system",
    ]);
    become_(&node, &before, &[]);
    drop(refused);
    let _agent = agent(
        &["--netfilter-sysctls", mount.to_str().unwrap()],
        "agent.log",
    );
    become_(
        &node,
        &before,
        &[
            ("tcp_timeout_established", 86_400),
            ("tcp_timeout_close_wait", 3_600),
        ],
    );
}
