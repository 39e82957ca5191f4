//! The cluster's plan: names, addresses and places. Pure.
//!
//! A fabric (a bridge and a router on it) joins the control plane and the nodes. Every pod
//! network is routed: there are no tunnels.

use std::path::PathBuf;

use crate::paths;

/// The release of Kubernetes that runs, and whose tests do. `tests/cluster/kubernetes/go.mod`
/// names it too.
pub(crate) const KUBERNETES: &str = "1.36.3";
/// What the names of all namespaces and cgroups of the cluster start with.
pub(crate) const PREFIX: &str = "bascule-cluster";
/// Name of everybody's device on the fabric.
pub(crate) const UPLINK: &str = "eth0";
/// The fabric's router, everybody's default gateway: addresses of services must be routable
/// before they are translated.
pub(crate) const GATEWAY: (&str, &str) = ("172.30.0.1", "fd00:30::1");
/// The control plane's host.
pub(crate) const CONTROL: (&str, &str) = ("172.30.0.2", "fd00:30::2");
/// The API server, for everybody on the fabric.
pub(crate) const API_SERVER: &str = "https://172.30.0.2:6443";
/// Addresses of services.
pub(crate) const SERVICES: &str = "10.96.0.0/12,fd00:96::/112";
/// The API server's own service.
pub(crate) const API_SERVICE: (&str, &str) = ("10.96.0.1", "fd00:96::1");
/// The cluster's DNS service.
pub(crate) const DNS_SERVICE: &str = "10.96.0.10";
/// Addresses of all pods.
pub(crate) const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/48"];
/// The image of most of the tests' pods.
pub(crate) const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";
/// The image that holds a pod's namespaces.
pub(crate) const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
/// A test's image: sends a packet that conntrack takes for invalid.
pub(crate) const REGRESSION: &str = "registry.k8s.io/e2e-test-images/regression-issue-74839:1.4";
/// The image of cluster DNS.
pub(crate) const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.14.2";
/// Images that the tests use with commands of their own only: agnhost's has these too.
pub(crate) const STAND_INS: [&str; 3] = [
    "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
    "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0",
    "registry.k8s.io/build-image/distroless-iptables:v0.9.6",
];

/// Network namespace of the fabric.
pub(crate) fn fabric_netns() -> String {
    format!("{PREFIX}-fabric")
}

/// Network namespace of the control plane.
pub(crate) fn control_netns() -> String {
    format!("{PREFIX}-control")
}

/// A node, by its number: 1, 2, …
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Node(pub u8);

impl Node {
    /// The first `count` nodes.
    pub(crate) fn first(count: u8) -> impl Iterator<Item = Self> + Clone {
        (1..=count).map(Self)
    }

    /// Name of the Node object, and the host's name.
    pub(crate) fn name(self) -> String {
        format!("n{}", self.0)
    }

    /// The node that a user's word means: `n2` or `2`.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let digits = word.strip_prefix('n').unwrap_or(word);
        digits.parse().ok().filter(|n| *n > 0).map(Self)
    }

    /// Its zone, one of three: tests of traffic distribution want three with two nodes each.
    pub(crate) fn zone(self) -> u8 {
        (self.0 - 1) % 3 + 1
    }

    /// Its network namespace, and its cgroup in every hierarchy.
    pub(crate) fn id(self) -> String {
        format!("{PREFIX}-{}", self.name())
    }

    /// Its addresses on the fabric.
    pub(crate) fn addrs(self) -> (String, String) {
        let host = 10 + u16::from(self.0);
        (
            format!("172.30.0.{host}"),
            // Written as in IPv4: 172.30.0.11 and fd00:30::11.
            format!("fd00:30::{host}"),
        )
    }

    /// The networks of its pods.
    pub(crate) fn pod_networks(self) -> (String, String) {
        (
            format!("10.244.{}.0/24", self.0),
            format!("fd00:244:0:{}::/64", self.0),
        )
    }

    /// Its files: configuration, and what is `/var/lib` and `/var/log` there.
    pub(crate) fn dir(self) -> PathBuf {
        state().join(self.name())
    }
}

/// What the checkout has of the cluster: manifests, configuration, Go modules.
pub(crate) fn source() -> PathBuf {
    paths::root().join("tests/cluster")
}

/// All state of the running cluster.
pub(crate) fn state() -> PathBuf {
    paths::root().join("target/cluster")
}

/// A certificate, key or kubeconfig.
pub(crate) fn pki(name: &str) -> PathBuf {
    state().join("pki").join(name)
}

/// The administrator's kubeconfig. It leads to the fabric: see `cluster kubectl`.
pub(crate) fn admin() -> PathBuf {
    pki("admin.kubeconfig")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_number_everywhere() {
        let node = Node(2);
        assert_eq!(node.addrs(), ("172.30.0.12".into(), "fd00:30::12".into()));
        assert_eq!(node.pod_networks().0, "10.244.2.0/24");
        assert_eq!(node.id(), "bascule-cluster-n2");
        assert_eq!((node.zone(), Node(6).zone(), Node(1).zone()), (2, 3, 1));
        assert_eq!(Node::parse("n2"), Some(node));
        assert_eq!(Node::parse("2"), Some(node));
        assert_eq!(Node::parse("0"), None);
        assert_eq!(Node::parse("node"), None);
    }

    #[test]
    fn the_go_module_builds_the_release_that_is_named_here() {
        let module = std::fs::read_to_string(source().join("kubernetes/go.mod")).unwrap();
        assert!(
            module.contains(&format!("k8s.io/kubernetes v{KUBERNETES}\n")),
            "tests/cluster/kubernetes/go.mod names another release than {KUBERNETES}"
        );
    }
}
