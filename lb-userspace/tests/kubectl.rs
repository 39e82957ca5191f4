//! `kubectl bascule`, with a kubectl that says what the test wants.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with the plugin, and a kubectl before all others.
struct Cluster(TempDir);

fn pod(node: &str, phase: &str) -> Value {
    json!({"metadata": {"name": format!("bascule-{node}"), "namespace": "kube-system"},
           "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}})
}

impl Cluster {
    /// Its agents print their node and their arguments, and end with the status that the file
    /// of the node says.
    fn new(pods: &[Value]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
        fs::write(dir.path().join("pods"), list.to_string()).unwrap();
        let web = json!({"metadata": {"name": "web-1"}, "spec": {"nodeName": "n2", "containers": []},
                         "status": {"podIPs": [{"ip": "10.1.2.3"}, {"ip": "fd00::3"}]}});
        fs::write(dir.path().join("web"), web.to_string()).unwrap();
        let script = r#"#!/bin/sh
dir=$(dirname "$0")
echo "$*" >> "$dir/asked"
case "$*" in
*"get pods"*) cat "$dir/pods" ;;
*"get pod web-1 -n shop"*) cat "$dir/web" ;;
*"get pod"*) echo 'Error from server (NotFound): pods "nobody" not found' >&2; exit 1 ;;
*exec*)
    for pod; do case "$pod" in bascule-*) node=${pod#bascule-} ;; esac; done
    while [ "$1" != -- ]; do shift; done
    shift 2
    [ -f "$dir/$node.err" ] && cat "$dir/$node.err" >&2
    printf '{"node": "%s", "words": "%s"}\n' "$node" "$*"
    exit "$(cat "$dir/$node" 2>/dev/null || echo 0)" ;;
esac
"#;
        let kubectl = dir.path().join("kubectl");
        fs::write(&kubectl, script).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        let plugin = dir.path().join("kubectl-bascule");
        symlink(env!("CARGO_BIN_EXE_bascule"), plugin).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        let path = format!("{}:{}", self.0.path().display(), env!("PATH"));
        let mut plugin = Command::new(self.path("kubectl-bascule"));
        plugin.args(words).env("PATH", path).output().unwrap()
    }
}

fn out(said: &Output) -> String {
    String::from_utf8(said.stdout.clone()).unwrap()
}

fn err(said: &Output) -> String {
    String::from_utf8(said.stderr.clone()).unwrap()
}

#[test]
fn every_node_is_asked_and_named() {
    let cluster = Cluster::new(&[pod("n2", "Running"), pod("n1", "Running")]);
    let said = cluster.run(&["service", "list", "--service", "shop/web"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let expected = r#"== n1
{"node": "n1", "words": "service list --service shop/web"}

== n2
{"node": "n2", "words": "service list --service shop/web"}
"#;
    assert_eq!(out(&said), expected);
    let json: Value = serde_json::from_slice(&cluster.run(&["maps", "--json"]).stdout).unwrap();
    let of = |node| json!({"node": node, "words": "maps --json"});
    assert_eq!(json, json!({"n1": of("n1"), "n2": of("n2")}));
}

#[test]
fn one_node_answers_as_if_it_were_here() {
    let cluster = Cluster::new(&[pod("n1", "Running"), pod("n2", "Running")]);
    let words = ["--context", "prod", "--node", "n2", "maps", "--json"];
    assert_eq!(
        out(&cluster.run(&words)),
        "{\"node\": \"n2\", \"words\": \"maps --json\"}\n"
    );
    let asked = fs::read_to_string(cluster.path("asked")).unwrap();
    let lines: Vec<&str> = asked.lines().collect();
    assert!(
        lines.iter().all(|line| line.starts_with("--context prod ")),
        "{asked}"
    );
    let exec = "exec -n kube-system bascule-n2 -c agent -- /usr/bin/bascule maps --json";
    assert!(lines[1].ends_with(exec), "{asked}");
}

#[test]
fn the_exit_status_is_the_worst_and_the_others_still_answer() {
    let cluster = Cluster::new(&[
        pod("n1", "Running"),
        pod("n2", "Running"),
        pod("n3", "Pending"),
    ]);
    fs::write(cluster.path("n1"), "3").unwrap();
    let two = cluster.run(&["--node", "n1", "status"]);
    assert_eq!(two.status.code(), Some(3));
    let all = cluster.run(&["status"]);
    assert_eq!(all.status.code(), Some(1), "one node cannot be asked");
    assert_eq!(err(&all), "node n3: the agent's pod is Pending\n");
    assert!(
        out(&all).contains("\"n1\"") && out(&all).contains("\"n2\""),
        "{all:?}"
    );
    fs::write(cluster.path("n2"), "1").unwrap();
    fs::write(
        cluster.path("n2.err"),
        "Error from server: dial tcp: timeout",
    )
    .unwrap();
    let failed = cluster.run(&["--node", "n2", "status"]);
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(
        err(&failed),
        "node n2: Error from server: dial tcp: timeout\n"
    );
}

#[test]
fn a_pod_is_found_with_the_users_rights_and_its_node_explains() {
    let cluster = Cluster::new(&[pod("n1", "Running"), pod("n2", "Running")]);
    let said = cluster.run(&["explain", "pod/shop/web-1", "svc/api:80"]);
    assert_eq!(
        out(&said),
        "{\"node\": \"n2\", \"words\": \"explain 10.1.2.3 svc/api:80\"}\n"
    );
    let v6 = cluster.run(&["explain", "pod/shop/web-1", "[fd97::1]:80"]);
    assert!(out(&v6).contains("explain fd00::3 [fd97::1]:80"), "{v6:?}");
    let nobody = cluster.run(&["explain", "pod/nobody", "svc/api:80"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(err(&nobody).contains("\"nobody\" not found"), "{nobody:?}");
}

#[test]
fn who_asks_wrongly_is_told() {
    let cluster = Cluster::new(&[pod("n1", "Running"), pod("n2", "Running")]);
    for (words, status, part) in [
        (&["--node", "n9", "status"][..], 1, "on the node n9"),
        (&["top"], 1, "name it with --node"),
        (&[], 2, "Usage: kubectl bascule"),
    ] {
        let said = cluster.run(words);
        assert_eq!(said.status.code(), Some(status), "{said:?}");
        assert!(err(&said).contains(part), "{said:?}");
    }
    let empty = Cluster::new(&[]);
    let said = empty.run(&["status"]);
    assert!(
        err(&said).contains("no pod of an agent was found"),
        "{said:?}"
    );
}
