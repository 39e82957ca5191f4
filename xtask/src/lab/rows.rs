//! Which rows the table has: every frontend of the manifests from every place that
//! reaches it, and what should happen there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ingress;
use super::manifest::{Manifests, Port, Service};
use super::topology::{Node, Pair, Place, Pod};

/// Kind of a frontend.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// A NodePort.
    NodePort,
    /// `spec.externalIPs`.
    ExternalIp,
    /// An address of the load balancer's status.
    LoadBalancerIp,
    /// A path of an Ingress.
    Ingress,
}

impl Kind {
    /// Its name in the table.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::ExternalIp => "external IP",
            Self::LoadBalancerIp => "LoadBalancer IP",
            Self::Ingress => "Ingress",
        }
    }
}

/// Transport protocol of a frontend.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Proto {
    /// TCP, spoken as HTTP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What should happen to connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Expect {
    /// Each of these pods gets its share: all have the same.
    Spread(BTreeSet<String>),
    /// One of these pods gets all.
    Sticky(BTreeSet<String>),
    /// Refused at once.
    Refused,
    /// No answer at all.
    Dropped,
    /// Led to another URL.
    Redirected,
}

/// What is asked for by HTTP where that counts, and not the address alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Ask {
    /// The URL.
    pub url: String,
    /// The path that a pod is asked for.
    pub path: String,
}

/// What a row is about: enough to find it again after the manifests changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct RowKey {
    /// `namespace/name` of the Service.
    pub service: String,
    /// Kind of the frontend.
    pub kind: Kind,
    /// The request, of an Ingress.
    pub ask: Option<Ask>,
    /// Its protocol.
    pub proto: Proto,
    /// Address and port that are dialled.
    pub target: SocketAddr,
    /// From where.
    pub place: Place,
}

/// One row of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    /// What it is about.
    pub key: RowKey,
    /// What should happen.
    pub expect: Expect,
    /// The client's address that the backend must see, where the service promises it.
    pub client: Option<IpAddr>,
}

/// The rows of all services and Ingresses, and the names of the Services that have none.
pub(crate) fn rows(manifests: &Manifests) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    for service in manifests.services.iter().filter(|s| !s.is_proxy) {
        let before = rows.len();
        for port in &service.spec.ports {
            let proto = match port.protocol() {
                "TCP" => Proto::Tcp,
                "UDP" => Proto::Udp,
                _ => continue,
            };
            let view = View {
                manifests,
                service,
                port,
            };
            for (kind, vip, number) in view.frontends() {
                for place in Place::ALL {
                    rows.extend(view.targets(kind, vip, place).map(|addr| {
                        let target = SocketAddr::new(addr, number);
                        let key = RowKey {
                            service: service.name.clone(),
                            kind,
                            ask: None,
                            proto,
                            target,
                            place,
                        };
                        let expect = view.expect(kind, addr, place);
                        Row {
                            key,
                            expect,
                            client: view.client(kind, addr, place),
                        }
                    }));
                }
            }
        }
        if rows.len() == before {
            skipped.push(service.name.clone());
        }
    }
    rows.extend(ingress::rows(manifests));
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    (rows, skipped)
}

/// The addresses that the hosts outside must have routes to, each with the nodes that a
/// load balancer would send it to.
pub(crate) fn vip_routes(manifests: &Manifests) -> BTreeMap<IpAddr, Vec<Node>> {
    let mut routes = BTreeMap::new();
    for service in &manifests.services {
        let nodes = nodes_for(manifests, service);
        let vips = service
            .spec
            .external_ips
            .iter()
            .chain(&service.load_balancer_ips);
        routes.extend(vips.map(|vip| (*vip, nodes.clone())));
    }
    routes
}

/// Where a load balancer sends a service's traffic: all nodes, or with policy `Local` those
/// with a ready endpoint (all of them again if there is none, so that the drop shows).
fn nodes_for(manifests: &Manifests, service: &Service) -> Vec<Node> {
    if service.spec.external_traffic_policy != "Local" {
        return Node::ALL.to_vec();
    }
    let slices = manifests
        .slices
        .iter()
        .filter(|s| s.service == service.name);
    let names: BTreeSet<&str> = slices
        .flat_map(|s| &s.endpoints)
        .filter(|e| e.ready())
        .filter_map(|e| e.node_name.as_deref())
        .collect();
    let with: Vec<Node> = Node::ALL
        .into_iter()
        .filter(|n| names.contains(n.name().as_str()))
        .collect();
    if with.is_empty() {
        Node::ALL.to_vec()
    } else {
        with
    }
}

/// One port of one Service.
struct View<'a> {
    manifests: &'a Manifests,
    service: &'a Service,
    port: &'a Port,
}

impl View<'_> {
    /// Kind, vip (unspecified for a NodePort) and port of each frontend.
    fn frontends(&self) -> Vec<(Kind, IpAddr, u16)> {
        let spec = &self.service.spec;
        // "None" stands for a headless Service, which has no frontend of any kind.
        let cluster: Vec<IpAddr> = spec
            .cluster_ips
            .iter()
            .filter_map(|ip| ip.parse().ok())
            .collect();
        if cluster.is_empty() || spec.kind == "ExternalName" {
            return Vec::new();
        }
        let mut all: Vec<_> = cluster
            .iter()
            .map(|ip| (Kind::ClusterIp, *ip, self.port.port))
            .collect();
        if self.port.node_port != 0 {
            let any = |ip: &IpAddr| match ip {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            all.extend(
                cluster
                    .iter()
                    .map(|ip| (Kind::NodePort, any(ip), self.port.node_port)),
            );
        }
        all.extend(
            spec.external_ips
                .iter()
                .map(|ip| (Kind::ExternalIp, *ip, self.port.port)),
        );
        all.extend(
            self.service
                .load_balancer_ips
                .iter()
                .map(|ip| (Kind::LoadBalancerIp, *ip, self.port.port)),
        );
        all
    }

    /// The addresses that a client at `place` dials for a frontend; none where it is not
    /// reachable from there.
    fn targets(
        &self,
        kind: Kind,
        vip: IpAddr,
        place: Place,
    ) -> impl Iterator<Item = IpAddr> + use<> {
        let ranges = !self.service.spec.load_balancer_source_ranges.is_empty();
        let targets = match (kind, place) {
            (Kind::LoadBalancerIp, Place::Stranger) if ranges => vec![vip],
            (_, Place::Stranger) | (Kind::ClusterIp, Place::Outside) => Vec::new(),
            (Kind::NodePort, Place::Outside) => {
                let nodes = nodes_for(self.manifests, self.service);
                vec![nodes[nodes.len() / 2].addrs().of_family(vip)]
            }
            (Kind::NodePort, Place::Node) => {
                let localhost = Pair {
                    v4: Ipv4Addr::LOCALHOST,
                    v6: Ipv6Addr::LOCALHOST,
                };
                vec![
                    Place::CLIENT_NODE.addrs().of_family(vip),
                    localhost.of_family(vip),
                ]
            }
            (Kind::NodePort, _) => vec![Place::CLIENT_NODE.addrs().of_family(vip)],
            _ => vec![vip],
        };
        targets.into_iter()
    }

    /// Names and nodes of the pods that are ready endpoints of `family`.
    fn pods(&self, family: IpAddr) -> Vec<Pod> {
        let slices = self
            .manifests
            .slices
            .iter()
            .filter(|s| s.service == self.service.name);
        let serving = slices.filter(|s| {
            s.ports
                .iter()
                .any(|p| p.name == self.port.name && p.protocol() == self.port.protocol())
        });
        let ready = serving.flat_map(|s| &s.endpoints).filter(|e| e.ready());
        let addrs = ready.filter_map(|e| e.addresses.first());
        addrs
            .filter(|a| a.is_ipv4() == family.is_ipv4())
            .filter_map(|a| Pod::by_addr(*a))
            .collect()
    }

    fn expect(&self, kind: Kind, target: IpAddr, place: Place) -> Expect {
        if place == Place::Stranger {
            return Expect::Dropped;
        }
        let mut pods = self.pods(target);
        if pods.is_empty() {
            return Expect::Refused;
        }
        let spec = &self.service.spec;
        // Clients in the cluster that dial an external frontend get all endpoints even with
        // externalTrafficPolicy Local: kube-proxy's short cut.
        if kind == Kind::ClusterIp && spec.internal_traffic_policy == "Local" {
            pods.retain(|p| p.node == Place::CLIENT_NODE);
        } else if kind != Kind::ClusterIp
            && !place.in_cluster()
            && spec.external_traffic_policy == "Local"
        {
            let arrives = nodes_for(self.manifests, self.service);
            let at = Node::ALL.into_iter().find(|n| n.addrs().contains(target));
            pods.retain(|p| at.map_or(arrives.contains(&p.node), |n| n == p.node));
        }
        if pods.is_empty() {
            return Expect::Dropped;
        }
        let names = pods.iter().map(|p| p.name()).collect();
        if spec.session_affinity == "ClientIP" {
            Expect::Sticky(names)
        } else {
            Expect::Spread(names)
        }
    }

    fn client(&self, kind: Kind, target: IpAddr, place: Place) -> Option<IpAddr> {
        let kept = kind != Kind::ClusterIp && self.service.spec.external_traffic_policy == "Local";
        (kept && place == Place::Outside).then(|| place.addrs().of_family(target))
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
