//! How a table is made.

use std::{collections::HashMap, sync::Arc};

use lb_route::input::Data;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    compress::CompressionCache,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{
    super::{
        PROVIDER, SecretError,
        certificates::Loaded,
        clients::ClientAuth,
        sessions::{Lifetime, Scope, Tickets},
    },
    Demand, Entry, Host, Options, Served, Shows, Trouble, wildcard,
};

/// What a Secret was read as.
type Read<T> = (Arc<Data>, Result<Arc<T>, SecretError>);

/// Parts of a table by the addresses of what they are made of, which they keep from being used
/// anew.
#[derive(Debug, Default)]
pub(super) struct Made {
    sessions: Option<Arc<ServerSessionMemoryCache>>,
    certificates: HashMap<usize, Read<Loaded>>,
    auths: HashMap<(usize, u32), Read<ClientAuth>>,
    templates: HashMap<usize, (Option<Arc<ClientAuth>>, ServerConfig)>,
    configs: HashMap<(usize, usize), Served>,
}

/// Makes a table, with what the previous one has made.
pub(super) struct Maker<'p> {
    options: &'p Options,
    previous: Option<&'p Made>,
    sessions: Arc<ServerSessionMemoryCache>,
    pub(super) made: Made,
}

impl<'p> Maker<'p> {
    pub(super) fn new(options: &'p Options, previous: Option<&'p Made>) -> Self {
        let sessions = previous.and_then(|previous| previous.sessions.clone());
        let sessions = sessions.unwrap_or_else(|| ServerSessionMemoryCache::new(options.sessions));
        let made = Made {
            sessions: Some(sessions.clone()),
            ..Made::default()
        };
        Self {
            options,
            previous,
            sessions,
            made,
        }
    }

    pub(super) fn entry(
        &mut self,
        host: &Host,
        table: &HashMap<Box<str>, Entry>,
        default: &Arc<Loaded>,
    ) -> Entry {
        let mut trouble = Trouble::default();
        let certificate = match &host.shows {
            Shows::Backend => return Entry::Backend,
            Shows::Default => {
                let above = wildcard(&host.name).and_then(|above| table.get(above.as_str()));
                match above {
                    Some(Entry::Broken(error)) => return Entry::Broken(error.clone()),
                    Some(Entry::Served(served, _)) => served.certificate.clone(),
                    _ => default.clone(),
                }
            }
            Shows::Secret(secret) => match self.certificate(secret) {
                Ok(certificate) if certificate.facts().covers(&host.name) => certificate,
                // As ingress-nginx does: it is another host's.
                Ok(_) => {
                    trouble.not_covered = true;
                    default.clone()
                }
                Err(error) => return Entry::Broken(error),
            },
        };
        let auth = host.demand.as_ref().map(|demand| self.auth(demand));
        let auth = match auth.transpose() {
            Ok(auth) => auth,
            Err(error) => {
                trouble.auth = Some(error);
                None
            }
        };
        Entry::Served(self.serve(certificate, auth), trouble)
    }

    pub(super) fn certificate(&mut self, secret: &Arc<Data>) -> Result<Arc<Loaded>, SecretError> {
        let key = address(secret);
        let previous = self
            .previous
            .and_then(|previous| previous.certificates.get(&key));
        let (_, certificate) = self.made.certificates.entry(key).or_insert_with(|| {
            let read = || Loaded::from_secret(secret).map(Arc::new);
            let certificate = previous.map_or_else(read, |(_, certificate)| certificate.clone());
            (secret.clone(), certificate)
        });
        certificate.clone()
    }

    fn auth(&mut self, demand: &Demand) -> Result<Arc<ClientAuth>, SecretError> {
        let secret = demand.secret.as_ref().ok_or(SecretError::NoSecret)?;
        let key = (address(secret), demand.depth);
        let previous = self.previous.and_then(|previous| previous.auths.get(&key));
        let (_, auth) = self.made.auths.entry(key).or_insert_with(|| {
            let read = || ClientAuth::read(secret, demand.depth).map(Arc::new);
            let auth = previous.map_or_else(read, |(_, auth)| auth.clone());
            (secret.clone(), auth)
        });
        auth.clone()
    }

    pub(super) fn serve(
        &mut self,
        certificate: Arc<Loaded>,
        auth: Option<Arc<ClientAuth>>,
    ) -> Served {
        let key = (address(&certificate), auth.as_ref().map_or(0, address));
        if let Some(served) = self.made.configs.get(&key) {
            return served.clone();
        }
        let previous = self
            .previous
            .and_then(|previous| previous.configs.get(&key));
        let template = self.template(auth.as_ref());
        let served = previous.cloned().unwrap_or_else(|| {
            let mut config = template.clone();
            config.cert_resolver = Arc::new(Only(certificate.key().clone()));
            Served {
                config: Arc::new(config),
                auth,
                certificate,
            }
        });
        self.made.configs.insert(key, served.clone());
        served
    }

    /// What hosts with one demand share.
    fn template(&mut self, auth: Option<&Arc<ClientAuth>>) -> &ServerConfig {
        let key = auth.map_or(0, address);
        let previous = self
            .previous
            .and_then(|previous| previous.templates.get(&key));
        let (options, sessions) = (self.options, &self.sessions);
        let (_, template) = self.made.templates.entry(key).or_insert_with(|| {
            let template = previous.map(|(_, template)| template.clone());
            let template = template.unwrap_or_else(|| template_of(options, auth, sessions));
            (auth.cloned(), template)
        });
        template
    }
}

fn template_of(
    options: &Options,
    auth: Option<&Arc<ClientAuth>>,
    sessions: &Arc<ServerSessionMemoryCache>,
) -> ServerConfig {
    let both: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    let versions = match (options.tls12, options.tls13) {
        (true, false) => &both[1..],
        (false, true) => &both[..1],
        _ => both,
    };
    let config = ServerConfig::builder_with_provider(PROVIDER.clone());
    let config = config
        .with_protocol_versions(versions)
        .expect("the provider has ciphers for both versions");
    let config = match auth {
        Some(auth) => config.with_client_cert_verifier(auth.verifier()),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(Arc::new(Nothing));
    let protocols: &[&[u8]] = match options.http2 {
        true => &[b"h2", b"http/1.1"],
        false => &[b"http/1.1"],
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let lifetime = Lifetime::new(options.session_timeout);
    config.session_storage = match options.session_cache {
        true => Scope::new(sessions, lifetime),
        false => Arc::new(NoServerSessionStorage {}),
    };
    if options.tickets {
        match Tickets::new(lifetime) {
            // Its keys are these hosts' alone.
            Ok(ticketer) => config.ticketer = ticketer,
            Err(error) => tracing::warn!(%error, "sessions are kept here: no key for tickets"),
        }
    }
    // Nothing compresses certificates, and each configuration would have a cache.
    config.cert_compression_cache = Arc::new(CompressionCache::Disabled);
    config
}

/// The only certificate of a configuration.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// The certificate of a template.
#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

fn address<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).addr()
}
