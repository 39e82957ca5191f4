//! A proxy that serves an Ingress of `shop.example`, with its backend and its client.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use lb_proxy::{Addresses, Server};
use lb_route::{Compiler, Options};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::super::queue::Fate;
use crate::proxy::{
    access_log::{AccessLog, Writer},
    metrics::Identity,
    state::State,
    testing::{ingress, put_service, set},
};

/// How long a test waits for what is to come.
const SOON: Duration = Duration::from_secs(20);

/// A server that keeps the heads that it gets, and answers with the status that the path ends
/// with, or 200.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    heads: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Backend {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<_>>> = Arc::default();
        let kept = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    kept.lock().unwrap().push(request.headers().clone());
                    std::future::ready(Ok::<_, Infallible>(answer(request.uri().path())))
                });
                let server = http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, heads }
    }

    pub(super) fn heads(&self) -> Vec<HeaderMap> {
        self.heads.lock().unwrap().clone()
    }
}

fn answer(path: &str) -> Response<Full<Bytes>> {
    let status = path.rsplit('/').next().and_then(|last| last.parse().ok());
    let mut response = Response::new(Full::new(Bytes::from_static(b"done\n")));
    *response.status_mut() = status.unwrap_or_default();
    response
}

/// An address where nobody listens.
pub(super) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// They end when it is dropped.
pub(super) struct World {
    pub(super) backend: Backend,
    /// An endpoint where nobody listens.
    pub(super) dead: Option<SocketAddr>,
    pub(super) state: Arc<State>,
    http: SocketAddr,
    sends: JoinHandle<()>,
    _server: Server,
}

impl World {
    /// With a collector, settings of the ConfigMap, and annotations.
    pub(super) async fn start(
        collector: SocketAddr,
        settings: &[(&str, &str)],
        annotations: &[(&str, &str)],
    ) -> Self {
        Self::with(collector, settings, annotations, None).await
    }

    pub(super) async fn with_dead_endpoint(
        collector: SocketAddr,
        settings: &[(&str, &str)],
    ) -> Self {
        Self::with(collector, settings, &[], Some(nobody().await)).await
    }

    async fn with(
        collector: SocketAddr,
        settings: &[(&str, &str)],
        annotations: &[(&str, &str)],
        dead: Option<SocketAddr>,
    ) -> Self {
        let backend = Backend::start().await;
        let mut compiler = Compiler::new(Options::default());
        let paths = [("/", "web"), ("/api", "web")];
        let shop = ingress("shop", "shop.example", &paths, annotations);
        compiler.put_ingress(Arc::new(shop));
        let endpoints: Vec<_> = dead.into_iter().chain([backend.address]).collect();
        put_service(&mut compiler, "web", &endpoints);
        let port = collector.port().to_string();
        let by_default = [
            ("otlp-collector-host", "127.0.0.1"),
            ("otlp-collector-port", &port),
            ("otel-schedule-delay-millis", "20"),
        ];
        set(&mut compiler, &[&by_default[..], settings].concat());
        let identity = Identity {
            namespace: "ingress".to_owned(),
            class: String::new(),
            pod: "proxy-0".to_owned(),
        };
        let log = AccessLog::new(Writer::start(io::sink()).unwrap(), String::new());
        let state = Arc::new(State::new(identity, log, watch::channel(false).1));
        let table = Arc::new(compiler.compile());
        state.take(&table);
        let http = nobody().await;
        let addresses = Addresses {
            http: [http].into(),
            https: Default::default(),
        };
        let server = Server::start(&addresses, table, state.clone()).unwrap();
        let of_traces = state.clone();
        let sends = tokio::spawn(async move { of_traces.traces().run().await });
        Self {
            backend,
            dead,
            state,
            http,
            sends,
            _server: server,
        }
    }

    /// Asks with more headers, and reads the answer.
    pub(super) async fn get(&self, target: &str, headers: &str) -> String {
        self.ask("shop.example", target, headers).await
    }

    /// Asks another host.
    pub(super) async fn get_of(&self, host: &str, target: &str) -> String {
        self.ask(host, target, "").await
    }

    async fn ask(&self, host: &str, target: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        let request =
            format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await;
        read.expect("an answer comes in time").unwrap();
        answer
    }

    fn count(&self, fate: Fate) -> u64 {
        self.state.traces().queue.counted(fate)
    }

    /// Waits until that many requests are over.
    pub(super) async fn done(&self, count: u64) {
        let counts = self.state.counts();
        let is_done = || counts.total() == count && counts.active() == 0;
        self.eventually(is_done).await;
    }

    /// Waits until so many spans have a fate, at least; how many have.
    pub(super) async fn count_of(&self, fate: Fate, least: u64) -> u64 {
        self.eventually(|| self.count(fate) >= least).await;
        self.count(fate)
    }

    /// Waits until so many spans have each fate.
    pub(super) async fn counted(&self, expected: [(Fate, u64); 3]) {
        let is_it = || {
            let mut all = expected.iter();
            all.all(|(fate, count)| self.count(*fate) == *count)
        };
        self.eventually(is_it).await;
    }

    async fn eventually(&self, is_it: impl Fn() -> bool) {
        let comes = async {
            while !is_it() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(SOON, comes).await.is_err() {
            let counts: Vec<_> = self.state.traces().counts().collect();
            panic!("it does not come: {counts:?}");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.sends.abort();
    }
}
