//! The other side: answers every byte by one byte, which says who it is.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recvfrom, sendto};

use super::slot::BULK;
use super::sockets::{Watcher, listener, put, receiver, take};

/// Number of the listener.
const LISTENER: u64 = 0;
/// Number of the UDP socket.
const RECEIVER: u64 = 1;
/// Bytes that are read at once.
const BUFFER: usize = 1 << 18;

/// Serves on a port of TCP and UDP, for ever.
///
/// # Errors
/// The port is taken.
pub(crate) fn serve(answer: u8, port: u16) -> Result<()> {
    let taken = |protocol: &str| format!("cannot listen on {protocol} port {port}");
    let mut server = Server {
        answer,
        watcher: Watcher::new()?,
        listener: listener(port).with_context(|| taken("TCP"))?,
        receiver: receiver(port).with_context(|| taken("UDP"))?,
        connections: HashMap::new(),
        next: RECEIVER + 1,
        buffer: vec![0; BUFFER],
    };
    server
        .watcher
        .add(&server.listener, LISTENER, EventFlags::IN)?;
    server
        .watcher
        .add(&server.receiver, RECEIVER, EventFlags::IN)?;
    loop {
        for number in server.watcher.wait(None)? {
            match number {
                LISTENER => server.accept(),
                RECEIVER => server.datagrams(),
                other => server.connection(other),
            }
        }
    }
}

struct Server {
    answer: u8,
    watcher: Watcher,
    listener: OwnedFd,
    receiver: OwnedFd,
    connections: HashMap<u64, Connection>,
    next: u64,
    buffer: Vec<u8>,
}

struct Connection {
    socket: OwnedFd,
    /// Whether what comes is read and not answered; `None` before the first byte.
    bulk: Option<bool>,
}

impl Server {
    fn accept(&mut self) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // A client that has given up meanwhile is no reason to end, nor is a lack of
        // descriptors: the client's time runs out.
        while let Ok(socket) = accept_with(&self.listener, flags) {
            let number = self.next;
            self.next += 1;
            if self.watcher.add(&socket, number, EventFlags::IN).is_ok() {
                let connection = Connection { socket, bulk: None };
                self.connections.insert(number, connection);
            }
        }
    }

    fn datagrams(&mut self) {
        loop {
            let got = recvfrom(&self.receiver, &mut self.buffer[..], RecvFlags::empty());
            let Ok((_, _, Some(from))) = got else { return };
            // UDP: what cannot be sent is lost, and the client counts it.
            let _ = sendto(&self.receiver, &[self.answer], SendFlags::empty(), &from);
        }
    }

    fn connection(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let socket = connection.socket.as_fd();
        let read = match take(socket, &mut self.buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(read) if read > 0 => read,
            _ => {
                self.connections.remove(&number);
                return;
            }
        };
        let first = self.buffer[0] == BULK;
        if *connection.bulk.get_or_insert(first) {
            return;
        }
        self.buffer[..read].fill(self.answer);
        // Questions are of one byte, which always fits.
        let _ = put(socket, &self.buffer[..read]);
    }
}
