//! The log of an agent that runs gets other levels.

use std::fs;
use std::time::Duration;

use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::world::World;

/// Writes the configuration of a node, as a careful user does.
fn write(node: &Node, fields: &str) -> String {
    let (path, new) = (node.path("config.yaml"), node.path("config.new"));
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                healthzBindAddress: 127.0.0.1:10256\n---\n\
                apiVersion: config.bascule.dev/v1alpha1\nkind: BasculeConfiguration\n";
    fs::write(&new, format!("{head}{fields}\n")).unwrap();
    fs::rename(&new, &path).unwrap();
    path.display().to_string()
}

#[test]
fn levels_change_while_the_agent_runs_and_nothing_else_does() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let config = write(&node, "localhostNodeports: true");
    let mut agent = node.agent(&["--config", &config]);
    let _first = node.pod(2);
    agent.says(&["INFO pod2: "]);
    assert!(!agent.log().contains("DEBUG"), "{}", agent.log());

    let fields = "localhostNodeports: true\nlogLevels: lb_userspace::bpf::devices=debug";
    write(&node, fields);
    agent.says(&["the log has other levels now"]);
    let _second = node.pod(3);
    agent.says(&["DEBUG pod3: "]);

    write(
        &node,
        "localhostNodeports: true\nlogLevels: lb_userspace=loud",
    );
    agent.says(&["WARN logLevels: ", "lb_userspace=loud"]);
    assert!(agent.is_alive(), "{}", agent.log());

    write(
        &node,
        "localhostNodeports: false\nlogLevels: lb_userspace=loud",
    );
    eventually(Duration::from_secs(20), || match agent.is_alive() {
        false => Ok(()),
        true => Err(agent.log()),
    });
    assert!(
        agent.log().contains("has changed: the agent ends"),
        "{}",
        agent.log()
    );
}

#[test]
fn levels_that_are_none_are_told_at_the_start() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let config = write(&node, "logLevels: lb_userspace=loud");
    let mut agent = node.agent_unready(&["--config", &config]);
    assert!(!agent.ended().success());
    let log = agent.log();
    assert!(
        log.contains("logLevels: ") && log.contains("=debug"),
        "{log}"
    );
}
