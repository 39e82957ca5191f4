//! A proxy, its backends and its clients, all on loopback sockets.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses some of it"
)]

pub mod backend;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use lb_proxy::{
    Decide, Observe, Options, Peer, Plain, Protocol, Proxy, Record,
    listen::{self, Listeners},
    rest::Socket,
};
use lb_route::{
    action::{Action, Asked, Endpoints, Forward, Location, Upstream},
    input::{Name, PortRef},
    request::{Client, Head},
    settings::Settings,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// How long a test waits for what is to come.
pub const SOON: Duration = Duration::from_secs(10);

/// One path, for every request.
pub struct Site {
    pub settings: Settings,
    pub upstreams: HashMap<String, Arc<Upstream>>,
    pub errors: Option<String>,
    pub change: fn(&mut Forward),
}

pub fn settings() -> Settings {
    let mut settings = Settings::default();
    let upstream = &mut settings.upstream;
    upstream.connect_timeout = Duration::from_secs(5);
    upstream.read_timeout = Duration::from_secs(60);
    upstream.send_timeout = Duration::from_secs(60);
    upstream.request_buffering = true;
    upstream.next.error = true;
    upstream.next.timeout = true;
    upstream.next.tries = 3;
    settings.body_size = Some(1 << 20);
    settings
}

pub fn upstream(name: &str, endpoints: &[SocketAddr]) -> Arc<Upstream> {
    Arc::new(Upstream {
        name: name.into(),
        service: Name::new("default", name),
        port: PortRef::Number(80),
        endpoints: Endpoints::At(endpoints.into()),
        turn: Arc::new(AtomicUsize::new(0)),
    })
}

impl Site {
    /// With endpoints, in the order in which they are tried.
    pub fn new(endpoints: &[SocketAddr]) -> Self {
        Self {
            settings: settings(),
            upstreams: [("main".to_owned(), upstream("main", endpoints))].into(),
            errors: None,
            change: |_| {},
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Its path.
    pub fn location(&self) -> Arc<Location> {
        Arc::new(Location {
            ingress: Name::new("default", "site"),
            uid: "uid".into(),
            host: "_".into(),
            path: "/".into(),
            kind: lb_route::PathType::Prefix,
            service: Name::new("default", "main"),
            port: PortRef::Number(80),
            upstream: "main".into(),
            canary: None,
            errors: self.errors.as_deref().map(Into::into),
            stand_in: None,
            users: None,
            upstream_secret: None,
            auth_headers: Vec::new(),
            answer_headers: Vec::new(),
            denied: None,
            settings: Arc::new(self.settings.clone()),
        })
    }

    /// Starts a proxy for it.
    pub async fn start(self) -> Running {
        self.start_with(|_| {}).await
    }

    pub async fn start_with(self, change: impl FnOnce(&mut Options)) -> Running {
        let mut options = Options::default();
        change(&mut options);
        let records = Arc::new(Records::default());
        let proxy = Proxy::new(options, Arc::new(self), records.clone(), Plain);
        let (listeners, address) = listen(&proxy, listen::Options::default());
        Running {
            listeners,
            address,
            proxy,
            records,
        }
    }
}

/// Has it serve at an address, as long as there are the listeners.
pub fn listen(proxy: &Arc<Proxy<Plain>>, options: listen::Options) -> (Listeners, SocketAddr) {
    let proxy = proxy.clone();
    let serve = move |stream: TcpStream, ends: listen::Peer, _| {
        let peer = peer(ends.remote, ends.local.port());
        let proxy = proxy.clone();
        proxy.serve(Socket::from(stream), peer, |socket| Some(socket))
    };
    let mut listeners = Listeners::new(serve, options, Arc::default());
    let refused = listeners.set(&[([127, 0, 0, 1], 0).into()].into());
    assert!(refused.is_empty(), "{refused:?}");
    let address = listeners.addresses().next().unwrap();
    (listeners, address)
}

/// A client without TLS.
pub fn peer(address: SocketAddr, port: u16) -> Peer {
    Peer {
        address,
        port,
        tls: None,
        protocol: Protocol::Tell,
    }
}

impl Decide for Site {
    fn decide(&self, head: &Head<'_>, client: &Client) -> Action {
        let host = head.authority().unwrap_or_default().to_owned();
        let host_value = HeaderValue::from_str(&host).unwrap();
        let mut forward = Forward {
            location: self.location(),
            upstream: self.upstreams["main"].clone(),
            canary: false,
            target: head.target().to_owned(),
            headers: vec![
                (http::header::HOST, Some(host_value)),
                (
                    HeaderName::from_static("x-added"),
                    Some(HeaderValue::from_static("yes")),
                ),
            ],
            too_large: false,
            source_denied: false,
            cookie: None,
            hash: None,
            groups: Vec::new(),
            answer_headers: Vec::new(),
            asked: Asked {
                host,
                scheme: "http".to_owned(),
                port: client.port.to_string(),
                request_id: client.request_id.clone(),
                remote: client.address.ip(),
            },
        };
        (self.change)(&mut forward);
        Action::Forward(Box::new(forward))
    }

    fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        self.upstreams.get(name).cloned()
    }
}

/// What was observed of a request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub status: u16,
    pub target: String,
    pub sent: u64,
    pub request_length: u64,
    pub attempts: Vec<(SocketAddr, u16)>,
}

#[derive(Default)]
pub struct Records(Mutex<Vec<Seen>>);

impl Records {
    pub fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }
}

impl Observe for Records {
    fn done(&self, record: &Record) {
        let attempts = record.attempts.iter();
        self.0.lock().unwrap().push(Seen {
            status: record.status.as_u16(),
            target: record.head().target().to_owned(),
            sent: record.body_bytes_sent,
            request_length: record.request_length,
            attempts: attempts.map(|a| (a.address, a.status.as_u16())).collect(),
        });
    }
}

/// A proxy that runs.
pub struct Running {
    pub listeners: Listeners,
    pub address: SocketAddr,
    pub proxy: Arc<Proxy<Plain>>,
    pub records: Arc<Records>,
}

impl Running {
    pub async fn connect(&self) -> Talk {
        Talk::to(self.address).await
    }

    /// Sends bytes, and reads what comes until the end.
    pub async fn all(&self, bytes: &[u8]) -> String {
        let mut talk = self.connect().await;
        talk.send(bytes).await;
        talk.rest().await
    }

    /// Sends a request that ends the connection, and reads the answer.
    pub async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n");
        self.all(request.as_bytes()).await
    }

    /// What was seen of `count` requests.
    pub async fn seen(&self, count: usize) -> Vec<Seen> {
        for _ in 0..1000 {
            let seen = self.records.all();
            if seen.len() >= count {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} of {count} requests were seen", self.records.all().len());
    }
}

/// A connection of a client.
pub struct Talk<Io = TcpStream> {
    pub stream: Io,
    read: Vec<u8>,
}

impl Talk {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Talk<Io> {
    pub fn over(stream: Io) -> Self {
        let read = Vec::new();
        Self { stream, read }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // Whoever refuses the request may have closed already.
        let _ = self.stream.write_all(bytes).await;
    }

    async fn more(&mut self) -> usize {
        let mut piece = vec![0; 64 * 1024];
        let read = timeout(SOON, self.stream.read(&mut piece)).await;
        let read = read.expect("something comes in time").unwrap_or(0);
        self.read.extend_from_slice(&piece[..read]);
        read
    }

    /// Reads until what was read has a text in it; what is behind it is left.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            let found = self
                .read
                .windows(text.len())
                .position(|w| w == text.as_bytes());
            if let Some(at) = found {
                let rest = self.read.split_off(at + text.len());
                let read = std::mem::replace(&mut self.read, rest);
                return String::from_utf8_lossy(&read).into_owned();
            }
            let text = text.escape_debug();
            let read = self.more().await;
            let so_far = String::from_utf8_lossy(&self.read);
            assert!(read > 0, "the end comes before {text}: {so_far}");
        }
    }

    /// Reads an answer with a length.
    pub async fn answer(&mut self) -> String {
        let head = self.until("\r\n\r\n").await;
        let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more().await > 0, "the body ends early: {head}");
        }
        let rest = self.read.split_off(length);
        let body = std::mem::replace(&mut self.read, rest);
        head + &String::from_utf8_lossy(&body)
    }

    /// Reads to the end.
    pub async fn rest(&mut self) -> String {
        while self.more().await > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }
}

/// Status of an answer.
pub fn status(answer: &str) -> u16 {
    let status = answer.get(9..12).and_then(|text| text.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// A header of a message.
pub fn header<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    let (head, _) = message.split_once("\r\n\r\n")?;
    let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim()))
}

/// The body of a message.
pub fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// Counts.
#[derive(Default)]
pub struct Count(AtomicUsize);

impl Count {
    pub fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
