//! Which endpoints the traffic policies use: each test is named after the
//! behaviour, as kube-proxy 1.36 has it.

mod common;

use common::*;
use lb_plan::model::*;

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

/// Endpoints as `HOST:NODES:ZONES`, with `!` after the host where it is not
/// ready, `~` where it terminates.
fn hints(text: &str) -> Vec<Endpoint> {
    let one = |text: &str| {
        let parts: Vec<&str> = text.split(':').collect();
        let names = |t: &str| {
            t.split(',')
                .filter(|n| !n.is_empty())
                .map(Into::into)
                .collect()
        };
        let host = parts[0].trim_end_matches(['!', '~']);
        let ep = Endpoint {
            node_hints: names(parts[1]),
            zone_hints: names(parts[2]),
            ..endpoint(&format!("10.1.0.{host}"))
        };
        match parts[0].chars().last() {
            Some('!') => unready(ep),
            Some('~') => serving_terminating(ep),
            _ => ep,
        }
    };
    text.split(' ').map(one).collect()
}

#[test]
fn hints_are_heeded_only_if_every_ready_endpoint_has_them_and_one_fits() {
    for (what, endpoints, zone, want) in [
        ("a zone's", "1::z1 2::z2", "z1", "1"),
        ("two zones'", "1::z1 2::z1,z2", "z1", "1 2"),
        ("one lacks it", "1::z1 2::", "z1", "1 2"),
        ("none for the zone", "1::z2 2::z3", "z1", "1 2"),
        ("a node without zone", "1::z1 2::z2", "", "1 2"),
        ("a node's", "1:here: 2:other:", "z1", "1"),
        (
            "the node before the zone",
            "1:here:z2 2:other:z1",
            "z1",
            "1",
        ),
        ("no node, so the zone", "1:third:z2 2:other:z1", "z1", "2"),
        (
            "one lacks the node, so the zone",
            "1:here:z2 2::z1",
            "z1",
            "2",
        ),
        ("a terminating one lacks it", "1::z1 2::z2 3~::", "z1", "1"),
        ("only an unready one fits", "1!::z1 2::z2", "z1", "2"),
        ("only terminating ones", "1~::z1 2~::z2", "z1", "1 2"),
    ] {
        let zone = (!zone.is_empty()).then(|| zone.into());
        let node = NodeView { zone, ..node() };
        let got = leads(&exposed(), hints(endpoints), &node)[0].clone();
        let want: Vec<_> = want.split(' ').map(|h| format!("10.1.0.{h}")).collect();
        assert_eq!(got, want.join(","), "{what}");
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
