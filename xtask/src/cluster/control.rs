//! The fabric and the control plane: etcd, API server, controller manager and scheduler, in
//! one network namespace.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use super::process::{Daemon, Place, command, output, wait_for};
use super::proxy::{builds, newest};
use super::tools;
use super::topology::{
    CONTROL, GATEWAY, Node, SERVICES, UPLINK, admin, control_netns, fabric_netns, pki, state,
};
use crate::lab::netns;

/// How long a program may take to answer, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);
const ETCD: &str = "http://127.0.0.1:2379";

/// Makes the fabric: a bridge, and a router on it that refuses what it has no route for.
///
/// # Errors
/// A command of `ip` failed.
pub(crate) fn make_fabric() -> Result<()> {
    let fabric = fabric_netns();
    netns::add(&fabric, true)?;
    netns::ip(
        Some(&fabric),
        &format!(
            "link add br0 type bridge mcast_snooping 0\n\
             addr add {}/24 dev br0\n\
             addr add {}/64 dev br0 nodad\n\
             link set br0 up\n\
             route add unreachable 0.0.0.0/0\n\
             route add unreachable ::/0\n",
            GATEWAY.0, GATEWAY.1
        ),
    )
}

/// Makes a host on the fabric, whose port there is called `port`.
///
/// # Errors
/// A command of `ip` failed.
pub(crate) fn make_host(name: &str, port: &str, addrs: (&str, &str), forwards: bool) -> Result<()> {
    netns::add(name, forwards)?;
    netns::ip(
        Some(&fabric_netns()),
        &format!(
            "link add {port} type veth peer name {UPLINK} netns {name}\nlink set {port} master br0 up\n"
        ),
    )?;
    netns::ip(
        Some(name),
        &format!(
            "addr add {}/24 dev {UPLINK}\n\
             addr add {}/64 dev {UPLINK} nodad\n\
             link set {UPLINK} up\n\
             route add default via {}\n\
             route add default via {}\n",
            addrs.0, addrs.1, GATEWAY.0, GATEWAY.1
        ),
    )
}

/// Makes the control plane's host, with routes to all pods.
///
/// # Errors
/// A command of `ip` failed.
pub(crate) fn make(nodes: u8) -> Result<()> {
    let netns = control_netns();
    make_host(&netns, "control", CONTROL, false)?;
    netns::ip(Some(&netns), &pod_routes(Node::first(nodes)))
}

/// Routes to the pods of `nodes`.
pub(crate) fn pod_routes(nodes: impl Iterator<Item = Node>) -> String {
    nodes
        .map(|node| {
            let ((v4, v6), (via4, via6)) = (node.pod_networks(), node.addrs());
            format!("route add {v4} via {via4}\nroute add {v6} via {via6}\n")
        })
        .collect()
}

/// Starts the programs of the control plane, and waits until the API server serves.
///
/// # Errors
/// One cannot be started, or does not serve in time.
pub(crate) fn start() -> Result<()> {
    let etcd = Daemon::named("etcd");
    etcd.start(with(
        &tools::etcd(),
        &[
            ("data-dir", state().join("etcd").into()),
            ("listen-client-urls", ETCD.into()),
            ("advertise-client-urls", ETCD.into()),
            ("listen-peer-urls", "http://127.0.0.1:0".into()),
            // The cluster does not outlive the machine.
            ("unsafe-no-fsync", "true".into()),
            ("log-level", "warn".into()),
        ],
    )?)?;
    start_apiserver()?;
    let user = |name: &str| OsString::from(pki(&format!("{name}.kubeconfig")));
    let flags = |name| {
        [
            "kubeconfig",
            "authentication-kubeconfig",
            "authorization-kubeconfig",
        ]
        .map(|flag| (flag, user(name)))
    };
    let mut manager = flags("controller-manager").to_vec();
    manager.extend([
        ("leader-elect", "false".into()),
        ("use-service-account-credentials", "true".into()),
        (
            "service-account-private-key-file",
            pki("accounts.key").into(),
        ),
        ("root-ca-file", pki("ca.crt").into()),
        ("cluster-signing-cert-file", pki("ca.crt").into()),
        ("cluster-signing-key-file", pki("ca.key").into()),
        ("allocate-node-cidrs", "false".into()),
    ]);
    Daemon::named("controller-manager")
        .start(with(&tools::program("kube-controller-manager"), &manager)?)?;
    let mut scheduler = flags("scheduler").to_vec();
    scheduler.push(("leader-elect", "false".into()));
    Daemon::named("scheduler").start(with(&tools::program("kube-scheduler"), &scheduler)?)?;
    Ok(())
}

/// Starts the API server and waits until it is ready. etcd keeps what it knew.
///
/// # Errors
/// It cannot be started, or does not become ready.
pub(crate) fn start_apiserver() -> Result<()> {
    let file = |name: &str| OsString::from(pki(name));
    let flags = [
        ("etcd-servers", ETCD.into()),
        ("secure-port", "6443".into()),
        ("bind-address", "::".into()),
        ("advertise-address", CONTROL.0.into()),
        ("service-cluster-ip-range", SERVICES.into()),
        ("tls-cert-file", file("apiserver.crt")),
        ("tls-private-key-file", file("apiserver.key")),
        ("client-ca-file", file("ca.crt")),
        (
            "service-account-issuer",
            "https://kubernetes.default.svc.cluster.local".into(),
        ),
        ("service-account-key-file", file("accounts.pub")),
        ("service-account-signing-key-file", file("accounts.key")),
        ("authorization-mode", "Node,RBAC".into()),
        ("enable-admission-plugins", "NodeRestriction".into()),
        ("allow-privileged", "true".into()),
        ("kubelet-client-certificate", file("kubelet-client.crt")),
        ("kubelet-client-key", file("kubelet-client.key")),
        ("kubelet-preferred-address-types", "InternalIP".into()),
        // Aggregated API servers are asked by these; some tests bring one.
        ("requestheader-client-ca-file", file("front-proxy-ca.crt")),
        ("requestheader-allowed-names", "front-proxy-client".into()),
        ("requestheader-username-headers", "X-Remote-User".into()),
        ("requestheader-group-headers", "X-Remote-Group".into()),
        (
            "requestheader-extra-headers-prefix",
            "X-Remote-Extra-".into(),
        ),
        ("proxy-client-cert-file", file("front-proxy-client.crt")),
        ("proxy-client-key-file", file("front-proxy-client.key")),
        ("enable-aggregator-routing", "true".into()),
        ("profiling", "false".into()),
    ];
    let server = Daemon::named("apiserver");
    server.start(with(&tools::apiserver(), &flags)?)?;
    wait_for("the API server gets ready", PATIENCE, Some(&server), || {
        kubectl(&["get", "--raw", "/readyz"]).map(|_| ())
    })
}

/// A program of the control plane with flags.
fn with(program: &Path, flags: &[(&str, OsString)]) -> Result<Command> {
    let mut command = command(Place::Control, program)?;
    for (name, value) in flags {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(value);
        command.arg(flag);
    }
    Ok(command)
}

/// kubectl as the administrator, ready for its arguments.
///
/// # Errors
/// No cluster is up.
pub(crate) fn kubectl_command() -> Result<Command> {
    let mut command = command(Place::Control, tools::suite("kubectl"))?;
    command.env("KUBECONFIG", admin());
    Ok(command)
}

/// The PATH on which kubectl finds `kubectl bascule`, and that in turn kubectl.
///
/// # Errors
/// The link to the program that was built last cannot be made.
pub(crate) fn plugin_path() -> Result<OsString> {
    let dir = state().join("plugins");
    let link = dir.join("kubectl-bascule");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if let Some(program) = newest(&builds()) {
        let _earlier = fs::remove_file(&link);
        symlink(program, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    let own = [
        Some(dir),
        tools::suite("kubectl").parent().map(Path::to_owned),
    ];
    let path = env::var_os("PATH").unwrap_or_default();
    let all = own.into_iter().flatten().chain(env::split_paths(&path));
    env::join_paths(all).context("a directory of the PATH has a colon")
}

/// Runs kubectl as the administrator, and returns what it printed.
///
/// # Errors
/// It fails.
pub(crate) fn kubectl(args: &[&str]) -> Result<String> {
    let mut command = kubectl_command()?;
    command.args(args).arg("--request-timeout=10s");
    output(command)
}

/// Applies a manifest.
///
/// # Errors
/// The API server refuses it.
pub(crate) fn apply(manifest: &str) -> Result<()> {
    feed(&["apply", "-f", "-"], manifest)
}

/// Removes the objects of a manifest, those that are there.
///
/// # Errors
/// The API server refuses it.
pub(crate) fn delete(manifest: &str) -> Result<()> {
    let words = ["delete", "--ignore-not-found", "--wait=false", "-f", "-"];
    feed(&words, manifest)
}

/// Runs kubectl on a manifest.
fn feed(words: &[&str], manifest: &str) -> Result<()> {
    use std::io::Write as _;
    let mut child = kubectl_command()?
        .args(words)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .context("cannot start kubectl")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(manifest.as_bytes())
            .context("cannot write to kubectl")?;
    }
    if !child.wait().context("cannot wait for kubectl")?.success() {
        bail!("kubectl cannot {} a manifest", words[0]);
    }
    Ok(())
}
