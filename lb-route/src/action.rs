//! What becomes of a request.

use std::sync::{Arc, atomic::AtomicUsize};

use http::{HeaderName, HeaderValue, StatusCode};

use crate::{
    PathType,
    headers::Headers,
    htpasswd::Users,
    input::{Data, Name, PortRef},
    settings::{Canary, Settings},
};

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// The proxy answers by itself.
    Answer(Answer),
    /// A backend answers, if the checks of the path's settings pass.
    Forward(Box<Forward>),
}

/// An answer of the proxy.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The path that it is for; `None` where no rule has the request's host and path.
    pub location: Option<Arc<Location>>,
}

/// A request for a backend. What is still to be checked, in this order: `too_large`; and what is in
/// the settings of its path, `limits`, then `access`, of whose addresses `source_denied` tells, then
/// `body_size`, of bodies without a length.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The path.
    pub location: Arc<Location>,
    /// Where it goes.
    pub upstream: Arc<Upstream>,
    /// Whether that is the canary, or another that affinity has bound to it.
    pub canary: bool,
    /// Path and query for the backend.
    pub target: String,
    /// Headers of the request that are set for the backend, in place of the client's; `None` for
    /// those that are taken away.
    pub headers: Vec<(HeaderName, Option<HeaderValue>)>,
    /// Whether the length that the request declares is beyond `body_size`: it is answered 413.
    pub too_large: bool,
    /// Whether the client's address is refused by the source ranges.
    pub source_denied: bool,
    /// The value of the affinity's cookie, if the client has one.
    pub cookie: Option<String>,
    /// What is hashed to find an endpoint, if endpoints are found so.
    pub hash: Option<String>,
    /// Groups of the rule's expression, that of the whole match first.
    pub groups: Vec<Vec<u8>>,
    /// Headers that are set in the answer: of CORS.
    pub answer_headers: Vec<(HeaderName, HeaderValue)>,
    /// What the client asked for, as variables have it.
    pub asked: Asked,
}

/// The request as its variables have it, after headers of trusted proxies were read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// `$best_http_host`: host and port.
    pub host: String,
    /// `$pass_access_scheme`.
    pub scheme: String,
    /// `$pass_port`.
    pub port: String,
    /// `$req_id`.
    pub request_id: String,
    /// `$remote_addr`: the client's address, behind trusted proxies too.
    pub remote: std::net::IpAddr,
}

/// A path of a host, with all that is known of it.
#[derive(Clone, Debug)]
pub struct Location {
    /// The Ingress.
    pub ingress: Name,
    /// Its `metadata.uid`: limits are counted by it.
    pub uid: Arc<str>,
    /// The rule's host; `_` for every host.
    pub host: Arc<str>,
    /// The rule's path.
    pub path: Arc<str>,
    /// How the rule's path is compared, if no rule of the host has an expression.
    pub kind: PathType,
    /// The backend's Service and port, as they are written.
    pub service: Name,
    /// The backend's port.
    pub port: PortRef,
    /// Name of the upstream, for [`crate::Table::upstream`].
    pub upstream: Arc<str>,
    /// The canary: name of its upstream, and who is led there.
    pub canary: Option<Arc<CanaryOf>>,
    /// Name of the upstream that answers errors.
    pub errors: Option<Arc<str>>,
    /// Name of the upstream that answers requests while `upstream` has no endpoint: of
    /// `default-backend`.
    pub stand_in: Option<Arc<str>>,
    /// Its users (`auth-secret`).
    pub users: Option<Arc<Users>>,
    /// The Secret of TLS towards its backends (`proxy-ssl-secret`).
    pub upstream_secret: Option<Arc<Data>>,
    /// Headers of the question that external authentication asks (`auth-proxy-set-headers`).
    pub auth_headers: Headers,
    /// Headers that are set in answers (`custom-headers`).
    pub answer_headers: Vec<(HeaderName, HeaderValue)>,
    /// Why every request is refused, 503: a setting that protects could not be read.
    pub denied: Option<String>,
    /// What its Ingress asks for.
    pub settings: Arc<Settings>,
}

/// The canary of a path.
#[derive(Clone, Debug)]
pub struct CanaryOf {
    /// Its Ingress.
    pub ingress: Name,
    /// Name of its upstream.
    pub upstream: Arc<str>,
    /// Who is led there.
    pub when: Canary,
    /// Its own settings: of balancing and affinity they count.
    pub settings: Arc<Settings>,
}

/// The endpoints of a port of a Service.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// `NAMESPACE-SERVICE-PORT`, as ingress-nginx names it.
    pub name: Arc<str>,
    /// The Service.
    pub service: Name,
    /// The port, as the Ingress names it.
    pub port: PortRef,
    /// Where its endpoints are.
    pub endpoints: Endpoints,
    /// Whose turn it is; outlives changes of the table.
    pub turn: Arc<AtomicUsize>,
}

/// Where the endpoints of an upstream are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoints {
    /// At these addresses; sorted.
    At(Arc<[std::net::SocketAddr]>),
    /// At those of a name of DNS, and a port (`ExternalName`).
    Named(Arc<str>, u16),
}

impl Upstream {
    /// Whether there is an endpoint, as far as is known.
    pub fn has_endpoints(&self) -> bool {
        match &self.endpoints {
            Endpoints::At(addresses) => !addresses.is_empty(),
            Endpoints::Named(..) => true,
        }
    }
}
