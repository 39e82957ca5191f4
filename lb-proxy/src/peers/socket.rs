//! The socket by which proxies hear each other.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::listen::on_any_host;

/// Bytes that may wait for being heard: as many as the kernel gives without a privilege.
const WAITING: usize = 1 << 20;

/// A socket; `[::]` is of both families, or of IPv4 where the kernel has no other.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let both = address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED);
    on_any_host(address, both, |address, both| {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!both)?;
        }
        socket.set_recv_buffer_size(WAITING)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    })
}

/// Sends, by a socket of whichever family.
pub(super) async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
    let to = match (socket.local_addr()?, to) {
        (SocketAddr::V6(_), SocketAddr::V4(to)) => (to.ip().to_ipv6_mapped(), to.port()).into(),
        (_, to) => to,
    };
    socket.send_to(bytes, to).await.map(drop)
}

/// Whether an address is that of a socket, by where it is bound; where that is everywhere, whether
/// it is of this host: to reach it the kernel would send from the same.
pub(super) fn is_own(peer: SocketAddr, bound: SocketAddr) -> bool {
    if !bound.ip().is_unspecified() {
        return peer == bound;
    }
    let any = match peer.is_ipv4() {
        true => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        false => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let source = || {
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(peer)?;
        socket.local_addr()
    };
    peer.port() == bound.port() && source().is_ok_and(|source| source.ip() == peer.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::canonical;

    #[test]
    fn an_address_of_this_host_is_known() {
        for (peer, bound, expected) in [
            ("127.0.0.1:7", "0.0.0.0:7", true),
            ("127.0.0.1:7", "[::]:7", true),
            ("127.0.0.1:7", "[::]:8", false),
            ("192.0.2.1:7", "[::]:7", false),
            ("127.0.0.1:7", "127.0.0.1:7", true),
            // Of this host, and of another socket.
            ("127.0.0.1:7", "127.0.0.2:7", false),
        ] {
            let is_own = is_own(peer.parse().unwrap(), bound.parse().unwrap());
            assert_eq!(is_own, expected, "{peer} {bound}");
        }
    }

    #[tokio::test]
    async fn a_socket_of_both_families_reaches_ipv4() {
        let socket = bind("[::]:0".parse().unwrap()).unwrap();
        let other = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        send(&socket, b"x", other.local_addr().unwrap())
            .await
            .unwrap();
        let mut buffer = [0; 9];
        let (length, from) = other.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"x");
        send(&other, b"yz", from).await.unwrap();
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"yz");
        assert_eq!(canonical(from), other.local_addr().unwrap());
    }
}
