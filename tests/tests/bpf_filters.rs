//! Which bits of the filters are kept, set and cleared.

use aya::maps::{Array, Map, MapData};
use bascule_tests::{
    flows::{Flow, SEEN, ip},
    netns::Node,
};
use lb_common::{
    Addr, Be16,
    hash::{filter_bit, filter_kind},
    proto,
};
use lb_userspace::bpf::{Datapath, FilterBits};

/// Loads the datapath; what the maps hold does not matter here.
fn load(node: &Node) -> Datapath {
    node.load(&node.settings()).0
}

#[test]
fn bits_of_the_filter_stay_needed_as_long_as_a_flow_is_there() {
    let node = Node::new("bits").unwrap();
    let datapath = load(&node);
    let vip = Addr::v4(ip(200));
    let bit = filter_bit(filter_kind::FRONTEND, vip, Be16::new(80), proto::TCP);
    assert_eq!(
        datapath.filter_bits_in_use().unwrap(),
        FilterBits::default()
    );
    Flow::tcp(3000, SEEN, SEEN, 0).write(&node);
    let bits = datapath.filter_bits_in_use().unwrap();
    assert!(bits.requests.contains(bit) && bits.replies.contains(reply_bit(11)));
    node.views().unwrap().flush(|_| true).unwrap();
    assert_eq!(
        datapath.filter_bits_in_use().unwrap(),
        FilterBits::default()
    );
}

/// The bit of a backend.
fn reply_bit(last: u16) -> u32 {
    let (addr, port) = (Addr::v4(ip(last)), Be16::new(8080));
    filter_bit(filter_kind::BACKEND, addr, port, proto::TCP)
}

fn replies(node: &Node) -> Array<MapData, u64> {
    let path = node.bpffs.path().join("bascule/lb_replies_v1");
    Array::try_from(Map::Array(MapData::from_pin(path).unwrap())).unwrap()
}

/// Which of these backends' replies are looked up.
fn expected_of(node: &Node, backends: [u16; 3]) -> [bool; 3] {
    let words = replies(node);
    backends.map(|last| {
        let bit = reply_bit(last);
        words.get(&(bit / 64), 0).unwrap() >> (bit % 64) & 1 != 0
    })
}

#[test]
fn bits_of_replies_are_cleared_but_those_that_are_kept() {
    let node = Node::new("replies").unwrap();
    let datapath = load(&node);
    assert_eq!(expected_of(&node, [11, 12, 13]), [false; 3]);
    let mut words = replies(&node);
    for bit in [11, 12, 13].map(reply_bit) {
        let word = words.get(&(bit / 64), 0).unwrap() | 1 << (bit % 64);
        words.set(bit / 64, word, 0).unwrap();
    }
    Flow::tcp(3000, SEEN, SEEN, 0).write(&node);
    let mut keep = datapath.filter_bits_in_use().unwrap().replies;
    keep.extend([reply_bit(13)]);
    datapath.clear_replies(&keep).unwrap();
    assert_eq!(expected_of(&node, [11, 12, 13]), [true, false, true]);
}

#[test]
fn flows_of_a_version_that_set_no_bits_are_looked_up() {
    let node = Node::new("upgrade").unwrap();
    drop(load(&node));
    Flow::tcp(3000, SEEN, SEEN, 0).write(&node);
    std::fs::remove_file(node.bpffs.path().join("bascule/lb_replies_v1")).unwrap();
    let datapath = load(&node);
    assert_eq!(expected_of(&node, [11, 12, 13]), [true; 3]);
    let keep = datapath.filter_bits_in_use().unwrap().replies;
    datapath.clear_replies(&keep).unwrap();
    assert_eq!(expected_of(&node, [11, 12, 13]), [true, false, false]);
    drop(datapath);
    // The next start has them.
    drop(load(&node));
    assert_eq!(expected_of(&node, [11, 12, 13]), [true, false, false]);
}
