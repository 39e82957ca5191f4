//! The vips of a service, and the frontends that its ports have there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{frontend_flags, scope};

use crate::{
    cidr::Cidr,
    endpoints::unusable,
    model::{NodePortAddresses, NodeView, Service, ServicePort, TrafficPolicy},
    plan::FrontendPlan,
};

/// An IP family that a service and its node both have.
#[derive(Clone, Debug)]
pub struct Family {
    /// Whether it is IPv4.
    pub v4: bool,
    /// The ClusterIP of the family.
    pub cluster_ip: IpAddr,
    /// External IPs of the family.
    pub external_ips: Vec<IpAddr>,
    /// Load-balancer IPs of the family that are vips (`ipMode` not `Proxy`).
    pub load_balancer_ips: Vec<IpAddr>,
    /// What source ranges admit; empty for everyone.
    pub ranges: Vec<Cidr>,
}

/// The families of a service that its node has: the first ClusterIP of each.
/// External addresses of other families are no frontends, as with kube-proxy,
/// which runs a proxier a family and gives it the Services with a ClusterIP of
/// that family (`pkg/proxy/servicechangetracker.go`).
///
/// What cannot be served is described in `problems` as (reason, sentence).
pub fn families(
    service: &Service,
    node: &NodeView,
    problems: &mut Vec<(&'static str, String)>,
) -> Vec<Family> {
    let ranges = ranges(service, problems);
    let mut families: Vec<Family> = Vec::new();
    let mut lacking = false;
    for &ip in &service.cluster_ips {
        let ip = ip.to_canonical();
        if let Some(what) = unusable(ip) {
            problems.push((
                "InvalidAddress",
                format!("the cluster IP {ip} is {what}: it is not served"),
            ));
            continue;
        }
        let v4 = ip.is_ipv4();
        let has = if v4 { node.ipv4 } else { node.ipv6 };
        lacking |= !has;
        if has && !families.iter().any(|f| f.v4 == v4) {
            families.push(Family {
                v4,
                cluster_ip: ip,
                external_ips: Vec::new(),
                load_balancer_ips: Vec::new(),
                ranges: of_family(&ranges, v4),
            });
        }
    }
    if families.is_empty() && lacking {
        let text = "the node has no address of the service's IP family: give the node one, \
                    or the service another family";
        problems.push(("FamilyMissing", text.into()));
    }
    add_external(service, &mut families, problems);
    families
}

fn add_external(
    service: &Service,
    families: &mut [Family],
    problems: &mut Vec<(&'static str, String)>,
) {
    let lb = service.load_balancer.iter().filter(|i| !i.proxy_mode);
    let lb = lb.map(|i| (i.ip, true));
    let external = service.external_ips.iter().map(|&ip| (ip, false));
    for (ip, is_lb) in external.chain(lb) {
        let ip = ip.to_canonical();
        let kind = if is_lb {
            "load-balancer IP"
        } else {
            "external IP"
        };
        if let Some(what) = unusable(ip) {
            problems.push((
                "InvalidAddress",
                format!("the {kind} {ip} is {what}: it is not served"),
            ));
        } else if let Some(f) = families.iter_mut().find(|f| f.v4 == ip.is_ipv4()) {
            if is_lb {
                &mut f.load_balancer_ips
            } else {
                &mut f.external_ips
            }
            .push(ip);
        }
    }
}

/// `loadBalancerSourceRanges`, trimmed. What does not parse is ignored, as
/// kube-proxy does (`MapCIDRsByIPFamily`): if nothing remains, everyone is admitted.
fn ranges(service: &Service, problems: &mut Vec<(&'static str, String)>) -> Vec<Cidr> {
    let mut ranges = Vec::new();
    for text in service
        .source_ranges
        .iter()
        .map(|t| t.trim())
        .filter(|t| !t.is_empty())
    {
        match Cidr::parse(text) {
            Some(cidr) => ranges.push(cidr),
            None => problems.push((
                "InvalidSourceRange",
                format!(
                    "loadBalancerSourceRanges has {text:?}, which is no network and is ignored: \
                         write it as ADDRESS/PREFIX"
                ),
            )),
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// The ranges of one family; none if one of them admits everyone.
fn of_family(ranges: &[Cidr], v4: bool) -> Vec<Cidr> {
    let of: Vec<_> = ranges
        .iter()
        .filter(|c| c.is_ipv4() == v4)
        .copied()
        .collect();
    if of.iter().any(|c| c.prefix == 0) {
        Vec::new()
    } else {
        of
    }
}

/// The ranges that a family's load-balancer frontends admit. Where a node is
/// admitted, so are the vips themselves: where a vip is also a local address,
/// the node's own packets to it carry it as their source
/// (`pkg/proxy/nftables/proxier.go`, `allowFromNode`).
pub fn admitted(family: &Family, node: &NodeView) -> Vec<Cidr> {
    if family.load_balancer_ips.is_empty() {
        return Vec::new();
    }
    let mut admitted = family.ranges.clone();
    let node_ip = node
        .primary
        .iter()
        .map(IpAddr::to_canonical)
        .find(|ip| ip.is_ipv4() == family.v4);
    if node_ip.is_some_and(|ip| admitted.iter().any(|c| c.contains(ip))) {
        admitted.extend(family.load_balancer_ips.iter().map(|&ip| Cidr::host(ip)));
    }
    admitted
}

/// What a scope of a frontend leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Index of the backend set; `None` where it is empty.
    pub set: Option<u8>,
    /// Whether clients are dropped, not refused, where it is empty.
    pub drop: bool,
}

/// What the two traffic policies lead to, in one family of one service port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Targets {
    /// Policy `Cluster`.
    pub cluster: Target,
    /// Policy `Local`.
    pub local: Target,
}

impl Targets {
    fn of(&self, policy: TrafficPolicy) -> Target {
        match policy {
            TrafficPolicy::Cluster => self.cluster,
            TrafficPolicy::Local => self.local,
        }
    }
}

/// The frontends of one service port in one family.
pub fn frontends(
    service: &Service,
    port: &ServicePort,
    family: &Family,
    node: &NodeView,
    targets: &Targets,
) -> Vec<FrontendPlan> {
    let mut list = List {
        out: Vec::new(),
        node,
        service,
        targets,
    };
    let vip = |addr, flags| Vip {
        addr,
        port: port.port,
        flags,
    };
    list.internal(vip(family.cluster_ip, 0));
    for &ip in &family.external_ips {
        list.external(vip(ip, 0), true);
    }
    let ranged = if family.ranges.is_empty() {
        0
    } else {
        frontend_flags::SOURCE_RANGES
    };
    for &ip in &family.load_balancer_ips {
        list.external(vip(ip, ranged), false);
    }
    if port.node_port != 0 {
        for ip in node_port_addresses(node, family.v4) {
            let vip = Vip {
                addr: ip,
                port: port.node_port,
                flags: frontend_flags::NODE_PORT,
            };
            list.external(vip, true);
        }
    }
    list.out
}

struct Vip {
    addr: IpAddr,
    port: u16,
    flags: u32,
}

struct List<'a> {
    out: Vec<FrontendPlan>,
    node: &'a NodeView,
    service: &'a Service,
    targets: &'a Targets,
}

impl List<'_> {
    /// A ClusterIP: `internalTrafficPolicy`, whoever asks.
    fn internal(&mut self, vip: Vip) {
        let target = self.targets.of(self.service.internal_policy);
        for scope in [scope::INTERNAL, scope::EXTERNAL] {
            self.push(&vip, scope, target, false);
        }
    }

    /// Everything else: clients within the cluster reach all endpoints, as if
    /// they had come by the load balancer; clients outside go by
    /// `externalTrafficPolicy`, and keep their address where it is `Local`.
    fn external(&mut self, vip: Vip, pass_unknown: bool) {
        self.push(&vip, scope::INTERNAL, self.targets.cluster, pass_unknown);
        if vip.addr.is_loopback() {
            return;
        }
        let policy = self.service.external_policy;
        let mut outside = Vip { ..vip };
        if policy == TrafficPolicy::Local {
            outside.flags |= frontend_flags::NO_SNAT;
        }
        self.push(
            &outside,
            scope::EXTERNAL,
            self.targets.of(policy),
            pass_unknown,
        );
    }

    /// One vip may be there twice, as external IP and load-balancer IP: the first
    /// counts, and what the second demands of clients holds too.
    fn push(&mut self, vip: &Vip, scope: u8, target: Target, pass_unknown: bool) {
        let addr = vip.addr.into();
        let same = |f: &&mut FrontendPlan| (f.addr, f.port, f.scope) == (addr, vip.port, scope);
        if let Some(first) = self.out.iter_mut().find(same) {
            first.flags |= vip.flags & frontend_flags::SOURCE_RANGES;
            first.pass_unknown |= pass_unknown;
            return;
        }
        let dropped = if target.drop {
            frontend_flags::DROP_IF_EMPTY
        } else {
            0
        };
        let of_node = |ip: &IpAddr| ip.to_canonical() == vip.addr;
        self.out.push(FrontendPlan {
            addr,
            port: vip.port,
            scope,
            pass_unknown: pass_unknown || self.node.addresses.iter().any(of_node),
            flags: vip.flags | dropped,
            set: target.set,
        });
    }
}

/// The addresses of one family that answer NodePorts, sorted. As with
/// kube-proxy, networks of one family say nothing about the other
/// (`NewNodePortAddresses`). Loopback addresses serve the node's own sockets:
/// where a network names them, or with `localhost_node_ports`.
pub fn node_port_addresses(node: &NodeView, v4: bool) -> Vec<IpAddr> {
    let family = |ip: &IpAddr| ip.is_ipv4() == v4;
    let mut found: Vec<IpAddr> = match &node.node_port_addresses {
        NodePortAddresses::Primary => node
            .primary
            .iter()
            .map(IpAddr::to_canonical)
            .filter(family)
            .collect(),
        NodePortAddresses::Cidrs(nets) => {
            let nets: Vec<_> = nets
                .iter()
                .filter(|(ip, _)| family(ip))
                .filter_map(|&(ip, prefix)| Cidr::new(ip, prefix))
                .collect();
            let within = |ip: &IpAddr| {
                let named =
                    |net: &Cidr| net.contains(*ip) && (!ip.is_loopback() || net.addr.is_loopback());
                (nets.is_empty() && !ip.is_loopback()) || nets.iter().any(named)
            };
            let own = node.addresses.iter().map(IpAddr::to_canonical);
            own.filter(family).filter(within).collect()
        }
    };
    if node.localhost_node_ports {
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        found.push(if v4 {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            v6
        });
    }
    found.sort_unstable();
    found.dedup();
    found
}
