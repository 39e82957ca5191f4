//! What an Ingress asks for beyond hosts and paths, typed: what its annotations say, over what the
//! ConfigMap says, over the defaults of ingress-nginx v1.15.1.
//!
//! Names of Secrets, ConfigMaps and Services are names still; the table resolves them.

mod access;

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;
use regex::bytes::Regex;

use crate::{input::Name, trace::Tracing, variables::Template};

pub use access::{Access, AuthCache, BasicAuth, ClientCert, ExternalAuth, VerifyClient};

/// The settings of the paths of an Ingress.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What becomes of the path.
    pub rewrite: Rewrite,
    /// Answers that lead elsewhere.
    pub redirect: Redirect,
    /// How it is forwarded, and to which endpoint.
    pub upstream: Forwarding,
    /// Whether a client stays with an endpoint (`affinity: cookie`).
    pub affinity: Option<Affinity>,
    /// What makes it the canary of another Ingress.
    pub canary: Option<Canary>,
    /// Who may ask.
    pub access: Access,
    /// How often one may ask.
    pub limits: Limits,
    /// Answers for scripts of other sites (`enable-cors`).
    pub cors: Option<Cors>,
    /// Who answers errors in the backend's place.
    pub errors: Errors,
    /// Who gets copies of requests.
    pub mirror: Option<Mirror>,
    /// What is changed in the answers of backends.
    pub response: Response,
    /// Bytes that a request's body may have; `None` for any (`proxy-body-size`, 1 MiB).
    pub body_size: Option<u64>,
    /// Whether requests are logged (`enable-access-log`).
    pub access_log: bool,
    /// Whether, and how, they are traced.
    pub tracing: Tracing,
    /// Settings of the whole host: of the oldest Ingress of a host that has each.
    pub host: HostSettings,
}

/// `rewrite-target`, `use-regex`, `app-root`, `x-forwarded-prefix`.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// What replaces the whole path; its variables are the groups of the rule's expression too.
    pub target: Option<Template>,
    /// Whether paths are regular expressions.
    pub use_regex: bool,
    /// Where a request for `/` is led, 302.
    pub app_root: Option<String>,
    /// Value of `X-Forwarded-Prefix`, which is sent where there is a target.
    pub forwarded_prefix: Option<Template>,
}

/// Redirects.
#[derive(Clone, Debug, Default)]
pub struct Redirect {
    /// To HTTPS where the host has a certificate (`ssl-redirect`).
    pub ssl: bool,
    /// To HTTPS in any case (`force-ssl-redirect`).
    pub force_ssl: bool,
    /// Status of a redirect to HTTPS (`http-redirect-code` of the ConfigMap).
    pub ssl_code: StatusCode,
    /// Whether a redirect to HTTPS keeps a slash at its end (`preserve-trailing-slash`).
    pub preserve_trailing_slash: bool,
    /// Whether redirects that the proxy makes have paths only (`relative-redirects`).
    pub relative: bool,
    /// Whether redirects that the proxy makes have ports (`use-port-in-redirects`).
    pub use_port: bool,
    /// Every request (`temporal-redirect`, else `permanent-redirect`), with its status.
    pub to: Option<(StatusCode, Template)>,
}

/// What backends speak (`backend-protocol`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum BackendProtocol {
    /// HTTP/1.1, or 1.0.
    #[default]
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 without TLS, with prior knowledge.
    Grpc,
    /// HTTP/2 over TLS.
    Grpcs,
}

/// How requests reach a backend.
#[derive(Clone, Debug, Default)]
pub struct Forwarding {
    /// What it speaks.
    pub protocol: BackendProtocol,
    /// Whether the Service's address is dialled, and not its endpoints (`service-upstream`).
    pub service_upstream: bool,
    /// Value of `Host`; `None` for the client's (`upstream-vhost`).
    pub vhost: Option<Template>,
    /// Whether HTTP/1.0 is spoken (`proxy-http-version`).
    pub http10: bool,
    /// Value of `Connection` (`connection-proxy-header`).
    pub connection_header: Option<HeaderValue>,
    /// Which endpoint is next.
    pub balance: Balance,
    /// For a connection (`proxy-connect-timeout`, 5 s).
    pub connect_timeout: Duration,
    /// Between two reads of an answer (`proxy-read-timeout`, 60 s).
    pub read_timeout: Duration,
    /// Between two writes of a request (`proxy-send-timeout`, 60 s).
    pub send_timeout: Duration,
    /// When another endpoint is tried.
    pub next: NextUpstream,
    /// TLS towards it.
    pub tls: UpstreamTls,
    /// Whether a request's body is read whole before it is forwarded
    /// (`proxy-request-buffering`): up to what is kept for a second attempt.
    pub request_buffering: bool,
}

/// How an endpoint is chosen (`load-balance`, `upstream-hash-by`, which wins).
#[derive(Clone, Debug, Default)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The better of two by a moving average of their latencies.
    Ewma,
    /// By the consistent hash of a value.
    Hash {
        /// The value.
        key: Template,
        /// Endpoints of a subset, if the hash chooses one (`upstream-hash-by-subset-size`).
        subset: Option<usize>,
    },
}

/// `proxy-next-upstream` and its companions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NextUpstream {
    /// A connection fails or breaks before an answer's head.
    pub error: bool,
    /// A connection or an answer takes too long.
    pub timeout: bool,
    /// An answer that is none.
    pub invalid_header: bool,
    /// Answers with these statuses (`http_502`, …).
    pub statuses: BTreeSet<u16>,
    /// Requests that are not idempotent too, even when they were sent (`non_idempotent`).
    pub non_idempotent: bool,
    /// Attempts in all; 0 for as many as there are endpoints (`proxy-next-upstream-tries`, 3).
    pub tries: u32,
    /// Time for all attempts; `None` without end (`proxy-next-upstream-timeout`).
    pub within: Option<Duration>,
}

/// `proxy-ssl-*`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct UpstreamTls {
    /// Secret with `tls.crt` and `tls.key` to show, and `ca.crt` to verify by.
    pub secret: Option<Name>,
    /// Whether the backend's certificate is verified (`proxy-ssl-verify`).
    pub verify: bool,
    /// Certificates between its and the root (`proxy-ssl-verify-depth`, 1).
    pub verify_depth: u32,
    /// The name that is expected and sent (`proxy-ssl-name`).
    pub name: Option<String>,
    /// Whether a name is sent (`proxy-ssl-server-name`).
    pub server_name: bool,
}

/// `affinity: cookie` and `session-cookie-*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Affinity {
    /// Whether a binding outlives changes of the other endpoints (`affinity-mode: persistent`).
    pub persistent: bool,
    /// The cookie's name (`session-cookie-name`, `INGRESSCOOKIE`).
    pub cookie: String,
    /// Its path; `None` for the rule's.
    pub path: Option<String>,
    /// Its domain.
    pub domain: Option<String>,
    /// Seconds until `Expires`.
    pub expires: Option<i64>,
    /// `Max-Age`, seconds.
    pub max_age: Option<i64>,
    /// `SameSite`, as it is written.
    pub same_site: Option<String>,
    /// Whether `SameSite=None` is left out for browsers that refuse it.
    pub conditional_same_site_none: bool,
    /// Whether it is `Secure`; `None` for as the request came.
    pub secure: Option<bool>,
    /// Whether a failed attempt binds the client anew (`session-cookie-change-on-failure`).
    pub change_on_failure: bool,
}

/// `canary-*`.
#[derive(Clone, Debug, Default)]
pub struct Canary {
    /// A header (`canary-by-header`).
    pub header: Option<HeaderName>,
    /// Its value that leads here; alone it counts, if it is set.
    pub header_value: Option<String>,
    /// An expression that its value has to match, if no value is set.
    pub header_pattern: Option<Regex>,
    /// A cookie: `always` leads here, `never` away.
    pub cookie: Option<String>,
    /// How many of [`Canary::weight_total`] requests are led here.
    pub weight: u32,
    /// 100 at least.
    pub weight_total: u32,
    /// Whether its own affinity counts, and not that of the Ingress that it is the canary of
    /// (`affinity-canary-behavior: legacy`).
    pub own_affinity: bool,
}

/// Copies of requests, whose answers nobody waits for.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The server that gets them (`mirror-target`).
    pub url: Template,
    /// Value of `Host` (`mirror-host`).
    pub host: String,
    /// Whether they have the body (`mirror-request-body`, on).
    pub body: bool,
}

/// `limit-*`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Requests in a second, of one client.
    pub rps: Option<u32>,
    /// Requests in a minute, of one client.
    pub rpm: Option<u32>,
    /// Requests at once, of one client.
    pub connections: Option<u32>,
    /// What may come at once beyond the rate, as a multiple of it (`limit-burst-multiplier`, 5).
    pub burst_multiplier: u32,
    /// Clients without limits (`limit-allowlist`, `limit-whitelist`).
    pub allow: Vec<IpNet>,
    /// Kilobytes a second of an answer (`limit-rate`).
    pub rate: Option<u64>,
    /// Kilobytes after which that counts (`limit-rate-after`).
    pub rate_after: u64,
    /// What counts for all proxies together.
    pub overall: Option<OverallLimit>,
}

/// `global-rate-limit` and its companions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OverallLimit {
    /// Requests in a window, of one key.
    pub requests: u32,
    /// Whole seconds, one at least (`global-rate-limit-window`).
    pub window: Duration,
    /// What requests are counted by; `None`, as an empty one, for the client's address.
    pub key: Option<Template>,
    /// Clients without this limit (`global-rate-limit-ignored-cidrs`).
    pub ignored: Vec<IpNet>,
}

/// `cors-*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cors {
    /// Origins: `*`, an origin, or one with `*.` in front of its host.
    pub origins: Vec<String>,
    /// `Access-Control-Allow-Methods`.
    pub methods: HeaderValue,
    /// `Access-Control-Allow-Headers`.
    pub headers: HeaderValue,
    /// `Access-Control-Expose-Headers`.
    pub expose: Option<HeaderValue>,
    /// `Access-Control-Allow-Credentials: true`.
    pub credentials: bool,
    /// `Access-Control-Max-Age`, seconds.
    pub max_age: u32,
}

/// `custom-http-errors`, `default-backend`, `disable-proxy-intercept-errors`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Errors {
    /// Statuses of backends that are answered in their place.
    pub intercept: BTreeSet<u16>,
    /// Who answers: a Service of the Ingress's namespace; `None` for the proxy's default backend.
    pub backend: Option<String>,
    /// Whether answers of backends stay as they are all the same.
    pub passed_on: bool,
}

/// What is changed in the answers of backends.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// ConfigMap with headers that are set (`custom-headers`).
    pub headers: Option<Name>,
    /// `Location` and `Refresh`: from, to (`proxy-redirect-from`, `proxy-redirect-to`).
    pub redirect: Option<(String, String)>,
    /// `Set-Cookie`: domains from, to (`proxy-cookie-domain`).
    pub cookie_domain: Option<(String, String)>,
    /// `Set-Cookie`: paths from, to (`proxy-cookie-path`).
    pub cookie_path: Option<(String, String)>,
}

/// Settings of a whole host.
#[derive(Clone, Debug, Default)]
pub struct HostSettings {
    /// More names of it (`server-alias`).
    pub aliases: Vec<String>,
    /// Certificates of clients (`auth-tls-*`).
    pub client_cert: Option<ClientCert>,
    /// Whether the name with or without `www.` leads here (`from-to-www-redirect`).
    pub from_to_www: bool,
    /// Whether its TLS is the backend's (`ssl-passthrough`).
    pub passthrough: bool,
    /// Why every request of the host is refused, 403: `auth-tls-secret` could not be read, and
    /// without it other Ingresses of the host would be open too.
    pub denied: Option<String>,
}
