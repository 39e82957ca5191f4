//! `bascule sysdump` of a node that serves: everything is there, and nothing secret is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bascule_tests::e2e::agent::Agent;
use bascule_tests::e2e::eventually;
use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::objects::{dual, with_pods};
use bascule_tests::e2e::proto::How;
use bascule_tests::e2e::world::World;
use serde_json::{Value, json};

const WEB: &str = "10.97.0.10:80";
const PASSWORD: &str = "a-password-of-nobody";
const TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJub2JvZHkifQ.bm8tc2lnbmF0dXJl";
const KEY: &str = "LS0tLS1CRUdJTiBub2JvZHkncyBrZXk";

const MEMBERS: [&str; 23] = [
    "affinity.json",
    "backends.json",
    "config.json",
    "conntrack.json",
    "devices.json",
    "errors.txt",
    "health.json",
    "kernel-config.txt",
    "kernel.json",
    "layouts.json",
    "links.json",
    "log.json",
    "maglev.json",
    "maps.json",
    "metrics.txt",
    "mounts.txt",
    "names.json",
    "node.json",
    "qdiscs.json",
    "services.json",
    "status.json",
    "status.txt",
    "versions.json",
];

/// A kubeconfig, and a configuration that names it; both have secrets.
fn configuration(node: &Node) -> String {
    let kubeconfig = node.path("kubeconfig");
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "users": [{"name": "x", "user": {"token": TOKEN, "client-key-data": KEY}}],
    });
    fs::write(&kubeconfig, content.to_string()).unwrap();
    let kube_proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
    });
    let own = json!({
        "apiVersion": "config.bascule.dev/v1alpha1", "kind": "BasculeConfiguration",
        "apiserver": format!("https://admin:{PASSWORD}@127.0.0.1:1"),
    });
    let path = node.path("config.yaml");
    fs::write(&path, format!("{kube_proxy}\n---\n{own}\n")).unwrap();
    path.display().to_string()
}

/// The files of an archive, as `tar` unpacks it.
fn unpack(archive: &Path) -> BTreeMap<String, String> {
    let dir = tempfile::TempDir::new().unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(archive).arg("-C").arg(dir.path());
    assert!(tar.status().unwrap().success(), "{}", archive.display());
    let root = dir.path().join("bascule-sysdump");
    let files = fs::read_dir(root).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(&path).unwrap())
    });
    files.collect()
}

#[test]
fn a_dump_has_everything_but_secrets() {
    let world = World::new();
    let node = Node::new(&world, 1);
    let pod = node.pod(2);
    let mut client = node.sandboxed_pod(3);
    node.apply("web", &with_pods(dual("web", 10, json!({})), &[&pod]));
    let agent = node.agent(&["--config", &configuration(&node)]);
    client.peer.dial(WEB, How::Tcp, 3).well().unwrap();
    // The log's lines are written every second.
    let log = node.path("state").join("log.json");
    eventually(Duration::from_secs(10), || {
        fs::metadata(&log).map_err(|e| e.to_string())
    });

    let archive = node.path("dump.tar.gz");
    let name = archive.display().to_string();
    let said = node.bascule(&["sysdump", &name]);
    assert_eq!(
        (said.status, said.out.trim()),
        (Some(0), &*name),
        "{said:?}"
    );
    assert!(said.err.contains("bascule: services.json\n"), "{said:?}");
    let mode = fs::metadata(&archive).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = unpack(&archive);
    let mut failed = files["errors.txt"].clone();
    if !files.contains_key("kernel-config.txt") {
        // Not every machine that runs tests has it.
        assert!(failed.starts_with("kernel-config.txt: "), "{failed}");
        failed = failed.split_off(failed.find('\n').unwrap() + 1);
    }
    assert_eq!(failed, "");
    let expected = MEMBERS
        .iter()
        .filter(|m| files.contains_key(**m) || **m != "kernel-config.txt");
    assert!(files.keys().eq(expected), "{:?}", files.keys());
    contents(&node, &files);

    elsewhere(&node, &name, agent);
}

/// Where an archive is there already, where no agent runs, and where it is not for a file.
fn elsewhere(node: &Node, name: &str, agent: Agent) {
    let again = node.bascule(&["sysdump", name]);
    assert!(
        again.status == Some(1) && again.err.contains(name),
        "{again:?}"
    );
    drop(agent);
    let piped = node.bascule(&["sysdump", "-"]);
    assert!(
        piped.status == Some(0) && piped.out.starts_with('\x1f'),
        "{:?}",
        piped.err
    );
    assert!(
        piped
            .err
            .contains("metrics.txt is left out: http://127.0.0.1:10249/metrics")
    );
    let mut terminal = node.on_terminal(&["sysdump", "-"]);
    assert_eq!(terminal.ended().0.code(), Some(1));
}

fn contents(node: &Node, files: &BTreeMap<String, String>) {
    let json = |name: &str| -> Value {
        let parsed = serde_json::from_str(&files[name]);
        parsed.unwrap_or_else(|e| panic!("{name}: {e}: {}", files[name]))
    };
    for name in files.keys().filter(|name| name.ends_with(".json")) {
        json(name);
    }
    for (name, words) in [
        ("services.json", "default/web:tcp"),
        ("backends.json", "10.201.1.2"),
        ("maglev.json", WEB),
        ("names.json", "default/web:udp"),
        ("metrics.txt", "bascule_service_connections_total"),
        ("log.json", "\"starts"),
        ("status.txt", "Sockets   all connect straight to backends"),
        ("links.json", "lb_connect4"),
        ("devices.json", "\"eth0\""),
        ("mounts.txt", " bpf "),
        ("config.json", "https://(left out)@127.0.0.1:1"),
    ] {
        let text = &files[name];
        assert!(text.contains(words), "{name} has no {words}: {text}");
    }
    assert_eq!(json("conntrack.json")["in_all"], 3);
    assert_eq!(json("conntrack.json")["flows"].as_array().unwrap().len(), 3);
    assert_eq!(json("health.json")["healthz"]["status"], 200);
    assert_eq!(json("status.json")["verdict"], "well");
    let layouts = json("layouts.json");
    let layouts = layouts.as_array().unwrap();
    assert_eq!(layouts.len(), 14);
    assert!(
        layouts.iter().all(|layout| layout["same"] == true),
        "{layouts:?}"
    );
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(json("kernel.json")["release"], release.trim());
    let kubeconfig = json("config.json")["kubeProxy"]["clientConnection"]["kubeconfig"].clone();
    assert_eq!(kubeconfig, json!(node.path("kubeconfig")));
    for (name, text) in files {
        for secret in [PASSWORD, TOKEN, KEY] {
            assert!(!text.contains(secret), "{name} has {secret}");
        }
    }
}
