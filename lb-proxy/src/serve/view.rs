//! What can be seen of a proxy that serves: for metrics, and for its status page.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::Shared;
use crate::{listen::Connections, peers::Together, tls::hosts::Certificates};

/// What can be seen of a proxy. It outlives its end.
#[derive(Clone)]
pub struct View(pub(super) Arc<Shared>);

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
