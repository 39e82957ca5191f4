//! The proxy as a whole.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{Response, Uri};
use lb_route::{
    Table,
    action::{Action, Endpoints, Upstream},
    limits::Limiter,
    request::{Client, Head},
    settings::{Forwarding, UpstreamTls},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::Instant,
};

use crate::{
    access::Kept,
    choose::Averages,
    client::{self, Draining, Peer},
    options::Options,
    peers::Together,
    record::Observe,
    rest::{Resting, SocketOf},
    upstream::{Connect, Download, Names, Pool, Question, Target},
};

/// Says what becomes of requests.
pub trait Decide: Send + Sync + 'static {
    /// What becomes of a request.
    fn decide(&self, head: &Head<'_>, client: &Client) -> Action;
    /// The upstream of a name.
    fn upstream(&self, name: &str) -> Option<Arc<Upstream>>;
}

impl Decide for Table {
    fn decide(&self, head: &Head<'_>, client: &Client) -> Action {
        self.decide(head, client)
    }

    fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        self.upstream(name).cloned()
    }
}

/// The table of the time of the request.
impl<D: Decide> Decide for ArcSwap<D> {
    fn decide(&self, head: &Head<'_>, client: &Client) -> Action {
        self.load().decide(head, client)
    }

    fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        self.load().upstream(name)
    }
}

/// Copies of requests that are under way at most: others are left out.
const COPIES: usize = 1_000;

/// The data path: serves connections of clients.
pub struct Proxy<C: Connect> {
    pub(crate) decide: Arc<dyn Decide>,
    pub(crate) observe: Arc<dyn Observe>,
    pub(crate) pool: Arc<Pool<C>>,
    pub(crate) names: Names,
    pub(crate) limiter: Limiter,
    pub(crate) together: Arc<Together>,
    pub(crate) averages: Averages,
    pub(crate) kept: Kept,
    /// Copies of requests that may be under way.
    pub(crate) copies: Arc<Semaphore>,
    pub(crate) draining: Draining,
    connections: AtomicU64,
    beginning: Instant,
}

impl<C: Connect> Proxy<C> {
    /// With its settings, what becomes of requests, who hears of them, and how endpoints are
    /// reached.
    pub fn new(
        options: Options,
        decide: Arc<dyn Decide>,
        observe: Arc<dyn Observe>,
        connect: C,
    ) -> Arc<Self> {
        Arc::new(Self {
            pool: Arc::new(Pool::new(connect, options)),
            decide,
            observe,
            names: Names::default(),
            limiter: Limiter::default(),
            together: Arc::default(),
            averages: Averages::default(),
            kept: Kept::default(),
            copies: Arc::new(Semaphore::new(COPIES)),
            beginning: Instant::now(),
            draining: Draining::default(),
            connections: AtomicU64::new(0),
        })
    }

    /// Serves one connection to its end, or until it rests: that is for those that have a
    /// `socket`.
    pub fn serve<Io>(
        self: Arc<Self>,
        io: Io,
        peer: Peer,
        socket: SocketOf<Io>,
    ) -> impl Future<Output = Option<Box<dyn Resting>>> + Send + use<C, Io>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let phase = self.draining.subscribe();
        client::serve(self, (io, socket), peer, phase)
    }

    /// Looks after the connections to endpoints that wait for requests. It does not end; as long
    /// as it does not run, those stay that endpoints have closed.
    pub async fn tend(&self) {
        self.pool.tend().await;
    }

    /// There is another table: what is known of endpoints and Ingresses that are gone is
    /// forgotten, and connections that wait for them are closed.
    pub fn adapt(&self, table: &Table) {
        let mut there = HashSet::new();
        for upstream in table.upstreams() {
            match &upstream.endpoints {
                Endpoints::At(addresses) => there.extend(addresses.iter().copied()),
                // Below.
                Endpoints::Named(..) => {}
            }
        }
        let is_there = |address: &_| there.contains(address) || self.names.has(address.ip());
        self.pool.keep(is_there);
        self.averages.keep(table.upstreams(), self.clock());
        self.pool.set_options(table.into());
    }

    /// Asks a server by its address, once, with the timeouts of a path.
    ///
    /// # Errors
    /// There is no answer, and why.
    pub(crate) async fn ask(
        &self,
        uri: &Uri,
        question: &Question,
        settings: &Forwarding,
    ) -> Result<Response<Download<C>>, String> {
        let target = self.server(uri).await?;
        let answer = self.pool.question(target, question, settings).await;
        answer.map_err(|failed| format!("{:?}", failed.what))
    }

    /// Where a server is.
    async fn server(&self, uri: &Uri) -> Result<Target<C::Tls>, String> {
        let host = uri.host().ok_or_else(|| format!("{uri} has no host"))?;
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let addresses = self.names.resolve(host, port).await;
        let addresses = addresses.map_err(|error| format!("{host}: {error}"))?;
        let address = *addresses
            .first()
            .ok_or_else(|| format!("{host} has no address"))?;
        // `proxy_ssl_server_name on`, and nothing is verified.
        let wanted = UpstreamTls {
            name: Some(host.to_owned()),
            server_name: true,
            ..UpstreamTls::default()
        };
        let tls = https.then(|| self.pool.connector().tls(&wanted, None, false, host));
        let tls = tls
            .transpose()
            .map_err(|error| format!("{host}: {error}"))?;
        Ok(Target {
            address,
            h2: false,
            tls,
        })
    }

    /// The limits that count for all proxies together: [`crate::peers::Peers`] tells others of
    /// them.
    pub fn together(&self) -> &Arc<Together> {
        &self.together
    }

    /// How many connections to endpoints wait for requests.
    pub fn waiting(&self) -> usize {
        self.pool.len()
    }

    /// Ends the connections after the requests that they are at; those that have not ended in
    /// time are closed (`worker-shutdown-timeout`). Whether there were none.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.draining.drain(patience).await
    }

    /// Since the beginning.
    pub(crate) fn clock(&self) -> Duration {
        self.beginning.elapsed()
    }

    /// Numbers from 1.
    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Relaxed) + 1
    }
}
