//! How connections are made.

use std::{convert::Infallible, hash::Hash, io, net::SocketAddr, sync::Arc};

use lb_route::{input::Data, settings::UpstreamTls};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Where a connection leads. Connections to equal ones can stand in for each other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target<Tls> {
    /// Address of the endpoint.
    pub address: SocketAddr,
    /// Whether HTTP/2 is spoken, and not HTTP/1.
    pub h2: bool,
    /// The TLS, if there is any.
    pub tls: Option<Tls>,
}

/// Makes connections.
pub trait Connect: Send + Sync + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// What is equal only where one TLS connection can stand in for the other: certificates,
    /// names, what is verified.
    type Tls: Clone + Eq + Hash + Send + Sync + 'static;

    /// The TLS for settings, and the Secret that they name; `host` is the name of the endpoint if
    /// the settings have none.
    ///
    /// # Errors
    /// There is none: a certificate that is asked for is missing.
    fn tls(
        &self,
        settings: &UpstreamTls,
        secret: Option<&Arc<Data>>,
        h2: bool,
        host: &str,
    ) -> io::Result<Self::Tls>;

    /// Makes a connection.
    ///
    /// # Errors
    /// There is none.
    fn connect(
        &self,
        target: &Target<Self::Tls>,
    ) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// Makes connections without TLS.
#[derive(Clone, Copy, Default, Debug)]
pub struct Plain;

impl Connect for Plain {
    type Io = TcpStream;
    type Tls = Infallible;

    fn tls(
        &self,
        _: &UpstreamTls,
        _: Option<&Arc<Data>>,
        _: bool,
        _: &str,
    ) -> io::Result<Infallible> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, target: &Target<Infallible>) -> io::Result<TcpStream> {
        tcp(target.address).await
    }
}

/// A connection of TCP, on which requests are written whole.
pub(super) async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
