//! Which devices are wanted, from what netlink told.

use super::*;

fn veth(index: u32, name: &str, peer_elsewhere: bool) -> Event {
    Event::Device(Device {
        index,
        name: name.into(),
        kind: Some("veth".into()),
        peer_elsewhere,
        ..Device::default()
    })
}

fn physical(index: u32, name: &str) -> Event {
    let name = name.into();
    Event::Device(Device {
        index,
        name,
        ..Device::default()
    })
}

fn roles(events: &[Event], rules: &Rules) -> Vec<(u32, Role)> {
    let mut inventory = Inventory::default();
    events
        .iter()
        .cloned()
        .for_each(|event| inventory.note(event));
    inventory
        .wanted(rules)
        .into_iter()
        .map(|(i, (role, _))| (i, role))
        .collect()
}

#[test]
fn a_veth_whose_peer_is_elsewhere_is_a_pods() {
    let events = [
        veth(3, "veth1", true),
        veth(4, "veth2", false),
        physical(2, "eth0"),
    ];
    assert_eq!(roles(&events, &Rules::default()), [(3, Role::Pod)]);
}

#[test]
fn the_device_of_a_default_route_is_an_uplink_even_if_it_is_a_veth() {
    let events = [
        veth(3, "up", true),
        veth(4, "pod", true),
        Event::DefaultRoute(3),
    ];
    assert_eq!(
        roles(&events, &Rules::default()),
        [(3, Role::Uplink), (4, Role::Pod)]
    );
}

#[test]
fn the_device_with_the_nodes_address_is_an_uplink() {
    let ip: IpAddr = "192.0.2.1".parse().unwrap();
    let rules = Rules {
        node_addresses: vec![ip],
        ..Rules::default()
    };
    let events = [
        physical(2, "eth0"),
        physical(3, "eth1"),
        Event::Address(3, ip),
    ];
    assert_eq!(roles(&events, &rules), [(3, Role::Uplink)]);
}

#[test]
fn patterns_take_the_rules_place() {
    let rules = Rules {
        pod_patterns: vec!["cali*".into()],
        uplink_patterns: vec!["eth?".into()],
        ..Rules::default()
    };
    let events = [
        veth(3, "veth1", true),
        veth(4, "cali12ab", false),
        physical(5, "eth1"),
        physical(6, "eth10"),
        Event::DefaultRoute(6),
    ];
    assert_eq!(roles(&events, &rules), [(4, Role::Pod), (5, Role::Uplink)]);
}

#[test]
fn loopback_is_never_covered() {
    let rules = Rules {
        uplink_patterns: vec!["*".into()],
        ..Rules::default()
    };
    let lo = Device {
        index: 1,
        name: "lo".into(),
        loopback: true,
        ..Device::default()
    };
    assert_eq!(roles(&[Event::Device(lo)], &rules), []);
}

#[test]
fn a_device_that_is_gone_leaves_nothing_to_the_next_one_with_its_index() {
    let events = [
        physical(3, "eth0"),
        Event::DefaultRoute(3),
        Event::Gone(3),
        physical(3, "eth1"),
    ];
    assert_eq!(roles(&events, &Rules::default()), []);
}

#[test]
fn a_dump_after_lost_events_ends_devices_that_are_gone() {
    let mut inventory = Inventory::default();
    inventory.note(veth(3, "veth1", true));
    inventory.note(veth(4, "veth2", true));
    inventory.replace(vec![veth(4, "veth2", true), veth(5, "veth3", true)]);
    let found: Vec<u32> = inventory.wanted(&Rules::default()).into_keys().collect();
    assert_eq!(found, [4, 5]);
}

#[test]
fn a_pair_with_both_ends_here_is_looked_at_again() {
    let mut inventory = Inventory::default();
    inventory.note(veth(3, "veth1", false));
    inventory.note(veth(4, "veth2", true));
    assert_eq!(inventory.undecided(&Rules::default()), [3]);
    let rules = Rules {
        pod_patterns: vec!["x*".into()],
        ..Rules::default()
    };
    assert!(inventory.undecided(&rules).is_empty());
}

#[test]
fn the_end_of_a_pair_that_moves_makes_the_other_one_a_pods() {
    let end = |index: u32, peer| {
        Event::Device(Device {
            index,
            name: format!("veth{index}"),
            kind: Some("veth".into()),
            peer,
            ..Device::default()
        })
    };
    // The kernel tells of the first end before it knows the second.
    let made = [
        end(3, 0),
        end(4, 3),
        end(5, 0),
        end(6, 5),
        physical(7, "eth0"),
    ];
    for (moved, pod) in [(3, 4), (4, 3), (6, 5)] {
        let mut events = made.to_vec();
        events.push(Event::Moved(moved));
        assert_eq!(roles(&events, &Rules::default()), [(pod, Role::Pod)]);
    }
    let mut events = made.to_vec();
    events.push(Event::Gone(3));
    assert_eq!(roles(&events, &Rules::default()), []);
}

#[test]
fn a_partner_elsewhere_is_not_mistaken_for_one_with_its_number_here() {
    let mut inventory = Inventory::default();
    inventory.note(Event::Device(Device {
        index: 3,
        name: "veth3".into(),
        kind: Some("veth".into()),
        peer: 4,
        peer_elsewhere: true,
        ..Device::default()
    }));
    inventory.note(veth(4, "veth4", false));
    assert_eq!((inventory.partner(3), inventory.partner(4)), (None, None));
}

#[test]
fn patterns_match_whole_names() {
    assert!(matches("veth*", "veth0") && matches("veth*", "veth"));
    assert!(matches("*0", "veth0") && matches("v*t?0", "vetht10"));
    assert!(!matches("veth", "veth0") && !matches("?", "") && !matches("a*b", "abc"));
}
