//! Packets without ports of their own, as real clients and servers send them.

use bascule_tests::e2e::cluster::{
    Cluster, PER_PACKET, cluster, cluster_ips, outside_frontends, spec,
};
use bascule_tests::e2e::objects::with_pods;
use bascule_tests::e2e::peer::Peer;
use bascule_tests::e2e::proto::{How, Outcome, Request};
use serde_json::{Value, json};

#[test]
fn datagrams_in_fragments_arrive_in_both_directions() {
    for xdp in ["off", "generic"] {
        let services = |c: &Cluster| {
            vec![
                with_pods(spec(1, json!({})), &[&c.local]),
                with_pods(spec(2, json!({})), &[&c.remote]),
            ]
        };
        let mut c = cluster(services, &[&PER_PACKET[..], &["--xdp", xdp]].concat());
        for n in [1, 2] {
            for target in cluster_ips(n) {
                let outcome = c.client.peer.dial(&target, How::UdpLarge, 3);
                outcome.well().unwrap_or_else(|e| panic!("{target}: {e}"));
            }
            for target in outside_frontends(n, How::UdpLarge) {
                let outcome = c.outside.peer.dial(&target, How::UdpLarge, 3);
                outcome
                    .well()
                    .unwrap_or_else(|e| panic!("XDP {xdp}, {target}: {e}"));
            }
        }
    }
}

/// Its pod says so by an ICMP error about a packet to itself, which the client has never
/// sent: it must become one about a packet to the frontend.
#[test]
fn a_backend_that_has_no_socket_refuses_in_the_frontends_name() {
    let closed = |mut objects: Vec<Value>| {
        for slice in objects.iter_mut().filter(|o| o["kind"] == "EndpointSlice") {
            for port in slice["ports"].as_array_mut().unwrap() {
                port["port"] = json!(9);
            }
        }
        objects
    };
    let services = |c: &Cluster| {
        vec![
            closed(with_pods(spec(1, json!({})), &[&c.local])),
            closed(with_pods(spec(2, json!({})), &[&c.remote])),
        ]
    };
    let mut c = cluster(services, &PER_PACKET);
    let refused = |outcome: Outcome, what: &str| {
        let failed = outcome.all_failed("ECONNREFUSED");
        failed.unwrap_or_else(|e| panic!("{what}: {e}"));
    };
    for n in [1, 2] {
        for target in cluster_ips(n) {
            refused(c.client.peer.dial_for(&target, How::Udp, 2, 800), &target);
        }
        for target in outside_frontends(n, How::Udp) {
            refused(c.outside.peer.dial_for(&target, How::Udp, 2, 800), &target);
        }
    }
}

#[test]
fn a_vip_answers_pings_while_it_has_a_backend() {
    let services = |c: &Cluster| {
        vec![
            with_pods(spec(1, json!({})), &[&c.local]),
            with_pods(spec(2, json!({})), &[]),
        ]
    };
    let mut c = cluster(services, &PER_PACKET);
    for n in [1, 2] {
        let vips = [
            format!("10.97.0.{n}"),
            format!("fd97::{n}"),
            format!("10.97.2.{n}"),
            format!("fd97::2:{n}"),
        ];
        for vip in &vips {
            let ping = |peer: &mut Peer| {
                peer.ask(&Request::Ping {
                    target: vip.parse().unwrap(),
                    timeout_ms: 500,
                })
            };
            let answers = [ping(&mut c.client.peer), ping(&mut c.outside.peer)];
            for outcome in answers {
                if n == 1 {
                    outcome.well().unwrap_or_else(|e| panic!("{vip}: {e}"));
                } else {
                    outcome
                        .all_failed("timeout")
                        .unwrap_or_else(|e| panic!("{vip}: {e}"));
                }
            }
        }
    }
}
