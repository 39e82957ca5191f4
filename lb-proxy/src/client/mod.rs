//! Connections of clients.

mod drain;
mod guard;
mod h1;
mod h2;
mod link;
mod scan;
mod sniff;
mod tunnel;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use bytes::BytesMut;
use hyper::{Request, body::Incoming};
use lb_route::request::Tls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::Instant,
};

pub(crate) use drain::{Draining, Phase};
pub(crate) use link::Link;
pub(crate) use scan::{chunk_line, digits};
pub(crate) use tunnel::Tunnel;

use crate::{
    options::Options,
    proxy::Proxy,
    rest::{Resting, Serving, SocketOf},
    upstream::Connect,
};

/// The other end of a connection, as it is known before the first request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address: of the connection, or what the PROXY protocol says of it.
    pub address: SocketAddr,
    /// The port that it dialled.
    pub port: u16,
    /// Its TLS, if it has any.
    pub tls: Option<Arc<Tls>>,
    /// What it speaks.
    pub protocol: Protocol,
}

/// What a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// What its first bytes tell: HTTP/2 with prior knowledge, or HTTP/1.
    #[default]
    Tell,
    /// HTTP/1 (ALPN).
    Http1,
    /// HTTP/2 (ALPN).
    Http2,
}

/// A connection, as its requests see it.
pub(crate) struct Visit<C: Connect> {
    pub(crate) proxy: Arc<Proxy<C>>,
    /// The settings of the time when the connection began.
    pub(crate) options: Arc<Options>,
    pub(crate) peer: Peer,
    /// Number of the connection.
    pub(crate) number: u64,
    /// Requests that have come.
    pub(crate) requests: AtomicU64,
    /// The other half of the connection.
    pub(crate) link: Arc<Link>,
    /// What becomes of a connection whose protocol changes.
    pub(crate) tunnel: Mutex<Option<Box<Tunnel<C>>>>,
}

/// Serves a connection to its end, or until it rests. What only its beginning needs is not kept
/// with it.
pub(crate) fn serve<C, Io>(
    proxy: Arc<Proxy<C>>,
    client: (Io, SocketOf<Io>),
    peer: Peer,
    phase: watch::Receiver<Phase>,
) -> impl Future<Output = Option<Box<dyn Resting>>> + Send
where
    C: Connect,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let begun = Box::pin(begin(proxy, client, peer, phase));
    async move { begun.await?.await }
}

/// Finds out what a connection speaks; `None` if it says nothing.
async fn begin<C, Io>(
    proxy: Arc<Proxy<C>>,
    (mut io, socket): (Io, SocketOf<Io>),
    peer: Peer,
    phase: watch::Receiver<Phase>,
) -> Option<Serving>
where
    C: Connect,
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let options = proxy.pool.options();
    let mut read = BytesMut::new();
    let h2 = match peer.protocol {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Tell => {
            let patience = options.client.header_timeout;
            let told = tokio::time::timeout(patience, sniff::is_h2(&mut io, &mut read)).await;
            told.ok()?.ok()?
        }
    };
    let number = proxy.next_connection();
    let visit = Arc::new(Visit {
        proxy,
        options,
        peer,
        number,
        requests: AtomicU64::new(0),
        link: Arc::new(Link::new(Instant::now())),
        tunnel: Mutex::new(None),
    });
    Some(if h2 {
        Box::pin(async {
            h2::serve(visit, io, read, phase).await;
            None
        })
    } else {
        Box::pin(h1::serve(visit, (io, socket), read, phase))
    })
}

/// Bytes of a line of a head, and of a whole head.
fn bounds(options: &Options) -> (usize, usize) {
    let (lines, bytes) = options.client.header_buffers;
    let line = usize::try_from(bytes).unwrap_or(usize::MAX);
    (line, line.saturating_mul(lines as usize))
}

async fn handle<C: Connect>(
    visit: Arc<Visit<C>>,
    request: Request<Incoming>,
) -> Result<http::Response<crate::body::Body<C>>, Infallible> {
    Ok(crate::service::answer(&visit, request).await)
}
