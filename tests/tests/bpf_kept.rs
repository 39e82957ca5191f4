//! Programs that the next start takes over, and when it does not.

use std::{collections::BTreeMap, fs};

use bascule_tests::netns::Node;
use lb_userspace::bpf::Settings;

/// Starts and ends an agent. The ids of its programs on sockets, by their links.
fn start(node: &Node, settings: &Settings) -> BTreeMap<String, u32> {
    let (datapath, _) = node.load(settings);
    drop(datapath);
    let links = node.views().unwrap().links().unwrap().into_iter();
    links.map(|link| (link.name, link.program)).collect()
}

/// Names of pinned programs.
fn kept(node: &Node) -> Vec<String> {
    let dir = node.bpffs.path().join("bascule/programs");
    let names = fs::read_dir(dir).unwrap().map(|entry| {
        let name = entry.unwrap().file_name();
        name.into_string().unwrap()
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn the_same_build_with_the_same_maps_takes_its_programs_over() {
    let node = Node::new("kept").unwrap();
    let settings = node.settings();
    let first = start(&node, &settings);
    assert_eq!(first.len(), 8, "{first:?}");
    let pins = kept(&node);
    // Eight of sockets, three of TC; no device wanted XDP.
    assert_eq!(pins.len(), 11, "{pins:?}");
    assert_eq!(start(&node, &settings), first);
    assert_eq!(kept(&node), pins);
}

#[test]
fn other_maps_need_other_programs() {
    let node = Node::new("other").unwrap();
    let mut settings = node.settings();
    let first = start(&node, &settings);
    let pins = kept(&node);
    // Of another size: what the programs know of conntrack is another number.
    settings.sizes.conntrack *= 4;
    let second = start(&node, &settings);
    assert!(
        second.iter().all(|(name, id)| first[name] != *id),
        "{second:?}"
    );
    let others = kept(&node);
    assert_eq!(others.len(), pins.len());
    assert!(others.iter().all(|name| !pins.contains(name)), "{others:?}");
    // A map that is gone is made anew, and nothing that read the earlier one stays.
    fs::remove_file(node.bpffs.path().join("bascule/lb_reasons_v1")).unwrap();
    let third = start(&node, &settings);
    assert!(
        third.iter().all(|(name, id)| second[name] != *id),
        "{third:?}"
    );
    assert_eq!(start(&node, &settings), third);
}

#[test]
fn a_start_that_was_cut_short_has_left_some_programs() {
    let node = Node::new("some").unwrap();
    let settings = node.settings();
    let first = start(&node, &settings);
    let pins = kept(&node);
    let gone = pins.iter().find(|name| name.starts_with("lb_egress_"));
    let dir = node.bpffs.path().join("bascule/programs");
    fs::remove_file(dir.join(gone.unwrap())).unwrap();
    let second = start(&node, &settings);
    assert!(
        second.iter().all(|(name, id)| first[name] != *id),
        "{second:?}"
    );
    // In the place of those that were there.
    assert_eq!(kept(&node), pins);
}
