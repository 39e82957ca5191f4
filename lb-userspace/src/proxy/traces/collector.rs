//! The connection to the collector: OTLP by gRPC (<https://opentelemetry.io/docs/specs/otlp/>, and
//! "gRPC over HTTP2", PROTOCOL-HTTP2.md of gRPC).

use std::{io, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Request, StatusCode, Uri,
    header::{CONTENT_TYPE, TE, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lb_route::globals::Collector as Settings;
use prost::Message as _;
use tokio::net::TcpStream;

use super::messages::Response;

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// How long an export may take: the default of OTLP's exporters.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read: it is a number and a sentence.
const ANSWER: usize = 64 << 10;
/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Why spans are not with the collector.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "cannot be reached: {0}; see otlp-collector-host and otlp-collector-port of the ConfigMap"
    )]
    Unreachable(#[from] io::Error),
    #[error("does not speak HTTP/2 as a server of OTLP by gRPC does: {0}; see otlp-collector-port")]
    Broken(#[from] hyper::Error),
    #[error("does not answer in {} s; see whether it keeps up", PATIENCE.as_secs())]
    Slow,
    #[error("answers {0}, and not gRPC; see otlp-collector-port")]
    NoGrpc(StatusCode),
    #[error("refuses spans with the gRPC status {code}: {message:?}; see its log")]
    Refused { code: u32, message: String },
    #[error("sends an answer that is none: {0}")]
    Malformed(String),
}

impl Error {
    /// Whether it may go another time: OTLP's "Retryable Response Codes" by gRPC, and gRPC's
    /// http-grpc-status-mapping.md.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::Slow => true,
            Self::NoGrpc(status) => matches!(status.as_u16(), 429 | 502..=504),
            // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
            Self::Refused { code, .. } => matches!(code, 1 | 4 | 10 | 11 | 14 | 15),
            Self::Malformed(_) => false,
        }
    }
}

/// What the collector has not taken of spans that it was sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Rejected {
    pub(super) spans: u64,
    pub(super) why: String,
}

/// The connection to a collector, if there is one.
#[derive(Debug, Default)]
pub(super) struct Collector(Option<Line>);

#[derive(Debug)]
struct Line {
    host: String,
    port: u16,
    sender: SendRequest<Full<Bytes>>,
}

/// A message with what gRPC puts before it.
pub(super) fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    // Much less than 4 GiB: there are so many spans at most, and each is short.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

impl Collector {
    /// Sends a message that is [`framed`].
    ///
    /// # Errors
    /// The collector has not taken it.
    pub(super) async fn export(
        &mut self,
        settings: &Settings,
        message: Bytes,
    ) -> Result<Rejected, Error> {
        let exported = tokio::time::timeout(PATIENCE, self.ask(settings, message)).await;
        let exported = exported.unwrap_or(Err(Error::Slow));
        if exported.is_err() {
            self.0 = None;
        }
        exported
    }

    /// Once more by a fresh connection, if one that was there turns out to be closed.
    async fn ask(&mut self, settings: &Settings, message: Bytes) -> Result<Rejected, Error> {
        let is_it = |line: &Line| {
            let is_same = line.host == settings.host && line.port == settings.port;
            is_same && !line.sender.is_closed()
        };
        if let Some(mut line) = self.0.take().filter(is_it) {
            match line.ask(message.clone()).await {
                Err(Error::Broken(_)) => {}
                other => {
                    self.0 = Some(line);
                    return other;
                }
            }
        }
        let line = Line::open(settings).await?;
        self.0.insert(line).ask(message).await
    }
}

impl Line {
    async fn open(settings: &Settings) -> Result<Self, Error> {
        let (host, port) = (&settings.host, settings.port);
        let stream = TcpStream::connect((bare(host), port)).await?;
        stream.set_nodelay(true)?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await?;
        // It ends when the line is dropped; its error reaches the one who asks.
        tokio::spawn(connection);
        Ok(Self {
            host: host.clone(),
            port,
            sender,
        })
    }

    async fn ask(&mut self, message: Bytes) -> Result<Rejected, Error> {
        let address = address(&self.host, self.port);
        let malformed = |error: http::uri::InvalidUri| Error::Malformed(error.to_string());
        let uri: Uri = address.parse().map_err(malformed)?;
        let mut request = Request::post(uri).body(Full::new(message));
        if let Ok(request) = &mut request {
            let agent = concat!("bascule/", env!("BASCULE_VERSION"));
            let headers = request.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        }
        let request = request.map_err(|error| Error::Malformed(error.to_string()))?;
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        if head.status != StatusCode::OK {
            return Err(Error::NoGrpc(head.status));
        }
        let body = Limited::new(body, ANSWER).collect().await;
        let body = body.map_err(|error| Error::Malformed(error.to_string()))?;
        // An answer without a message has the status in its head ("Trailers-Only").
        status(body.trailers().unwrap_or(&head.headers))?;
        rejected(&body.to_bytes())
    }
}

/// A host without the brackets that an address of IPv6 may have.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn address(host: &str, port: u16) -> String {
    match bare(host) {
        bare if bare.contains(':') => format!("http://[{bare}]:{port}{METHOD}"),
        bare => format!("http://{bare}:{port}{METHOD}"),
    }
}

/// Whether the call was done.
fn status(trailers: &HeaderMap) -> Result<(), Error> {
    let text = |name: &str| {
        let value = trailers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    match text("grpc-status").parse() {
        Ok(0) => Ok(()),
        Ok(code) => Err(Error::Refused {
            code,
            message: text("grpc-message"),
        }),
        Err(_) => Err(Error::NoGrpc(StatusCode::OK)),
    }
}

/// What an answer says: "Partial Success" of OTLP.
fn rejected(answer: &[u8]) -> Result<Rejected, Error> {
    let Some(message) = answer.get(PREFIX..) else {
        return Ok(Rejected::default());
    };
    let response = Response::decode(message);
    let response = response.map_err(|error| Error::Malformed(error.to_string()))?;
    let partial = response.partial_success.unwrap_or_default();
    Ok(Rejected {
        spans: u64::try_from(partial.rejected_spans).unwrap_or(0),
        why: partial.error_message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses() {
        for (host, expected) in [
            ("otel.svc", "otel.svc:4317"),
            ("192.0.2.1", "192.0.2.1:4317"),
            ("2001:db8::1", "[2001:db8::1]:4317"),
            ("[2001:db8::1]", "[2001:db8::1]:4317"),
        ] {
            let uri = address(host, 4317).parse::<Uri>().unwrap();
            let authority = uri.authority().map(http::uri::Authority::as_str);
            assert_eq!(authority, Some(expected));
            assert_eq!(uri.path(), METHOD);
        }
    }

    #[test]
    fn what_passes_may_go_another_time() {
        let refused = |code| Error::Refused {
            code,
            message: String::new(),
        };
        // "Retryable Response Codes" of OTLP; 8 only with a time to wait for, which is not read.
        let retried: Vec<u32> = (0..17).filter(|code| refused(*code).is_passing()).collect();
        assert_eq!(retried, [1, 4, 10, 11, 14, 15]);
        let status = |code| Error::NoGrpc(StatusCode::from_u16(code).unwrap());
        let passing = [200, 400, 404, 429, 500, 502, 503, 504];
        let passing: Vec<u16> = passing
            .into_iter()
            .filter(|code| status(*code).is_passing())
            .collect();
        assert_eq!(passing, [429, 502, 503, 504]);
        assert!(Error::Slow.is_passing());
    }

    #[test]
    fn answers_say_what_was_not_taken() {
        let of = |grpc: &'static str| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(grpc));
            status(&trailers)
        };
        assert!(of("0").is_ok());
        assert!(matches!(of("3"), Err(Error::Refused { code: 3, .. })));
        assert!(matches!(of("x"), Err(Error::NoGrpc(_))));
        assert!(matches!(status(&HeaderMap::new()), Err(Error::NoGrpc(_))));
        assert_eq!(rejected(b"").unwrap(), Rejected::default());
        assert_eq!(rejected(b"\0\0\0\0\0").unwrap(), Rejected::default());
        assert!(matches!(
            rejected(b"\0\0\0\0\x01\xff"),
            Err(Error::Malformed(_))
        ));
    }
}
