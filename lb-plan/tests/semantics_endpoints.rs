//! Which endpoints a frontend leads to: each test is named after the behaviour,
//! as kube-proxy 1.36 has it.

mod common;

use common::*;
use lb_plan::{Limits, Planner, model::*, op::Op, plan_service};

/// A Service with a NodePort: its ClusterIP frontend is internal traffic, its
/// NodePort frontend external traffic.
fn exposed() -> Service {
    Service {
        kind: ServiceType::NodePort,
        ports: vec![port("http:80/TCP>30080")],
        ..web()
    }
}

fn of(endpoints: Vec<Endpoint>) -> Vec<EndpointSlice> {
    vec![slice(WEB, "web-1", &["http:8080/TCP"], endpoints)]
}

/// Where the four frontends of [`exposed`] lead: ClusterIP from inside and
/// outside, NodePort from inside and outside. Addresses without their ports.
fn leads(svc: &Service, endpoints: Vec<Endpoint>, node: &NodeView) -> [String; 4] {
    let text = dump(svc, &of(endpoints), node);
    [
        "10.96.0.1:80/TCP internal",
        "10.96.0.1:80/TCP external",
        "192.168.0.1:30080/TCP internal",
        "192.168.0.1:30080/TCP external",
    ]
    .map(|frontend| {
        let line = lines(&text, &format!("frontend {frontend} "), "")
            .pop()
            .unwrap_or_default();
        let to = line.split(" to ").nth(1).unwrap_or_default();
        let dropped = if line.contains("drop-if-empty") {
            " dropped"
        } else {
            ""
        };
        let set = to.split(' ').next().unwrap_or_default();
        set.replace(":8080", "") + dropped
    })
}

const LOCAL: TrafficPolicy = TrafficPolicy::Local;

#[test]
fn policy_cluster_uses_every_ready_endpoint() {
    let endpoints = vec![
        endpoint("10.1.0.1"),
        local("10.1.0.2"),
        unready(local("10.1.0.3")),
    ];
    assert_eq!(
        leads(&exposed(), endpoints, &node()),
        ["10.1.0.1,10.1.0.2"; 4]
    );
}

#[test]
fn external_policy_local_holds_for_clients_outside_only() {
    let svc = Service {
        external_policy: LOCAL,
        ..exposed()
    };
    let endpoints = vec![endpoint("10.1.0.1"), local("10.1.0.2")];
    let both = "10.1.0.1,10.1.0.2";
    assert_eq!(
        leads(&svc, endpoints.clone(), &node()),
        [both, both, both, "10.1.0.2"]
    );
    let text = dump(&svc, &of(endpoints), &node());
    assert_eq!(lines(&text, "frontend", "no-snat").len(), 1, "{text}");
    assert_eq!(
        lines(&text, "frontend 192.168.0.1:30080/TCP external", "no-snat").len(),
        1
    );
}

#[test]
fn internal_policy_local_holds_for_the_cluster_ip_only() {
    let svc = Service {
        internal_policy: LOCAL,
        ..exposed()
    };
    let both = "10.1.0.1,10.1.0.2";
    let got = leads(&svc, vec![endpoint("10.1.0.1"), local("10.1.0.2")], &node());
    assert_eq!(got, ["10.1.0.2", "10.1.0.2", both, both]);
}

#[test]
fn policy_local_without_local_endpoint_drops() {
    let svc = Service {
        internal_policy: LOCAL,
        external_policy: LOCAL,
        ..exposed()
    };
    let got = leads(&svc, vec![endpoint("10.1.0.1")], &node());
    assert_eq!(
        got,
        [
            "nothing dropped",
            "nothing dropped",
            "10.1.0.1",
            "nothing dropped"
        ]
    );
}

#[test]
fn no_endpoint_at_all_refuses_whatever_the_policy() {
    let svc = Service {
        internal_policy: LOCAL,
        external_policy: LOCAL,
        ..exposed()
    };
    assert_eq!(leads(&svc, vec![], &node()), ["nothing"; 4]);
    assert_eq!(
        leads(&svc, vec![unready(local("10.1.0.1"))], &node()),
        ["nothing"; 4]
    );
    assert_eq!(leads(&exposed(), vec![], &node()), ["nothing"; 4]);
}

#[test]
fn an_endpoint_is_local_by_the_name_of_its_node() {
    let svc = Service {
        external_policy: LOCAL,
        ..exposed()
    };
    let nowhere = Endpoint {
        node: None,
        ..endpoint("10.1.0.1")
    };
    assert_eq!(
        leads(&svc, vec![nowhere.clone()], &node())[3],
        "nothing dropped"
    );
    let nameless = NodeView {
        name: "".into(),
        ..node()
    };
    let empty = Endpoint {
        node: Some("".into()),
        ..nowhere
    };
    assert_eq!(leads(&svc, vec![empty], &nameless)[3], "nothing dropped");
}

#[test]
fn serving_terminating_endpoints_are_used_when_none_is_ready() {
    let svc = Service {
        external_policy: LOCAL,
        ..exposed()
    };
    let terminating = serving_terminating(local("10.1.0.1"));
    assert_eq!(
        leads(&svc, vec![terminating.clone()], &node()),
        ["10.1.0.1"; 4]
    );
    let got = leads(&svc, vec![terminating.clone(), local("10.1.0.2")], &node());
    assert_eq!(got, ["10.1.0.2"; 4]);
    let done = Endpoint {
        serving: Some(false),
        ..terminating
    };
    assert_eq!(leads(&svc, vec![done], &node()), ["nothing"; 4]);
}

#[test]
fn the_two_policies_fall_back_to_terminating_endpoints_by_themselves() {
    let svc = Service {
        external_policy: LOCAL,
        ..exposed()
    };
    let endpoints = vec![endpoint("10.1.0.1"), serving_terminating(local("10.1.0.2"))];
    assert_eq!(
        leads(&svc, endpoints, &node()),
        ["10.1.0.1", "10.1.0.1", "10.1.0.1", "10.1.0.2"]
    );
}

#[test]
fn absent_conditions_mean_ready_serving_and_not_terminating() {
    let bare = Endpoint {
        ready: None,
        serving: None,
        terminating: None,
        ..endpoint("10.1.0.1")
    };
    assert_eq!(
        leads(&exposed(), vec![bare.clone()], &node())[0],
        "10.1.0.1"
    );
    let going = Endpoint {
        ready: Some(false),
        terminating: Some(true),
        ..bare
    };
    assert_eq!(leads(&exposed(), vec![going], &node())[0], "10.1.0.1");
}

#[test]
fn endpoints_published_though_not_ready_are_those_that_the_slice_calls_ready() {
    let svc = Service {
        publish_not_ready: true,
        ..exposed()
    };
    let published = Endpoint {
        serving: Some(false),
        ..endpoint("10.1.0.1")
    };
    let got = leads(
        &svc,
        vec![published, unready(endpoint("10.1.0.2"))],
        &node(),
    );
    assert_eq!(got[0], "10.1.0.1");
}

fn hinted(addr: &str, nodes: &[&str], zones: &[&str]) -> Endpoint {
    Endpoint {
        node_hints: names(nodes),
        zone_hints: names(zones),
        ..endpoint(addr)
    }
}

#[test]
fn hints_are_heeded_only_if_every_ready_endpoint_has_them_and_one_fits() {
    let (a, b) = ("10.1.0.1", "10.1.0.2");
    let both = "10.1.0.1,10.1.0.2";
    for (what, endpoints, zone, want) in [
        (
            "a zone's",
            vec![hinted(a, &[], &["z1"]), hinted(b, &[], &["z2"])],
            Some("z1"),
            a,
        ),
        (
            "two zones'",
            vec![hinted(a, &[], &["z1"]), hinted(b, &[], &["z1", "z2"])],
            Some("z1"),
            both,
        ),
        (
            "one lacks it",
            vec![hinted(a, &[], &["z1"]), hinted(b, &[], &[])],
            Some("z1"),
            both,
        ),
        (
            "none for the zone",
            vec![hinted(a, &[], &["z2"]), hinted(b, &[], &["z3"])],
            Some("z1"),
            both,
        ),
        (
            "a node without zone",
            vec![hinted(a, &[], &["z1"]), hinted(b, &[], &["z2"])],
            None,
            both,
        ),
        (
            "a node's",
            vec![hinted(a, &["here"], &[]), hinted(b, &["other"], &[])],
            Some("z1"),
            a,
        ),
        (
            "the node before the zone",
            vec![
                hinted(a, &["here"], &["z2"]),
                hinted(b, &["other"], &["z1"]),
            ],
            Some("z1"),
            a,
        ),
        (
            "no node, so the zone",
            vec![
                hinted(a, &["third"], &["z2"]),
                hinted(b, &["other"], &["z1"]),
            ],
            Some("z1"),
            b,
        ),
        (
            "one lacks the node, so the zone",
            vec![hinted(a, &["here"], &["z2"]), hinted(b, &[], &["z1"])],
            Some("z1"),
            b,
        ),
        (
            "a terminating one lacks it",
            vec![
                hinted(a, &[], &["z1"]),
                hinted(b, &[], &["z2"]),
                serving_terminating(endpoint("10.1.0.3")),
            ],
            Some("z1"),
            a,
        ),
        (
            "only an unready one fits",
            vec![unready(hinted(a, &[], &["z1"])), hinted(b, &[], &["z2"])],
            Some("z1"),
            b,
        ),
        (
            "only terminating ones",
            vec![
                serving_terminating(hinted(a, &[], &["z1"])),
                serving_terminating(hinted(b, &[], &["z2"])),
            ],
            Some("z1"),
            both,
        ),
    ] {
        let node = NodeView {
            zone: zone.map(Into::into),
            ..node()
        };
        assert_eq!(leads(&exposed(), endpoints, &node)[0], want, "{what}");
    }
}

#[test]
fn policy_local_does_not_heed_hints() {
    let svc = Service {
        internal_policy: LOCAL,
        ..exposed()
    };
    let elsewhere = Endpoint {
        zone_hints: names(&["z2"]),
        ..local("10.1.0.1")
    };
    let got = leads(
        &svc,
        vec![elsewhere, hinted("10.1.0.2", &[], &["z1"])],
        &node(),
    );
    assert_eq!(got, ["10.1.0.1", "10.1.0.1", "10.1.0.2", "10.1.0.2"]);
}

#[test]
fn ports_are_matched_by_name_and_protocol() {
    let svc = Service {
        ports: vec![
            port("http:80/TCP"),
            port("metrics:9090/TCP"),
            port("gone:70/TCP"),
        ],
        ..service(WEB, &["10.96.0.1"])
    };
    let slices = [slice(
        WEB,
        "web-1",
        &[
            "metrics:9100/TCP",
            "http:8080/TCP",
            "http:8081/UDP",
            "gone:0/TCP",
        ],
        vec![endpoint("10.1.0.1")],
    )];
    let text = dump(&svc, &slices, &node());
    for line in [
        "frontend 10.96.0.1:80/TCP internal default/web:http to 10.1.0.1:8080",
        "frontend 10.96.0.1:9090/TCP internal default/web:metrics to 10.1.0.1:9100",
        "frontend 10.96.0.1:70/TCP internal default/web:gone to nothing",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nin\n{text}");
    }
}

#[test]
fn a_named_target_port_may_differ_from_slice_to_slice() {
    let slices = [
        slice(WEB, "web-1", &["http:8080/TCP"], vec![endpoint("10.1.0.1")]),
        slice(WEB, "web-2", &["http:9090/TCP"], vec![endpoint("10.1.0.2")]),
    ];
    let text = dump(&web(), &slices, &node());
    assert_eq!(
        lines(&text, "frontend", "to 10.1.0.1:8080,10.1.0.2:9090 by").len(),
        2,
        "{text}"
    );
}

#[test]
fn an_endpoint_in_two_slices_counts_once_and_the_running_one_wins() {
    let ending = serving_terminating(endpoint("10.1.0.1"));
    for (first, second) in [
        (ending.clone(), endpoint("10.1.0.1")),
        (endpoint("10.1.0.1"), ending),
    ] {
        let slices = [
            slice(WEB, "web-1", &["http:8080/TCP"], vec![first]),
            slice(
                WEB,
                "web-2",
                &["http:8080/TCP"],
                vec![second, endpoint("10.1.0.2")],
            ),
        ];
        let text = dump(&web(), &slices, &node());
        assert_eq!(
            lines(&text, "frontend", "to 10.1.0.1:8080,10.1.0.2:8080 by").len(),
            2,
            "{text}"
        );
    }
}

#[test]
fn the_order_of_slices_and_endpoints_does_not_matter() {
    let all = ["10.1.0.3", "10.1.0.1", "10.1.0.2"].map(endpoint);
    let one = slice(WEB, "web-1", &["http:8080/TCP"], all[..1].to_vec());
    let two = slice(WEB, "web-2", &["http:8080/TCP"], all[1..].to_vec());
    let forward = plan_service(&web(), &[&one, &two], &node());
    assert_eq!(forward, plan_service(&web(), &[&two, &one], &node()));
    assert_eq!(forward.ports[0].sets[0].len(), 3);
}

#[test]
fn unusable_endpoint_addresses_are_ignored_and_a_problem() {
    let bad = [
        "127.0.0.1",
        "::1",
        "169.254.0.1",
        "fe80::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
    ];
    let mut endpoints: Vec<_> = bad.map(endpoint).into();
    endpoints.push(Endpoint {
        addresses: Vec::new(),
        ..endpoint("10.1.0.9")
    });
    endpoints.push(endpoint("10.1.0.1"));
    let text = dump(&web(), &of(endpoints), &node());
    assert_eq!(
        lines(
            &text,
            "problem default/web InvalidEndpoint",
            "EndpointSlice web-1"
        )
        .len(),
        9,
        "{text}"
    );
    assert_eq!(lines(&text, "frontend", "to 10.1.0.1:8080").len(), 2);
}

#[test]
fn only_the_first_address_of_an_endpoint_counts() {
    let fungible = Endpoint {
        addresses: ips(&["10.1.0.1", "10.1.0.2"]),
        ..endpoint("10.1.0.1")
    };
    assert_eq!(leads(&exposed(), vec![fungible], &node())[0], "10.1.0.1");
}

#[test]
fn weights_reach_the_table() {
    let heavy = Endpoint {
        weight: 3,
        ..endpoint("10.1.0.1")
    };
    let got = leads(&exposed(), vec![heavy, endpoint("10.1.0.2")], &node());
    assert_eq!(got[0], "10.1.0.1*3,10.1.0.2*1");
}

#[test]
fn health_checks_count_ready_local_endpoints_by_address() {
    let svc = Service {
        kind: ServiceType::LoadBalancer,
        external_policy: LOCAL,
        health_check_node_port: 32_000,
        ports: vec![port("http:80/TCP"), port("https:443/TCP")],
        ..web()
    };
    let slices = [slice(
        WEB,
        "web-1",
        &["http:8080/TCP", "https:8443/TCP"],
        vec![
            local("10.1.0.1"),
            local("10.1.0.2"),
            serving_terminating(local("10.1.0.3")),
            endpoint("10.1.0.4"),
        ],
    )];
    let plan = |svc: &Service| plan_service(svc, &[&slices[0]], &node()).health_check;
    let check = plan(&svc).expect("a health check");
    assert_eq!((check.port, check.local_ready), (32_000, 2));
    assert_eq!(
        plan(&Service {
            external_policy: TrafficPolicy::Cluster,
            ..svc.clone()
        }),
        None
    );
    assert_eq!(
        plan(&Service {
            kind: ServiceType::NodePort,
            ..svc
        }),
        None
    );
}

#[test]
fn udp_flows_end_with_the_serving_endpoint_and_not_before() {
    let svc = Service {
        internal_policy: LOCAL,
        ports: vec![port("dns:53/UDP")],
        ..service(WEB, &["10.96.0.1"])
    };
    let mut planner = Planner::new(Limits::default());
    planner.finish_sync();
    let mut purged = |endpoints: Vec<Endpoint>| -> Vec<String> {
        let slice = slice(WEB, "web-1", &["dns:53/UDP"], endpoints);
        planner.upsert(plan_service(&svc, &[&slice], &node()));
        let purge = |op| match op {
            Op::PurgeUdp { backend, .. } => Some(backend.addr.to_string()),
            _ => None,
        };
        planner
            .take_batch()
            .ops
            .into_iter()
            .filter_map(purge)
            .collect()
    };
    let (a, b) = (local("10.1.0.1"), local("10.1.0.2"));
    let none: [&str; 0] = [];
    assert_eq!(purged(vec![a.clone(), b.clone()]), none);
    // No longer chosen, but still serving: established flows go on.
    assert_eq!(
        purged(vec![a.clone(), serving_terminating(b.clone())]),
        none
    );
    assert_eq!(
        purged(vec![
            Endpoint {
                node: Some("other".into()),
                ..a.clone()
            },
            b.clone()
        ]),
        none
    );
    assert_eq!(purged(vec![unready(a), b.clone()]), ["10.1.0.1"]);
    assert_eq!(purged(vec![]), ["10.1.0.2"]);
}
