//! Rules of kube-proxy that an agent finds, and cannot or shall not remove.

use std::process::Command;

use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::world::World;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(20);
/// What shows that kube-proxy's mode nftables was here.
const TABLE: &str = "add table ip kube-proxy; add chain ip kube-proxy services";

fn run(node: &Node, words: &[&str]) -> String {
    node.netns().inside(|| {
        let out = Command::new(words[0]).args(&words[1..]).output();
        let out = out.unwrap_or_else(|e| panic!("{words:?}: {e}"));
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        String::from_utf8_lossy(&out.stdout).into_owned() + &errors
    })
}

fn status(node: &Node) -> String {
    node.bascule(&["status"]).out
}

#[test]
fn without_takeover_rules_are_told_of_and_left_alone() {
    let world = World::new();
    let node = Node::new(&world, 1);
    run(&node, &["nft", TABLE]);
    let before = run(&node, &["nft", "list", "ruleset"]);
    assert!(before.contains("services"), "{before}");
    let agent = node.agent(&[]);
    agent.says(&[
        "kube-proxy's rules (nftables)",
        "--takeover",
        "kube-proxy --cleanup",
    ]);
    eventually(WITHIN, || {
        let status = status(&node);
        let told = status.contains("kube-proxy's rules (nftables)");
        told.then_some(()).ok_or(status)
    });
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(agent.log().matches("kube-proxy's rules").count(), 1);
    assert_eq!(run(&node, &["nft", "list", "ruleset"]), before);
}

#[test]
fn cleanup_removes_the_table_of_a_takeover() {
    let world = World::new();
    let node = Node::new(&world, 1);
    // IPVS stays: nobody here can remove it.
    node.netns()
        .ip("link add kube-ipvs0 type veth peer name ipvs1\n");
    let agent = node.agent(&["--takeover"]);
    agent.says(&["TakeoverByHand", "ipvs", "kube-proxy --cleanup"]);
    let rules = run(&node, &["nft", "list", "ruleset"]);
    assert_eq!(rules.matches("table ip").count(), 2, "{rules}");
    assert!(rules.contains("bascule-takeover"), "{rules}");
    agent.kill();
    assert_eq!(node.bascule(&["cleanup"]).status, Some(0));
    assert_eq!(run(&node, &["nft", "list", "ruleset"]), "");
}

#[test]
fn an_agent_that_restarts_beside_rules_makes_no_second_table() {
    let world = World::new();
    let node = Node::new(&world, 1);
    node.netns()
        .ip("link add kube-ipvs0 type veth peer name ipvs1\n");
    let agent = node.agent(&["--takeover"]);
    agent.says(&["TakeoverByHand"]);
    let rules = run(&node, &["nft", "list", "ruleset"]);
    agent.kill();
    let agent = node.agent(&["--takeover"]);
    agent.says(&["TakeoverByHand"]);
    assert_eq!(run(&node, &["nft", "list", "ruleset"]), rules);
    // Gone, as after `kube-proxy --cleanup`: nothing was left, and the table goes.
    node.netns().ip("link del kube-ipvs0\n");
    agent.says(&["kube-proxy's rules are gone"]);
    eventually(WITHIN, || {
        let rules = run(&node, &["nft", "list", "ruleset"]);
        rules.is_empty().then_some(()).ok_or(rules)
    });
}

#[test]
fn rules_of_the_older_iptables_are_found_and_named() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let chain = |how: &str| {
        run(
            &node,
            &["iptables-legacy", "-t", "nat", how, "KUBE-SERVICES"],
        )
    };
    assert_eq!(chain("-N"), "");
    let agent = node.agent(&["--takeover"]);
    agent.says(&["TakeoverByHand", "iptables-legacy", "kube-proxy --cleanup"]);
    assert_eq!(chain("-X"), "");
    agent.says(&["kube-proxy's rules are gone"]);
}
