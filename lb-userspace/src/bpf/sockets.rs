//! Closing connected UDP sockets that the socket hooks sent to a backend which
//! is gone: the application gets ECONNABORTED and dials again, where it would
//! otherwise talk to nobody for as long as it lives.
//!
//! Exactly those are closed: a socket must be connected to the backend *and*
//! its cookie must stand in `lb_sock_nat_v1` for that backend. One that dialled
//! the pod itself, and one that is not connected (it chooses anew with the next
//! datagram), are left alone; Cilium closed these too (cilium/cilium#48564).

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    path::Path,
};

use lb_common::{Addr, Be16, SockNat, SockNatKey, proto};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_UDP, SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::namespaces;
use crate::netlink::ask;

/// A socket: its cookie and the peer that the kernel sees, a backend.
pub(super) type Victim = SockNatKey;

/// The victims of purges among the translated sockets: those whose entry names
/// the backend, and whose frontend does not belong to another service, which may
/// still have the backend. `service_of` tells whose a frontend is.
pub(super) fn victims(
    entries: impl Iterator<Item = (SockNatKey, SockNat)>,
    purged: &HashMap<u32, HashSet<u32>>,
    service_of: impl Fn(&SockNat) -> Option<u32>,
) -> HashSet<Victim> {
    let chosen = entries.filter(|(_, nat)| {
        nat.proto == proto::UDP
            && purged.get(&nat.backend).is_some_and(|services| {
                // A frontend that is gone took its backends with it.
                service_of(nat).is_none_or(|service| services.contains(&service))
            })
    });
    chosen.map(|(key, _)| key).collect()
}

/// Closes the victims, in whichever network namespace of the cgroup's processes,
/// or of those that have a name, they are. Returns how many were closed.
pub(super) fn close(victims: &HashSet<Victim>, cgroup: &Path) -> io::Result<usize> {
    let closed = namespaces::each(cgroup, || close_here(victims))?;
    Ok(closed.into_iter().sum())
}

/// Closes the victims in the calling thread's network namespace.
fn close_here(victims: &HashSet<Victim>) -> io::Result<usize> {
    let mut closed = 0;
    for family in [AF_INET, AF_INET6] {
        let mut doomed = Vec::new();
        list(family, |id| {
            if victims.contains(&victim(&id)) {
                doomed.push(id);
            }
        })?;
        for id in doomed {
            match destroy(family, id) {
                Ok(()) => closed += 1,
                // It was closed by its owner meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(closed)
}

/// A socket as `lb_sock_nat_v1` has it.
fn victim(id: &SocketId) -> Victim {
    SockNatKey {
        cookie: u64::from_ne_bytes(id.cookie),
        addr: Addr::from(unmapped(id.destination_address)),
        port: Be16::new(id.destination_port),
        reserved: [0; 3],
    }
}

/// An IPv6 socket that talks to an IPv4 peer shows it in mapped form.
fn unmapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

fn request(family: u8, socket_id: SocketId) -> SockDiagMessage {
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_UDP,
        extensions: ExtensionFlags::empty(),
        // Connected: an unconnected UDP socket is in state CLOSE.
        states: StateFlags::ESTABLISHED,
        socket_id,
    })
}

/// Calls `visit` with every connected UDP socket of a family.
fn list(family: u8, mut visit: impl FnMut(SocketId)) -> io::Result<()> {
    let id = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    ask(
        NETLINK_SOCK_DIAG,
        request(family, id),
        NLM_F_DUMP,
        |message: SockDiagMessage| {
            if let SockDiagMessage::InetResponse(response) = message {
                visit(response.header.socket_id);
            }
        },
    )
}

/// Ends a socket (`CONFIG_INET_DIAG_DESTROY`, Linux 4.9 for UDP).
fn destroy(family: u8, id: SocketId) -> io::Result<()> {
    ask(
        NETLINK_SOCK_DIAG,
        SockDiagDestroy::new(request(family, id)),
        NLM_F_ACK,
        |_: SockDiagDestroy| {},
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(cookie: u64, backend: u32, protocol: u8, frontend_port: u16) -> (SockNatKey, SockNat) {
        let addr = Addr::from("10.0.0.2".parse::<IpAddr>().unwrap());
        let key = SockNatKey {
            cookie,
            addr,
            port: Be16::new(53),
            reserved: [0; 3],
        };
        let vip = Addr::from("10.96.0.10".parse::<IpAddr>().unwrap());
        let port = Be16::new(frontend_port);
        (
            key,
            SockNat {
                addr: vip,
                port,
                proto: protocol,
                reserved: 0,
                backend,
            },
        )
    }

    /// Frontend port 53 belongs to service 1, port 54 to service 2, others to nobody.
    fn service_of(nat: &SockNat) -> Option<u32> {
        match nat.port.get() {
            53 => Some(1),
            54 => Some(2),
            _ => None,
        }
    }

    #[test]
    fn only_udp_sockets_that_the_service_sent_to_the_backend_are_victims() {
        let entries = [
            entry(1, 7, proto::UDP, 53),
            entry(2, 7, proto::TCP, 53),
            entry(3, 8, proto::UDP, 53),
            entry(4, 7, proto::UDP, 54),
            entry(5, 7, proto::UDP, 99),
        ];
        let purged = HashMap::from([(7, HashSet::from([1]))]);
        let found = victims(entries.into_iter(), &purged, service_of);
        let mut cookies: Vec<u64> = found.into_iter().map(|key| key.cookie).collect();
        cookies.sort_unstable();
        // 4 came by a service that still has the backend; 5 by one that is gone.
        assert_eq!(cookies, [1, 5]);
    }

    #[test]
    fn a_mapped_peer_is_the_ipv4_backend() {
        let mut id = SocketId::new_v6();
        id.destination_address = "::ffff:10.0.0.2".parse().unwrap();
        id.destination_port = 53;
        id.cookie = 9u64.to_ne_bytes();
        assert_eq!(victim(&id), entry(9, 0, 0, 0).0);
    }
}
