//! Connections to endpoints, with the TLS that settings ask for.

use std::{
    hash::{Hash, Hasher},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use lb_route::{
    input::Data,
    settings::{BackendProtocol, UpstreamTls},
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::connect::{Connect, Target, tcp};
use crate::{
    tls::upstream::{self, Upstreams},
    write::poll_write_pieces,
};

/// Makes connections of TCP, and of TLS.
#[derive(Debug, Default)]
pub struct Dial(Upstreams);

impl Dial {
    /// Forgets the TLS of settings that are not used any more.
    pub(crate) fn retain(&self, used: impl FnMut(&UpstreamTls) -> bool) {
        self.0.retain(used);
    }
}

/// How TLS is spoken with an endpoint.
#[derive(Clone, Debug)]
pub struct Speaks {
    config: Arc<ClientConfig>,
    name: Arc<str>,
}

impl PartialEq for Speaks {
    fn eq(&self, other: &Self) -> bool {
        // Each configuration is made once.
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for Speaks {}

impl Hash for Speaks {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.config).hash(state);
        self.name.hash(state);
    }
}

/// A connection to an endpoint.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connect for Dial {
    type Io = Stream;
    type Tls = Speaks;

    fn tls(
        &self,
        settings: &UpstreamTls,
        secret: Option<&Arc<Data>>,
        h2: bool,
        host: &str,
    ) -> io::Result<Speaks> {
        let protocol = match h2 {
            true => BackendProtocol::Grpcs,
            false => BackendProtocol::Https,
        };
        let config = self.0.config(settings, secret, protocol);
        let name = settings.name.as_deref().unwrap_or(host);
        Ok(Speaks {
            config: config.map_err(io::Error::other)?,
            name: name.into(),
        })
    }

    async fn connect(&self, target: &Target<Speaks>) -> io::Result<Stream> {
        let stream = tcp(target.address).await?;
        let Some(tls) = &target.tls else {
            return Ok(Stream::Plain(stream));
        };
        let stream = upstream::connect(stream, &tls.config, &tls.name).await;
        let stream = stream.map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => poll_write_pieces(Pin::new(stream), context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
