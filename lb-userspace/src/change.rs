//! What a source of objects tells the agent, whichever source it is.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use lb_plan::model::{EndpointSlice, Service, ServiceKey};
use lb_route::input::{Data, Ingress};

/// The kinds of objects that are read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Node.
    Node,
    /// `networking.k8s.io/v1` Ingress.
    Ingress,
    /// `networking.k8s.io/v1` IngressClass.
    IngressClass,
    /// `v1` Secret.
    Secret,
    /// `v1` ConfigMap.
    ConfigMap,
}

impl Kind {
    /// Those that the agent reads.
    pub const AGENT: [Self; 3] = [Self::Service, Self::EndpointSlice, Self::Node];
    /// Those that the proxy reads.
    pub const PROXY: [Self; 6] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Ingress,
        Self::IngressClass,
        Self::Secret,
        Self::ConfigMap,
    ];

    /// The kind's name in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::Ingress => "Ingress",
            Self::IngressClass => "IngressClass",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The identity of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a Node or an IngressClass.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of a Service.
    pub fn service(key: &ServiceKey) -> Self {
        Self {
            kind: Kind::Service,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }

    /// The key of a Node.
    pub fn node(name: &Arc<str>) -> Self {
        Self {
            kind: Kind::Node,
            namespace: "".into(),
            name: name.clone(),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A Node, as far as a proxy reads it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `status.addresses` of type `InternalIP`, in their order.
    pub internal_ips: Vec<IpAddr>,
    /// Whether it is being deleted, or the cluster autoscaler says it will be
    /// (taint `ToBeDeletedByClusterAutoscaler`): no new connections should be
    /// led to it from outside (KEP-3836).
    pub leaving: bool,
}

/// An entry of `status.loadBalancer.ingress`; what is empty is not there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Address {
    /// `hostname`.
    pub hostname: String,
    /// `ip`.
    pub ip: String,
}

/// An Ingress, and what says whether it is ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassedIngress {
    /// `spec.ingressClassName`.
    pub class: Option<String>,
    /// Annotation `kubernetes.io/ingress.class`.
    pub annotated: Option<String>,
    /// The Ingress; its mode is for its class to say.
    pub ingress: Arc<Ingress>,
    /// `status.loadBalancer.ingress`.
    pub published: Vec<Address>,
}

impl ClassedIngress {
    /// Whether they differ by their status at most.
    pub fn is_same(&self, other: &Self) -> bool {
        self.class == other.class
            && self.annotated == other.annotated
            && self.ingress == other.ingress
    }
}

/// A change of endpoints that is measured until it is in the maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trigger {
    /// When it happened, by the clock of the control plane.
    pub at: SystemTime,
    /// Whether the endpoints are of IPv6.
    pub ipv6: bool,
}

/// The content of an object. Shared: a source may keep what the store keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice, and the change that led to it (annotation
    /// `endpoints.kubernetes.io/last-change-trigger-time`).
    Slice(Arc<EndpointSlice>, Option<Trigger>),
    /// A Node.
    Node(Box<Node>),
    /// An Ingress.
    Ingress(Box<ClassedIngress>),
    /// An IngressClass: its `spec.controller`.
    IngressClass(String),
    /// What a Secret or a ConfigMap holds.
    Data(Arc<Data>),
    /// Nothing of the object can be used: its problems say why.
    Unusable,
}

/// Something about an object that could not be read as written. The rest of the
/// object counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectProblem {
    /// A stable identifier in CamelCase.
    pub reason: &'static str,
    /// One sentence that names the field: what is wrong, and what to do.
    pub message: String,
}

/// Something new to tell about an object, where its users look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The object.
    pub object: ObjectKey,
    /// A stable identifier in CamelCase.
    pub reason: &'static str,
    /// One sentence: what is wrong, and what to do.
    pub message: String,
}

/// An object, converted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// Its identity.
    pub key: ObjectKey,
    /// Its content.
    pub content: Content,
    /// What could not be read of it.
    pub problems: Vec<ObjectProblem>,
}

/// One step of a source. Between [`Change::Begin`] and [`Change::Done`] of a
/// kind, every object of that kind is put; what was not put is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A complete list of a kind begins.
    Begin(Kind),
    /// An object is there, new or changed.
    Put(Object),
    /// An object is gone.
    Delete(ObjectKey),
    /// The complete list of a kind has ended: the kind is synced.
    Done(Kind),
    /// A place that objects come from cannot be read, or can be again. What is
    /// known from it stays in force.
    Trouble {
        /// Which place: a watch, or a file.
        place: String,
        /// What is wrong and what to do; `None` when it is well again.
        message: Option<String>,
    },
}
