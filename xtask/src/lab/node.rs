//! Nodes: a namespace each on the fabric, with routes to the pods of the others, a cgroup, a
//! bpffs, and the agent.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::netns::{add, inside, ip, spawn};
use super::topology::{GATEWAY, Node, Pair, fabric_netns};

/// Name of a node's uplink.
pub(crate) const UPLINK: &str = "eth0";
/// The agent's health and metrics ports, on loopback of the node's namespace.
const HEALTHZ: &str = "127.0.0.1:10256";
const METRICS: &str = "127.0.0.1:10249";

/// Sizes of the agent's maps: three agents share this machine, and the defaults are for
/// clusters. A round of the examples takes about 20,000 entries of conntrack a family.
const SIZES: [&str; 12] = [
    "--max-frontends",
    "4096",
    "--max-backends",
    "4096",
    "--max-services",
    "4096",
    "--max-slots",
    "262144",
    "--max-conntrack",
    "131072",
    "--max-sockets",
    "65536",
];

/// Makes the fabric: a bridge and a router on it, which refuses what it has no route for, so that a packet that should have been translated fails at once.
///
/// # Errors
/// A command of `ip` failed.
pub(crate) fn make_fabric() -> Result<()> {
    let netns = fabric_netns();
    add(&netns, true)?;
    ip(
        Some(&netns),
        &format!(
            "link add br0 type bridge mcast_snooping 0\n\
             addr add {}/24 dev br0\n\
             addr add {}/64 dev br0 nodad\n\
             link set br0 up\n\
             route add unreachable 0.0.0.0/0\n\
             route add unreachable ::/0\n\
             {}",
            GATEWAY.v4,
            GATEWAY.v6,
            // The errors must find their way to the pods.
            Node::ALL.map(pod_routes).concat()
        ),
    )
}

/// Makes a host on the fabric, which sends all that is not there to the fabric's router.
///
/// # Errors
/// A command of `ip` failed.
pub(crate) fn make_host(netns: &str, port: &str, addrs: Pair, forwards: bool) -> Result<()> {
    add(netns, forwards)?;
    ip(
        Some(&fabric_netns()),
        &format!(
            "link add {port} type veth peer name {UPLINK} netns {netns}\n\
             link set {port} master br0 up\n"
        ),
    )?;
    ip(
        Some(netns),
        &format!(
            "addr add {}/24 dev {UPLINK}\n\
             addr add {}/64 dev {UPLINK} nodad\n\
             link set {UPLINK} up\n\
             route add default via {}\n\
             route add default via {}\n",
            addrs.v4, addrs.v6, GATEWAY.v4, GATEWAY.v6
        ),
    )
}

/// Makes a node's namespace, uplink and routes.
///
/// # Errors
/// A command of `ip` failed.
pub(crate) fn make(node: Node) -> Result<()> {
    let netns = node.netns();
    make_host(&netns, &node.name(), node.addrs(), true)?;
    let mut script = String::new();
    for other in Node::ALL.into_iter().filter(|n| *n != node) {
        script.push_str(&pod_routes(other));
    }
    ip(Some(&netns), &script)
}

/// Routes to a node's pods.
fn pod_routes(node: Node) -> String {
    let (v4, v6) = node.pod_networks();
    let via = node.addrs();
    format!(
        "route add {v4} via {}\nroute add {v6} via {}\n",
        via.v4, via.v6
    )
}

/// Makes a node's directories and mounts its bpffs.
///
/// # Errors
/// One cannot be made or mounted.
pub(crate) fn make_files(node: Node) -> Result<()> {
    let bpffs = node.bpffs();
    for dir in [&bpffs, &node.state_dir()] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let path = std::ffi::CString::new(bpffs.as_os_str().as_encoded_bytes())
        .context("a path with a NUL")?;
    // SAFETY: all pointers are strings that end with NUL; bpffs takes no data.
    let done = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            path.as_ptr(),
            c"bpf".as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if done != 0 {
        let error = std::io::Error::last_os_error();
        return Err(error).with_context(|| format!("cannot mount a bpffs at {}", bpffs.display()));
    }
    Ok(())
}

/// Starts a node's agent.
///
/// # Errors
/// It cannot be started, or its log cannot be made.
pub(crate) fn start_agent(
    node: Node,
    bascule: &Path,
    manifests: &Path,
    cgroup: &Path,
) -> Result<Child> {
    let log = node.log();
    let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    let mut command = Command::new(bascule);
    command
        .arg("agent")
        .args(["--node-name", &node.name()])
        .arg("--source")
        .arg(manifests)
        .arg("--bpffs")
        .arg(node.bpffs())
        .arg("--cgroup")
        .arg(cgroup)
        .arg("--state-dir")
        .arg(node.state_dir())
        .args(["--uplinks", UPLINK, "--pod-devices", "pod-*"])
        .args([
            "--healthz-bind-address",
            HEALTHZ,
            "--metrics-bind-address",
            METRICS,
        ])
        .args(SIZES)
        .stdin(Stdio::null())
        .stdout(
            file.try_clone()
                .context("cannot duplicate the log's descriptor")?,
        )
        .stderr(file);
    spawn(command, &node.netns(), &cgroup.join("host"))
}

/// Whether the node's agent says that it serves.
pub(crate) fn healthy(node: Node) -> bool {
    says_ok(&node.netns(), HEALTHZ, "/healthz")
}

/// Whether what listens in a namespace answers a path with 200.
pub(super) fn says_ok(netns: &str, address: &str, path: &str) -> bool {
    let asked = inside(netns, || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.take(4096).read_to_string(&mut text)?;
        Ok(text)
    });
    asked.is_ok_and(|answer| answer.is_ok_and(|text| text.starts_with("HTTP/1.1 200 ")))
}

/// The last lines of an agent's log.
pub(crate) fn log_tail(node: Node) -> String {
    tail(&node.log(), 15)
}

/// So many last lines of a log, as an error shows them.
pub(super) fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n  | ")
}
