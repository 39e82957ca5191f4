//! What the datapath remembers, and how it is forgotten: flows that are over,
//! UDP flows whose backend is gone, affinities.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use bascule_tests::{
    flows::{Entry, Flow, SEEN, ip, write},
    netns::Node,
};
use lb_common::{Addr, Affinity, AffinityKey, Backend, Be16, ct_flags, proto, scope};
use lb_plan::op::{Batch, Op};
use lb_userspace::bpf::{Datapath, conntrack};

/// Loads the datapath; what the maps hold does not matter here.
fn load(node: &Node) -> Datapath {
    node.load(&node.settings()).0
}

/// Writes an affinity, as the datapath would.
fn bind(node: &Node, key: AffinityKey, value: Affinity) {
    let path = node.bpffs.path().join("bascule/lb_affinity_v1");
    let map = Map::LruHashMap(MapData::from_pin(path).unwrap());
    let mut map = HashMap::<_, [u8; 24], [u8; 8]>::try_from(map).unwrap();
    map.insert(
        bytemuck::cast::<_, [u8; 24]>(key),
        bytemuck::cast::<_, [u8; 8]>(value),
        0,
    )
    .unwrap();
}

/// Client ports of the flows that are left.
fn ports(node: &Node) -> Vec<u16> {
    let mut ports: Vec<u16> = node
        .views()
        .unwrap()
        .flows()
        .unwrap()
        .iter()
        .map(|f| f.client.1)
        .collect();
    ports.sort_unstable();
    ports
}

fn wait_until(what: &str, mut right: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !right() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn flows_that_are_over_are_gone_and_no_others() {
    let node = Node::new("over").unwrap();
    let datapath = load(&node);
    let both = SEEN | ct_flags::FIN;
    for flow in [
        Flow::tcp(1000, SEEN, SEEN, 3000),
        Flow::tcp(1001, SEEN, SEEN | ct_flags::RST, 20),
        Flow::tcp(1002, both, both, 20),
        Flow::tcp(1003, both, both, 40),
        Flow::tcp(1004, ct_flags::SYN, 0, 40),
        Flow::tcp(1005, ct_flags::SYN, 0, 80),
        Flow {
            age: 200,
            ..Flow::udp(1006, 1, 1)
        },
        Flow {
            age: 90,
            ..Flow::udp(1007, 1, 1)
        },
        Flow {
            age: 90,
            reply: 0,
            ..Flow::udp(1008, 1, 1)
        },
    ] {
        flow.write(&node);
    }
    assert_eq!(ports(&node), [1000, 1002, 1004, 1007]);
    assert!(node.views().unwrap().maps().iter().all(Result::is_ok));
    drop(datapath);
    let views = node.views().unwrap();
    assert_eq!(views.flush(|flow| flow.client.1 == 1002).unwrap(), 1);
    assert_eq!(ports(&node), [1000, 1004, 1007]);
    assert_eq!(views.flush(|_| true).unwrap(), 3);
    assert!(ports(&node).is_empty());
}

#[test]
fn flows_are_counted() {
    let node = Node::new("many").unwrap();
    drop(load(&node));
    // Every second of 6,000 flows was reset some time ago.
    let entries: Vec<Entry> = (1..=6_000u16)
        .flat_map(|port| {
            let reply = SEEN | if port % 2 == 0 { ct_flags::RST } else { 0 };
            Flow::tcp(port, SEEN, reply, 60).entries()
        })
        .collect();
    write(&node, "lb_ct4_v1", &entries);
    let datapath = load(&node);
    wait_until("a count of conntrack", || {
        datapath.status().janitor.counts > 0
    });
    assert_eq!(ports(&node), (1..=6_000).step_by(2).collect::<Vec<u16>>());
    assert_eq!(datapath.status().janitor.flows4, 6_000);
    assert_eq!(datapath.status().janitor.failures, 0);
}

#[test]
fn flows_stay_when_the_table_is_resized_as_many_as_have_room() {
    let node = Node::new("resize").unwrap();
    drop(load(&node));
    for port in 1..=100 {
        Flow::tcp(port, SEEN, SEEN, 0).write(&node);
    }
    let mut settings = node.settings();
    settings.sizes.conntrack = 65_536;
    let (datapath, _) = node.load(&settings);
    assert_eq!(ports(&node), (1..=100).collect::<Vec<u16>>());
    drop(datapath);
    settings.sizes.conntrack = 64;
    let (datapath, _) = node.load(&settings);
    let left = node.views().unwrap().maps();
    let used = left
        .iter()
        .flatten()
        .find(|map| map.name == "lb_ct4_v1")
        .unwrap()
        .used
        .unwrap();
    // Two buckets of 56.
    assert!((100..=112).contains(&used), "{used}");
    let told = "of its entries had no room and are lost";
    let messages = datapath.status().messages;
    assert!(
        messages.iter().any(|message| message.contains(told)),
        "{messages:?}"
    );
}

#[test]
fn flows_that_come_while_a_table_is_replaced_are_carried_over_too() {
    let node = Node::new("late").unwrap();
    let (mut first, _) = node.load(&node.settings());
    // A frontend in the last slots, so that the next size has no room for it.
    let start = 60_000;
    first.apply(&Batch {
        ops: vec![Op::PutSlots {
            start,
            slots: vec![1; 101].into(),
        }],
    });
    drop(first);
    Flow::udp(1, 1, 1).write(&node);
    let mut settings = node.settings();
    settings.sizes.slots = 1024;
    settings.sizes.conntrack = 65_536;
    let (mut datapath, _) = node.load(&settings);
    assert!(datapath.must_fill_first());
    // The old programs open a flow, and the new ones, once they are in place,
    // know more of another one than the old table.
    Flow::udp(2, 1, 1).write(&node);
    write(&node, "staged/lb_ct4_v1", &Flow::udp(1, 1, 9).entries());
    node.netns.run(|| datapath.activate()).unwrap().unwrap();
    let flows = node.views().unwrap().flows().unwrap();
    let mut found: Vec<(u16, u32)> = flows.iter().map(|f| (f.client.1, f.backend_id)).collect();
    found.sort_unstable();
    assert_eq!(found, [(1, 9), (2, 1)]);
}

#[test]
fn udp_flows_of_a_service_to_a_removed_backend_are_deleted_and_no_others() {
    let node = Node::new("purge").unwrap();
    let mut datapath = load(&node);
    for flow in [
        Flow::udp(2000, 1, 7),
        Flow::udp(2001, 2, 7),
        Flow::udp(2002, 1, 8),
        Flow {
            service: 1,
            backend: 7,
            ..Flow::tcp(2003, SEEN, SEEN, 0)
        },
    ] {
        flow.write(&node);
    }
    let addr = Addr::v4(ip(17));
    let backend = Backend {
        addr,
        port: Be16::new(8080),
        proto: proto::UDP,
        reserved: 0,
        flags: 0,
    };
    let report = datapath.apply(&Batch {
        ops: vec![Op::PurgeUdp {
            service: 1,
            id: 7,
            backend,
        }],
    });
    assert!(report.is_complete());
    wait_until("a purge", || datapath.status().janitor.purged_flows > 0);
    assert_eq!(ports(&node), [2001, 2002, 2003]);
    assert_eq!(datapath.status().janitor.purged_flows, 2);
}

#[test]
fn affinities_to_a_backend_that_left_the_service_are_forgotten() {
    let node = Node::new("affinity").unwrap();
    let mut datapath = load(&node);
    let key = |service, client| AffinityKey {
        client: Addr::v4(ip(client)),
        service,
        scope: u32::from(scope::INTERNAL),
    };
    for (key, backend) in [(key(1, 1), 7), (key(1, 2), 8), (key(2, 1), 7)] {
        let value = Affinity {
            backend,
            last_use: conntrack::now(),
        };
        bind(&node, key, value);
    }
    datapath.apply(&Batch {
        ops: vec![Op::PurgeAffinity {
            service: 1,
            backend: 7,
        }],
    });
    wait_until("a purge", || {
        datapath.status().janitor.purged_affinities > 0
    });
    let mut left = node.views().unwrap().affinities().unwrap();
    left.sort_unstable_by_key(|view| view.key);
    let left: Vec<(AffinityKey, u32)> = left.into_iter().map(|v| (v.key, v.backend)).collect();
    assert_eq!(left, [(key(2, 1), 7), (key(1, 2), 8)]);
}
