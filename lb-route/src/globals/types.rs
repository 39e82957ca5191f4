//! The parts of [`super::Globals`].

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use regex::bytes::Regex;

use crate::{
    input::Name,
    variables::{Escape, Template},
};

/// Clients' connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// How long one is kept without a request; zero for not at all (`keep-alive`, 75 s).
    pub keep_alive: Duration,
    /// Requests of one (`keep-alive-requests`, 1000).
    pub keep_alive_requests: u32,
    /// For a request's head (`client-header-timeout`, 60 s).
    pub header_timeout: Duration,
    /// Between two reads of a request's body (`client-body-timeout`, 60 s).
    pub body_timeout: Duration,
    /// Lines of a head that may be long, and their bytes (`large-client-header-buffers`, 4 8k).
    pub header_buffers: (u32, u64),
    /// Whether HTTP/2 is offered (`use-http2`).
    pub http2: bool,
    /// Requests at once of an HTTP/2 connection (`http2-max-concurrent-streams`, 128).
    pub http2_streams: u32,
    /// Whether names of headers with `_` are names (`enable-underscores-in-headers`).
    pub underscores: bool,
    /// Whether headers whose names are none are left out, or answered 400
    /// (`ignore-invalid-headers`).
    pub ignore_invalid: bool,
    /// Whether connections begin with the PROXY protocol (`use-proxy-protocol`).
    pub proxy_protocol: bool,
    /// For its header (`proxy-protocol-header-timeout`, 5 s).
    pub proxy_protocol_timeout: Duration,
}

/// What other proxies say of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forwarded {
    /// Whether `X-Forwarded-*` of clients is believed (`use-forwarded-headers`).
    pub trust: bool,
    /// Whether the client's address is read from `header`, even if the rest is not believed
    /// (`enable-real-ip`).
    pub real_ip: bool,
    /// Where the client's address is (`forwarded-for-header`).
    pub header: HeaderName,
    /// Whether the client's address is added to what `header` has already, for backends
    /// (`compute-full-forwarded-for`).
    pub full: bool,
    /// Addresses of the other proxies (`proxy-real-ip-cidr`, 0.0.0.0/0).
    pub proxies: Vec<IpNet>,
    /// Whether backends get `X-Original-URI` (`proxy-add-original-uri-header`).
    pub original_uri: bool,
    /// Whether requests without an identifier get one (`generate-request-id`).
    pub request_id: bool,
}

/// Connections to backends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// How many are kept (`upstream-keepalive-connections`, 320).
    pub connections: u32,
    /// Requests of one (`upstream-keepalive-requests`, 10000).
    pub requests: u32,
    /// How long one is kept without a request (`upstream-keepalive-timeout`, 60 s).
    pub timeout: Duration,
    /// How long one is used (`upstream-keepalive-time`, 1 h).
    pub time: Duration,
}

/// TLS of clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// Whether TLS 1.2 is offered (`ssl-protocols`).
    pub v12: bool,
    /// Whether TLS 1.3 is.
    pub v13: bool,
    /// Whether a name without a certificate ends the handshake (`ssl-reject-handshake`).
    pub reject: bool,
    /// Whether sessions are kept here (`ssl-session-cache`).
    pub session_cache: bool,
    /// Whether clients get tickets (`ssl-session-tickets`).
    pub tickets: bool,
    /// How long a session can be resumed (`ssl-session-timeout`, 10 min).
    pub session_timeout: Duration,
    /// `Strict-Transport-Security`.
    pub hsts: Hsts,
    /// Beginnings of paths that are not led to HTTPS (`no-tls-redirect-locations`).
    pub no_redirect: Vec<String>,
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hsts {
    /// Whether it is sent (`hsts`).
    pub on: bool,
    /// Seconds (`hsts-max-age`, 31536000).
    pub max_age: u64,
    /// For hosts below it too (`hsts-include-subdomains`).
    pub subdomains: bool,
    /// For lists of browsers (`hsts-preload`).
    pub preload: bool,
}

impl Hsts {
    /// The header's value, if it is sent.
    pub fn header(&self) -> Option<HeaderValue> {
        let subdomains = ["", "; includeSubDomains"][usize::from(self.subdomains)];
        let preload = ["", "; preload"][usize::from(self.preload)];
        let value = format!("max-age={}{subdomains}{preload}", self.max_age);
        let value = HeaderValue::from_str(&value).ok();
        value.filter(|_| self.on)
    }
}

/// Headers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    /// ConfigMap with headers for backends (`proxy-set-headers`).
    pub requests: Option<Name>,
    /// ConfigMap with headers of answers (`add-headers`).
    pub answers: Option<Name>,
    /// Headers of backends that clients do not get (`hide-headers`).
    pub hidden: Vec<HeaderName>,
    /// Headers that `custom-headers` may set (`global-allowed-response-headers`).
    pub allowed: Vec<HeaderName>,
    /// Whether answers have `Server` (`server-tokens`).
    pub server: bool,
    /// Whether `Server` is the backend's (`allow-backend-server-header`).
    pub backend_server: bool,
}

/// Requests that are refused anywhere.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Clients (`block-cidrs`).
    pub clients: Vec<IpNet>,
    /// `User-Agent` (`block-user-agents`).
    pub agents: Vec<Regex>,
    /// `Referer` (`block-referers`).
    pub referers: Vec<Regex>,
}

/// How answers are compressed in one way (ngx_http_gzip_module, ngx_brotli).
#[derive(Clone, Debug)]
pub struct Coding {
    /// Whether they are (`use-gzip`, `enable-brotli`).
    pub on: bool,
    /// How hard it is tried: from 1 to 9 (`gzip-level`, 1), from 0 to 11 (`brotli-level`, 4).
    pub level: u32,
    /// Bytes that an answer has at least, if it says how many (`gzip-min-length`, 256;
    /// `brotli-min-length`, 20).
    pub min_length: u64,
    /// Media types besides `text/html`, in small letters; `*` for all (`gzip-types`,
    /// `brotli-types`).
    pub types: BTreeSet<String>,
}

/// How answers are compressed. Brotli comes first for clients that take both.
#[derive(Clone, Debug)]
pub struct Compression {
    /// By gzip (RFC 1952).
    pub gzip: Coding,
    /// `User-Agent` of clients that get nothing by gzip (`gzip-disable`).
    pub gzip_disabled: Option<Regex>,
    /// By brotli (RFC 7932).
    pub brotli: Coding,
}

/// The access log.
#[derive(Clone, Debug)]
pub struct Log {
    /// Whether there is one (`disable-access-log`).
    pub on: bool,
    /// A line (`log-format-upstream`).
    pub format: Template,
    /// How values are escaped in it (`log-format-escape-none`, `log-format-escape-json`).
    pub escape: Escape,
    /// Paths with their queries that are left out (`skip-access-log-urls`).
    pub skip: Vec<Regex>,
    /// Whether requests of the default backend are logged
    /// (`enable-access-log-for-default-backend`).
    pub default_backend: bool,
}

/// Where spans are sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collector {
    /// Its host; empty for none (`otlp-collector-host`).
    pub host: String,
    /// Its port (`otlp-collector-port`, 4317).
    pub port: u16,
    /// `service.name` of what is sent (`otel-service-name`, `nginx`).
    pub service: String,
    /// Spans that wait to be sent; what comes beyond is lost (`otel-max-queuesize`, 2048).
    pub queue: usize,
    /// How long spans wait for others (`otel-schedule-delay-millis`, 5 s).
    pub delay: Duration,
    /// Spans that are sent together (`otel-max-export-batch-size`, 512).
    pub batch: usize,
}
