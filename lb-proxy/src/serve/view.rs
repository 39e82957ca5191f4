//! What can be seen of a proxy that serves: for metrics, and for its status page.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::Shared;
use crate::{peers::Together, tls::hosts::Certificates};

/// What can be seen of a proxy. It outlives its end.
#[derive(Clone)]
pub struct View(pub(super) Arc<Shared>);

/// Connections of clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Connections {
    /// Those that were accepted so far.
    pub accepted: u64,
    /// Those that are there now.
    pub open: u64,
}

impl View {
    /// Connections at the addresses of HTTP.
    pub fn http(&self) -> Connections {
        self.0.connections[0].now()
    }

    /// Connections at the addresses of HTTPS, those among them whose TLS is a backend's.
    pub fn https(&self) -> Connections {
        self.0.connections[1].now()
    }

    /// Handshakes of TLS that were done.
    pub fn handshakes(&self) -> u64 {
        self.0.acceptor.established()
    }

    /// Connections that ended before their first request: the reason, and how many. Of TLS the
    /// reasons are [`crate::tls::accept::Refused::KINDS`].
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let introduced = ("proxy_protocol", self.0.unintroduced.load(Relaxed));
        self.0.acceptor.refused().chain([introduced])
    }

    /// Connections to endpoints that wait for requests of HTTP/1.
    pub fn waiting(&self) -> usize {
        self.0.proxy.waiting()
    }

    /// Clients that limits remember, of each Ingress for itself.
    pub fn limited_clients(&self) -> usize {
        self.0.proxy.limiter.clients()
    }

    /// The limits that count for all proxies together.
    pub fn together(&self) -> &Together {
        &self.0.proxy.together
    }

    /// The certificates of the moment.
    pub fn certificates(&self) -> Arc<Certificates> {
        self.0.certificates.load_full()
    }
}

/// Counts connections.
#[derive(Debug, Default)]
pub(super) struct Counter {
    accepted: AtomicU64,
    open: AtomicU64,
}

/// One that counts, until it is dropped.
pub(super) struct Open<'c>(&'c Counter);

impl Counter {
    /// One more.
    pub(super) fn open(&self) -> Open<'_> {
        self.accepted.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        Open(self)
    }

    fn now(&self) -> Connections {
        Connections {
            accepted: self.accepted.load(Relaxed),
            open: self.open.load(Relaxed),
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_count_until_they_end() {
        let counter = Counter::default();
        let first = counter.open();
        let second = counter.open();
        drop(first);
        let expected = |open| Connections { accepted: 2, open };
        assert_eq!(counter.now(), expected(1));
        drop(second);
        assert_eq!(counter.now(), expected(0));
    }
}
