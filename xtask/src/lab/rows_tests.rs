//! The rows of the project's own examples, written out by hand.

use std::path::Path;

use super::*;

fn examples() -> Manifests {
    Manifests::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")).unwrap()
}

fn row(service: &str, target: &str, proto: Proto, place: Place) -> Option<Row> {
    let target: SocketAddr = target.parse().unwrap();
    let found = |r: &Row| {
        r.key.service == service
            && r.key.target == target
            && r.key.place == place
            && r.key.proto == proto
    };
    rows(&examples()).0.into_iter().find(found)
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn a_cluster_ip_is_dialled_from_within_the_cluster_only() {
    let spread = Expect::Spread(names(&["n1-a", "n2-a", "n3-a"]));
    for place in [Place::Pod, Place::PodTc, Place::Node] {
        assert_eq!(
            row("default/web", "10.96.0.10:80", Proto::Tcp, place)
                .unwrap()
                .expect,
            spread
        );
        assert_eq!(
            row("default/web", "[fd00:10:96::10]:80", Proto::Tcp, place)
                .unwrap()
                .expect,
            spread
        );
    }
    assert_eq!(
        row("default/web", "10.96.0.10:80", Proto::Tcp, Place::Outside),
        None
    );
}

#[test]
fn one_port_number_may_serve_two_protocols() {
    let udp = row("kube-system/dns", "10.96.0.53:53", Proto::Udp, Place::Pod).unwrap();
    let tcp = row("kube-system/dns", "10.96.0.53:53", Proto::Tcp, Place::Pod).unwrap();
    assert_eq!(udp.expect, Expect::Spread(names(&["n2-b", "n3-b"])));
    assert_eq!(udp.expect, tcp.expect);
}

#[test]
fn a_node_port_is_dialled_on_a_node_and_on_loopback_by_the_node_itself() {
    let place = |target, place| row("default/nodeport", target, Proto::Udp, place).is_some();
    assert!(place("172.31.0.12:30053", Place::Outside));
    assert!(place("172.31.0.11:30053", Place::Pod));
    assert!(place("127.0.0.1:30053", Place::Node) && place("[::1]:30053", Place::Node));
    assert!(!place("127.0.0.1:30053", Place::Pod));
}

#[test]
fn a_stranger_to_the_source_ranges_is_dropped() {
    let at = |place| {
        row("default/loadbalancer", "203.0.113.10:80", Proto::Tcp, place)
            .unwrap()
            .expect
    };
    assert_eq!(at(Place::Stranger), Expect::Dropped);
    assert_eq!(
        at(Place::Outside),
        Expect::Spread(names(&["n1-c", "n2-c", "n3-c"]))
    );
    assert_eq!(
        row(
            "default/external-ip",
            "198.51.100.10:80",
            Proto::Tcp,
            Place::Stranger
        ),
        None
    );
}

#[test]
fn with_external_policy_local_the_client_is_seen_and_only_nodes_with_endpoints_are_used() {
    let outside = row(
        "default/external-local",
        "[2001:db8:113::60]:80",
        Proto::Tcp,
        Place::Outside,
    )
    .unwrap();
    assert_eq!(outside.expect, Expect::Spread(names(&["n1-b", "n2-a"])));
    assert_eq!(outside.client, Some("fd00:31::100".parse().unwrap()));
    let vip = "203.0.113.60".parse().unwrap();
    assert_eq!(vip_routes(&examples())[&vip], [Node(1), Node(2)]);
    let pod = row(
        "default/external-local",
        "203.0.113.60:80",
        Proto::Tcp,
        Place::Pod,
    )
    .unwrap();
    assert_eq!(
        (pod.client, pod.expect),
        (None, Expect::Spread(names(&["n1-b", "n2-a"])))
    );
}

#[test]
fn with_internal_policy_local_only_the_nodes_own_pods_answer() {
    let row = row(
        "default/internal-local",
        "10.96.0.70:5353",
        Proto::Udp,
        Place::Node,
    )
    .unwrap();
    assert_eq!(row.expect, Expect::Spread(names(&["n1-a", "n1-b"])));
}

#[test]
fn affinity_refusal_and_headless_services_are_told_apart() {
    let sticky = row("default/affinity", "10.96.0.50:80", Proto::Tcp, Place::Pod)
        .unwrap()
        .expect;
    assert_eq!(sticky, Expect::Sticky(names(&["n1-b", "n2-b", "n3-b"])));
    let refused = row(
        "default/no-endpoints",
        "198.51.100.80:80",
        Proto::Tcp,
        Place::Outside,
    )
    .unwrap()
    .expect;
    assert_eq!(refused, Expect::Refused);
    assert_eq!(rows(&examples()).1, ["default/headless"]);
}

#[test]
fn every_kind_family_and_protocol_is_dialled_from_every_place_that_can() {
    let (rows, _) = rows(&examples());
    for kind in [
        Kind::ClusterIp,
        Kind::NodePort,
        Kind::ExternalIp,
        Kind::LoadBalancerIp,
    ] {
        for proto in [Proto::Tcp, Proto::Udp] {
            for v4 in [true, false] {
                let places: BTreeSet<Place> = rows
                    .iter()
                    .filter(|r| {
                        r.key.kind == kind && r.key.proto == proto && r.key.target.is_ipv4() == v4
                    })
                    .filter(|r| matches!(r.expect, Expect::Spread(_)))
                    .map(|r| r.key.place)
                    .collect();
                let mut wanted = BTreeSet::from([Place::Pod, Place::PodTc, Place::Node]);
                if kind != Kind::ClusterIp {
                    wanted.insert(Place::Outside);
                }
                assert_eq!(places, wanted, "{kind:?} {proto} IPv4={v4}");
            }
        }
    }
}
