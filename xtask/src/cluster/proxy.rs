//! The service proxy on the nodes: the agent, kube-proxy, or none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::daemonset;
use super::node::template;
use super::process::{Daemon, Place, command, output, wait_for};
use super::tools;
use super::topology::{Node, pki};
use crate::paths;

/// How long a proxy may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the agents run beside a kube-proxy that they take over from.
const BESIDE: Duration = Duration::from_secs(5);
/// How long a proxy may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// Where both kinds answer `/healthz`.
const HEALTHZ: &str = "http://127.0.0.1:10256/healthz";

/// A kind of proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The agent of this checkout, a process of each node
    Bascule,
    /// The agent as pods, by image and chart
    Daemonset,
    /// Kubernetes' own, to compare with
    KubeProxy,
    /// Nothing: services do not work
    None,
}

/// What to run on the nodes.
#[derive(Clone, Debug, clap::Args, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// The proxy
    #[arg(long, value_enum, default_value_t = Kind::Bascule)]
    pub proxy: Kind,
    /// kube-proxy's mode: nftables or iptables
    #[arg(long, default_value = "nftables", value_name = "MODE")]
    pub mode: String,
    /// The agent's program [default: target/release/bascule, else target/debug/bascule]
    #[arg(long, value_name = "FILE")]
    pub bascule: Option<PathBuf>,
    /// The image's archive, of a DaemonSet [default: target/image/bascule-ARCH.tar]
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub image: Option<PathBuf>,
    /// Take over from the kube-proxy that runs: connections go on; with daemonset only
    #[arg(long)]
    #[serde(default)]
    pub takeover: bool,
    /// More flags of the proxy; of a DaemonSet: values of the chart (name=value)
    #[arg(last = true, value_name = "PROXY FLAGS")]
    pub flags: Vec<String>,
}

fn daemon(node: Node) -> Daemon {
    Daemon::named(format!("{}.proxy", node.name()))
}

/// Starts the proxy on all nodes.
///
/// # Errors
/// It cannot be started.
pub(crate) fn start(nodes: u8, choice: &Choice) -> Result<()> {
    match choice.proxy {
        Kind::Daemonset => daemonset::install(nodes, choice),
        _ => Node::first(nodes).try_for_each(|n| start_on(n, choice)),
    }
}

/// Starts the agents beside kube-proxy, ends that, and waits until the agents have removed its
/// rules.
///
/// # Errors
/// They do not in time.
pub(crate) fn take_over(nodes: u8, choice: &Choice) -> Result<()> {
    start(nodes, choice)?;
    daemonset::wait_running(nodes)?;
    // For some time both serve, as when an administrator takes the second step by hand.
    std::thread::sleep(BESIDE);
    Node::first(nodes).try_for_each(|n| daemon(n).stop(GRACE))?;
    wait(nodes, choice.proxy)?;
    Node::first(nodes).try_for_each(|node| {
        let what = format!("kube-proxy's rules are removed from {}", node.name());
        wait_for(&what, PATIENCE, None, || no_rules(node))
    })
}

/// Of either mode: iptables' rules are in the same list where it is the one of nftables.
fn no_rules(node: Node) -> Result<()> {
    let mut nft = command(Place::Node(node), "nft")?;
    nft.args(["list", "ruleset"]);
    let rules = output(nft)?;
    let left = rules
        .lines()
        // The kubelet has chains of its own called KUBE-.
        .find(|l| l.contains("table") && l.contains("kube-proxy") || l.contains("KUBE-SERVICES"));
    match left {
        None => Ok(()),
        Some(line) => bail!("{:?} is there still", line.trim()),
    }
}

/// Waits until the proxy says on all nodes that it serves.
///
/// # Errors
/// It ended, or does not serve in time.
pub(crate) fn wait(nodes: u8, kind: Kind) -> Result<()> {
    match kind {
        Kind::Daemonset => daemonset::wait(nodes),
        _ => Node::first(nodes).try_for_each(|n| wait_on(n, kind)),
    }
}

/// Starts the proxy on a node; pods start by themselves.
///
/// # Errors
/// It cannot be started.
pub(crate) fn start_on(node: Node, choice: &Choice) -> Result<()> {
    let command = match choice.proxy {
        Kind::None | Kind::Daemonset => return Ok(()),
        Kind::Bascule => {
            let mut agent = command(Place::Node(node), program(choice)?)?;
            agent
                .arg("agent")
                .arg("--kubeconfig")
                .arg(pki("proxy.kubeconfig"))
                .args(["--node-name", &node.name()])
                .args(&choice.flags);
            agent
        }
        Kind::KubeProxy => {
            let file = node.dir().join("kube-proxy.yaml");
            template(node, "kube-proxy.yaml", &file, &[("@MODE@", &choice.mode)])?;
            let mut proxy = command(Place::Node(node), tools::kube_proxy())?;
            proxy.arg("--config").arg(file).args(&choice.flags);
            proxy
        }
    };
    daemon(node).start(command).map(|_| ())
}

/// Waits until the proxy on a node says that it serves.
///
/// # Errors
/// It ended, or does not serve in time.
pub(crate) fn wait_on(node: Node, kind: Kind) -> Result<()> {
    if matches!(kind, Kind::None | Kind::Daemonset) {
        return Ok(());
    }
    let what = format!("the proxy on {} serves", node.name());
    wait_for(&what, PATIENCE, Some(&daemon(node)), || healthy(node))
}

fn healthy(node: Node) -> Result<()> {
    let mut curl = command(Place::Node(node), "curl")?;
    curl.args([
        "--fail",
        "--silent",
        "--show-error",
        "--max-time",
        "2",
        HEALTHZ,
    ]);
    output(curl).map(|_| ())
}

/// Where `cargo xtask build` puts the agent's program.
pub(super) fn builds() -> [PathBuf; 2] {
    ["release", "debug"].map(|profile| paths::root().join("target").join(profile).join("bascule"))
}

/// The one that was built last.
pub(super) fn newest(programs: &[PathBuf]) -> Option<&PathBuf> {
    let built = |p: &&PathBuf| p.metadata().and_then(|m| m.modified()).ok();
    programs.iter().filter(|p| p.is_file()).max_by_key(built)
}

/// The agent's program, as an absolute path.
fn program(choice: &Choice) -> Result<PathBuf> {
    let candidates = match &choice.bascule {
        Some(given) => vec![given.clone()],
        None => builds().to_vec(),
    };
    let Some(found) = newest(&candidates) else {
        bail!(
            "there is no agent at {}: `cargo xtask build`",
            display(&candidates)
        );
    };
    found
        .canonicalize()
        .with_context(|| format!("cannot find {}", found.display()))
}

fn display(paths: &[PathBuf]) -> String {
    let all: Vec<_> = paths
        .iter()
        .map(|p: &PathBuf| Path::display(p).to_string())
        .collect();
    all.join(" or ")
}

/// Ends the proxy on all nodes. What it left in the kernel goes too, unless one of the same
/// kind takes over: that is a restart.
///
/// # Errors
/// It does not end, or something cannot be removed.
pub(crate) fn stop(nodes: u8, kind: Kind, next: Kind) -> Result<()> {
    match kind {
        Kind::None => return Ok(()),
        Kind::Daemonset if next == kind => return Ok(()),
        Kind::Daemonset => daemonset::remove()?,
        Kind::Bascule | Kind::KubeProxy => {
            Node::first(nodes).try_for_each(|n| daemon(n).stop(GRACE))?
        }
    }
    let agents = [Kind::Bascule, Kind::Daemonset];
    if kind == next || agents.contains(&kind) && agents.contains(&next) {
        return Ok(());
    }
    Node::first(nodes).try_for_each(|n| clean(n, kind))
}

/// Ends the proxy on a node; what it left in the kernel goes on.
///
/// # Errors
/// It does not end.
pub(crate) fn end_on(node: Node) -> Result<()> {
    daemon(node).stop(GRACE)
}

fn clean(node: Node, kind: Kind) -> Result<()> {
    match kind {
        Kind::None => Ok(()),
        Kind::Bascule | Kind::Daemonset => unpin(node),
        Kind::KubeProxy => {
            let mut proxy = command(Place::Node(node), tools::kube_proxy())?;
            proxy
                .arg("--config")
                .arg(node.dir().join("kube-proxy.yaml"))
                .arg("--cleanup");
            output(proxy).map(|_| ())
        }
    }
}

/// The agent's links and maps live by their pins only.
fn unpin(node: Node) -> Result<()> {
    let mut rm = command(Place::Node(node), "rm")?;
    rm.args(["-rf", "/sys/fs/bpf/bascule", "/run/bascule"]);
    output(rm).map(|_| ())
}
