//! Loading against the running kernel: pins are taken over, resized, replaced,
//! and told from those of others.

use std::{fs, path::Path, sync::Arc};

use bascule_tests::netns::{Node, sh};
use lb_common::{
    Addr, Backend, Be16, Be32, Frontend, FrontendKey, RangeKey, backend_flags, proto, scope,
};
use lb_plan::{
    Actual,
    op::{Batch, Op},
};
use lb_userspace::bpf::{Datapath, Settings, views::Views};

fn ip(last: u8) -> Addr {
    Addr::v4(Be32::new(0x0a00_0000 | u32::from(last)))
}

fn backend(id: u32) -> Backend {
    Backend {
        addr: ip(id as u8),
        port: Be16::new(8080),
        proto: proto::TCP,
        reserved: 0,
        flags: backend_flags::LIVE,
    }
}

fn key(port: u16) -> FrontendKey {
    FrontendKey {
        addr: ip(200),
        port: Be16::new(port),
        proto: proto::TCP,
        scope: scope::INTERNAL,
    }
}

fn frontend(service: u32, slots: u32, len: u32) -> Frontend {
    Frontend {
        service,
        flags: 0,
        slots,
        len,
        affinity: 0,
    }
}

fn range() -> RangeKey {
    RangeKey {
        prefix_len: 32 + 96 + 24,
        service: Be32::new(1),
        addr: ip(0),
    }
}

/// A service with three backends, whose table starts at `slots`.
fn service(slots: u32) -> Batch {
    let mut ops: Vec<Op> = (1..=3)
        .map(|id| Op::PutBackend {
            id,
            backend: backend(id),
        })
        .collect();
    ops.push(Op::PutSlots {
        start: slots,
        slots: Arc::from([1, 2, 3, 1, 2, 3, 1]),
    });
    ops.push(Op::PutRange(range()));
    ops.push(Op::SetFilterBit(100));
    ops.push(Op::PutFrontend {
        key: key(80),
        value: frontend(1, slots, 7),
    });
    Batch { ops }
}

fn check(actual: &Actual, slots: u32) {
    assert_eq!(actual.frontends, [(key(80), frontend(1, slots, 7))]);
    let expected: Vec<(u32, Backend)> = (1..=3).map(|id| (id, backend(id))).collect();
    assert_eq!(actual.backends, expected);
    assert_eq!(actual.ranges, [range()]);
    assert_eq!(actual.filter[1], 1 << 36);
    let mut table = [0; 9];
    actual.slots.read(slots - 1, &mut table);
    assert_eq!(table, [0, 1, 2, 3, 1, 2, 3, 1, 0]);
}

/// The pinned map's most entries, as bpftool sees them.
fn max_entries(dir: &Path, map: &str) -> u64 {
    let text = sh(&format!(
        "bpftool -j map show pinned {}/bascule/{map}",
        dir.display()
    ))
    .unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["max_entries"].as_u64().unwrap()
}

#[test]
fn a_restart_finds_what_the_agent_before_wrote() {
    let node = Node::new("restart").unwrap();
    let settings = node.settings();
    let (mut first, actual) = node.load(&settings);
    assert!(actual.frontends.is_empty() && actual.backends.is_empty());
    // The table lies across a page of the array: 4 bytes a slot.
    let report = first.apply(&service(1022));
    assert!(report.is_complete(), "{report:?}");
    let links = first.links().unwrap();
    assert_eq!(links.len(), 8, "{links:?}");
    drop(first);
    let before = Views::open(&settings).unwrap().links().unwrap();
    let (second, actual) = node.load(&settings);
    check(&actual, 1022);
    assert_eq!(second.links().unwrap(), links);
    // The same links, and the same programs behind them.
    let after = Views::open(&settings).unwrap().links().unwrap();
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.name, &before.target), (&after.name, &after.target));
        assert_eq!(before.program, after.program);
    }
}

#[test]
fn a_resized_map_keeps_what_it_holds() {
    let node = Node::new("resize").unwrap();
    let mut settings = node.settings();
    let (mut first, _) = node.load(&settings);
    assert!(first.apply(&service(10)).is_complete());
    drop(first);
    settings.sizes.frontends *= 2;
    settings.sizes.slots *= 4;
    settings.sizes.backends /= 2;
    settings.sizes.conntrack *= 2;
    let (second, actual) = node.load(&settings);
    check(&actual, 10);
    assert!(!second.must_fill_first());
    let messages = second.status().messages;
    let told = "lb_frontends_v1 is resized from 1024 to 2048 entries (--max-frontends)";
    assert!(messages.iter().any(|m| m.starts_with(told)), "{messages:?}");
    let told = "lb_slots_v1 is resized from 65536 to 262144 entries (--max-slots)";
    assert!(messages.iter().any(|m| m.starts_with(told)), "{messages:?}");
    let dir = node.bpffs.path();
    assert_eq!(max_entries(dir, "lb_frontends_v1"), 2048);
    // 16 slots an element.
    assert_eq!(max_entries(dir, "lb_slots_v1"), 262_144 / 16);
    assert_eq!(max_entries(dir, "lb_backends_v1"), 512);
    // 1,171 buckets of 56, and an element with the heads of every 32 of them.
    assert_eq!(max_entries(dir, "lb_ct4_v1"), 1_171 + 37);
    assert_eq!(fs::read_dir(dir.join("bascule/staged")).unwrap().count(), 0);
    drop(second);
    // And the next start finds it all where it belongs.
    let (third, actual) = node.load(&settings);
    check(&actual, 10);
    assert!(third.status().messages.is_empty());
}

#[test]
fn maps_that_do_not_fit_are_filled_before_they_take_over() {
    let node = Node::new("shrink").unwrap();
    let mut settings = node.settings();
    let (mut first, _) = node.load(&settings);
    assert!(first.apply(&service(4096)).is_complete());
    drop(first);
    let before = Views::open(&settings).unwrap().links().unwrap();
    // The table at 4096 has no room any more.
    settings.sizes.slots = 1024;
    let (mut second, actual) = node.load(&settings);
    assert!(second.must_fill_first());
    assert!(actual.frontends.is_empty() && actual.ranges.is_empty());
    // Ids stay: conntrack names them.
    assert_eq!(actual.backends.len(), 3);
    // Until the switch everything in place is as it was.
    let dir = node.bpffs.path();
    assert_eq!(max_entries(dir, "lb_slots_v1"), 65_536 / 16);
    assert_eq!(
        Views::open(&settings).unwrap().frontends().unwrap(),
        [(key(80), frontend(1, 4096, 7))]
    );
    let programs = |links: &[lb_userspace::bpf::views::LinkView]| {
        links.iter().map(|link| link.program).collect::<Vec<_>>()
    };
    assert_eq!(
        programs(&Views::open(&settings).unwrap().links().unwrap()),
        programs(&before)
    );
    assert!(second.apply(&service(16)).is_complete());
    node.netns.run(|| second.activate()).unwrap().unwrap();
    assert!(!second.must_fill_first());
    assert_eq!(max_entries(dir, "lb_slots_v1"), 1024 / 16);
    assert_ne!(
        programs(&Views::open(&settings).unwrap().links().unwrap()),
        programs(&before)
    );
    drop(second);
    let (_third, actual) = node.load(&settings);
    check(&actual, 16);
}

/// What `bascule maps` shows of the slots: entries in use, most of them, bytes.
fn slots(settings: &Settings) -> (Option<u64>, u32, u64) {
    let maps = Views::open(settings).unwrap().maps();
    let maps: Vec<_> = maps.into_iter().map(Result::unwrap).collect();
    let map = maps.iter().find(|m| m.name == "lb_slots_v1").unwrap();
    (map.used, map.entries, map.bytes)
}

#[test]
fn a_slot_takes_four_bytes() {
    let node = Node::new("slots").unwrap();
    let mut settings = node.settings();
    let (mut first, _) = node.load(&settings);
    assert!(first.apply(&service(65_536 - 8)).is_complete());
    // No table goes beyond the last slot.
    assert!(!first.apply(&service(65_536 - 6)).is_complete());
    let (used, entries, bytes) = slots(&settings);
    assert_eq!((used, entries), (Some(7), 65_536));
    // The kernel adds the page that the map itself lies in.
    assert!((4 * 65_536..=4 * 65_536 + 4096).contains(&bytes), "{bytes}");
    drop(first);
    // A part of an element is a whole one.
    settings.sizes.slots = 65_521;
    let (_, actual) = node.load(&settings);
    check(&actual, 65_536 - 8);
    assert_eq!(slots(&settings).1, 65_536);
}

#[test]
fn slots_of_another_layout_are_made_anew() {
    let node = Node::new("layout").unwrap();
    let settings = node.settings();
    let (mut first, _) = node.load(&settings);
    assert!(first.apply(&service(10)).is_complete());
    drop(first);
    // As they were when every slot was an element.
    let path = settings.pin_dir().join("lb_slots_v1");
    fs::remove_file(&path).unwrap();
    sh(&format!(
        "bpftool map create {} type array key 4 value 4 entries 65536 name x flags 1024",
        path.display()
    ))
    .unwrap();
    let maps = Views::open(&settings).unwrap().maps().into_iter();
    let unread: Vec<String> = maps.filter_map(|m| Some(m.err()?.to_string())).collect();
    let told = "the pinned map lb_slots_v1 is of another build (";
    assert!(
        unread.len() == 1 && unread[0].starts_with(told),
        "{unread:?}"
    );
    let (mut second, actual) = node.load(&settings);
    assert!(second.must_fill_first() && actual.frontends.is_empty());
    let messages = second.status().messages;
    let told = "the pinned lb_slots_v1 is of another build (";
    assert!(messages.iter().any(|m| m.starts_with(told)), "{messages:?}");
    assert!(second.apply(&service(20)).is_complete());
    node.netns.run(|| second.activate()).unwrap().unwrap();
    assert_eq!(slots(&settings).0, Some(7));
    drop(second);
    let (_, actual) = node.load(&settings);
    check(&actual, 20);
}

#[test]
fn maps_of_other_versions_are_cleaned_or_named() {
    let node = Node::new("versions").unwrap();
    let settings = node.settings();
    drop(node.load(&settings));
    let dir = node.bpffs.path().join("bascule");
    for name in ["lb_frontends_v7", "lb_ct4_v7", "mine"] {
        sh(&format!(
            "bpftool map create {}/{name} type hash key 4 value 4 entries 1 name x",
            dir.display()
        ))
        .unwrap();
    }
    // And one of this version's name with another layout.
    fs::remove_file(dir.join("lb_ct6_v1")).unwrap();
    sh(&format!(
        "bpftool map create {}/lb_ct6_v1 type hash key 4 value 4 entries 1 name x",
        dir.display()
    ))
    .unwrap();
    let (datapath, _) = node.load(&settings);
    assert!(!dir.join("lb_frontends_v7").exists());
    assert!(dir.join("lb_ct4_v7").exists() && dir.join("mine").exists());
    // 586 buckets of 56, and an element with the heads of every 32 of them.
    assert_eq!(max_entries(node.bpffs.path(), "lb_ct6_v1"), 586 + 19);
    let messages = datapath.status().messages.join("\n");
    for part in [
        "lb_frontends_v7: a map of another version of Bascule, no longer used: removed",
        "lb_ct4_v7: a map of another version of Bascule is left",
        "mine: no pin of Bascule's; left alone",
        "the pinned lb_ct6_v1 is of another build",
    ] {
        assert!(messages.contains(part), "{part}: {messages}");
    }
}

#[test]
fn a_directory_that_is_no_bpffs_is_mounted() {
    let node = Node::new("mount").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        bpffs: dir.path().join("bpf"),
        ..node.settings()
    };
    let loaded = node
        .netns
        .run(|| Datapath::load(&settings).map(|_| ()))
        .unwrap();
    let pinned = settings.pin_dir().join("lb_node_v1").exists();
    sh(&format!("umount -l {}", settings.bpffs.display())).unwrap();
    loaded.unwrap();
    assert!(pinned);
}

#[test]
fn what_cannot_be_used_is_named_with_the_remedy() {
    let node = Node::new("errors").unwrap();
    let settings = Settings {
        cgroup: "/proc".into(),
        ..node.settings()
    };
    let error = node
        .netns
        .run(|| Datapath::load(&settings).unwrap_err().to_string())
        .unwrap();
    assert!(
        error.starts_with("/proc: not a directory of a cgroup2 mount; name a directory"),
        "{error}"
    );
    let settings = Settings {
        bpffs: "/proc/bpf".into(),
        ..node.settings()
    };
    let error = node
        .netns
        .run(|| Datapath::load(&settings).unwrap_err().to_string())
        .unwrap();
    assert!(
        error.contains("mount it with: mount -t bpf bpf /proc/bpf"),
        "{error}"
    );
    let settings = node.settings();
    let garbage = node
        .netns
        .run(|| Datapath::load_object(b"\x7fELF", &settings).unwrap_err());
    assert!(
        garbage
            .unwrap()
            .to_string()
            .starts_with("the eBPF object could not be loaded")
    );
}

/// Takes every capability from the calling thread (capset(2), version 3).
fn drop_capabilities() {
    let header: [u32; 2] = [0x2008_0522, 0];
    let none = [0u32; 6];
    // SAFETY: both arguments have the sizes that version 3 asks for.
    let ret = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(ret, 0);
}

#[test]
fn a_missing_privilege_is_one_clear_sentence() {
    let node = Node::new("caps").unwrap();
    let settings = node.settings();
    let load = || {
        drop_capabilities();
        Datapath::load(&settings).unwrap_err().to_string()
    };
    assert_eq!(
        node.netns.run(load).unwrap(),
        "missing privilege: CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON; run the agent as root, or give \
         it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    );
}

#[test]
fn uninstalling_leaves_nothing() {
    let node = Node::new("uninstall").unwrap();
    let settings = node.settings();
    drop(node.load(&settings));
    let attached = || {
        sh(&format!(
            "bpftool cgroup show {}",
            node.cgroup.path().display()
        ))
        .unwrap()
    };
    assert!(attached().contains("lb_connect4"));
    node.netns
        .run(|| Datapath::uninstall(&settings))
        .unwrap()
        .unwrap();
    assert!(!node.bpffs.path().join("bascule").exists());
    assert!(!attached().contains("lb_connect4"), "{}", attached());
}
