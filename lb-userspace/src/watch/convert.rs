//! Objects of the Kubernetes API to the types of planning.
//!
//! Tolerant: what cannot be read becomes a problem that names the object, the
//! field and the remedy, and the rest of the object counts.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Node as ApiNode, Service as ApiService, ServicePort as ApiPort, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use lb_plan::model::{
    LoadBalancerIngress, Protocol, Service, ServiceKey, ServicePort, ServiceType, TrafficPolicy,
};

use crate::{
    change::{Content, Kind, Node, Object, ObjectKey, ObjectProblem},
    intern::Interner,
};

pub use super::slices::{WEIGHT_ANNOTATION, slice};

/// Taint by which the cluster autoscaler announces a node's removal.
/// kubernetes v1.36.3, pkg/proxy/healthcheck/proxy_health.go:36.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// `well_known_labels.go`: another proxy serves the Service.
pub(crate) const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const TOPOLOGY_ANNOTATIONS: [&str; 2] = [
    "service.kubernetes.io/topology-mode",
    "service.kubernetes.io/topology-aware-hints",
];
/// `v1.DefaultClientIPServiceAffinitySeconds`.
const AFFINITY_DEFAULT_SECONDS: u32 = 10_800;
/// The API's upper bound of `timeoutSeconds`: one day.
const AFFINITY_MAX_SECONDS: i32 = 86_400;

/// What a conversion finds wrong.
#[derive(Default)]
pub(super) struct Notes(pub(super) Vec<ObjectProblem>);

impl Notes {
    pub(super) fn add(&mut self, reason: &'static str, message: String) {
        self.0.push(ObjectProblem { reason, message });
    }

    /// An address; none and a problem when it is none.
    pub(super) fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        // Like the API server, no leading zeros and no IPv4-mapped IPv6: both
        // are read differently by different software.
        match text.trim().parse::<IpAddr>() {
            Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
                let message = format!(
                    "{field}: {text} is an IPv4 address in IPv6 form, and is left out: write it as IPv4"
                );
                self.add("InvalidAddress", message);
                None
            }
            Ok(ip) => Some(ip),
            Err(_) => {
                let message = format!("{field}: {text:?} is no IP address, and is left out");
                self.add("InvalidAddress", message);
                None
            }
        }
    }

    /// A protocol; absent means TCP.
    pub(super) fn protocol(&mut self, field: &str, text: Option<&str>) -> Option<Protocol> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            other => {
                let message = format!(
                    "{field}: protocol {other:?} is not one of TCP, UDP and SCTP; this port is left out"
                );
                self.add("UnknownProtocol", message);
                None
            }
        }
    }

    /// A port of 1 to 65535.
    pub(super) fn port(&mut self, field: &str, number: i32) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|p| *p != 0);
        if port.is_none() {
            let message =
                format!("{field}: {number} is not within 1 to 65535; this port is left out");
            self.add("InvalidPort", message);
        }
        port
    }
}

/// The identity of an object.
pub(super) fn key(kind: Kind, meta: &ObjectMeta, interner: &Interner) -> ObjectKey {
    let namespace = match kind {
        Kind::Node | Kind::IngressClass => "",
        // kubectl's default, for manifests: the API server always sets it.
        _ => meta.namespace.as_deref().unwrap_or("default"),
    };
    ObjectKey {
        kind,
        namespace: interner.get(namespace),
        name: interner.get(meta.name.as_deref().unwrap_or_default()),
    }
}

pub(super) fn label<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    Some(meta.labels.as_ref()?.get(name)?.as_str())
}

pub(super) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    Some(meta.annotations.as_ref()?.get(name)?.as_str())
}

/// Converts a Service.
pub fn service(object: &ApiService, interner: &Interner) -> Object {
    let key = key(Kind::Service, &object.metadata, interner);
    let mut notes = Notes::default();
    let spec = object.spec.clone().unwrap_or_default();
    let annotations = |name: &&str| annotation(&object.metadata, name).map(str::to_owned);
    let content = Service {
        key: ServiceKey {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        },
        kind: service_type(&spec, &mut notes),
        cluster_ips: cluster_ips(&spec, &mut notes),
        external_ips: addresses("spec.externalIPs", spec.external_ips.as_deref(), &mut notes),
        load_balancer: load_balancer(object, &mut notes),
        ports: ports(
            spec.ports.as_deref().unwrap_or_default(),
            interner,
            &mut notes,
        ),
        affinity_seconds: affinity(&spec, &mut notes),
        internal_policy: policy(
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
            &mut notes,
        ),
        external_policy: policy(
            "spec.externalTrafficPolicy",
            spec.external_traffic_policy.as_deref(),
            &mut notes,
        ),
        source_ranges: spec.load_balancer_source_ranges.clone().unwrap_or_default(),
        health_check_node_port: health_port(&spec, &mut notes),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        traffic_distribution: spec.traffic_distribution.clone(),
        topology_mode: TOPOLOGY_ANNOTATIONS.iter().find_map(annotations),
        proxy_name: label(&object.metadata, PROXY_NAME_LABEL).map(str::to_owned),
        external_name: external_name(&spec),
    };
    Object {
        key,
        content: Content::Service(Arc::new(content)),
        problems: notes.0,
    }
}

fn external_name(spec: &ServiceSpec) -> Option<Box<str>> {
    let is_its_type = spec.type_.as_deref() == Some("ExternalName");
    let name = spec.external_name.as_deref().filter(|_| is_its_type);
    name.map(Into::into)
}

fn service_type(spec: &ServiceSpec, notes: &mut Notes) -> ServiceType {
    match spec.type_.as_deref() {
        None | Some("ClusterIP") => ServiceType::ClusterIp,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ExternalName") => ServiceType::ExternalName,
        Some(other) => {
            let message = format!("spec.type: {other:?} is not known; it is served as ClusterIP");
            notes.add("UnknownType", message);
            ServiceType::ClusterIp
        }
    }
}

fn cluster_ips(spec: &ServiceSpec, notes: &mut Notes) -> Vec<IpAddr> {
    let listed = spec.cluster_ips.iter().flatten();
    // Before dual stack there was only spec.clusterIP, and manifests may have it alone.
    let first = spec.cluster_ip.as_ref();
    let all: Vec<&String> = match spec.cluster_ips.as_deref() {
        None | Some([]) => first.into_iter().collect(),
        Some(_) => listed.collect(),
    };
    let named = all.into_iter().filter(|ip| !ip.is_empty() && *ip != "None");
    named
        .filter_map(|ip| notes.address("spec.clusterIPs", ip))
        .collect()
}

fn addresses(field: &str, list: Option<&[String]>, notes: &mut Notes) -> Vec<IpAddr> {
    let all = list.unwrap_or_default().iter();
    all.filter_map(|ip| notes.address(field, ip)).collect()
}

fn load_balancer(object: &ApiService, notes: &mut Notes) -> Vec<LoadBalancerIngress> {
    let status = object
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref());
    let entries = status
        .and_then(|lb| lb.ingress.as_deref())
        .unwrap_or_default();
    let mut all = Vec::with_capacity(entries.len());
    for entry in entries {
        // An entry with a host name only is reached through DNS, not through us.
        let Some(text) = entry.ip.as_deref().filter(|ip| !ip.is_empty()) else {
            continue;
        };
        if let Some(ip) = notes.address("status.loadBalancer.ingress", text) {
            let proxy_mode = entry.ip_mode.as_deref() == Some("Proxy");
            all.push(LoadBalancerIngress { ip, proxy_mode });
        }
    }
    all
}

fn ports(list: &[ApiPort], interner: &Interner, notes: &mut Notes) -> Vec<ServicePort> {
    let mut all = Vec::with_capacity(list.len());
    for port in list {
        let name = port.name.as_deref().unwrap_or_default();
        let field = format!("spec.ports[{}]", if name.is_empty() { "0" } else { name });
        let protocol = notes.protocol(&field, port.protocol.as_deref());
        let number = notes.port(&format!("{field}.port"), port.port);
        let node_port = match port.node_port {
            None | Some(0) => Some(0),
            // The port's other frontends stay when its NodePort is bad.
            Some(n) => notes.port(&format!("{field}.nodePort"), n).or(Some(0)),
        };
        if let (Some(protocol), Some(port), Some(node_port)) = (protocol, number, node_port) {
            let name: Arc<str> = interner.get(name);
            all.push(ServicePort {
                name,
                protocol,
                port,
                node_port,
            });
        }
    }
    all
}

fn affinity(spec: &ServiceSpec, notes: &mut Notes) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            let message = format!("spec.sessionAffinity: {other:?} is not known; there is none");
            notes.add("UnknownAffinity", message);
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref();
    let timeout = config
        .and_then(|c| c.client_ip.as_ref())
        .and_then(|c| c.timeout_seconds);
    match timeout {
        None => Some(AFFINITY_DEFAULT_SECONDS),
        Some(s @ 1..=AFFINITY_MAX_SECONDS) => Some(s.unsigned_abs()),
        Some(s) => {
            let message = format!(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: {s} is not within 1 to {AFFINITY_MAX_SECONDS}; {AFFINITY_DEFAULT_SECONDS} is used"
            );
            notes.add("InvalidTimeout", message);
            Some(AFFINITY_DEFAULT_SECONDS)
        }
    }
}

fn policy(field: &str, text: Option<&str>, notes: &mut Notes) -> TrafficPolicy {
    match text {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            let message =
                format!("{field}: {other:?} is neither Cluster nor Local; Cluster is used");
            notes.add("UnknownTrafficPolicy", message);
            TrafficPolicy::Cluster
        }
    }
}

fn health_port(spec: &ServiceSpec, notes: &mut Notes) -> u16 {
    match spec.health_check_node_port {
        None | Some(0) => 0,
        Some(n) => notes.port("spec.healthCheckNodePort", n).unwrap_or(0),
    }
}

/// Converts a Node.
pub fn node(object: &ApiNode, interner: &Interner) -> Object {
    let key = key(Kind::Node, &object.metadata, interner);
    let mut notes = Notes::default();
    let status = object.status.as_ref();
    let listed = status
        .and_then(|s| s.addresses.as_deref())
        .unwrap_or_default();
    let internal = listed.iter().filter(|a| a.type_ == "InternalIP");
    let internal_ips = internal
        .filter_map(|a| notes.address("status.addresses", &a.address))
        .collect();
    let spec = object.spec.as_ref();
    let taints = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let content = Node {
        name: key.name.clone(),
        zone: label(&object.metadata, ZONE_LABEL).map(|zone| interner.get(zone)),
        internal_ips,
        leaving: object.metadata.deletion_timestamp.is_some()
            || taints.iter().any(|t| t.key == TO_BE_DELETED),
    };
    Object {
        key,
        content: Content::Node(Box::new(content)),
        problems: notes.0,
    }
}
