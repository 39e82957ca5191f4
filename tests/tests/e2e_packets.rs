//! The hooks on devices: what pods and clients outside send is translated packet by packet.

use std::net::IpAddr;

use bascule_tests::e2e::cluster::{
    Cluster, PER_PACKET, cluster, cluster_ips, outside_frontends, spec,
};
use bascule_tests::e2e::objects::{dual, with_pods};
use bascule_tests::e2e::pod::Pod;
use bascule_tests::e2e::proto::{How, Outcome, Request};
use serde_json::json;

const ALL: [How; 3] = [How::Tcp, How::Udp, How::UdpUnconnected];
const BULK: u64 = 200_000_000;

/// All answered by one pod, which saw one client.
fn from(outcome: Outcome, pod: &Pod, client: IpAddr, what: &str) {
    let outcome = outcome.well().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(
        outcome.answers.into_keys().collect::<Vec<_>>(),
        [pod.name()],
        "{what}"
    );
    assert_eq!(outcome.clients, [client].into(), "{what}");
    let peers: Vec<String> = outcome.peers.iter().map(ToString::to_string).collect();
    assert!(what.ends_with(&peers.join(" ")), "{what}: {peers:?}");
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn bulk(outcome: &Outcome, what: &str) {
    assert_eq!(
        (outcome.answered(), outcome.failed()),
        (1, 0),
        "{what}: {outcome:?}"
    );
}

#[test]
fn a_pod_reaches_local_and_remote_backends_and_itself() {
    let services = |c: &Cluster| {
        vec![
            with_pods(dual("local", 1, json!({})), &[&c.local]),
            with_pods(dual("remote", 2, json!({})), &[&c.remote]),
            with_pods(dual("self", 3, json!({})), &[&c.client]),
        ]
    };
    let mut c = cluster(services, &PER_PACKET);
    for how in ALL {
        for n in 1..=3 {
            for (v6, target) in cluster_ips(n).iter().enumerate() {
                let outcome = c.client.peer.dial(target, how, 6);
                let own = c.client.addr(v6 == 1);
                let node = c.node_addr(v6 == 1);
                let (pod, client) = match n {
                    1 => (&c.local, own),
                    2 => (&c.remote, own),
                    // Through its service a pod sees the node: it would talk to itself else.
                    _ => (&c.client, node),
                };
                from(outcome, pod, client, &format!("{how:?} {target}"));
            }
        }
    }
}

#[test]
fn clients_outside_reach_local_backends_with_their_own_address() {
    let mut c = cluster(|c| vec![with_pods(spec(1, json!({})), &[&c.local])], &[]);
    for how in ALL {
        for target in outside_frontends(1, how) {
            let outcome = c.outside.peer.dial(&target, how, 4);
            let own = if target.starts_with('[') {
                "fd29::100"
            } else {
                "172.29.0.100"
            };
            from(outcome, &c.local, ip(own), &format!("{how:?} {target}"));
        }
    }
}

#[test]
fn clients_outside_reach_remote_backends_by_the_nodes_address() {
    let mut c = cluster(|c| vec![with_pods(spec(1, json!({})), &[&c.remote])], &[]);
    for how in ALL {
        for target in outside_frontends(1, how) {
            let outcome = c.outside.peer.dial(&target, how, 4);
            let node = c.node_addr(target.starts_with('['));
            from(outcome, &c.remote, node, &format!("{how:?} {target}"));
        }
    }
}

#[test]
fn bulk_data_arrives_unchanged() {
    let services = |c: &Cluster| {
        vec![
            with_pods(spec(1, json!({})), &[&c.local]),
            with_pods(spec(2, json!({})), &[&c.remote]),
        ]
    };
    let mut c = cluster(services, &PER_PACKET);
    for n in [1, 2] {
        for target in cluster_ips(n) {
            let bytes = if n == 1 { BULK } else { BULK / 10 };
            let target_addr = target.parse().unwrap();
            let outcome = c.client.peer.ask(&Request::Bulk {
                target: target_addr,
                bytes,
            });
            bulk(&outcome, &format!("from a pod to {target}"));
        }
        for target in &outside_frontends(n, How::Tcp)[..2] {
            let bytes = if n == 2 { BULK } else { BULK / 10 };
            let target_addr = target.parse().unwrap();
            let outcome = c.outside.peer.ask(&Request::Bulk {
                target: target_addr,
                bytes,
            });
            bulk(&outcome, &format!("from outside to {target}"));
        }
    }
}

#[test]
fn source_ranges_keep_strangers_out() {
    let ranges = json!({"loadBalancerSourceRanges": ["172.29.0.100/32", "fd29::100/128"]});
    let mut c = cluster(|c| vec![with_pods(spec(1, ranges), &[&c.local])], &[]);
    for how in [How::Tcp, How::Udp] {
        for target in ["10.97.2.1:80", "[fd97::2:1]:80"] {
            c.outside.peer.dial(target, how, 2).well().unwrap();
            c.stranger
                .peer
                .dial_for(target, how, 1, 400)
                .all_failed("timeout")
                .unwrap();
        }
        // The ranges are the load balancer's: other frontends answer all.
        for target in &outside_frontends(1, how)[..4] {
            c.stranger.peer.dial(target, how, 1).well().unwrap();
        }
    }
}

#[test]
fn with_external_policy_local_only_local_backends_serve_outside() {
    let policy = || json!({"externalTrafficPolicy": "Local"});
    let services = |c: &Cluster| {
        vec![
            with_pods(spec(1, policy()), &[&c.local, &c.remote]),
            with_pods(spec(2, policy()), &[&c.remote]),
        ]
    };
    let mut c = cluster(services, &PER_PACKET);
    for how in [How::Tcp, How::Udp] {
        for target in outside_frontends(1, how) {
            let outcome = c.outside.peer.dial(&target, how, 12);
            let own = if target.starts_with('[') {
                "fd29::100"
            } else {
                "172.29.0.100"
            };
            from(outcome, &c.local, ip(own), &format!("{how:?} {target}"));
        }
        for target in outside_frontends(2, how) {
            c.outside
                .peer
                .dial_for(&target, how, 1, 300)
                .all_failed("timeout")
                .unwrap();
            // Clients in the cluster are served wherever the backends are.
            c.client.peer.dial(&target, how, 2).well().unwrap();
            c.node.host().dial(&target, how, 2).well().unwrap();
        }
    }
}

#[test]
fn with_internal_policy_local_only_local_backends_serve_the_cluster_ip() {
    let policy = || json!({"internalTrafficPolicy": "Local"});
    let services = |c: &Cluster| {
        vec![
            with_pods(spec(1, policy()), &[&c.local, &c.remote]),
            with_pods(spec(2, policy()), &[&c.remote]),
        ]
    };
    let mut c = cluster(services, &PER_PACKET);
    for how in [How::Tcp, How::Udp] {
        for target in cluster_ips(1) {
            let outcome = c.client.peer.dial(&target, how, 12).well().unwrap();
            assert_eq!(
                outcome.answers.into_keys().collect::<Vec<_>>(),
                ["n1-2"],
                "{target}"
            );
        }
        for target in cluster_ips(2) {
            c.client
                .peer
                .dial_for(&target, how, 1, 300)
                .all_failed("timeout")
                .unwrap();
        }
    }
}

#[test]
fn what_nobody_serves_is_refused_from_outside_and_from_pods() {
    let mut c = cluster(|_| vec![with_pods(spec(1, json!({})), &[])], &PER_PACKET);
    for how in [How::Tcp, How::Udp] {
        for target in outside_frontends(1, how) {
            c.outside
                .peer
                .dial_for(&target, how, 2, 800)
                .all_failed("ECONNREFUSED")
                .unwrap();
        }
        for target in [
            "10.97.0.1:80",
            "[fd97::1]:80",
            "10.97.0.250:81",
            "[fd97::fa]:81",
        ] {
            c.client
                .peer
                .dial_for(target, how, 2, 800)
                .all_failed("ECONNREFUSED")
                .unwrap();
        }
    }
}

#[test]
fn xdp_in_the_generic_hook_serves_the_same_frontends() {
    let services = |c: &Cluster| {
        vec![
            with_pods(spec(1, json!({})), &[&c.local]),
            with_pods(spec(2, json!({})), &[&c.remote]),
            with_pods(spec(3, json!({})), &[]),
        ]
    };
    let mut c = cluster(services, &["--xdp", "generic"]);
    c.agent.says(&["eth0", "generic XDP"]);
    for how in ALL {
        for (n, pod) in [(1, &c.local), (2, &c.remote)] {
            for target in outside_frontends(n, how) {
                let outcome = c.outside.peer.dial(&target, how, 4);
                let v6 = target.starts_with('[');
                let own = ip(if v6 { "fd29::100" } else { "172.29.0.100" });
                let client = if n == 1 { own } else { c.node_addr(v6) };
                from(outcome, pod, client, &format!("{how:?} {target}"));
            }
        }
    }
    for target in outside_frontends(3, How::Tcp) {
        c.outside
            .peer
            .dial_for(&target, How::Tcp, 2, 800)
            .all_failed("ECONNREFUSED")
            .unwrap();
    }
    for n in [1, 2] {
        for target in &outside_frontends(n, How::Tcp)[..2] {
            let outcome = c.outside.peer.ask(&Request::Bulk {
                target: target.parse().unwrap(),
                bytes: BULK / 10,
            });
            bulk(&outcome, &format!("XDP: from outside to {target}"));
        }
    }
}
