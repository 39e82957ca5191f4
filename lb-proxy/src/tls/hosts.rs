//! Which certificate a host has: one immutable table, made anew on every change from what has
//! not changed.

mod maker;

use std::{collections::HashMap, sync::Arc, time::Duration};

use lb_route::input::Data;
use rustls::ServerConfig;

use super::{
    SecretError,
    certificates::{Facts, Loaded},
    clients::ClientAuth,
};
use maker::{Made, Maker};

/// Settings of TLS with clients, of the ConfigMap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Whether HTTP/2 is offered (`use-http2`).
    pub http2: bool,
    /// Whether TLS 1.2 is spoken (`ssl-protocols`).
    pub tls12: bool,
    /// Whether TLS 1.3 is spoken (`ssl-protocols`). Without either, both are.
    pub tls13: bool,
    /// Whether clients keep their sessions, sealed (`ssl-session-tickets`).
    pub tickets: bool,
    /// How long a session can be resumed (`ssl-session-timeout`).
    pub session_timeout: Duration,
    /// Whether sessions are kept for clients (`ssl-session-cache`).
    pub session_cache: bool,
    /// How many are (`ssl-session-cache-size`, of which 1 MiB is about
    /// 4,000).
    pub sessions: usize,
    /// Whether a handshake for a name without a host is refused (`ssl-reject-handshake`).
    pub reject_unknown: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            http2: true,
            tls12: true,
            tls13: true,
            tickets: false,
            session_timeout: Duration::from_secs(600),
            session_cache: true,
            sessions: 40_000,
            reject_unknown: false,
        }
    }
}

/// A host and its TLS.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name in small letters; `*.` and a domain for each name one label below it.
    pub name: String,
    /// What it shows.
    pub shows: Shows,
    /// Who may ask, if clients show certificates: `None` with
    /// [`VerifyClient::Off`](lb_route::settings::VerifyClient::Off).
    pub demand: Option<Demand>,
}

/// What a host shows to clients.
#[derive(Clone, Debug)]
pub enum Shows {
    /// The certificate of the wildcard that covers it, else the default one: it has none.
    Default,
    /// The one of a Secret.
    Secret(Arc<Data>),
    /// What its backend shows: the connection is passed on (`ssl-passthrough`).
    Backend,
}

/// Certificates that clients of a host show (`auth-tls-secret`).
#[derive(Clone, Debug)]
pub struct Demand {
    /// The Secret with the authority; `None` if there is no such.
    pub secret: Option<Arc<Data>>,
    /// Certificates between a client's and the authority's (`auth-tls-verify-depth`).
    pub depth: u32,
}

/// Certificates by host.
#[derive(Debug)]
pub struct Certificates {
    options: Options,
    hosts: HashMap<Box<str>, Entry>,
    default: Served,
    default_error: Option<SecretError>,
    has_auth_errors: bool,
    made: Made,
}

/// What is served for a name.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) config: Arc<ServerConfig>,
    pub(super) auth: Option<Arc<ClientAuth>>,
    certificate: Arc<Loaded>,
}

#[derive(Debug)]
enum Entry {
    Served(Served, Trouble),
    Broken(SecretError),
    Backend,
}

/// What is wrong with a host that is served all the same.
#[derive(Debug, Default)]
struct Trouble {
    auth: Option<SecretError>,
    not_covered: bool,
}

/// What becomes of a handshake.
#[derive(Debug)]
pub(super) enum Choice<'c> {
    Serve(&'c Served),
    Backend,
    Broken,
    Unknown,
}

/// What the status page and metrics say of a host.
#[derive(Clone, Copy, Debug)]
pub struct Report<'c> {
    /// The host.
    pub host: &'c str,
    /// What its certificate says, or why handshakes for it are refused; `None` if its backend
    /// has it.
    pub certificate: Option<Result<&'c Facts, &'c SecretError>>,
    /// Whether its certificate is not for it, and the default one is shown.
    pub not_covered: bool,
    /// What is wrong with the authority of its clients.
    pub auth: Option<&'c SecretError>,
}

impl Certificates {
    /// The table of some hosts; of those with one name, the first. `fallback` is shown where
    /// there is no default certificate, or it is broken.
    ///
    /// What `previous` has of the same Secret (the same [`Arc`]) and the same options is taken
    /// over, with the sessions that clients may resume.
    pub fn build(
        previous: Option<&Self>,
        options: &Options,
        default: (Option<&Arc<Data>>, &Arc<Loaded>),
        hosts: impl IntoIterator<Item = Host>,
    ) -> Self {
        let previous = previous.filter(|previous| previous.options == *options);
        let mut maker = Maker::new(options, previous.map(|previous| &previous.made));
        let (secret, fallback) = default;
        let (certificate, default_error) = match secret.map(|secret| maker.certificate(secret)) {
            Some(Ok(certificate)) => (certificate, None),
            Some(Err(error)) => (fallback.clone(), Some(error)),
            None => (fallback.clone(), None),
        };
        let unnamed = maker.serve(certificate, None);
        let mut hosts: Vec<_> = hosts.into_iter().collect();
        // Hosts without a certificate look for the one of their wildcard.
        hosts.sort_by_key(|host| !host.name.starts_with("*."));
        let mut table = HashMap::with_capacity(hosts.len());
        for host in hosts {
            if !table.contains_key(host.name.as_str()) {
                let entry = maker.entry(&host, &table, &unnamed.certificate);
                table.insert(host.name.into_boxed_str(), entry);
            }
        }
        let is_closed = |entry: &Entry| matches!(entry, Entry::Served(_, t) if t.auth.is_some());
        Self {
            options: options.clone(),
            has_auth_errors: table.values().any(is_closed),
            hosts: table,
            default: unnamed,
            default_error,
            made: maker.made,
        }
    }

    /// What becomes of a handshake for a name.
    pub(super) fn choose(&self, name: Option<&str>) -> Choice<'_> {
        let entry = name.and_then(|name| self.entry(name));
        match entry {
            Some(Entry::Served(served, _)) => Choice::Serve(served),
            Some(Entry::Broken(_)) => Choice::Broken,
            Some(Entry::Backend) => Choice::Backend,
            None if self.options.reject_unknown => Choice::Unknown,
            None => Choice::Serve(&self.default),
        }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let exact = self.hosts.get(name.as_str());
        exact.or_else(|| self.hosts.get(wildcard(&name)?.as_str()))
    }

    /// Why the default certificate is not shown.
    pub fn default_error(&self) -> Option<&SecretError> {
        self.default_error.as_ref()
    }

    /// What the default certificate says.
    pub fn default_facts(&self) -> &Facts {
        self.default.certificate.facts()
    }

    /// Whether [`Certificates::auth_error`] says something of any host.
    pub fn has_auth_errors(&self) -> bool {
        self.has_auth_errors
    }

    /// What is wrong with the authority of a host's clients, if it has one: ingress-nginx
    /// answers every request for it with 403.
    pub fn auth_error(&self, host: &str) -> Option<&SecretError> {
        match self.entry(host)? {
            Entry::Served(_, trouble) => trouble.auth.as_ref(),
            _ => None,
        }
    }

    /// Each host, in no order.
    pub fn reports(&self) -> impl Iterator<Item = Report<'_>> {
        self.hosts.iter().map(|(host, entry)| {
            let (certificate, trouble) = match entry {
                Entry::Served(served, trouble) => {
                    (Some(Ok(served.certificate.facts())), Some(trouble))
                }
                Entry::Broken(error) => (Some(Err(error)), None),
                Entry::Backend => (None, None),
            };
            Report {
                host,
                certificate,
                not_covered: trouble.is_some_and(|trouble| trouble.not_covered),
                auth: trouble.and_then(|trouble| trouble.auth.as_ref()),
            }
        })
    }
}

/// `*.` and the domain of a name.
fn wildcard(name: &str) -> Option<String> {
    let (_, domain) = name.split_once('.')?;
    Some(format!("*.{domain}"))
}
