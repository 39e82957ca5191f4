//! Sockets at one address that several processes listen with (`SO_REUSEPORT`), so
//! that one of them can leave and no client notices.
//!
//! Linux gives each new connection to one socket of such a group, and it stays with
//! that one from its SYN on: what has not been accepted when the socket is closed is
//! reset (net/ipv4/inet_connection_sock.c, `inet_csk_listen_stop`). The sysctl
//! `net.ipv4.tcp_migrate_req` would move it, from Linux 5.14 on, is off by default,
//! and is the host's to decide. So whoever leaves first has the group send new
//! connections elsewhere, and closes when nothing has come for a while.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    time::{self, Instant},
};

/// As std and Go: more than the kernel takes by default is cut.
const BACKLOG: u32 = 1024;
/// How often a socket that leaves looks at where new connections go.
const STEP: Duration = Duration::from_millis(100);
/// It is closed after as many steps without a connection: handshakes take that long
/// over far distances.
const QUIET: u32 = 10;
/// And after as many in any case: nobody else may be listening.
const MOST: u32 = 40;

/// Binds an address, beside others of the same user. The unspecified one of either
/// family stands for both, as it does for Go (net/ipsock_posix.go,
/// `favoriteAddrFamily`), and for IPv4 alone on a host without IPv6.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    if !address.ip().is_unspecified() {
        return exactly(address);
    }
    match exactly((Ipv6Addr::UNSPECIFIED, address.port()).into()) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
            ) =>
        {
            exactly((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    }
}

fn exactly(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Connections of before that are in TIME_WAIT do not count.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Listens with a bound socket. Until this it takes no connection, and holds the
/// address against those who do not share it.
pub(super) fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// The way of a socket out of its group.
pub(super) struct Leaving {
    next: Instant,
    steps: u32,
    quiet: u32,
    took: bool,
    /// Which socket of the group new connections go to: the kernel numbers them in
    /// the order in which they came, and who leaves is mostly the oldest.
    to: u32,
    /// What was on its way when that changed says nothing about it.
    turned: bool,
}

impl Leaving {
    /// Begins to leave.
    pub(super) fn begin(listener: &TcpListener) -> Self {
        let leaving = Self {
            next: Instant::now() + STEP,
            steps: 0,
            quiet: 0,
            took: false,
            to: 1,
            turned: true,
        };
        leaving.steer(listener);
        leaving
    }

    /// A connection came to this socket nevertheless.
    pub(super) fn took(&mut self) {
        self.took = true;
    }

    /// Waits for the next look, and takes it; `false` when it is time to close.
    pub(super) async fn step(&mut self, listener: &TcpListener) -> bool {
        time::sleep_until(self.next).await;
        self.next += STEP;
        self.steps += 1;
        let took = std::mem::take(&mut self.took);
        self.quiet = if took { 0 } else { self.quiet + 1 };
        if self.quiet >= QUIET || self.steps >= MOST {
            return false;
        }
        // It is the second socket itself, or the only one.
        self.turned = took && !self.turned;
        if self.turned {
            self.to = 1 - self.to;
        }
        // Whoever left at the same time may have said something else.
        self.steer(listener);
        true
    }

    /// Has new connections go to one socket of the group; if there is none of that
    /// number the kernel chooses by hash, as without this
    /// (net/core/sock_reuseport.c, `run_bpf_filter`).
    fn steer(&self, listener: &TcpListener) {
        let mut code = libc::sock_filter {
            code: (libc::BPF_RET | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: self.to,
        };
        let program = libc::sock_fprog {
            len: 1,
            filter: &mut code,
        };
        // SAFETY: the descriptor is open, and the kernel copies the program, whose
        // one instruction outlives the call.
        let done = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_REUSEPORT_CBPF,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        if done != 0 {
            let error = io::Error::last_os_error();
            tracing::debug!(%error, "new connections cannot be sent elsewhere");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use tokio::net::TcpStream;

    /// Two that listen at one address, in this order.
    fn group() -> [TcpListener; 2] {
        let first = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let second = bind(first.local_addr().unwrap()).unwrap();
        [first, second].map(|socket| listen(socket).unwrap())
    }

    /// How many of a hundred new connections each of them gets.
    async fn gets(group: &[TcpListener; 2]) -> [usize; 2] {
        let address = group[0].local_addr().unwrap();
        let mut open = Vec::new();
        for _ in 0..100 {
            open.push(TcpStream::connect(address).await.unwrap());
        }
        let mut got = [0; 2];
        for (listener, got) in group.iter().zip(&mut got) {
            while listener.accept().now_or_never().is_some() {
                *got += 1;
            }
        }
        got
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_gets_no_new_connection() {
        let group = group();
        let [first, second] = gets(&group).await;
        assert!(first > 0 && second > 0, "by hash: {first} {second}");
        let mut leaving = Leaving::begin(&group[0]);
        assert_eq!(gets(&group).await, [0, 100]);
        let mut steps = 0;
        while leaving.step(&group[0]).await {
            steps += 1;
        }
        assert_eq!(steps, QUIET - 1);
        let [first, second] = group;
        drop(first);
        // The one that stays is alone, and another one may come.
        let third = listen(bind(second.local_addr().unwrap()).unwrap()).unwrap();
        assert_eq!(gets(&[second, third]).await.iter().sum::<usize>(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn the_younger_one_finds_out_that_it_is_the_second() {
        let group = group();
        let mut leaving = Leaving::begin(&group[1]);
        assert_eq!(gets(&group).await, [0, 100]);
        // What was on its way does not count.
        leaving.took();
        assert!(leaving.step(&group[1]).await);
        assert_eq!(gets(&group).await, [0, 100]);
        leaving.took();
        assert!(leaving.step(&group[1]).await);
        assert_eq!(gets(&group).await, [100, 0]);
        while leaving.step(&group[1]).await {}
        assert_eq!(gets(&group).await, [100, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_alone_leaves_at_last() {
        let listener = listen(bind(([127, 0, 0, 1], 0).into()).unwrap()).unwrap();
        let mut leaving = Leaving::begin(&listener);
        let mut steps = 1;
        leaving.took();
        while leaving.step(&listener).await {
            leaving.took();
            steps += 1;
        }
        assert_eq!(steps, MOST);
    }
}
