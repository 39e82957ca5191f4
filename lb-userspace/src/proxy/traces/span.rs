//! From a request that is over to spans: its own, and one for each attempt at an endpoint, and each
//! question of `auth-url`. Attributes are those of OpenTelemetry's semantic conventions for HTTP
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>), and the Ingress.

use std::{
    num::NonZeroU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, Method, StatusCode, Uri, Version, header, uri::Authority};
use lb_proxy::{Asked, Attempt, Record, Trace};
use lb_route::{globals::Globals, settings::BackendProtocol};

use super::messages::{AnyValue, Code, KeyValue, Kind, Span, Status, Value};
use crate::proxy::access_log::Line;

/// Bytes of a value; longer ones are cut. What clients write can be long, and collectors take
/// 4 MiB at a time.
const LONG: usize = 1024;
/// The methods that have a name (semantic conventions, `http.request.method`).
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];
/// Parameters of a query that let in whoever has them (semantic conventions, `url.query`).
const SECRETS: [&str; 4] = ["AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"];
/// The parent is known to be of another process, or of this one (trace.proto, `SpanFlags`).
const IS_REMOTE: u32 = 0x300;
const IS_LOCAL: u32 = 0x100;
const SAMPLED: u32 = 1;

/// The spans of a request; its own is the first.
pub(super) fn of(
    record: &Record,
    trace: &Trace,
    (globals, hostname): (&Globals, &str),
) -> Vec<Span> {
    let mut spans = Vec::with_capacity(1 + trace.questions.len() + record.attempts.len());
    spans.push(server(record, trace, (globals, hostname)));
    let questions = trace.questions.iter();
    spans.extend(questions.map(|one| question(record, trace, one)));
    let attempts = record.attempts.iter().enumerate();
    spans.extend(attempts.filter_map(|(number, one)| attempt(record, trace, (number, one))));
    spans
}

fn server(record: &Record, trace: &Trace, (globals, hostname): (&Globals, &str)) -> Span {
    let asked = record.asked(globals);
    let location = record.location.as_deref();
    let settings = location.map_or(&globals.defaults, |location| &location.settings);
    let name = settings.tracing.name.as_ref();
    let name = name.map(|name| name.fill(&Line::new(record, &asked, hostname)));
    let path = location.map_or("/", |location| &*location.path);
    let mut attributes = Attributes::default();
    attributes.method(&record.method);
    attributes.text("url.scheme", &asked.scheme);
    attributes.text("url.path", record.uri.path());
    attributes.texts("url.query", record.uri.query().map(redacted));
    if let Ok(authority) = asked.host.parse::<Authority>() {
        attributes.text("server.address", authority.host());
        attributes.numbers("server.port", authority.port_u16());
    }
    attributes.text("client.address", &asked.remote.to_string());
    let peer = record.client.address;
    attributes.text("network.peer.address", &peer.ip().to_string());
    attributes.numbers("network.peer.port", Some(peer.port()));
    attributes.text("network.protocol.version", version(record.version));
    let agent = record.headers.get(header::USER_AGENT).and_then(text);
    attributes.texts("user_agent.original", agent);
    attributes.status(record.status);
    if let Some(location) = location.filter(|location| !location.ingress.name.is_empty()) {
        attributes.text("http.route", &location.path);
        attributes.text("bascule.namespace", &location.ingress.namespace);
        attributes.text("bascule.ingress", &location.ingress.name);
        attributes.text("bascule.service", &location.service.name);
    }
    let is_error = record.status.is_server_error();
    attributes.texts("error.type", is_error.then(|| record.status.as_str()));
    Span {
        span_id: bytes(trace.span.id),
        parent_span_id: trace.span.parent.map(bytes).unwrap_or_default(),
        name: cut(name.as_deref().unwrap_or(path)).to_owned(),
        kind: Kind::Server.into(),
        flags: IS_REMOTE | SAMPLED,
        ..span(record, trace, (Duration::ZERO, record.request_time))
    }
    .with(attributes, is_error)
}

/// An attempt at an endpoint: none, if it began before spans were kept.
fn attempt(record: &Record, trace: &Trace, (number, one): (usize, &Attempt)) -> Option<Span> {
    let forward = record.forward.as_ref()?;
    let mut attributes = Attributes::default();
    attributes.method(&record.method);
    let scheme = match forward.location.settings.upstream.protocol {
        BackendProtocol::Http | BackendProtocol::Grpc => "http",
        BackendProtocol::Https | BackendProtocol::Grpcs => "https",
    };
    let (path, query) = forward.target.split_once('?').unzip();
    let path = path.unwrap_or(&forward.target);
    let query = query.map(|query| format!("?{}", redacted(query)));
    let query = query.unwrap_or_default();
    let url = format!("{scheme}://{}{path}{query}", one.address);
    attributes.text("url.full", &url);
    attributes.address(&one.address.ip().to_string(), one.address.port());
    let resent = Some(number).filter(|number| *number > 0);
    attributes.numbers("http.request.resend_count", resent.map(|n| n as u32));
    let status = one.header_time.map(|_| one.status);
    let failure = match one.status {
        StatusCode::GATEWAY_TIMEOUT => "timeout",
        _ => "connection",
    };
    let is_error = attributes.answered(status, failure);
    let span = Span {
        span_id: bytes(one.span?),
        ..span(record, trace, (one.begun, one.response_time))
    };
    Some(client(span, &record.method, trace).with(attributes, is_error))
}

fn question(record: &Record, trace: &Trace, one: &Asked) -> Span {
    let mut attributes = Attributes::default();
    attributes.method(&one.method);
    let (address, query) = one.url.split_once('?').unzip();
    let address = address.unwrap_or(&one.url);
    let query = query.map(|query| format!("?{}", redacted(query)));
    attributes.text(
        "url.full",
        &(address.to_owned() + &query.unwrap_or_default()),
    );
    let uri = address.parse::<Uri>().unwrap_or_default();
    if let Some(host) = uri.host() {
        let is_tls = uri.scheme_str() == Some("https");
        let usual = if is_tls { 443 } else { 80 };
        attributes.address(host, uri.port_u16().unwrap_or(usual));
    }
    let is_error = attributes.answered(one.status, "connection");
    let span = Span {
        span_id: bytes(one.span),
        ..span(record, trace, (one.begun, one.took))
    };
    client(span, &one.method, trace).with(attributes, is_error)
}

/// A span that asks for the request's.
fn client(span: Span, method: &Method, trace: &Trace) -> Span {
    Span {
        parent_span_id: bytes(trace.span.id),
        name: known(method).unwrap_or("HTTP").to_owned(),
        kind: Kind::Client.into(),
        flags: IS_LOCAL | SAMPLED,
        ..span
    }
}

/// What all spans of a request have; from, and for, so long after its head.
fn span(record: &Record, trace: &Trace, (from, long): (Duration, Duration)) -> Span {
    let nanos = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Until the year 2554.
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    };
    let state = trace.span.state.as_ref().and_then(text);
    Span {
        trace_id: trace.span.trace.get().to_be_bytes().to_vec(),
        trace_state: state.unwrap_or_default().to_owned(),
        start_time_unix_nano: nanos(record.time + from),
        end_time_unix_nano: nanos(record.time + from + long),
        ..Span::default()
    }
}

impl Span {
    fn with(mut self, attributes: Attributes, is_error: bool) -> Self {
        self.attributes = attributes.0;
        let code = is_error.then_some(Code::Error);
        self.status = code.map(|code| Status { code: code.into() });
        self
    }
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &str, value: &str) {
        self.0.push(KeyValue::text(key, cut(value)));
    }

    fn texts(&mut self, key: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.text(key, value.as_ref());
        }
    }

    fn numbers(&mut self, key: &str, value: Option<impl Into<i64>>) {
        if let Some(value) = value {
            self.0.push(KeyValue::of(key, Value::Number(value.into())));
        }
    }

    fn method(&mut self, method: &Method) {
        let name = known(method);
        self.text("http.request.method", name.unwrap_or("_OTHER"));
        let original = name.is_none().then(|| method.as_str());
        self.texts("http.request.method_original", original);
    }

    fn address(&mut self, host: &str, port: u16) {
        self.text("server.address", host);
        self.numbers("server.port", Some(port));
    }

    fn status(&mut self, status: StatusCode) {
        self.numbers("http.response.status_code", Some(status.as_u16()));
    }

    /// What came of a question, or what its failure is called; whether it is an error: for a
    /// client 4xx are, too.
    fn answered(&mut self, status: Option<StatusCode>, failure: &str) -> bool {
        let Some(status) = status else {
            self.text("error.type", failure);
            return true;
        };
        self.status(status);
        let is_error = status.is_client_error() || status.is_server_error();
        self.texts("error.type", is_error.then(|| status.as_str()));
        is_error
    }
}

impl KeyValue {
    pub(super) fn text(key: &str, value: &str) -> Self {
        Self::of(key, Value::Text(value.to_owned()))
    }

    fn of(key: &str, value: Value) -> Self {
        Self {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
        }
    }
}

fn bytes(id: NonZeroU64) -> Vec<u8> {
    id.get().to_be_bytes().to_vec()
}

fn known(method: &Method) -> Option<&str> {
    METHODS.contains(method).then(|| method.as_str())
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// The beginning of a text, if it is long.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONG)]
}

/// A query without the values of [`SECRETS`].
fn redacted(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, _)) if SECRETS.contains(&key) => format!("{key}=REDACTED"),
        _ => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}
