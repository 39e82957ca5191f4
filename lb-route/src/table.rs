//! The table: hosts, their paths, and the endpoints of upstreams.

use std::{collections::HashMap, sync::Arc};

use crate::{
    action::{Location, Upstream},
    globals::Globals,
    headers,
    host::Hosts,
    input::{Data, Name},
    routes::Paths,
    settings::ClientCert,
};

/// Everything that a request is decided by. It does not change; a changed one shares with it
/// what is the same.
#[derive(Clone, Debug)]
pub struct Table {
    pub(crate) globals: Arc<Globals>,
    pub(crate) headers: Arc<Headers>,
    pub(crate) default_certificate: Option<Arc<Data>>,
    pub(crate) hosts: Arc<Hosts<Arc<Host>>>,
    pub(crate) upstreams: Arc<HashMap<Arc<str>, Arc<Upstream>>>,
}

/// Headers of the ConfigMaps that the settings of all hosts name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Headers {
    /// For backends (`proxy-set-headers`).
    pub(crate) requests: headers::Headers,
    /// For clients (`add-headers`).
    pub(crate) answers: headers::Headers,
}

/// A host: of rules, or another name of one.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name; `_` for every host.
    pub name: Arc<str>,
    pub(crate) serves: Serves,
    /// Its certificate; `None` if no Ingress of it asks for TLS: it has the default one, and HTTP
    /// is not led to HTTPS.
    pub certificate: Option<Certificate>,
    /// Certificates of its clients.
    pub client_cert: Option<Arc<ClientAuthority>>,
    /// Why every request is refused, 403: it asks for certificates of clients, and what they are
    /// to be verified by could not be read.
    pub denied: Option<String>,
    /// The upstream that its TLS is led to as it is, if it is (`ssl-passthrough`).
    pub passthrough: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Serves {
    /// Paths, and where `/` leads in their place (`app-root`).
    Paths {
        paths: Paths<Arc<Location>>,
        app_root: Option<String>,
    },
    /// A redirect to another host (`from-to-www-redirect`).
    Redirect(Arc<str>),
}

/// The certificate of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// The Secret; `None` for the default certificate.
    pub name: Option<Name>,
    /// What it has; `None` for the default certificate, or if it is missing.
    pub data: Option<Arc<Data>>,
}

/// Who signs certificates of a host's clients.
#[derive(Clone, Debug)]
pub struct ClientAuthority {
    /// What is asked of them.
    pub settings: ClientCert,
    /// The Secret with the authority; `None` if it is missing: every request is refused.
    pub data: Option<Arc<Data>>,
}

impl Table {
    /// An upstream, by the name that a [`Location`] has for it.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// All upstreams.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// Whether its hosts are those of another table: not one of their paths has changed.
    pub fn has_hosts_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.hosts, &other.hosts)
    }

    /// Headers that every answer has (`add-headers`).
    pub fn answer_headers(&self) -> &headers::Headers {
        &self.headers.answers
    }

    /// The Secret with the certificate of hosts that have none.
    pub fn default_certificate(&self) -> Option<&Arc<Data>> {
        self.default_certificate.as_ref()
    }

    /// The settings of all hosts.
    pub fn globals(&self) -> &Arc<Globals> {
        &self.globals
    }

    /// The host of a name, as [`crate::host::normal`] gives it: of the most specific rule. There
    /// is one for every host always.
    pub fn host(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts.find(name)
    }

    /// All hosts that rules have, by the names of rules: `*.example` stands for one label, and
    /// `_` for every host.
    pub fn hosts(&self) -> impl Iterator<Item = (String, &Arc<Host>)> {
        self.hosts.iter()
    }
}

impl Host {
    /// Another name of a host, which leads to it.
    pub(crate) fn redirect(to: &Self) -> Self {
        Self {
            name: to.name.clone(),
            serves: Serves::Redirect(to.name.clone()),
            certificate: to.certificate.clone(),
            client_cert: None,
            denied: None,
            passthrough: None,
        }
    }

    /// Its paths, in no order.
    pub fn locations(&self) -> &[Arc<Location>] {
        match &self.serves {
            Serves::Paths { paths, .. } => paths.targets(),
            Serves::Redirect(_) => &[],
        }
    }
}
