//! Kernels that lack something, and one that forbids it: the agent names it, with its remedy,
//! and what serves on the node goes on.

use std::process::Command;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::beside;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::seccomp::refuse_bpf;
use bascule_tests::e2e::world::World;
use serde_json::json;

// enum bpf_cmd, include/uapi/linux/bpf.h
const MAP_LOOKUP_BATCH: u32 = 24;
const LINK_DETACH: u32 = 34;

/// A node whose last agent was killed; its maps and programs serve.
struct Served {
    client: Pod,
    _pod: Pod,
    node: Node,
    _world: World,
}

impl Served {
    fn new() -> Self {
        let world = World::new();
        let node = Node::new(&world, 1);
        let (pod, mut client) = (node.pod(2), node.sandboxed_pod(3));
        node.apply("web", &with_pods(dual("web", 1, json!({})), &[&pod]));
        node.agent(&[]).kill();
        client
            .peer
            .open(1, "10.97.0.1:80", How::Tcp)
            .well()
            .unwrap();
        Self {
            client,
            _pod: pod,
            node,
            _world: world,
        }
    }

    /// The next agent, started by `program` with `arguments` before its own.
    fn agent(&self, program: &[&str], refuse: impl FnOnce(&mut Command)) -> Agent {
        let bascule = beside("bascule").display().to_string();
        let mut words = program.iter().copied().chain([bascule.as_str()]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(Agent::arguments(&self.node))
            .arg("--source")
            .arg(self.node.manifests());
        refuse(&mut command);
        Agent::spawn(&self.node, command, self.node.path("refused.log"))
    }

    /// The agent ends, and says why in one line; nothing else does.
    fn refuses(&mut self, mut agent: Agent, words: &[&str]) {
        assert_eq!(agent.ended().code(), Some(1));
        let line = agent.says(words);
        println!("{line}");
        for target in ["10.97.0.1:80", "[fd97::1]:80"] {
            self.client.peer.dial(target, How::Tcp, 5).well().unwrap();
            self.node.host().dial(target, How::Tcp, 5).well().unwrap();
        }
        self.client.peer.again(1).well().unwrap();
    }
}

#[test]
fn a_feature_that_the_kernel_lacks_is_named_with_the_kernel_that_has_it() {
    let mut served = Served::new();
    for (cmd, errno, words) in [
        (
            None,
            libc::ENOSYS,
            ["programs of TC", "Linux 4.1", "CONFIG_NET_CLS_ACT"],
        ),
        (
            Some(MAP_LOOKUP_BATCH),
            libc::EINVAL,
            ["map operations in batches", "Linux 5.6", "boot a kernel"],
        ),
        (
            Some(LINK_DETACH),
            libc::EINVAL,
            ["links that can be detached", "Linux 5.9", "boot a kernel"],
        ),
    ] {
        let agent = served.agent(&[], |command| refuse_bpf(command, cmd, errno));
        served.refuses(agent, &words);
    }
}

#[test]
fn a_kernel_that_is_too_old_is_named_with_the_one_that_is_needed() {
    let mut served = Served::new();
    let agent = served.agent(&["setarch", "--uname-2.6"], |_| {});
    served.refuses(agent, &["this kernel is 2.6.", "Linux 5.15", "update"]);
}

#[test]
fn bpf_that_is_forbidden_despite_the_capabilities_is_told_from_bpf_that_is_not_there() {
    let mut served = Served::new();
    let agent = served.agent(&[], |command| refuse_bpf(command, None, libc::EPERM));
    served.refuses(
        agent,
        &["bpf(2)", "although", "seccomp profile", "lockdown"],
    );
}
