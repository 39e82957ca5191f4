//! The network of the vectors: the node's devices, its neighbours and routes.
//! The host's FIB is made of it, and so is the kernel's, by `ip`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::host::FibRoute;

/// A device of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// Name.
    pub name: &'static str,
    /// Index.
    pub ifindex: u32,
    /// Link address.
    pub mac: [u8; 6],
    /// Addresses with their prefix lengths.
    pub addrs: &'static [&'static str],
}

/// The uplink by which clients come.
pub const UP0: Device = Device {
    name: "up0",
    ifindex: 100,
    mac: [2, 0, 0, 0, 1, 0],
    addrs: &["192.0.2.10/24", "2001:db8:2::10/64"],
};
/// Another uplink.
pub const UP1: Device = Device {
    name: "up1",
    ifindex: 101,
    mac: [2, 0, 0, 0, 1, 1],
    addrs: &["198.51.100.10/24", "2001:db8:51::10/64"],
};
/// The node's end of a pod's device.
pub const POD0: Device = Device {
    name: "pod0",
    ifindex: 102,
    mac: [2, 0, 0, 0, 1, 2],
    addrs: &["169.254.1.1/32"],
};
/// Every device.
pub const DEVICES: [Device; 3] = [UP0, UP1, POD0];

/// Link address of whoever sends to the node.
pub const PEER: [u8; 6] = [2, 0, 0, 0, 9, 1];

/// A way out of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// Network of destination.
    pub net: &'static str,
    /// Bits of its prefix.
    pub prefix: u8,
    /// The next hop's address.
    pub via: &'static str,
    /// The device.
    pub device: Device,
    /// Link address of the next hop; `None` leaves it unresolved.
    pub mac: Option<[u8; 6]>,
    /// MTU of the route, in bytes.
    pub mtu: u32,
}

/// Link address of the gateway to the clients.
pub const GATEWAY: [u8; 6] = [2, 0, 0, 0, 2, 1];
/// Link address of the node with the pods of [`pod`]`(2, _)`.
pub const NODE_A: [u8; 6] = [2, 0, 0, 0, 2, 2];
/// Link address of the node with the pods of [`pod`]`(3, _)`, behind [`UP1`].
pub const NODE_B: [u8; 6] = [2, 0, 0, 0, 2, 3];
/// Link address of the node whose route has a small MTU.
pub const NODE_C: [u8; 6] = [2, 0, 0, 0, 2, 6];
/// The small MTU, in bytes: above the least that IPv6 allows (RFC 8200, section 5).
pub const SMALL_MTU: u32 = 1300;

const fn way(net: &'static str, prefix: u8, via: &'static str, mac: Option<[u8; 6]>) -> Way {
    Way {
        net,
        prefix,
        via,
        device: UP0,
        mac,
        mtu: 1500,
    }
}

const fn by_up1(mut way: Way) -> Way {
    way.device = UP1;
    way
}

const fn small(mut way: Way) -> Way {
    way.mtu = SMALL_MTU;
    way
}

/// Every way. What is not here has no route: the pods of [`pod`]`(5, _)`.
pub const WAYS: [Way; 10] = [
    way("203.0.113.0", 24, "192.0.2.1", Some(GATEWAY)),
    way("2001:db8:c::", 64, "2001:db8:2::1", Some(GATEWAY)),
    way("10.0.2.0", 24, "192.0.2.2", Some(NODE_A)),
    way("fd00:2::", 64, "2001:db8:2::2", Some(NODE_A)),
    by_up1(way("10.0.3.0", 24, "198.51.100.3", Some(NODE_B))),
    by_up1(way("fd00:3::", 64, "2001:db8:51::3", Some(NODE_B))),
    way("10.0.4.0", 24, "192.0.2.4", None),
    way("fd00:4::", 64, "2001:db8:2::4", None),
    small(way("10.0.6.0", 24, "192.0.2.6", Some(NODE_C))),
    small(way("fd00:6::", 64, "2001:db8:2::6", Some(NODE_C))),
];

/// The host's FIB.
#[must_use]
pub fn fib() -> Vec<FibRoute> {
    WAYS.iter()
        .map(|way| FibRoute {
            net: ip(way.net),
            prefix: way.prefix,
            ifindex: way.device.ifindex,
            device: way.device.mac,
            next_hop: way.mac,
            mtu: way.mtu,
        })
        .collect()
}

/// An address.
///
/// # Panics
/// It is none.
#[must_use]
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("a test's address is an address")
}

/// One of the two IP families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Family {
    fn pick(self, v4: [u8; 4], v6: [u16; 8]) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(v4).into(),
            Self::V6 => Ipv6Addr::from(v6).into(),
        }
    }
    /// A vip of services: 10.96.0.0/24, fd00:96::/64.
    #[must_use]
    pub fn vip(self, n: u8) -> IpAddr {
        self.pick([10, 96, 0, n], [0xfd00, 0x96, 0, 0, 0, 0, 0, u16::from(n)])
    }
    /// A client outside: 203.0.113.0/24, 2001:db8:c::/64.
    #[must_use]
    pub fn client(self, n: u8) -> IpAddr {
        let v6 = [0x2001, 0xdb8, 0xc, 0, 0, 0, 0, u16::from(n)];
        self.pick([203, 0, 113, n], v6)
    }
    /// A pod of a node: 10.0.node.0/24, fd00:node::/64. Those of node 1 are local.
    #[must_use]
    pub fn pod(self, node: u8, n: u8) -> IpAddr {
        let v6 = [0xfd00, u16::from(node), 0, 0, 0, 0, 0, u16::from(n)];
        self.pick([10, 0, node, n], v6)
    }
    /// The node's own address, which SNAT writes.
    #[must_use]
    pub fn node(self) -> IpAddr {
        let v6 = [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10];
        self.pick([192, 0, 2, 10], v6)
    }
    /// Bytes of the IP header without options.
    #[must_use]
    pub fn header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

/// An address and a port.
#[must_use]
pub fn at(addr: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(addr, port)
}
