//! The lab's plan: names, addresses and places. Pure; the manifests of `examples/` rely on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// What the names of all namespaces and cgroups of the lab start with.
pub(crate) const PREFIX: &str = "bascule-lab";
/// The lab's files; its lock is on this directory.
pub(crate) const STATE_DIR: &str = "/run/bascule-lab";
/// Port of the pods' HTTP server.
pub(crate) const HTTP_PORT: u16 = 8080;
/// Port of the pods' UDP server.
pub(crate) const UDP_PORT: u16 = 5353;
/// The fabric's router, everybody's default gateway. Addresses of services must be routable
/// before they are translated.
pub(crate) const GATEWAY: Pair = Pair {
    v4: Ipv4Addr::new(172, 31, 0, 1),
    v6: Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, 1),
};

/// One address of each family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
}

impl Pair {
    /// The address of the same family as `other`.
    pub(crate) fn of_family(self, other: IpAddr) -> IpAddr {
        match other {
            IpAddr::V4(_) => self.v4.into(),
            IpAddr::V6(_) => self.v6.into(),
        }
    }

    /// Whether `addr` is one of the two.
    pub(crate) fn contains(self, addr: IpAddr) -> bool {
        self.of_family(addr) == addr
    }
}

/// An address pair on the fabric; `host` is written in both families the same way
/// (172.31.0.11 and `fd00:31::11`).
fn fabric(host: u8) -> Pair {
    let digits = u16::from(host / 100) << 8 | u16::from(host / 10 % 10) << 4 | u16::from(host % 10);
    Pair {
        v4: Ipv4Addr::new(172, 31, 0, host),
        v6: Ipv6Addr::new(0xfd00, 0x31, 0, 0, 0, 0, 0, digits),
    }
}

/// A node of the lab, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Node(pub u8);

impl Node {
    /// All nodes.
    pub(crate) const ALL: [Self; 3] = [Self(1), Self(2), Self(3)];

    /// Name of the Node object.
    pub(crate) fn name(self) -> String {
        format!("n{}", self.0)
    }
    /// Name of its network namespace.
    pub(crate) fn netns(self) -> String {
        format!("{PREFIX}-n{}", self.0)
    }
    /// Its addresses on the fabric.
    pub(crate) fn addrs(self) -> Pair {
        fabric(10 + self.0)
    }
    /// The address that its pods have as their gateway, on every pod device.
    pub(crate) fn pod_gateway(self) -> Pair {
        Pod {
            node: self,
            number: 1,
        }
        .addrs()
    }
    /// Its pods' networks.
    pub(crate) fn pod_networks(self) -> (String, String) {
        (
            format!("10.244.{}.0/24", self.0),
            format!("fd00:10:244:{}::/64", self.0),
        )
    }
    /// Directory of its files.
    pub(crate) fn dir(self) -> PathBuf {
        Path::new(STATE_DIR).join(self.name())
    }
    /// Its bpffs.
    pub(crate) fn bpffs(self) -> PathBuf {
        self.dir().join("bpf")
    }
    /// Where its agent keeps names for the CLI.
    pub(crate) fn state_dir(self) -> PathBuf {
        self.dir().join("state")
    }
    /// Output of its agent.
    pub(crate) fn log(self) -> PathBuf {
        self.dir().join("agent.log")
    }
    /// Its pods.
    pub(crate) fn pods(self) -> [Pod; 3] {
        [2, 3, 4].map(|number| Pod { node: self, number })
    }
}

/// A pod of the lab.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Pod {
    /// The node it runs on.
    pub node: Node,
    /// The last number of its addresses: 2 for `a`, 3 for `b`, 4 for `c`.
    pub number: u8,
}

impl Pod {
    /// All pods.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Node::ALL.into_iter().flat_map(Node::pods)
    }
    fn letter(self) -> char {
        char::from(b'a' + self.number - 2)
    }
    /// Its name: `n1-a`.
    pub(crate) fn name(self) -> String {
        format!("{}-{}", self.node.name(), self.letter())
    }
    /// Name of its network namespace.
    pub(crate) fn netns(self) -> String {
        format!("{PREFIX}-{}", self.name())
    }
    /// Name of its device on the node's side.
    pub(crate) fn device(self) -> String {
        format!("pod-{}", self.letter())
    }
    /// Its addresses.
    pub(crate) fn addrs(self) -> Pair {
        let node = u16::from(self.node.0);
        Pair {
            v4: Ipv4Addr::new(10, 244, self.node.0, self.number),
            v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, node, 0, 0, 0, u16::from(self.number)),
        }
    }
    /// The pod that has this address.
    pub(crate) fn by_addr(addr: IpAddr) -> Option<Self> {
        Self::all().find(|p| p.addrs().contains(addr))
    }
}

/// Where clients are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Place {
    /// Pod n1-c: its connects are translated by the socket hooks.
    Pod,
    /// Pod n1-a, whose client is outside the node's cgroup: TC translates each packet.
    /// It meets itself behind services that it is a backend of.
    PodTc,
    /// A process of node n1 itself.
    Node,
    /// A host on the fabric, outside the cluster.
    Outside,
    /// A second host on the fabric, which no source range allows.
    Stranger,
}

impl Place {
    /// All places, in the order of the table.
    pub(crate) const ALL: [Self; 5] = [
        Self::Pod,
        Self::PodTc,
        Self::Node,
        Self::Outside,
        Self::Stranger,
    ];
    /// The node that clients in the cluster are on.
    pub(crate) const CLIENT_NODE: Node = Node(1);

    /// Its name in the table.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::PodTc => "pod-tc",
            Self::Node => "node",
            Self::Outside => "outside",
            Self::Stranger => "strange",
        }
    }
    /// Its letter in the short table.
    pub(crate) const fn letter(self) -> char {
        match self {
            Self::Pod => 'p',
            Self::PodTc => 't',
            Self::Node => 'n',
            Self::Outside => 'o',
            Self::Stranger => 's',
        }
    }
    /// Whether its clients are in the cluster.
    pub(crate) const fn in_cluster(self) -> bool {
        matches!(self, Self::Pod | Self::PodTc | Self::Node)
    }
    /// Name of its network namespace.
    pub(crate) fn netns(self) -> String {
        match self {
            Self::Pod => Self::CLIENT_NODE.pods()[2].netns(),
            Self::PodTc => Self::CLIENT_NODE.pods()[0].netns(),
            Self::Node => Self::CLIENT_NODE.netns(),
            Self::Outside => format!("{PREFIX}-client"),
            Self::Stranger => format!("{PREFIX}-stranger"),
        }
    }
    /// Its cgroup below the lab's own.
    pub(crate) fn cgroup(self) -> String {
        match self {
            Self::Pod => format!("{}/c", Self::CLIENT_NODE.name()),
            Self::Node => format!("{}/host", Self::CLIENT_NODE.name()),
            Self::PodTc | Self::Outside | Self::Stranger => "outside".to_owned(),
        }
    }
    /// Its addresses.
    pub(crate) fn addrs(self) -> Pair {
        match self {
            Self::Pod => Self::CLIENT_NODE.pods()[2].addrs(),
            Self::PodTc => Self::CLIENT_NODE.pods()[0].addrs(),
            Self::Node => Self::CLIENT_NODE.addrs(),
            Self::Outside => fabric(100),
            Self::Stranger => fabric(200),
        }
    }
}

/// The namespace that holds the bridge.
pub(crate) fn fabric_netns() -> String {
    format!("{PREFIX}-fabric")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_plan_of_the_manifests() {
        assert_eq!(Node(2).addrs().v4.to_string(), "172.31.0.12");
        assert_eq!(Node(2).addrs().v6.to_string(), "fd00:31::12");
        assert_eq!(Place::Stranger.addrs().v6.to_string(), "fd00:31::200");
        let pod = Node(3).pods()[1];
        assert_eq!(
            (pod.name(), pod.device()),
            ("n3-b".to_owned(), "pod-b".to_owned())
        );
        assert_eq!(pod.addrs().v4.to_string(), "10.244.3.3");
        assert_eq!(pod.addrs().v6.to_string(), "fd00:10:244:3::3");
        assert_eq!(Node(3).pod_gateway().v6.to_string(), "fd00:10:244:3::1");
    }

    #[test]
    fn a_pod_is_found_by_either_address() {
        assert_eq!(
            Pod::by_addr("10.244.2.4".parse().unwrap()).unwrap().name(),
            "n2-c"
        );
        assert_eq!(
            Pod::by_addr("fd00:10:244:1::2".parse().unwrap())
                .unwrap()
                .name(),
            "n1-a"
        );
        assert_eq!(Pod::by_addr("10.244.9.2".parse().unwrap()), None);
    }

    #[test]
    fn device_names_fit_into_the_kernels_limit() {
        // IFNAMSIZ is 16, its NUL included.
        assert!(Pod::all().all(|p| p.device().len() < 16));
    }
}
