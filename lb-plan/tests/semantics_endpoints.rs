//! The endpoints of a service port: each test is named after the behaviour, as
//! kube-proxy 1.36 has it.

mod common;

use common::*;
use lb_plan::{Limits, Planner, model::*, op::Op, plan_service};

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
        external_policy: TrafficPolicy::Local,
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
        internal_policy: TrafficPolicy::Local,
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
