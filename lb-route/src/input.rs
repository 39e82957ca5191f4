//! What a table is made of: the fields of Kubernetes objects that routing reads.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc};

use crate::{Mode, PathType};

/// Namespace and name of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Name {
    /// By both.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An Ingress of `networking.k8s.io/v1` that is ours by its class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ingress {
    /// Namespace and name.
    pub key: Name,
    /// How its paths are compared: by its class.
    pub mode: Mode,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.creationTimestamp`, seconds of Unix time: the older one has a path that two have.
    pub created: i64,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.defaultBackend`.
    pub default_backend: Option<BackendRef>,
    /// `spec.rules`.
    pub rules: Vec<IngressRule>,
    /// `spec.tls`.
    pub tls: Vec<IngressTls>,
}

/// A rule of an Ingress.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IngressRule {
    /// `host`; empty for every host.
    pub host: String,
    /// `http.paths`.
    pub paths: Vec<IngressPath>,
}

/// A path of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IngressPath {
    /// `path`; empty is `/`.
    pub path: String,
    /// `pathType`.
    pub kind: PathType,
    /// `backend`; `None` for a resource that is no Service.
    pub backend: Option<BackendRef>,
}

/// A port of a Service of the Ingress's namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BackendRef {
    /// `service.name`.
    pub service: Arc<str>,
    /// `service.port`.
    pub port: PortRef,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PortRef {
    /// By its number.
    Number(u16),
    /// By its name.
    Name(Arc<str>),
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// An entry of `spec.tls`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IngressTls {
    /// `hosts`; none means those of the rules.
    pub hosts: Vec<String>,
    /// `secretName`; `None` for the default certificate.
    pub secret: Option<Arc<str>>,
}

/// A Service, with the endpoints that are ready.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `spec.externalName`, if that is its type.
    pub external_name: Option<String>,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// Its name; empty if it has none.
    pub name: Arc<str>,
    /// Its number.
    pub number: u16,
    /// The Service's address with it; `None` for a Service without one.
    pub address: Option<SocketAddr>,
    /// Addresses of endpoints that take new requests, sorted, each once.
    pub endpoints: Arc<[SocketAddr]>,
}

/// A Secret that an Ingress names, or a ConfigMap.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Data(pub BTreeMap<String, Vec<u8>>);

impl Data {
    /// A value that is text; `None` if there is no such key, or it is no UTF-8.
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.0.get(key)?).ok()
    }
}
