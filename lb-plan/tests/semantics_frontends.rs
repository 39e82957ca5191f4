//! Which frontends a Service has, and what they demand of clients: each test is
//! named after the behaviour, as kube-proxy 1.36 has it.

mod common;

use common::*;
use lb_plan::{model::*, plan_service};

#[test]
fn a_cluster_ip_has_a_frontend_and_a_vip_in_both_scopes() {
    expect(
        &dump(&web(), &pods(), &node()),
        "backend 10.1.0.1:8080/TCP
         frontend 10.96.0.1:80/TCP external default/web:http to 10.1.0.1:8080
         frontend 10.96.0.1:80/TCP internal default/web:http to 10.1.0.1:8080
         vip 10.96.0.1 external
         vip 10.96.0.1 internal",
    );
}

#[test]
fn the_four_kinds_of_frontend_share_one_table() {
    let mut svc = load_balancer(&["203.0.113.1"]);
    svc.external_ips = ips(&["198.51.100.1"]);
    svc.ports = vec![port("http:80/TCP>30080")];
    let slices = [slice(
        WEB,
        "web-1",
        &["http:8080/TCP"],
        vec![endpoint("10.1.0.1"), local("10.1.0.2")],
    )];
    let to = "default/web:http to 10.1.0.1:8080,10.1.0.2:8080 by 251 slots";
    expect(
        &dump(&svc, &slices, &node()),
        &format!(
            "backend 10.1.0.1:8080/TCP
             backend 10.1.0.2:8080/TCP local
             frontend 10.96.0.1:80/TCP external {to}
             frontend 10.96.0.1:80/TCP internal {to}
             frontend 192.168.0.1:30080/TCP external {to} node-port
             frontend 192.168.0.1:30080/TCP internal {to} node-port
             frontend 198.51.100.1:80/TCP external {to}
             frontend 198.51.100.1:80/TCP internal {to}
             frontend 203.0.113.1:80/TCP external {to}
             frontend 203.0.113.1:80/TCP internal {to}
             vip 10.96.0.1 external
             vip 10.96.0.1 internal
             vip 192.168.0.1 external pass-unknown-ports
             vip 192.168.0.1 internal pass-unknown-ports
             vip 198.51.100.1 external pass-unknown-ports
             vip 198.51.100.1 internal pass-unknown-ports
             vip 203.0.113.1 external
             vip 203.0.113.1 internal"
        ),
    );
}

#[test]
fn a_vip_is_empty_while_none_of_its_frontends_has_a_backend() {
    let empty = |svc: &Service, slices: &[EndpointSlice]| -> Vec<String> {
        let text = dump(svc, slices, &node());
        lines(&text, "vip ", " empty")
    };
    assert_eq!(empty(&web(), &pods()), [""; 0]);
    let none = [
        "vip 10.96.0.1 external empty",
        "vip 10.96.0.1 internal empty",
    ];
    assert_eq!(empty(&web(), &[]), none);
    let mut svc = web();
    svc.ports.push(port("admin:81/TCP"));
    assert_eq!(empty(&svc, &pods()), [""; 0], "one of two ports is enough");
    svc.internal_policy = TrafficPolicy::Local;
    assert_eq!(empty(&svc, &pods()), none, "no endpoint is on this node");
}

#[test]
fn headless_external_name_and_foreign_services_are_skipped() {
    let named = |name: Option<&str>| name.map(str::to_owned);
    for (what, svc, own_name, served) in [
        ("plain", web(), None, true),
        (
            "headless",
            Service {
                cluster_ips: Vec::new(),
                ..web()
            },
            None,
            false,
        ),
        (
            "ExternalName",
            Service {
                kind: ServiceType::ExternalName,
                ..web()
            },
            None,
            false,
        ),
        (
            "of another proxy",
            Service {
                proxy_name: named(Some("mesh")),
                ..web()
            },
            None,
            false,
        ),
        (
            "of this proxy",
            Service {
                proxy_name: named(Some("mesh")),
                ..web()
            },
            Some("mesh"),
            true,
        ),
        ("not of this proxy", web(), Some("mesh"), false),
    ] {
        let node = NodeView {
            proxy_name: named(own_name),
            ..node()
        };
        let plan = plan_service(&svc, &[], &node);
        assert_eq!(!plan.ports.is_empty(), served, "{what}");
        assert_eq!(plan.problems, [], "{what}");
    }
}

#[test]
fn a_load_balancer_ip_of_mode_proxy_is_no_frontend() {
    let mut svc = load_balancer(&["203.0.113.1", "203.0.113.2"]);
    svc.load_balancer[0].proxy_mode = true;
    let dump = dump(&svc, &pods(), &node());
    assert_eq!(lines(&dump, "", "203.0.113.1").len(), 0);
    assert_eq!(lines(&dump, "frontend", "203.0.113.2:80/TCP").len(), 2);
}

#[test]
fn dual_stack_services_have_frontends_of_both_families() {
    let svc = Service {
        external_ips: ips(&["2001:db8::9", "198.51.100.1"]),
        ports: vec![port("http:80/TCP>30080")],
        ..service(WEB, &["10.96.0.1", "fd10::1"])
    };
    let slices = [
        slice(WEB, "web-4", &["http:8080/TCP"], vec![endpoint("10.1.0.1")]),
        slice(WEB, "web-6", &["http:8080/TCP"], vec![endpoint("fd01::1")]),
    ];
    let dump = dump(&svc, &slices, &node());
    for line in [
        "frontend 10.96.0.1:80/TCP internal default/web:http to 10.1.0.1:8080",
        "frontend 198.51.100.1:80/TCP internal default/web:http to 10.1.0.1:8080",
        "frontend 192.168.0.1:30080/TCP internal default/web:http to 10.1.0.1:8080 node-port",
        "frontend [fd10::1]:80/TCP internal default/web:http to [fd01::1]:8080",
        "frontend [2001:db8::9]:80/TCP internal default/web:http to [fd01::1]:8080",
        "frontend [fd00::1]:30080/TCP internal default/web:http to [fd01::1]:8080 node-port",
    ] {
        assert!(dump.lines().any(|l| l == line), "{line}\nin\n{dump}");
    }
}

#[test]
fn a_family_that_the_node_lacks_is_skipped() {
    let v4_only = NodeView {
        ipv6: false,
        ..node()
    };
    let both = Service {
        ports: vec![port(":80/TCP")],
        ..service(WEB, &["10.96.0.1", "fd10::1"])
    };
    let text = dump(&both, &[], &v4_only);
    assert_eq!(
        (
            lines(&text, "frontend", "").len(),
            lines(&text, "problem", "").len()
        ),
        (2, 0)
    );
    let v6 = Service {
        ports: vec![port(":80/TCP")],
        ..service(WEB, &["fd10::1"])
    };
    let text = dump(&v6, &[], &v4_only);
    assert_eq!(lines(&text, "frontend", "").len(), 0);
    assert!(
        lines(&text, "problem default/web FamilyMissing", "").len() == 1,
        "{text}"
    );
}

#[test]
fn external_addresses_of_a_family_that_the_service_lacks_are_no_frontends() {
    let mut svc = load_balancer(&["2001:db8::1"]);
    svc.external_ips = ips(&["2001:db8::2"]);
    let text = dump(&svc, &pods(), &node());
    assert_eq!(lines(&text, "", "2001:db8").len(), 0, "{text}");
}

#[test]
fn one_port_number_may_be_there_for_each_protocol() {
    let svc = Service {
        ports: vec![
            port("dns:53/UDP"),
            port("dns:53/TCP"),
            port("assoc:53/SCTP"),
        ],
        ..service(WEB, &["10.96.0.1"])
    };
    let slices = [slice(
        WEB,
        "web-1",
        &["dns:5300/UDP", "dns:5301/TCP", "assoc:5302/SCTP"],
        vec![endpoint("10.1.0.1")],
    )];
    let text = dump(&svc, &slices, &node());
    for line in [
        "frontend 10.96.0.1:53/UDP internal default/web:dns to 10.1.0.1:5300",
        "frontend 10.96.0.1:53/TCP internal default/web:dns to 10.1.0.1:5301",
        "frontend 10.96.0.1:53/SCTP internal default/web:assoc to 10.1.0.1:5302",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nin\n{text}");
    }
}

#[test]
fn two_ports_with_one_name_are_the_last_and_a_problem() {
    let svc = Service {
        ports: vec![port("http:80/TCP"), port("http:81/TCP"), port("zero:0/TCP")],
        ..service(WEB, &["10.96.0.1"])
    };
    let text = dump(&svc, &[], &node());
    assert_eq!(lines(&text, "frontend", ":80/").len(), 0);
    assert_eq!(lines(&text, "frontend", ":81/").len(), 2);
    assert_eq!(
        lines(&text, "problem default/web DuplicatePort", "").len(),
        1
    );
    assert_eq!(lines(&text, "problem default/web InvalidPort", "").len(), 1);
}

#[test]
fn unusable_vips_are_ignored_and_a_problem() {
    let svc = Service {
        external_ips: ips(&[
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "0.0.0.0",
            "198.51.100.1",
        ]),
        ..web()
    };
    let text = dump(&svc, &pods(), &node());
    assert_eq!(
        lines(&text, "problem default/web InvalidAddress", "").len(),
        4,
        "{text}"
    );
    assert_eq!(lines(&text, "frontend", "").len(), 4);
}

#[test]
fn an_ipv4_address_in_mapped_form_is_an_ipv4_address() {
    let svc = Service {
        external_ips: ips(&["::ffff:198.51.100.1"]),
        ..web()
    };
    let text = dump(&svc, &pods(), &node());
    assert_eq!(
        lines(&text, "frontend 198.51.100.1:80/TCP", "").len(),
        2,
        "{text}"
    );
}

#[test]
fn session_affinity_is_on_every_frontend() {
    let svc = Service {
        affinity_seconds: Some(10_800),
        ports: vec![port("http:80/TCP>30080")],
        ..web()
    };
    let text = dump(&svc, &pods(), &node());
    assert_eq!(
        lines(&text, "frontend", "affinity=10800s").len(),
        4,
        "{text}"
    );
}

/// The addresses that answer NodePort 30080: `ADDRESS` for clients anywhere,
/// `ADDRESS internal` for those within the cluster.
fn node_ports(addresses: NodePortAddresses, localhost: bool) -> Vec<String> {
    let svc = Service {
        ports: vec![port("http:80/TCP>30080")],
        ..service(WEB, &["10.96.0.1", "fd10::1"])
    };
    let node = NodeView {
        node_port_addresses: addresses,
        localhost_node_ports: localhost,
        ..node()
    };
    let plan = plan_service(&svc, &[], &node);
    let of = |scope| {
        let all = plan.ports[0].frontends.iter();
        let found = all.filter(move |f| f.port == 30080 && f.scope == scope);
        found.map(|f| f.addr.to_string()).collect::<Vec<_>>()
    };
    let external = of(lb_common::scope::EXTERNAL);
    let mut found = of(lb_common::scope::INTERNAL);
    for addr in &mut found {
        if !external.contains(addr) {
            *addr += " internal";
        }
    }
    found.sort();
    found
}

#[test]
fn node_ports_are_on_the_addresses_that_the_node_view_says() {
    let primary = NodePortAddresses::Primary;
    assert_eq!(
        node_ports(primary.clone(), false),
        ["192.168.0.1", "fd00::1"]
    );
    let with_localhost = [
        "127.0.0.1 internal",
        "192.168.0.1",
        "::1 internal",
        "fd00::1",
    ];
    assert_eq!(node_ports(primary, true), with_localhost);
    for (networks, want) in [
        ("0.0.0.0/0 ::/0", "10.9.0.1 192.168.0.1 fd00::1"),
        // Networks of one family say nothing about the other.
        ("10.9.0.0/16", "10.9.0.1 fd00::1"),
        ("172.16.0.0/12 fd99::/16", ""),
        ("127.0.0.0/8 ::1/128", "127.0.0.1 internal ::1 internal"),
    ] {
        let cidr = |text| lb_plan::cidr::Cidr::parse(text).map(|c| (c.addr, c.prefix));
        let networks: Option<Vec<_>> = networks.split(' ').map(cidr).collect();
        let got = node_ports(NodePortAddresses::Cidrs(networks.expect("networks")), false);
        assert_eq!(got.join(" "), want);
    }
}

#[test]
fn an_address_of_the_node_leaves_unknown_ports_to_the_node() {
    let svc = load_balancer(&["192.168.0.1", "203.0.113.1"]);
    let text = dump(&svc, &pods(), &node());
    assert_eq!(
        lines(&text, "vip 192.168.0.1", "pass-unknown-ports").len(),
        2,
        "{text}"
    );
    assert_eq!(
        lines(&text, "vip 203.0.113.1", "pass-unknown-ports").len(),
        0,
        "{text}"
    );
}
