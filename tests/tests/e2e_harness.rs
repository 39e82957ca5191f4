//! The small cluster of the end-to-end tests without an agent: that what the other tests see
//! is the agent's work and not the cluster's.

use bascule_tests::e2e::node::Node;
use bascule_tests::e2e::proto::{How, Request};
use bascule_tests::e2e::world::World;

const ALL: [How; 3] = [How::Tcp, How::Udp, How::UdpUnconnected];

#[test]
fn pods_reach_pods_of_both_nodes_and_vips_reach_nobody() {
    let world = World::new();
    let (one, two) = (Node::new(&world, 1), Node::new(&world, 2));
    let (mut here, there) = (one.pod(2), two.pod(3));
    let mut outside = world.outside(100);
    for how in ALL {
        for target in ["10.201.2.3:8080", "[fd20:1:0:2::3]:8080"] {
            let outcome = here.peer.dial(target, how, 2).well().unwrap();
            assert_eq!(outcome.answers["n2-3"], 2);
            let outcome = outside.peer.dial(target, how, 2).well().unwrap();
            assert_eq!(outcome.answers["n2-3"], 2);
            one.host().dial(target, how, 1).well().unwrap();
        }
    }
    assert_eq!(there.name(), "n2-3");
    here.peer
        .dial("10.97.0.1:80", How::Tcp, 1)
        .well()
        .unwrap_err();
    outside
        .peer
        .dial("[fd97::1]:80", How::Tcp, 1)
        .well()
        .unwrap_err();
}

#[test]
fn bytes_in_bulk_are_compared() {
    let world = World::new();
    let one = Node::new(&world, 1);
    let (mut here, _there) = (one.pod(2), one.pod(3));
    let target = "10.201.1.3:8080".parse().unwrap();
    let outcome = here.peer.ask(&Request::Bulk {
        target,
        bytes: 20_000_000,
    });
    assert_eq!(outcome.well().unwrap().answers["n1-3"], 1);
}

#[test]
fn a_load_counts_what_it_does() {
    let world = World::new();
    let one = Node::new(&world, 1);
    let (mut here, there) = (one.pod(2), one.pod(3));
    here.peer
        .load(&["10.201.1.3:8080", "[fd20:1:0:1::3]:8080"], 200, 4);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let outcome = here.peer.rest().well().unwrap();
    assert!((300..=420).contains(&outcome.answered()), "{outcome:?}");
    assert_eq!(outcome.streams.len(), 4);
    assert!(
        outcome
            .streams
            .iter()
            .all(|s| s.error.is_none() && s.beats > 10 && s.pods == ["n1-3"])
    );
    // A server that goes away is noticed on both counts.
    here.peer.load(&["10.201.1.3:8080"], 50, 2);
    std::thread::sleep(std::time::Duration::from_millis(500));
    drop(there);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let outcome = here.peer.rest();
    assert!(
        outcome.failed() > 0 && outcome.answered() > 0,
        "{outcome:?}"
    );
    assert!(
        outcome.streams.iter().all(|s| s.error.is_some()),
        "{outcome:?}"
    );
}
