//! Manifests to the types of planning: what is read, and what is said about what
//! cannot be read.

use std::net::IpAddr;

use lb_plan::model::{
    EndpointSlice, LoadBalancerIngress, Protocol, Service, ServiceType, TrafficPolicy,
};
use lb_userspace::{
    change::{Content, Kind, Node, Object},
    intern::Interner,
    watch::manifest::{self, Parsed},
};

fn parse(text: &str) -> Parsed {
    manifest::parse(text, &Kind::AGENT, &Interner::default())
}

fn one(text: &str) -> Object {
    let mut parsed = parse(text);
    assert_eq!(parsed.bad, [], "in {text}");
    assert_eq!(parsed.objects.len(), 1, "in {text}");
    parsed.objects.remove(0)
}

fn service(spec: &str) -> (Service, Vec<&'static str>) {
    let object = one(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n{spec}"
    ));
    let Content::Service(service) = object.content else {
        panic!("{object:?}")
    };
    let reasons = object.problems.iter().map(|p| p.reason).collect();
    (Service::clone(&service), reasons)
}

fn slice(rest: &str) -> (Option<EndpointSlice>, Vec<String>) {
    let object = one(&format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{rest}"
    ));
    let problems = object
        .problems
        .into_iter()
        .map(|p| format!("{}: {}", p.reason, p.message));
    let slice = match object.content {
        Content::Slice(slice, _) => Some(EndpointSlice::clone(&slice)),
        _ => None,
    };
    (slice, problems.collect())
}

const LABELLED: &str =
    "metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}\n";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of fields")]
fn a_full_service_is_read_whole() {
    let (service, problems) = service(
        "spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd00::10']
  externalIPs: [192.0.2.7]
  ports:
  - {name: http, port: 80, targetPort: web, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP}
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  internalTrafficPolicy: Local
  externalTrafficPolicy: Local
  loadBalancerSourceRanges: [' 10.0.0.0/8 ', nonsense]
  healthCheckNodePort: 31000
  publishNotReadyAddresses: true
  trafficDistribution: PreferSameZone
status: {loadBalancer: {ingress: [{ip: 203.0.113.9}, {ip: 203.0.113.10, ipMode: Proxy}, {hostname: lb.example}]}}
",
    );
    assert_eq!(problems, [""; 0]);
    assert_eq!(service.key.to_string(), "shop/web");
    assert_eq!(service.kind, ServiceType::LoadBalancer);
    assert_eq!(service.cluster_ips, [ip("10.96.0.10"), ip("fd00::10")]);
    assert_eq!(service.external_ips, [ip("192.0.2.7")]);
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|p| (&*p.name, p.protocol, p.port, p.node_port))
        .collect();
    assert_eq!(
        ports,
        [
            ("http", Protocol::Tcp, 80, 30080),
            ("dns", Protocol::Udp, 53, 0)
        ]
    );
    assert_eq!(service.affinity_seconds, Some(60));
    assert_eq!(service.internal_policy, TrafficPolicy::Local);
    assert_eq!(service.external_policy, TrafficPolicy::Local);
    assert_eq!(service.source_ranges, [" 10.0.0.0/8 ", "nonsense"]);
    assert_eq!(service.health_check_node_port, 31000);
    assert!(service.publish_not_ready);
    assert_eq!(
        service.traffic_distribution.as_deref(),
        Some("PreferSameZone")
    );
    let ingress = |text, proxy_mode| LoadBalancerIngress {
        ip: ip(text),
        proxy_mode,
    };
    assert_eq!(
        service.load_balancer,
        [ingress("203.0.113.9", false), ingress("203.0.113.10", true)]
    );
}

#[test]
fn what_cannot_be_read_of_a_service_is_a_problem_and_the_rest_counts() {
    let port = "spec: {clusterIP: 10.0.0.1, ports: [{port: 80}, ";
    for (spec, reason) in [
        (
            format!("{port}{{name: x, port: 81, protocol: QUIC}}]}}"),
            "UnknownProtocol",
        ),
        (format!("{port}{{name: x, port: 70000}}]}}"), "InvalidPort"),
        (format!("{port}{{name: x, port: 0}}]}}"), "InvalidPort"),
        (
            "spec: {clusterIPs: [10.0.0.1, 10.0.0.300], ports: [{port: 80}]}".into(),
            "InvalidAddress",
        ),
        (
            "spec: {clusterIPs: [10.0.0.1, '::ffff:10.0.0.2'], ports: [{port: 80}]}".into(),
            "InvalidAddress",
        ),
        (
            "spec: {clusterIP: 10.0.0.1, type: Magic, ports: [{port: 80}]}".into(),
            "UnknownType",
        ),
        (
            "spec: {clusterIP: 10.0.0.1, internalTrafficPolicy: Near, ports: [{port: 80}]}".into(),
            "UnknownTrafficPolicy",
        ),
        (
            "spec: {clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 99999}]}".into(),
            "InvalidPort",
        ),
        (
            "spec: {clusterIP: 10.0.0.1, sessionAffinity: Cookie, ports: [{port: 80}]}".into(),
            "UnknownAffinity",
        ),
    ] {
        let (service, problems) = service(&spec);
        assert_eq!(problems, [reason], "{spec}");
        assert_eq!(service.cluster_ips, [ip("10.0.0.1")], "{spec}");
        let ports: Vec<_> = service
            .ports
            .iter()
            .map(|p| (p.port, p.node_port))
            .collect();
        assert_eq!(ports, [(80, 0)], "{spec}");
    }
}

#[test]
fn defaults_are_the_api_servers() {
    let (service, problems) = service("spec: {clusterIP: None, sessionAffinity: ClientIP}");
    assert_eq!(problems, [""; 0]);
    assert_eq!(service.kind, ServiceType::ClusterIp);
    assert_eq!(service.cluster_ips, [""; 0].map(ip));
    assert_eq!(service.affinity_seconds, Some(10_800));
    assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
    assert_eq!(service.external_policy, TrafficPolicy::Cluster);
    assert_eq!(service.proxy_name, None);
}

#[test]
fn labels_and_annotations_of_a_service_are_read() {
    let object = one("kind: Service
apiVersion: v1
metadata:
  name: a
  labels: {service.kubernetes.io/service-proxy-name: other}
  annotations:
    service.kubernetes.io/topology-mode: Auto
    service.beta.kubernetes.io/load-balancer-source-ranges: 10.0.0.0/8
");
    let Content::Service(service) = object.content else {
        panic!()
    };
    assert_eq!(service.key.to_string(), "default/a");
    assert_eq!(service.proxy_name.as_deref(), Some("other"));
    assert_eq!(service.topology_mode.as_deref(), Some("Auto"));
    // Cloud controllers read that annotation; kube-proxy reads the field alone:
    // kubernetes v1.36.3, pkg/proxy/serviceport.go:209.
    assert!(service.source_ranges.is_empty());
}

#[test]
fn a_full_slice_is_read_whole() {
    let (slice, problems) = slice(&format!(
        "{LABELLED}addressType: IPv4
ports: [{{name: http, port: 8080}}, {{name: any}}]
endpoints:
- addresses: [10.244.1.5, 10.244.1.6]
  conditions: {{ready: false, serving: true, terminating: true}}
  nodeName: n1
  zone: za
  hints: {{forZones: [{{name: za}}, {{name: zb}}], forNodes: [{{name: n1}}]}}
- addresses: [10.244.2.5]
"
    ));
    assert_eq!(problems, [""; 0]);
    let slice = slice.unwrap();
    assert_eq!(slice.service.to_string(), "shop/web");
    assert_eq!(&*slice.name, "web-1");
    assert_eq!(
        slice.ports.len(),
        1,
        "a port without a number is not served"
    );
    assert_eq!((&*slice.ports[0].name, slice.ports[0].port), ("http", 8080));
    let [first, second] = &slice.endpoints[..] else {
        panic!()
    };
    assert_eq!(
        first.addresses,
        [ip("10.244.1.5")],
        "only the first address counts"
    );
    assert_eq!(
        (first.ready, first.serving, first.terminating),
        (Some(false), Some(true), Some(true))
    );
    assert_eq!(first.node.as_deref(), Some("n1"));
    assert_eq!(first.zone.as_deref(), Some("za"));
    assert_eq!(
        first.zone_hints.iter().map(|z| &**z).collect::<Vec<_>>(),
        ["za", "zb"]
    );
    assert_eq!(
        first.node_hints.iter().map(|z| &**z).collect::<Vec<_>>(),
        ["n1"]
    );
    assert_eq!(
        (second.ready, second.node.clone(), second.weight),
        (None, None, 1)
    );
}

#[test]
fn a_slice_keeps_its_good_endpoints() {
    let (slice, problems) = slice(&format!(
        "{LABELLED}addressType: IPv4
ports: [{{port: 80, protocol: QUIC}}, {{port: 81}}]
endpoints: [{{addresses: [bogus]}}, {{addresses: ['fd00::1']}}, {{addresses: [10.0.0.9]}}]
"
    ));
    let slice = slice.unwrap();
    assert_eq!(slice.endpoints.len(), 1);
    assert_eq!(slice.ports.len(), 1);
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("\"bogus\""), "{problems:?}");
    assert!(problems[1].contains("fd00::1"), "{problems:?}");
    assert!(problems[2].contains("QUIC"), "{problems:?}");
}

#[test]
fn a_slice_that_belongs_nowhere_is_unusable() {
    let (none, problems) = slice("metadata: {name: lost}\naddressType: IPv4\n");
    assert_eq!(none, None);
    assert!(problems[0].starts_with("NoServiceLabel"), "{problems:?}");
    let (none, problems) = slice(&format!("{LABELLED}addressType: IPX\n"));
    assert_eq!(none, None);
    assert!(
        problems[0].starts_with("UnknownAddressType"),
        "{problems:?}"
    );
    let (none, problems) = slice(&format!("{LABELLED}addressType: FQDN\n"));
    assert_eq!((none, problems.len()), (None, 0));
}

#[test]
fn weights_and_trigger_times_come_from_annotations() {
    let text = |weight: &str, time: &str| {
        format!(
            "kind: EndpointSlice
metadata:
  name: a
  labels: {{kubernetes.io/service-name: web}}
  annotations: {{bascule.dev/weight: '{weight}', endpoints.kubernetes.io/last-change-trigger-time: '{time}'}}
addressType: IPv4
endpoints: [{{addresses: [10.0.0.1]}}]
"
        )
    };
    let good = one(&text("7", "2026-11-21T06:00:00.5Z"));
    let Content::Slice(slice, Some(trigger)) = good.content else {
        panic!("{good:?}")
    };
    assert_eq!(slice.endpoints[0].weight, 7);
    assert!(!trigger.ipv6);
    let since_epoch = trigger.at.duration_since(std::time::UNIX_EPOCH).unwrap();
    // `date -ud 2026-11-21T06:00:00Z +%s`
    assert_eq!(since_epoch.as_millis(), 1_795_240_800_500);
    for (weight, time) in [("0", "x"), ("257", ""), ("heavy", "yesterday")] {
        let bad = one(&text(weight, time));
        let reasons: Vec<_> = bad.problems.iter().map(|p| p.reason).collect();
        assert_eq!(reasons, ["InvalidWeight", "InvalidTriggerTime"]);
        let Content::Slice(slice, None) = bad.content else {
            panic!()
        };
        assert_eq!(slice.endpoints[0].weight, 1);
    }
}

#[test]
fn a_node_that_leaves_says_so() {
    let node = |rest: &str| {
        let object = one(&format!("kind: Node\napiVersion: v1\n{rest}"));
        assert_eq!(object.key.kind, Kind::Node);
        match object.content {
            Content::Node(node) => *node,
            other => panic!("{other:?}"),
        }
    };
    let here = node(
        "metadata: {name: n1, labels: {topology.kubernetes.io/zone: za}}
status: {addresses: [{type: Hostname, address: n1}, {type: InternalIP, address: 172.30.0.2}, {type: InternalIP, address: 'fd00::2'}]}
spec: {taints: [{key: node.kubernetes.io/not-ready, effect: NoSchedule}]}",
    );
    let expected = Node {
        name: "n1".into(),
        zone: Some("za".into()),
        internal_ips: vec![ip("172.30.0.2"), ip("fd00::2")],
        leaving: false,
    };
    assert_eq!(here, expected);
    assert!(node("metadata: {name: n1}\nspec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}").leaving);
    assert!(node("metadata: {name: n1, deletionTimestamp: '2026-11-21T06:00:00Z'}").leaving);
}
