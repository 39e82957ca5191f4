//! Handshakes with clients.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use lb_route::request::Tls;
use rustls::{
    CipherSuite, ProtocolVersion, ServerConnection,
    pki_types::UnixTime,
    server::{Accepted as Hello, AcceptedAlert, Acceptor as HelloReader},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time,
};
use tokio_rustls::{StartHandshake, server::TlsStream};

use super::hosts::{Certificates, Choice, Served};

/// How long a handshake may take (`client-header-timeout` of nginx).
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that are read at once until the client has said which host it wants: most say it in
/// less than 2,000.
const PIECE: usize = 4096;
/// Fatal alerts (RFC 8446, section 6), before there are keys.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
/// What a client that speaks HTTP hears (497 of nginx).
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 51\r\nConnection: close\r\n\r\n\
    The plain HTTP request was sent to the HTTPS port.\n";

/// Why there is no connection, as metrics call it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The handshake took too long.
    #[error("a handshake took longer than {0:?}")]
    Timeout(Duration),
    /// There is no host of that name.
    #[error("there is no host {0:?}, and handshakes for unknown ones are refused")]
    UnknownHost(Option<String>),
    /// The Secret of the host does not do: no other host's certificate is shown in its place.
    #[error("the certificate of {0:?} does not do")]
    BrokenCertificate(Option<String>),
    /// The client speaks HTTP without TLS.
    #[error("a plain HTTP request was sent to the HTTPS port")]
    PlainHttp,
    /// The connection broke, or the client speaks no TLS that is spoken here.
    #[error("a handshake failed: {0}")]
    Failed(#[from] io::Error),
}

impl Refused {
    /// Names of the kinds, for metrics.
    pub const KINDS: [&'static str; 5] = [
        "timeout",
        "unknown_host",
        "broken_certificate",
        "plain_http",
        "failed",
    ];

    fn kind(&self) -> usize {
        match self {
            Self::Timeout(_) => 0,
            Self::UnknownHost(_) => 1,
            Self::BrokenCertificate(_) => 2,
            Self::PlainHttp => 3,
            Self::Failed(_) => 4,
        }
    }
}

/// What a client's connection has become.
#[derive(Debug)]
pub enum Accepted<S> {
    /// One with TLS.
    Tls(Box<Established<S>>),
    /// One whose TLS is the backend's.
    Passed(Passed<S>),
}

/// A connection with TLS.
#[derive(Debug)]
pub struct Established<S> {
    /// What is said inside.
    pub stream: TlsStream<S>,
    /// What requests on it learn.
    pub tls: Tls,
    /// Whether HTTP/2 was chosen.
    pub http2: bool,
}

/// A connection whose TLS is the backend's.
#[derive(Debug)]
pub struct Passed<S> {
    /// The host that the client asks for.
    pub host: String,
    /// What the client has said so far.
    pub head: Vec<u8>,
    /// The connection.
    pub stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Passed<S> {
    /// Carries bytes to the backend and back until both are done. Returns how many, from the
    /// client and to it.
    ///
    /// # Errors
    /// Either connection breaks.
    pub async fn tunnel<B>(mut self, mut backend: B) -> io::Result<(u64, u64)>
    where
        B: AsyncRead + AsyncWrite + Unpin,
    {
        backend.write_all(&self.head).await?;
        let head = self.head.len() as u64;
        self.head = Vec::new();
        let (up, down) = tokio::io::copy_bidirectional(&mut self.stream, &mut backend).await?;
        Ok((head + up, down))
    }
}

/// Accepts TLS by a table that may be replaced at any time.
#[derive(Debug)]
pub struct Acceptor {
    certificates: Arc<ArcSwap<Certificates>>,
    timeout: Duration,
    established: AtomicU64,
    refused: [AtomicU64; Refused::KINDS.len()],
}

impl Acceptor {
    /// By a table, with a limit for the time that a handshake takes.
    pub fn new(certificates: Arc<ArcSwap<Certificates>>, timeout: Duration) -> Self {
        Self {
            certificates,
            timeout,
            established: AtomicU64::new(0),
            refused: Default::default(),
        }
    }

    /// Handshakes that were done.
    pub fn established(&self) -> u64 {
        self.established.load(Ordering::Relaxed)
    }

    /// Handshakes that were not, by [`Refused::KINDS`].
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self
            .refused
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        Refused::KINDS.into_iter().zip(counts)
    }

    /// Does the handshake of a connection.
    ///
    /// # Errors
    /// There is none; the client has been told why, where it would understand.
    pub async fn accept<S>(&self, stream: S) -> Result<Accepted<S>, Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepted = time::timeout(self.timeout, self.shake(stream)).await;
        let accepted = accepted.unwrap_or(Err(Refused::Timeout(self.timeout)));
        match &accepted {
            Ok(Accepted::Tls(_)) => self.established.fetch_add(1, Ordering::Relaxed),
            Ok(Accepted::Passed(_)) => 0,
            Err(refused) => self.refused[refused.kind()].fetch_add(1, Ordering::Relaxed),
        };
        accepted
    }

    async fn shake<S>(&self, mut stream: S) -> Result<Accepted<S>, Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (hello, head) = read_hello(&mut stream).await?;
        let name = hello.client_hello().server_name().map(str::to_owned);
        // The table of this moment: a change while the client thinks is for the next one.
        let certificates = self.certificates.load_full();
        match certificates.choose(name.as_deref()) {
            Choice::Serve(served) => {
                let handshake = StartHandshake::from_parts(hello, stream);
                let stream = handshake.into_stream(served.config.clone()).await?;
                Ok(Accepted::Tls(Box::new(established(stream, name, served))))
            }
            Choice::Backend => Ok(Accepted::Passed(Passed {
                host: name.unwrap_or_default(),
                head,
                stream,
            })),
            Choice::Broken => {
                last_words(&mut stream, &INTERNAL_ERROR).await;
                Err(Refused::BrokenCertificate(name))
            }
            Choice::Unknown => {
                last_words(&mut stream, &UNRECOGNIZED_NAME).await;
                Err(Refused::UnknownHost(name))
            }
        }
    }
}

/// Reads until the client has said what it wants; also returns the bytes of that.
///
/// Not [`tokio_rustls::LazyConfigAcceptor`]: it keeps the bytes, which a backend whose TLS it
/// is needs.
async fn read_hello<S>(stream: &mut S) -> Result<(Hello, Vec<u8>), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = HelloReader::default();
    let mut head = Vec::with_capacity(PIECE);
    loop {
        let begin = head.len();
        // rustls has a limit for a hello.
        head.reserve(PIECE);
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        // A method's first letter; TLS begins with 22.
        if begin == 0 && head[0].is_ascii_uppercase() {
            last_words(stream, PLAIN_HTTP).await;
            return Err(Refused::PlainHttp);
        }
        let mut piece = &head[begin..];
        while !piece.is_empty() {
            reader.read_tls(&mut piece)?;
        }
        match reader.accept() {
            Ok(Some(hello)) => return Ok((hello, head)),
            Ok(None) => {}
            Err((error, alert)) => {
                last_words(stream, &bytes_of(alert)).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error).into());
            }
        }
    }
}

fn bytes_of(mut alert: AcceptedAlert) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A Vec takes everything.
    let _ = alert.write_all(&mut bytes);
    bytes
}

/// Tells a client why its connection ends.
async fn last_words<S: AsyncWrite + Unpin>(stream: &mut S, words: &[u8]) {
    // Whoever does not listen has no connection either way.
    let _ = stream.write_all(words).await;
    let _ = stream.shutdown().await;
}

fn established<S>(stream: TlsStream<S>, name: Option<String>, served: &Served) -> Established<S> {
    let connection = stream.get_ref().1;
    let certificate = served.auth.as_ref().and_then(|auth| {
        let chain = connection.peer_certificates()?;
        auth.certificate(chain, UnixTime::now())
    });
    let tls = Tls {
        server_name: name,
        protocol: protocol(connection),
        cipher: cipher(connection),
        certificate,
    };
    let http2 = connection.alpn_protocol() == Some(b"h2");
    Established { stream, tls, http2 }
}

/// `$ssl_protocol`.
fn protocol(connection: &ServerConnection) -> &'static str {
    match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    }
}

/// `$ssl_cipher`: names of OpenSSL (openssl-ciphers(1)).
fn cipher(connection: &ServerConnection) -> String {
    let Some(suite) = connection.negotiated_cipher_suite() else {
        return String::new();
    };
    let name = match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => return format!("{other:?}"),
    };
    name.to_owned()
}
