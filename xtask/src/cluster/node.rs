//! Nodes: a set of namespaces and cgroups each, with containerd and a kubelet.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::control::{kubectl, make_host, pod_routes};
use super::images::{archives, copy, write};
use super::init::READY;
use super::process::{Daemon, Place, child_of, command, join, output, wait_for};
use super::topology::{
    AGNHOST, DNS_SERVICE, GATEWAY, Node, PAUSE, PODS, PREFIX, STAND_INS, fabric_netns, pki, source,
};
use super::{cgroup, tools};
use crate::lab::netns;

/// How long a program of a node may take to answer, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may take to become ready.
const READINESS: Duration = Duration::from_secs(120);

/// Makes a node's network namespace, uplink and routes to the pods of the others.
///
/// # Errors
/// A command of `ip` failed.
pub(crate) fn make(node: Node, count: u8) -> Result<()> {
    let (v4, v6) = node.addrs();
    make_host(&node.id(), &node.name(), (&v4, &v6), true)?;
    netns::ip(
        Some(&node.id()),
        &pod_routes(Node::first(count).filter(|n| *n != node)),
    )
}

/// Starts a node: its namespaces, containerd with the images, and the kubelet.
///
/// # Errors
/// A program cannot be started, or does not answer.
pub(crate) fn start(node: Node) -> Result<()> {
    start_init(node)?;
    configure(node)?;
    masquerade(node)?;
    start_containerd(node)?;
    let dir = node.dir();
    let (v4, v6) = node.addrs();
    let mut kubelet = command(Place::Node(node), tools::program("kubelet"))?;
    kubelet
        .arg("--config")
        .arg(dir.join("kubelet.yaml"))
        .arg("--kubeconfig")
        .arg(pki(&format!("{}.kubeconfig", node.name())))
        .args(["--hostname-override", &node.name()])
        .args(["--node-ip", &format!("{v4},{v6}")])
        .args([
            "--root-dir",
            "/var/lib/kubelet",
            "--cert-dir",
            "/var/lib/kubelet/pki",
        ])
        .args([
            "--node-labels",
            &format!("topology.kubernetes.io/zone=z{}", node.zone()),
        ]);
    Daemon::named(format!("{}.kubelet", node.name())).start(kubelet)?;
    Ok(())
}

/// The first process, in fresh namespaces; all others enter these.
fn start_init(node: Node) -> Result<()> {
    cgroup::make(node)?;
    let dir = node.dir();
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let _ = fs::remove_file(dir.join(READY));
    // A build meanwhile may replace this program's file.
    let own = dir.join("init");
    copy(Path::new("/proc/self/exe"), &own)?;
    let mut command = Command::new("nsenter");
    command
        .arg(format!(
            "--net={}",
            Path::new(netns::NETNS_DIR).join(node.id()).display()
        ))
        .args([
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--uts",
            "--ipc",
            "--cgroup",
            "--kill-child",
        ])
        .arg(own)
        .args(["cluster-node-init", &node.0.to_string()]);
    join(&mut command, cgroup::open_tops(node)?);
    let outer = Daemon::named(format!("{}.unshare", node.name()));
    let parent = outer.start(command)?;
    wait_for(
        &format!("the namespaces of {}", node.name()),
        PATIENCE,
        Some(&outer),
        || {
            anyhow::ensure!(dir.join(READY).exists(), "its mounts are not there");
            Ok(())
        },
    )?;
    cgroup::settle(node, parent)?;
    let first = child_of(parent).with_context(|| outer.died())?;
    Daemon::named(format!("{}.init", node.name())).record(first)
}

/// Writes a node's configuration from the templates.
fn configure(node: Node) -> Result<()> {
    let dir = node.dir();
    let cni = dir.join("cni");
    fs::create_dir_all(&cni).with_context(|| format!("cannot make {}", cni.display()))?;
    write(
        &dir.join("resolv.conf"),
        &format!("nameserver {}\n", GATEWAY.0),
    )?;
    template(node, "containerd.toml", &dir.join("containerd.toml"), &[])?;
    template(node, "kubelet.yaml", &dir.join("kubelet.yaml"), &[])?;
    template(node, "cni.conflist", &cni.join("10-cluster.conflist"), &[])
}

/// Fills in a file of `tests/cluster/node`.
///
/// # Errors
/// It cannot be read or written, or a word in it means nothing here.
pub(crate) fn template(node: Node, name: &str, to: &Path, more: &[(&str, &str)]) -> Result<()> {
    let from = source().join("node").join(name);
    let text =
        fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
    let (v4, v6) = node.pod_networks();
    let path = |p: &Path| p.display().to_string();
    let words = [
        ("@NODE@", node.name()),
        ("@DIR@", path(&node.dir())),
        ("@RUNC@", path(&tools::runc())),
        ("@DEBIAN@", path(&tools::unpacked())),
        ("@PKI@", path(&pki("").join(""))),
        ("@DNS@", DNS_SERVICE.to_owned()),
        ("@PAUSE@", PAUSE.to_owned()),
        ("@PODS@", PODS.join(",")),
        ("@ALL4@", PODS[0].to_owned()),
        ("@ALL6@", PODS[1].to_owned()),
        ("@PODS4@", v4),
        ("@PODS6@", v6),
    ];
    let mut text = words
        .iter()
        .fold(text, |text, (word, value)| text.replace(word, value));
    for (word, value) in more {
        text = text.replace(word, value);
    }
    write(to, &text)
}

/// Gives pods the node's address where theirs lead nowhere, by the kernel's conntrack, as the
/// CNI of most clusters does. `ipMasq` of the plugin here would hide pods from each other.
fn masquerade(node: Node) -> Result<()> {
    let file = node.dir().join("masquerade.nft");
    template(node, "masquerade.nft", &file, &[])?;
    let mut nft = command(Place::Node(node), "nft")?;
    nft.arg("--file").arg(file);
    output(nft).map(|_| ())
}

fn start_containerd(node: Node) -> Result<()> {
    let mut containerd = command(
        Place::Node(node),
        tools::unpacked().join("usr/bin/containerd"),
    )?;
    containerd
        .arg("--config")
        .arg(node.dir().join("containerd.toml"));
    let daemon = Daemon::named(format!("{}.containerd", node.name()));
    daemon.start(containerd)?;
    wait_for(
        &format!("containerd on {} answers", node.name()),
        PATIENCE,
        Some(&daemon),
        || ctr(node, &["version"]),
    )?;
    import(node)
}

/// Gives containerd the images, once: after a reboot of the node they are there.
fn import(node: Node) -> Result<()> {
    let done = node.dir().join("imported");
    if done.exists() {
        return Ok(());
    }
    for archive in archives()? {
        load(node, &archive)?;
    }
    for name in STAND_INS {
        ctr(
            node,
            &["-n", "k8s.io", "images", "tag", "--force", AGNHOST, name],
        )?;
    }
    // Nothing may collect it: it cannot be pulled.
    ctr(
        node,
        &[
            "-n",
            "k8s.io",
            "images",
            "label",
            PAUSE,
            "io.cri-containerd.pinned=pinned",
        ],
    )?;
    write(&done, "")
}

/// Gives containerd the images of an archive.
///
/// # Errors
/// The node does not see the file, or containerd does not understand it.
pub(crate) fn load(node: Node, archive: &Path) -> Result<()> {
    let import = [
        "-n",
        "k8s.io",
        "images",
        "import",
        "--local",
        "--snapshotter",
        "overlayfs",
    ];
    let archive = archive.display().to_string();
    ctr(node, &[&import[..], &[&archive]].concat())
}

fn ctr(node: Node, args: &[&str]) -> Result<()> {
    let mut command = command(Place::Node(node), tools::unpacked().join("usr/bin/ctr"))?;
    command.args(args);
    output(command).map(|_| ())
}

/// Gives a node its pod networks, which no controller does here, and waits until it is ready.
///
/// # Errors
/// It does not register or become ready in time.
pub(crate) fn join_cluster(node: Node) -> Result<()> {
    let name = node.name();
    let (v4, v6) = node.pod_networks();
    let kubelet = Daemon::named(format!("{name}.kubelet"));
    let patch = serde_json::json!({"spec": {"podCIDR": v4, "podCIDRs": [v4, v6]}}).to_string();
    wait_for(
        &format!("node {name} registers"),
        PATIENCE,
        Some(&kubelet),
        || kubectl(&["patch", "node", &name, "--patch", &patch]).map(|_| ()),
    )?;
    let condition = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    wait_for(
        &format!("node {name} gets ready"),
        READINESS,
        Some(&kubelet),
        || match kubectl(&["get", "node", &name, "-o", condition])?.as_str() {
            "True" => Ok(()),
            other => bail!(
                "its condition Ready is {other:?}: `cargo xtask cluster kubectl describe node {name}`"
            ),
        },
    )
}

/// Ends all processes of a node: when the first one dies, the kernel ends the others.
///
/// # Errors
/// One does not end.
pub(crate) fn stop(node: Node) -> Result<()> {
    let name = node.name();
    Daemon::named(format!("{name}.init")).stop(Duration::ZERO)?;
    for daemon in Daemon::all() {
        if daemon.name().starts_with(&format!("{name}.")) {
            daemon.stop(Duration::ZERO)?;
        }
    }
    Ok(())
}

/// Removes a node's cgroups, and its network namespace with all devices in it.
///
/// # Errors
/// One cannot be removed.
pub(crate) fn unmake(node: Node) -> Result<()> {
    // The top of cgroup2's groups takes no process once it has handed its controllers on.
    cgroup::unmake(node)?;
    // The kernel removes a namespace's devices some time later, and the name is wanted again at
    // once. An error here says that it was quicker.
    let _ = netns::ip(
        Some(&fabric_netns()),
        &format!("link del {}\n", node.name()),
    );
    netns::ip(None, &format!("netns del {}\n", node.id()))
}

/// The nodes that a user named, or all.
///
/// # Errors
/// A name is none of a node.
pub(crate) fn named(word: &str, count: u8) -> Result<Node> {
    let found = Node::parse(word).filter(|n| n.0 <= count);
    found.with_context(|| format!("there is no node {word}: n1 to n{count} are up ({PREFIX})"))
}

/// Makes sure that everything is built.
///
/// # Errors
/// See [`tools::ensure`].
pub(crate) fn ensure() -> Result<()> {
    tools::ensure()?;
    super::images::ensure()?;
    tools::report();
    Ok(())
}
