//! The input of planning: a snapshot of the cluster, and the view of one node.
//!
//! These are the fields of the Kubernetes objects that a service proxy reads, as
//! they stand in the objects: what they mean is decided in planning, not by
//! whoever converts them.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Namespace and name of a Service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ServiceKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One port of a Service: the unit that has a service id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ServicePortKey {
    /// The Service.
    pub service: ServiceKey,
    /// The port's name; empty where the Service has one unnamed port.
    pub port: Arc<str>,
    /// The port's protocol: one name may stand for TCP and UDP in two ports.
    pub protocol: Protocol,
}

impl std::fmt::Display for ServicePortKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// Transport protocol of a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => lb_common::proto::TCP,
            Self::Udp => lb_common::proto::UDP,
            Self::Sctp => lb_common::proto::SCTP,
        }
    }
}

/// `spec.type` of a Service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum ServiceType {
    /// `ClusterIP`.
    #[default]
    ClusterIp,
    /// `NodePort`.
    NodePort,
    /// `LoadBalancer`.
    LoadBalancer,
    /// `ExternalName`: not proxied.
    ExternalName,
}

/// `internalTrafficPolicy` or `externalTrafficPolicy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// Any endpoint.
    #[default]
    Cluster,
    /// Endpoints of this node only.
    Local,
}

/// One `status.loadBalancer.ingress`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoadBalancerIngress {
    /// The address.
    pub ip: IpAddr,
    /// Whether `ipMode` is `Proxy`: the load balancer delivers to the node
    /// itself, and the address is no frontend (KEP-1860).
    pub proxy_mode: bool,
}

/// A Service, as far as a proxy reads it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Namespace and name.
    pub key: ServiceKey,
    /// `spec.type`.
    pub kind: ServiceType,
    /// `spec.clusterIPs`; empty for a headless Service (`None`).
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress` entries that have an address.
    pub load_balancer: Vec<LoadBalancerIngress>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// Seconds of `ClientIP` session affinity; `None` for `sessionAffinity: None`.
    pub affinity_seconds: Option<u32>,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `spec.loadBalancerSourceRanges` (or its old annotation), untrimmed, unparsed.
    pub source_ranges: Vec<String>,
    /// `spec.healthCheckNodePort`; 0 for none.
    pub health_check_node_port: u16,
    /// `spec.publishNotReadyAddresses`. Whoever writes the EndpointSlices obeys it
    /// by calling every endpoint ready; planning, as kube-proxy, asks the slices only.
    pub publish_not_ready: bool,
    /// `spec.trafficDistribution`. As `topology_mode`, it speaks to whoever writes
    /// the EndpointSlices; a proxy goes by the hints there (KEP-4444, KEP-3015).
    pub traffic_distribution: Option<String>,
    /// Annotation `service.kubernetes.io/topology-mode`, or its older name.
    pub topology_mode: Option<String>,
    /// Label `service.kubernetes.io/service-proxy-name`: another proxy serves it.
    pub proxy_name: Option<String>,
    /// `spec.externalName`, if that is its type: for requests, not for packets.
    pub external_name: Option<Box<str>>,
}

/// One of `spec.ports`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServicePort {
    /// Name; empty for none.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the vip.
    pub port: u16,
    /// NodePort; 0 for none.
    pub node_port: u16,
}

/// An EndpointSlice, as far as a proxy reads it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Name of the slice, in the namespace of its Service.
    pub name: Arc<str>,
    /// Its Service, by the label `kubernetes.io/service-name`.
    pub service: ServiceKey,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports of every endpoint in this slice: a Service's named target port may
    /// differ from slice to slice.
    pub ports: Vec<EndpointPort>,
}

/// One endpoint of a slice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Addresses; only the first counts (they are fungible by the API's contract).
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`; absent means true.
    pub ready: Option<bool>,
    /// `conditions.serving`; absent means true.
    pub serving: Option<bool>,
    /// `conditions.terminating`; absent means false.
    pub terminating: Option<bool>,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
    /// `zone`.
    pub zone: Option<Arc<str>>,
    /// `hints.forZones`.
    pub zone_hints: Vec<Arc<str>>,
    /// `hints.forNodes`.
    pub node_hints: Vec<Arc<str>>,
    /// Weight in the maglev table, 1 by default.
    pub weight: u32,
}

/// One port of a slice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointPort {
    /// Name, equal to the Service port's; empty for none.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
}

/// Which node addresses answer NodePorts: kube-proxy's `nodePortAddresses`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum NodePortAddresses {
    /// The node's primary address of each family (kube-proxy's default in nftables mode).
    #[default]
    Primary,
    /// Every local address within one of these networks; loopback addresses only
    /// when a network names them.
    Cidrs(Vec<(IpAddr, u8)>),
}

/// The facts about this node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeView {
    /// Name of its Node object.
    pub name: Arc<str>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// Primary address of each family, at most one of each: the Node's
    /// `InternalIP`s, else the source addresses of the default routes.
    pub primary: Vec<IpAddr>,
    /// All addresses of the node's devices but link-local ones, by netlink.
    pub addresses: Vec<IpAddr>,
    /// Which of them answer NodePorts.
    pub node_port_addresses: NodePortAddresses,
    /// Serve NodePorts on 127.0.0.1 and ::1 to the node's own sockets.
    pub localhost_node_ports: bool,
    /// Whether the node has IPv4.
    pub ipv4: bool,
    /// Whether the node has IPv6.
    pub ipv6: bool,
    /// Serve Services of this `service-proxy-name`; `None` serves those without it.
    pub proxy_name: Option<String>,
}
