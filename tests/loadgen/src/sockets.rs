//! Sockets that do not block, and the epoll instance that watches them.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, listen, recv,
    send, socket_with, sockopt,
};

/// Connections that may wait for the server.
const BACKLOG: i32 = 4096;
/// Events that are taken at once.
const EVENTS: usize = 256;

/// An epoll instance.
pub(crate) struct Watcher {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Watcher {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// Watches a socket under a number, until it is closed.
    pub(crate) fn add(
        &self,
        socket: impl AsFd,
        number: u64,
        flags: epoll::EventFlags,
    ) -> rustix::io::Result<()> {
        epoll::add(
            &self.epoll,
            socket,
            epoll::EventData::new_u64(number),
            flags,
        )
    }

    /// Numbers of the sockets that something happened to within a time.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> rustix::io::Result<Vec<u64>> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: limit.subsec_nanos().into(),
        });
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            limit.as_ref(),
        ) {
            Err(Errno::INTR) => {}
            outcome => drop(outcome?),
        }
        Ok(self.events.iter().map(|e| e.data.u64()).collect())
    }
}

fn socket(family: AddressFamily, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socket_with(family, kind, flags, None)
}

/// A socket on its way to a server.
pub(crate) fn dial(target: SocketAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket(family, kind)?;
    if kind == SocketType::STREAM {
        // The end of a handshake and the question behind it are two writes: the second must not
        // wait until the first is acknowledged.
        sockopt::set_tcp_nodelay(&socket, true)?;
    }
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e),
    }
}

/// A socket of all addresses, of both families.
fn bound(port: u16, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let socket = socket(AddressFamily::INET6, kind)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(&socket, &SocketAddr::V6(any))?;
    Ok(socket)
}

/// A TCP socket that takes connections.
pub(crate) fn listener(port: u16) -> rustix::io::Result<OwnedFd> {
    let socket = bound(port, SocketType::STREAM)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A UDP socket that everybody may send to.
pub(crate) fn receiver(port: u16) -> rustix::io::Result<OwnedFd> {
    bound(port, SocketType::DGRAM)
}

/// Sends what the kernel takes.
pub(crate) fn put(socket: BorrowedFd<'_>, bytes: &[u8]) -> rustix::io::Result<usize> {
    send(socket, bytes, SendFlags::NOSIGNAL)
}

/// Reads what is there; 0 at the end.
pub(crate) fn take(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> rustix::io::Result<usize> {
    recv(socket, bytes, RecvFlags::empty()).map(|(read, _)| read)
}
