//! The facts about this node: its addresses, and what SNAT may use.
//!
//! [`view`] and [`config`] are pure; [`addresses`] follows the kernel.

pub mod addresses;
pub mod devices;
pub mod netfilter;
pub mod route;

use std::{
    fs, io,
    net::{IpAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
};

use lb_common::{Addr, NodeConfig, node_flags};
use lb_plan::model::{NodePortAddresses, NodeView};

use crate::change::Node;

/// What the user says about the node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of its Node object.
    pub name: Arc<str>,
    /// Which of its addresses answer NodePorts.
    pub node_port_addresses: NodePortAddresses,
    /// Serve NodePorts on 127.0.0.1 and ::1 to the node's own sockets.
    pub localhost_node_ports: bool,
    /// The API server's `--service-node-port-range`, inclusive.
    pub node_port_range: (u16, u16),
    /// Serve only Services with this `service-proxy-name`.
    pub proxy_name: Option<String>,
    /// Socket hooks serve the host's sockets only.
    pub socket_lb_host_only: bool,
    /// The node's primary address of its family, if it is one of the node's:
    /// kube-proxy's `bindAddress`.
    pub bind_address: Option<IpAddr>,
}

/// What the kernel says about the node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Addresses of all devices but link-local ones, sorted.
    pub addresses: Vec<IpAddr>,
    /// The source address of the default route of each family.
    pub default_sources: Vec<IpAddr>,
}

/// The node as planning sees it.
pub fn view(settings: &Settings, node: Option<&Node>, facts: &Facts) -> NodeView {
    let internal = node.map(|n| n.internal_ips.as_slice()).unwrap_or_default();
    let bound = settings
        .bind_address
        .filter(|ip| facts.addresses.contains(ip));
    let first = |v6: bool| {
        let all = bound.iter().chain(internal).chain(&facts.default_sources);
        all.copied().find(|ip| ip.is_ipv6() == v6)
    };
    let primary: Vec<IpAddr> = [first(false), first(true)].into_iter().flatten().collect();
    let has = |v6: bool| {
        let mut all = facts.addresses.iter().chain(&primary);
        all.any(|ip| ip.is_ipv6() == v6 && !ip.is_loopback())
    };
    NodeView {
        name: settings.name.clone(),
        zone: node.and_then(|n| n.zone.clone()),
        ipv4: has(false),
        ipv6: has(true),
        primary,
        addresses: facts.addresses.clone(),
        node_port_addresses: settings.node_port_addresses.clone(),
        localhost_node_ports: settings.localhost_node_ports,
        proxy_name: settings.proxy_name.clone(),
    }
}

/// The node as the datapath sees it.
pub fn config(settings: &Settings, view: &NodeView, kernel: &Kernel) -> NodeConfig {
    let address = |v6: bool| {
        let own = view.primary.iter().find(|ip| ip.is_ipv6() == v6);
        own.map_or(Addr::UNSPECIFIED, |ip| Addr::from(*ip))
    };
    let (min, max) = snat_ports(kernel.local_ports, settings.node_port_range);
    let flags = match settings.socket_lb_host_only {
        true => node_flags::SOCKET_LB_HOST_ONLY,
        false => 0,
    };
    NodeConfig {
        snat4: address(false),
        snat6: address(true),
        snat_port_min: min,
        snat_port_max: max,
        flags,
        host_netns: kernel.netns_cookie,
    }
}

/// First port that may be used without privilege; none below is taken for SNAT.
const FIRST: u32 = 1024;

/// The largest range of ports that neither local sockets nor NodePorts use:
/// a source port that the node hands out itself would be taken for a reply.
pub fn snat_ports(local: (u16, u16), node_ports: (u16, u16)) -> (u16, u16) {
    let mut taken = [local, node_ports];
    taken.sort_unstable();
    let mut best = (0, 0);
    let mut free = FIRST;
    for (low, high) in taken.into_iter().chain([(u16::MAX, u16::MAX)]) {
        // Past the last taken range, the last port counts as free.
        let end = match low {
            u16::MAX => u32::from(u16::MAX) + 1,
            _ => u32::from(low),
        };
        if end.saturating_sub(free) > best.1 - best.0 {
            best = (free, end);
        }
        free = free.max(u32::from(high) + 1);
    }
    match best {
        // All ports are taken: SNAT shares those above the privileged ones, and
        // each is checked against local sockets anyway.
        (_, 0) => (FIRST as u16, u16::MAX),
        (low, end) => (low as u16, (end - 1) as u16),
    }
}

/// What is read from the kernel once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// `net.ipv4.ip_local_port_range`, inclusive; it counts for IPv6 too.
    pub local_ports: (u16, u16),
    /// Cookie of this process' network namespace: Linux 5.14, 0 before.
    pub netns_cookie: u64,
}

impl Kernel {
    /// Reads them.
    ///
    /// # Errors
    /// If no socket can be opened.
    pub fn read() -> io::Result<Self> {
        // The kernel's default, for a /proc that does not show it.
        let default = (32_768, 60_999);
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let range = text.ok().and_then(|text| {
            let mut numbers = text.split_whitespace().map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        });
        Ok(Self {
            local_ports: range.unwrap_or(default),
            netns_cookie: netns_cookie()?,
        })
    }
}

/// `SO_NETNS_COOKIE`, include/uapi/asm-generic/socket.h; not yet in libc for
/// every target.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The cookie of the calling thread's network namespace.
///
/// # Errors
/// If no socket can be opened.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0").or_else(|_| UdpSocket::bind("[::]:0"))?;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the socket is open for the length of the call, the value points to
    // `len` writable bytes, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    match result {
        0 => Ok(cookie),
        // A kernel without the option: the host's own sockets are not told apart.
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            name: "n1".into(),
            node_port_addresses: NodePortAddresses::Primary,
            localhost_node_ports: true,
            node_port_range: (30_000, 32_767),
            proxy_name: None,
            socket_lb_host_only: false,
            bind_address: None,
        }
    }

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn snat_ports_are_the_largest_range_that_nobody_uses() {
        let node_ports = (30_000, 32_767);
        for (local, node_ports, expected) in [
            ((32_768, 60_999), node_ports, (1024, 29_999)),
            // A node that was tuned for many outgoing connections.
            ((1024, 65_535), node_ports, (1024, 65_535)),
            ((2000, 60_000), node_ports, (60_001, 65_535)),
            ((1024, 20_000), node_ports, (32_768, 65_535)),
            ((20_000, 40_000), node_ports, (40_001, 65_535)),
            ((40_000, 65_535), (1024, 2000), (2001, 39_999)),
            ((1024, 65_534), node_ports, (65_535, 65_535)),
        ] {
            assert_eq!(
                snat_ports(local, node_ports),
                expected,
                "{local:?} {node_ports:?}"
            );
        }
    }

    #[test]
    fn the_nodes_own_object_says_which_addresses_are_primary() {
        let node = Node {
            name: "n1".into(),
            zone: Some("za".into()),
            internal_ips: ips(&["172.30.0.2", "172.30.0.3", "fd00::2"]),
            leaving: false,
        };
        let facts = Facts {
            addresses: ips(&["127.0.0.1", "172.30.0.2", "fd00::2"]),
            default_sources: ips(&["10.9.9.9"]),
        };
        let seen = view(&settings(), Some(&node), &facts);
        assert_eq!(seen.primary, ips(&["172.30.0.2", "fd00::2"]));
        assert_eq!((seen.ipv4, seen.ipv6), (true, true));
        assert_eq!(seen.zone.as_deref(), Some("za"));
        let kernel = Kernel {
            local_ports: (32_768, 60_999),
            netns_cookie: 7,
        };
        let config = config(&settings(), &seen, &kernel);
        assert_eq!(config.snat4, Addr::from(ips(&["172.30.0.2"])[0]));
        assert_eq!(config.snat6, Addr::from(ips(&["fd00::2"])[0]));
        assert_eq!((config.snat_port_min, config.snat_port_max), (1024, 29_999));
        assert_eq!(config.host_netns, 7);
    }

    #[test]
    fn the_bind_address_is_primary_if_the_node_has_it() {
        let facts = Facts {
            addresses: ips(&["10.0.0.5", "10.0.0.6", "fd00::5"]),
            default_sources: ips(&["10.0.0.5", "fd00::5"]),
        };
        for (bind, expected) in [
            ("10.0.0.6", ["10.0.0.6", "fd00::5"]),
            ("10.0.0.7", ["10.0.0.5", "fd00::5"]),
        ] {
            let settings = Settings {
                bind_address: Some(bind.parse().unwrap()),
                ..settings()
            };
            assert_eq!(view(&settings, None, &facts).primary, ips(&expected));
        }
    }

    #[test]
    fn without_a_node_object_the_default_routes_say_it() {
        let facts = Facts {
            addresses: ips(&["10.0.0.5", "127.0.0.1", "::1"]),
            default_sources: ips(&["10.0.0.5"]),
        };
        let seen = view(&settings(), None, &facts);
        assert_eq!(seen.primary, ips(&["10.0.0.5"]));
        assert_eq!((seen.ipv4, seen.ipv6), (true, false), "loopback is no IPv6");
        let kernel = Kernel::read().unwrap();
        let config = config(&settings(), &seen, &kernel);
        assert_eq!(config.snat6, Addr::UNSPECIFIED);
    }
}
