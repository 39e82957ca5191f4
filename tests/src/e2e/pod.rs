//! Pods: a namespace, a device pair to the node as the CNI plugin `ptp` lays it, a cgroup, and
//! a process that serves and dials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::netns::Netns;
use super::peer::Peer;
use super::proto::Request;

/// The port on which every pod serves, TCP and UDP.
pub const PORT: u16 = 8080;

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// What serves and dials there.
    pub peer: Peer,
    /// Its namespace.
    pub netns: Netns,
    node: u8,
    number: u8,
}

impl Pod {
    pub(super) fn new(node: &Netns, name: &str, id: (u8, u8), cgroup: &Path) -> Self {
        let netns = Netns::new(name);
        Self::connect(node, &netns, id);
        let mut peer = Peer::start(&netns, cgroup);
        let name = format!("n{}-{}", id.0, id.1);
        peer.ask(&Request::Serve { name, port: PORT });
        Self {
            peer,
            netns,
            node: id.0,
            number: id.1,
        }
    }

    fn connect(node: &Netns, netns: &Netns, (n, p): (u8, u8)) {
        // The gateway's address is on every pod device of the node.
        node.ip(&format!(
            "link add pod{p} type veth peer name eth0 netns {}\n\
             addr add 10.201.{n}.1/32 dev pod{p}\n\
             addr add fd20:1:0:{n}::1/128 dev pod{p} nodad\n\
             link set pod{p} up\n\
             route add 10.201.{n}.{p}/32 dev pod{p}\n\
             route add fd20:1:0:{n}::{p:x}/128 dev pod{p}\n",
            netns.name()
        ));
        netns.ip(&format!(
            "addr add 10.201.{n}.{p}/32 dev eth0\n\
             addr add fd20:1:0:{n}::{p:x}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add 10.201.{n}.1 dev eth0 scope link\n\
             route add default via 10.201.{n}.1\n\
             route add fd20:1:0:{n}::1 dev eth0\n\
             route add default via fd20:1:0:{n}::1\n"
        ));
    }

    /// The name by which it answers.
    #[must_use]
    pub fn name(&self) -> String {
        format!("n{}-{}", self.node, self.number)
    }

    /// Name of its node.
    #[must_use]
    pub fn node(&self) -> String {
        format!("n{}", self.node)
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn v4(&self) -> IpAddr {
        Ipv4Addr::new(10, 201, self.node, self.number).into()
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn v6(&self) -> IpAddr {
        let (n, p) = (u16::from(self.node), u16::from(self.number));
        Ipv6Addr::new(0xfd20, 1, 0, n, 0, 0, 0, p).into()
    }

    /// Its address of a family.
    #[must_use]
    pub fn addr(&self, v6: bool) -> IpAddr {
        if v6 { self.v6() } else { self.v4() }
    }
}
