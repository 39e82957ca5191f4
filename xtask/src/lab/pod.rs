//! Pods: a namespace each, with a device pair to its node (as the CNI plugin `ptp` lays it),
//! a cgroup below the node's, and the servers.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Result;

use super::netns::{add, ip, spawn};
use super::topology::Pod;

/// Makes the pod's namespace and its way to the node and back.
///
/// # Errors
/// A command of `ip` failed.
pub(crate) fn make(pod: Pod) -> Result<()> {
    let (netns, node, device) = (pod.netns(), pod.node.netns(), pod.device());
    let (own, gateway) = (pod.addrs(), pod.node.pod_gateway());
    add(&netns, false)?;
    // The gateway's address is on every pod device of the node, which each pod has to itself.
    ip(
        Some(&node),
        &format!(
            "link add {device} type veth peer name eth0 netns {netns}\n\
             addr add {}/32 dev {device}\n\
             addr add {}/128 dev {device} nodad\n\
             link set {device} up\n",
            gateway.v4, gateway.v6
        ),
    )?;
    ip(
        Some(&netns),
        &format!(
            "addr add {}/32 dev eth0\n\
             addr add {}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add {gw4} dev eth0 scope link\n\
             route add default via {gw4}\n\
             route add {gw6} dev eth0\n\
             route add default via {gw6}\n",
            own.v4,
            own.v6,
            gw4 = gateway.v4,
            gw6 = gateway.v6
        ),
    )?;
    ip(
        Some(&node),
        &format!(
            "route add {}/32 dev {device}\nroute add {}/128 dev {device}\n",
            own.v4, own.v6
        ),
    )
}

/// Starts the pod's servers.
///
/// # Errors
/// The process cannot be started.
pub(crate) fn serve(pod: Pod, cgroup: &Path) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["lab-serve", "--name", &pod.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    spawn(command, &pod.netns(), cgroup)
}
