//! The whole proxy: listeners, what they speak, and the table of the moment.

mod certificates;
mod view;

use std::{
    collections::{BTreeSet, HashSet},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use http::StatusCode;
use lb_route::{
    Table,
    action::{Action, Answer, Endpoints, Location, Upstream},
    balance::round_robin,
    request::{Client, Head},
    settings::{BackendProtocol, UpstreamTls},
};
use tokio::{net::TcpStream, task::JoinHandle};

use certificates::certificates;
pub use view::View;

use crate::{
    Decide, Dial, Observe, Options, Peer, Protocol, Proxy,
    listen::{self, Counter, Drain, Listeners},
    peers::Together,
    proxy_protocol::{self, Header},
    rest::{Resting, Serving, Socket},
    tls::{
        accept::{self, Accepted, Acceptor, Passed},
        certificates::Loaded,
        hosts::Certificates,
    },
};

/// Where a proxy serves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Addresses {
    /// HTTP.
    pub http: BTreeSet<SocketAddr>,
    /// HTTPS.
    pub https: BTreeSet<SocketAddr>,
}

/// Why a proxy cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken, or not there.
    #[error(transparent)]
    Listen(#[from] listen::Refused),
    /// There is no certificate for hosts without one.
    #[error("the certificate of hosts without one cannot be made: {0}")]
    Certificate(String),
}

/// A proxy that serves.
pub struct Server {
    shared: Arc<Shared>,
    listeners: [Listeners; 2],
    tending: JoinHandle<()>,
}

impl Server {
    /// Serves by a table, from now on.
    ///
    /// # Errors
    /// It cannot serve at one of its addresses, or has no certificate to begin with.
    pub fn start(
        addresses: &Addresses,
        table: Arc<Table>,
        observe: Arc<dyn Observe>,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(table, observe)?);
        let options = listen::Options::default();
        let of_http = shared.clone();
        let of_https = shared.clone();
        let plain = move |stream, peer: listen::Peer, _: Drain| {
            served(peer.remote, of_http.clone().http(stream, peer))
        };
        let tls = move |stream, peer: listen::Peer, _: Drain| {
            served(peer.remote, of_https.clone().https(stream, peer))
        };
        let [of_http, of_https] = shared.connections.clone();
        let mut http = Listeners::new(plain, options, of_http);
        let mut https = Listeners::new(tls, options, of_https);
        let refused = [http.set(&addresses.http), https.set(&addresses.https)];
        if let Some(refused) = refused.into_iter().flatten().next() {
            return Err(refused.into());
        }
        let tended = shared.clone();
        Ok(Self {
            tending: tokio::spawn(async move { tended.proxy.tend().await }),
            listeners: [http, https],
            shared,
        })
    }

    /// From now on another table counts.
    pub fn take(&self, table: Arc<Table>) {
        self.shared.take(table);
    }

    /// What can be seen of it.
    pub fn view(&self) -> View {
        View(self.shared.clone())
    }

    /// The limits that count for all proxies together: [`crate::peers::Peers`] tells others of
    /// them.
    pub fn together(&self) -> &Arc<Together> {
        self.shared.proxy.together()
    }

    /// Ends: nothing is accepted any more, and requests have their time to end
    /// (`worker-shutdown-timeout`).
    pub async fn end(self) {
        let patience = self.shared.table.load().globals().drain;
        let [http, https] = self.listeners;
        tokio::join!(
            self.shared.proxy.drain(patience),
            http.drain(patience),
            https.drain(patience),
        );
        self.tending.abort();
    }
}

/// What the handlers of connections share.
struct Shared {
    proxy: Arc<Proxy<Dial>>,
    table: Arc<ArcSwap<Table>>,
    certificates: Arc<ArcSwap<Certificates>>,
    acceptor: Acceptor,
    /// The certificate of hosts without one, if there is no other.
    fallback: Arc<Loaded>,
    /// Connections of HTTP, and of HTTPS.
    connections: [Arc<Counter>; 2],
    /// Connections whose PROXY protocol was none.
    unintroduced: AtomicU64,
}

/// What becomes of requests: by the table and the certificates of the moment.
struct Current {
    table: Arc<ArcSwap<Table>>,
    certificates: Arc<ArcSwap<Certificates>>,
}

impl Decide for Current {
    fn decide(&self, head: &Head<'_>, client: &Client) -> Action {
        // An authority of clients that cannot be read: ingress-nginx answers 403 to all.
        let certificates = self.certificates.load();
        let name = || head.authority().and_then(lb_route::host::normal);
        let is_closed = |name: String| certificates.auth_error(&name).is_some();
        match certificates.has_auth_errors() && name().is_some_and(is_closed) {
            true => Action::Answer(Answer {
                status: StatusCode::FORBIDDEN,
                headers: Vec::new(),
                location: None,
            }),
            false => self.table.load().decide(head, client),
        }
    }

    fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        self.table.load().upstream(name).cloned()
    }
}

impl Shared {
    fn new(table: Arc<Table>, observe: Arc<dyn Observe>) -> Result<Self, Error> {
        let fallback =
            Loaded::self_signed().map_err(|error| Error::Certificate(error.to_string()))?;
        let fallback = Arc::new(fallback);
        let certificates = certificates(None, &table, &fallback);
        let certificates = Arc::new(ArcSwap::from_pointee(certificates));
        let options = Options::from(&*table);
        let first = table.clone();
        let table = Arc::new(ArcSwap::new(table));
        let current = Current {
            table: table.clone(),
            certificates: certificates.clone(),
        };
        let proxy = Proxy::new(options, Arc::new(current), observe, Dial::default());
        proxy.together.adapt(&first);
        Ok(Self {
            proxy,
            acceptor: Acceptor::new(certificates.clone(), accept::TIMEOUT),
            table,
            certificates,
            fallback,
            connections: Default::default(),
            unintroduced: AtomicU64::new(0),
        })
    }

    /// From now on another table counts. Certificates come first: a host that asks for those of
    /// its clients must not be served before it can. Most changes are of endpoints: they leave
    /// certificates, and what is known of Ingresses, as they are.
    fn take(&self, table: Arc<Table>) {
        let old = self.table.load_full();
        let default = |table: &Table| table.default_certificate().map(Arc::as_ptr);
        let has_hosts_of_old = table.has_hosts_of(&old);
        let is_alike = has_hosts_of_old
            && Arc::ptr_eq(table.globals(), old.globals())
            && default(&table) == default(&old);
        if !is_alike {
            let previous = self.certificates.load();
            let certificates = certificates(Some(&previous), &table, &self.fallback);
            self.certificates.store(Arc::new(certificates));
        }
        if !has_hosts_of_old {
            self.proxy.together.adapt(&table);
        }
        self.table.store(table.clone());
        self.proxy.adapt(&table);
        if !has_hosts_of_old {
            self.forget(&table);
        }
    }

    /// Forgets what is known of Ingresses, and of settings of TLS, that a table has not.
    fn forget(&self, table: &Table) {
        let locations = || table.hosts().flat_map(|(_, host)| host.locations());
        let uids: HashSet<&str> = locations().map(|location| &*location.uid).collect();
        self.proxy.limiter.retain(|uid| uids.contains(uid));
        let of = |location: &'_ Arc<Location>| location.settings.upstream.tls.clone();
        let with_tls = locations().filter(|location| {
            let protocol = location.settings.upstream.protocol;
            matches!(protocol, BackendProtocol::Https | BackendProtocol::Grpcs)
        });
        let used: HashSet<UpstreamTls> = with_tls.map(of).collect();
        let connector = self.proxy.pool.connector();
        connector.retain(|settings| used.contains(settings));
    }

    /// A connection that may begin with the PROXY protocol: who the client is, and what port it
    /// dialled.
    async fn introduced(
        &self,
        stream: &mut TcpStream,
        peer: listen::Peer,
    ) -> io::Result<listen::Peer> {
        let table = self.table.load();
        let client = &table.globals().client;
        if !client.proxy_protocol {
            return Ok(peer);
        }
        let patience = client.proxy_protocol_timeout;
        drop(table);
        match proxy_protocol::read(stream, patience).await {
            Ok(Header::Forwarded {
                source,
                destination,
            }) => Ok(listen::Peer {
                remote: source,
                local: destination,
            }),
            Ok(Header::Local) => Ok(peer),
            Err(error) => {
                self.unintroduced.fetch_add(1, Ordering::Relaxed);
                Err(io::Error::other(error))
            }
        }
    }

    async fn http(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: listen::Peer,
    ) -> io::Result<Serving> {
        let peer = self.introduced(&mut stream, peer).await?;
        let peer = Peer {
            address: peer.remote,
            port: peer.local.port(),
            tls: None,
            protocol: Protocol::Tell,
        };
        let (proxy, socket) = (self.proxy.clone(), Socket::from(stream));
        Ok(Box::pin(proxy.serve(socket, peer, |socket| Some(socket))))
    }

    async fn https(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: listen::Peer,
    ) -> io::Result<Serving> {
        let peer = self.introduced(&mut stream, peer).await?;
        let accepted = self.acceptor.accept(Socket::from(stream)).await;
        let established = match accepted.map_err(io::Error::other)? {
            Accepted::Tls(established) => established,
            Accepted::Passed(passed) => {
                self.pass(passed).await?;
                return Ok(Box::pin(async { None }));
            }
        };
        let peer = Peer {
            address: peer.remote,
            port: peer.local.port(),
            tls: Some(Arc::new(established.tls)),
            protocol: match established.http2 {
                true => Protocol::Http2,
                false => Protocol::Http1,
            },
        };
        let (proxy, stream) = (self.proxy.clone(), established.stream);
        Ok(Box::pin(
            proxy.serve(stream, peer, |stream| Some(stream.get_mut().0)),
        ))
    }

    /// Carries a connection to the backend whose TLS it is (`ssl-passthrough`).
    async fn pass(&self, passed: Passed<Socket>) -> io::Result<()> {
        let endpoint = self.endpoint_of(&passed.host);
        let endpoint = endpoint.ok_or_else(|| {
            let host = &passed.host;
            io::Error::other(format!(
                "the backend of {host}, whose TLS it is, has no endpoint"
            ))
        })?;
        let backend = TcpStream::connect(endpoint).await?;
        passed.tunnel(backend).await.map(drop)
    }

    fn endpoint_of(&self, host: &str) -> Option<SocketAddr> {
        let table = self.table.load();
        let name = lb_route::host::normal(host)?;
        let upstream = table.upstream(table.host(&name)?.passthrough.as_ref()?)?;
        let Endpoints::At(endpoints) = &upstream.endpoints else {
            return None;
        };
        let turn = upstream.turn.fetch_add(1, Ordering::Relaxed);
        round_robin(endpoints, turn, &[])
    }
}

/// A connection of HTTP or HTTPS. What only its beginning needs is not kept with it.
fn served(
    client: SocketAddr,
    begun: impl Future<Output = io::Result<Serving>>,
) -> impl Future<Output = Option<Box<dyn Resting>>> {
    let begun = Box::pin(begun);
    async move {
        match begun.await {
            Ok(serving) => serving.await,
            Err(error) => {
                tracing::debug!(%client, %error, "a connection ended");
                None
            }
        }
    }
}
