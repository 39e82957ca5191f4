//! Closing connected UDP sockets that the socket hooks sent to a backend which
//! is gone: the application gets ECONNABORTED and dials again, where it would
//! otherwise talk to nobody for as long as it lives.
//!
//! Exactly those are closed: a socket must be connected to the backend *and*
//! its cookie must stand in `lb_sock_nat_v1` for that backend. One that dialled
//! the pod itself, and one that is not connected (it chooses anew with the next
//! datagram), are left alone; Cilium closed these too (cilium/cilium#48564).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
    net::IpAddr,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use lb_common::{Addr, Be16, SockNat, SockNatKey, proto};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_UDP, SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

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

/// Where container runtimes and `ip netns` keep network namespaces by name: in a
/// container without the node's processes this is the way to the pods'. A victim
/// is known by its cookie, so that a namespace of something else does no harm.
const NAMED: &str = "/run/netns";

/// Closes the victims, in whichever network namespace of the cgroup's processes,
/// or of those that have a name, they are. Returns how many were closed.
pub(super) fn close(victims: &HashSet<Victim>, cgroup: &Path) -> io::Result<usize> {
    let mut closed = 0;
    for namespace in namespaces(cgroup, Path::new(NAMED))? {
        let wanted = victims.clone();
        // A network namespace is a thread's: this one ends with it.
        let worker = std::thread::Builder::new()
            .name("sockets".to_owned())
            .spawn(move || {
                enter(&namespace)?;
                close_here(&wanted)
            })?;
        match worker.join() {
            Ok(Ok(count)) => closed += count,
            Ok(Err(error)) => tracing::debug!("sockets of a network namespace: {error}"),
            Err(_) => return Err(io::Error::other("the thread that closes sockets panicked")),
        }
    }
    Ok(closed)
}

/// The network namespaces of the processes in a cgroup's subtree, those in a
/// directory, and our own, each once.
fn namespaces(cgroup: &Path, named: &Path) -> io::Result<Vec<fs::File>> {
    let mut pids = BTreeSet::new();
    collect_pids(cgroup, &mut pids)?;
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let own = PathBuf::from("/proc/thread-self/ns/net");
    let others = pids
        .iter()
        .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    let entries = fs::read_dir(named).into_iter().flatten().flatten();
    let named = entries.map(|entry| entry.path());
    for path in std::iter::once(own).chain(others).chain(named) {
        // A process may end meanwhile, and its namespace with it.
        let Ok(file) = fs::File::open(&path) else {
            continue;
        };
        if seen.insert(file.metadata()?.ino()) {
            found.push(file);
        }
    }
    Ok(found)
}

fn collect_pids(dir: &Path, pids: &mut BTreeSet<u32>) -> io::Result<()> {
    // A cgroup that vanishes meanwhile, or a threaded one, has none to tell.
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(
        text.lines()
            .filter_map(|line| line.parse::<u32>().ok())
            .filter(|pid| *pid != 0),
    );
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_pids(&entry.path(), pids)?;
        }
    }
    Ok(())
}

fn enter(namespace: &fs::File) -> io::Result<()> {
    // SAFETY: the descriptor is open; only the calling thread changes namespace.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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
        SockDiagDestroy::new(request(family, id)),
        NLM_F_ACK,
        |_: SockDiagDestroy| {},
    )
}

/// Sends one request and reads its answers to the end.
fn ask<M>(request: M, flags: u16, mut visit: impl FnMut(M)) -> io::Result<()>
where
    M: NetlinkSerializable + NetlinkDeserializable,
{
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let mut buffer = Vec::with_capacity(64 << 10);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = &buffer[..];
        while rest.len() >= 16 {
            let answer = NetlinkMessage::<M>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let len = (answer.header.length as usize).next_multiple_of(4).max(16);
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => visit(message),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => {
                    return error.code.map_or(Ok(()), |_| Err(error.to_io()));
                }
                _ => {}
            }
            rest = rest.get(len..).unwrap_or_default();
        }
    }
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

    #[test]
    fn a_threads_own_namespace_is_among_those_searched_once() {
        let none = tempfile::tempdir().unwrap();
        let found = namespaces(none.path(), none.path()).unwrap();
        let own = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        let inodes: Vec<u64> = found.iter().map(|f| f.metadata().unwrap().ino()).collect();
        assert_eq!(inodes, [own]);
    }

    #[test]
    fn a_namespace_with_a_name_is_found_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("named");
        fs::create_dir(&named).unwrap();
        fs::write(named.join("one"), "").unwrap();
        std::os::unix::fs::symlink("/proc/thread-self/ns/net", named.join("own")).unwrap();
        std::os::unix::fs::symlink("/nowhere", named.join("gone")).unwrap();
        let found = namespaces(dir.path(), &named).unwrap();
        let inodes: BTreeSet<u64> = found.iter().map(|f| f.metadata().unwrap().ino()).collect();
        let expected = ["/proc/thread-self/ns/net".into(), named.join("one")]
            .map(|p: PathBuf| fs::metadata(p).unwrap().ino());
        assert_eq!(found.len(), 2);
        assert_eq!(inodes, BTreeSet::from(expected));
    }
}
