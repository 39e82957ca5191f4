//! Devices against the running kernel: found by the rules, covered in time, kept
//! covered by the next agent, and let go.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use bascule_tests::netns::{Netns, Node};
use lb_userspace::bpf::{
    Datapath, ProbeOverrides, Settings, XdpMode,
    devices::{DeviceState, Role},
    views::Views,
};

/// Loads the datapath; what the maps hold does not matter here.
fn load(node: &Node, settings: &Settings) -> Datapath {
    node.load(settings).0
}

/// What serves a device, as (hook, program): from the kernel's list of TCX
/// programs, and `bpftool net`, which may be too old to know TCX.
fn attached(node: &Node, device: &str) -> Vec<(String, String)> {
    let text = node.netns.exec("bpftool -j net").unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    for section in ["xdp", "tc"] {
        for entry in json[0][section].as_array().unwrap() {
            let kind = entry["kind"]
                .as_str()
                .or(entry["mode"].as_str())
                .unwrap_or("xdp");
            if entry["devname"] == device && !kind.starts_with("tcx") {
                let name = entry["name"].as_str().unwrap_or("?");
                found.push((kind.to_owned(), name.to_owned()));
            }
        }
    }
    let both = [
        ("tcx/ingress", TcAttachType::Ingress),
        ("tcx/egress", TcAttachType::Egress),
    ];
    for (hook, direction) in both {
        let query = || SchedClassifier::query_tcx(device, direction);
        let (_, programs) = node.netns.run(query).unwrap().unwrap();
        let names = programs
            .iter()
            .map(|p| p.name_as_str().unwrap_or("?").to_owned());
        found.extend(names.map(|name| (hook.to_owned(), name)));
    }
    found.sort();
    found
}

/// The state of a device, when there is one and `right` says that it is.
fn wait_for(
    datapath: &Datapath,
    name: &str,
    right: impl Fn(Option<&DeviceState>) -> bool,
) -> Option<DeviceState> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let devices = datapath.status().devices;
        let found = devices.iter().find(|device| device.name == name);
        if right(found) {
            return found.cloned();
        }
        assert!(Instant::now() < deadline, "{name}: {devices:?}");
        sleep(Duration::from_millis(2));
    }
}

/// Whether a device has got its links; until then filters of clsact serve it.
fn has_links(found: Option<&DeviceState>) -> bool {
    let hooks = found.and_then(|state| state.hooks.as_ref());
    hooks.is_some_and(|hooks| hooks.tc == "tcx")
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

const POD_TCX: [(&str, &str); 2] = [
    ("tcx/egress", "lb_egress"),
    ("tcx/ingress", "lb_pod_ingress"),
];
const UPLINK_TCX: [(&str, &str); 2] = [
    ("tcx/egress", "lb_egress"),
    ("tcx/ingress", "lb_up_ingress"),
];

#[test]
fn pods_and_uplinks_are_told_apart_and_new_pods_are_covered_in_time() {
    let (node, fabric) = (Node::new("rules").unwrap(), Netns::new("fabric").unwrap());
    node.netns.veth("up0", &fabric, "node0").unwrap();
    node.netns
        .exec("ip addr add 192.0.2.2/24 dev up0; ip route add default via 192.0.2.1")
        .unwrap();
    let datapath = load(&node, &node.settings());
    // What was there is covered when loading returns.
    assert_eq!(attached(&node, "up0"), pairs(&UPLINK_TCX));
    let up = wait_for(&datapath, "up0", |found| found.is_some()).unwrap();
    assert_eq!(
        (up.role, up.reason.as_str()),
        (Role::Uplink, "a default route leads out by it")
    );
    let hooks = up.hooks.unwrap();
    assert_eq!((hooks.tc, hooks.xdp), ("tcx", None));
    assert_eq!(
        hooks.xdp_reason,
        "veth loses unfinished checksums and TSO to XDP"
    );

    let mut slowest = Duration::ZERO;
    for number in 0..10 {
        let pod = Netns::new("pod").unwrap();
        let device = format!("pod{number}");
        node.netns.veth(&device, &pod, "eth0").unwrap();
        let appeared = Instant::now();
        let state = wait_for(&datapath, &device, |found| found.is_some()).unwrap();
        slowest = slowest.max(appeared.elapsed());
        assert_eq!(state.role, Role::Pod, "{state:?}");
        wait_for(&datapath, &device, has_links);
        assert_eq!(attached(&node, &device), pairs(&POD_TCX));
        // The pod goes, and with it everything of its device.
        let links = datapath.links().unwrap().len();
        drop(pod);
        wait_for(&datapath, &device, |found| found.is_none());
        assert_eq!(datapath.links().unwrap().len(), links - 2);
    }
    // The clock starts when `ip` has returned, a moment after the device is there.
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
}

#[test]
fn a_peer_that_moves_to_a_pod_later_makes_its_device_a_pods() {
    let (node, pod) = (Node::new("moves").unwrap(), Netns::new("pod").unwrap());
    let datapath = load(&node, &node.settings());
    node.netns
        .exec("ip link add pod0 type veth peer name peer0")
        .unwrap();
    sleep(Duration::from_millis(100));
    assert!(attached(&node, "pod0").is_empty());
    node.netns
        .exec(&format!("ip link set peer0 netns {}", pod.name()))
        .unwrap();
    wait_for(&datapath, "pod0", has_links);
    assert_eq!(attached(&node, "pod0"), pairs(&POD_TCX));
}

#[test]
fn a_device_becomes_an_uplink_with_its_route_or_with_the_nodes_address() {
    let (node, fabric) = (Node::new("late").unwrap(), Netns::new("fabric").unwrap());
    node.netns.veth("va", &fabric, "pa").unwrap();
    node.netns.veth("vb", &fabric, "pb").unwrap();
    let mut datapath = load(&node, &node.settings());
    // Veths whose peers are elsewhere, as far as one can tell yet.
    assert_eq!(attached(&node, "va"), pairs(&POD_TCX));
    node.netns
        .exec("ip addr add 192.0.2.2/24 dev va; ip route add default via 192.0.2.1")
        .unwrap();
    wait_for(&datapath, "va", |found| {
        found.is_some_and(|state| state.role == Role::Uplink)
    });
    assert_eq!(attached(&node, "va"), pairs(&UPLINK_TCX));
    node.netns
        .exec("ip addr add 198.51.100.7/24 dev vb")
        .unwrap();
    datapath.set_node_addresses(vec!["198.51.100.7".parse().unwrap()]);
    let b = wait_for(&datapath, "vb", |found| {
        found.is_some_and(|s| s.role == Role::Uplink)
    })
    .unwrap();
    assert_eq!(b.reason, "it has the node's address 198.51.100.7");
    // A route that goes does not take the hooks along.
    node.netns.exec("ip route del default").unwrap();
    sleep(Duration::from_millis(100));
    assert_eq!(attached(&node, "va"), pairs(&UPLINK_TCX));
}

#[test]
fn the_next_agent_keeps_links_and_ends_those_that_nobody_wants() {
    let (node, pod) = (Node::new("next").unwrap(), Netns::new("pod").unwrap());
    node.netns.veth("pod0", &pod, "eth0").unwrap();
    node.netns.veth("pod1", &pod, "eth1").unwrap();
    let settings = node.settings();
    drop(load(&node, &settings));
    // The agent is gone, its hooks are not.
    assert_eq!(attached(&node, "pod0"), pairs(&POD_TCX));
    let before = Views::open(&settings).unwrap().links().unwrap();
    assert_eq!(before.len(), 8 + 4);
    let mut narrow = Settings {
        pod_devices: vec!["pod0".into()],
        ..settings.clone()
    };
    // It has other programs.
    narrow.sizes.conntrack *= 4;
    let datapath = load(&node, &narrow);
    let after = Views::open(&settings).unwrap().links().unwrap();
    assert_eq!(after.len(), 8 + 2);
    for link in &after {
        let old = before.iter().find(|old| old.name == link.name).unwrap();
        assert_eq!(old.target, link.target);
        assert_ne!(old.program, link.program, "{link:?}");
    }
    assert!(attached(&node, "pod1").is_empty());
    drop(datapath);
    node.netns
        .run(|| Datapath::uninstall(&settings))
        .unwrap()
        .unwrap();
    assert!(attached(&node, "pod0").is_empty());
}

#[test]
fn without_tcx_filters_of_clsact_do_the_same_and_are_replaced_in_place() {
    let (node, pod) = (Node::new("clsact").unwrap(), Netns::new("pod").unwrap());
    node.netns.veth("pod0", &pod, "eth0").unwrap();
    let tcx = node.settings();
    let clsact = Settings {
        probes: ProbeOverrides {
            tcx: Some(false),
            set_retval: None,
        },
        ..tcx.clone()
    };
    let filters = pairs(&[
        ("clsact/egress", "lb_egress"),
        ("clsact/ingress", "lb_pod_ingress"),
    ]);
    let first = load(&node, &clsact);
    let state = wait_for(&first, "pod0", |found| found.is_some()).unwrap();
    assert_eq!(state.hooks.unwrap().tc, "clsact");
    let strip = |found: Vec<(String, String)>| -> Vec<(String, String)> {
        // bpftool shows a filter's name as the kernel does: program:[classid].
        let name = |n: String| n.split(':').next().unwrap().to_owned();
        found.into_iter().map(|(kind, n)| (kind, name(n))).collect()
    };
    assert_eq!(strip(attached(&node, "pod0")), filters);
    drop(first);
    // Again: in place of the old ones, not beside them.
    drop(load(&node, &clsact));
    assert_eq!(strip(attached(&node, "pod0")), filters);
    // A kernel that has learnt TCX, and back.
    drop(load(&node, &tcx));
    assert_eq!(attached(&node, "pod0"), pairs(&POD_TCX));
    let last = load(&node, &clsact);
    assert_eq!(strip(attached(&node, "pod0")), filters);
    // A new device, by the watcher.
    node.netns.veth("pod1", &pod, "eth1").unwrap();
    wait_for(&last, "pod1", |found| {
        found.is_some_and(|s| s.hooks.is_some())
    });
    assert_eq!(strip(attached(&node, "pod1")), filters);
    drop(last);
    node.netns
        .run(|| Datapath::uninstall(&clsact))
        .unwrap()
        .unwrap();
    assert!(attached(&node, "pod0").is_empty());
}

/// How XDP serves a device, and why.
fn xdp(node: &Node, settings: &Settings, name: &str) -> (Option<&'static str>, String) {
    let datapath = load(node, settings);
    let found = wait_for(&datapath, name, |found| found.is_some()).unwrap();
    let hooks = found.hooks.unwrap();
    (hooks.xdp, hooks.xdp_reason)
}

#[test]
fn xdp_is_native_where_the_driver_has_it_generic_only_on_request() {
    let node = Node::new("xdp").unwrap();
    // A tap device has XDP natively (drivers/net/tun.c), a bridge has not.
    node.netns
        .exec("ip tuntap add tap0 mode tap && ip link set tap0 up")
        .unwrap();
    node.netns
        .exec("ip link add br0 type bridge && ip link set br0 up")
        .unwrap();
    let auto = Settings {
        uplinks: vec!["tap0".into(), "br0".into()],
        ..node.settings()
    };
    let native = (Some("native"), "its driver has it".to_owned());
    let none = (None, "its driver does not have XDP".to_owned());
    assert_eq!(xdp(&node, &auto, "tap0"), native);
    assert_eq!(xdp(&node, &auto, "br0"), none);
    let generic = Settings {
        xdp: XdpMode::Generic,
        ..auto.clone()
    };
    assert_eq!(xdp(&node, &generic, "tap0"), native);
    let reason = "asked for (--xdp); its driver does not have XDP".to_owned();
    assert_eq!(xdp(&node, &generic, "br0"), (Some("generic"), reason));
    // Back again: nothing stays behind.
    assert_eq!(xdp(&node, &auto, "br0"), none);
    let only_tcx = |device| {
        attached(&node, device)
            .iter()
            .all(|(hook, _)| hook.starts_with("tcx"))
    };
    assert!(only_tcx("br0") && !only_tcx("tap0"));
    let off = Settings {
        xdp: XdpMode::Off,
        ..auto
    };
    assert_eq!(
        xdp(&node, &off, "tap0"),
        (None, "turned off (--xdp)".to_owned())
    );
    assert!(only_tcx("tap0"));
}

#[test]
fn routes_that_come_and_go_do_not_hide_a_new_pod() {
    let (node, pod) = (Node::new("routes").unwrap(), Netns::new("pod").unwrap());
    node.netns
        .exec("ip link add br0 type bridge && ip link set br0 up")
        .unwrap();
    let datapath = load(&node, &node.settings());
    let mut batch = String::new();
    for number in 0..2000 {
        let (high, low) = (number / 250, number % 250);
        for verb in ["add", "del"] {
            batch.push_str(&format!("route {verb} 198.18.{high}.{low}/32 dev br0\n"));
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), batch).unwrap();
    let churn = format!(
        "for i in 1 2 3; do ip -batch {}; done",
        file.path().display()
    );
    std::thread::scope(|scope| {
        let routes = scope.spawn(|| node.netns.exec(&churn).unwrap());
        // One whose peer moves without a word, which is found by looking again.
        node.netns
            .exec("ip link add pod0 type veth peer name peer0")
            .unwrap();
        node.netns
            .exec(&format!("ip link set peer0 netns {}", pod.name()))
            .unwrap();
        wait_for(&datapath, "pod0", |found| found.is_some());
        routes.join().unwrap();
    });
    wait_for(&datapath, "pod0", has_links);
    assert_eq!(attached(&node, "pod0"), pairs(&POD_TCX));
}

#[test]
fn devices_that_vanish_while_they_are_covered_do_no_harm() {
    let node = Node::new("vanish").unwrap();
    let datapath = load(&node, &node.settings());
    for round in 0..20 {
        let pod = Netns::new("pod").unwrap();
        for number in 0..5 {
            node.netns
                .veth(&format!("p{round}x{number}"), &pod, &format!("eth{number}"))
                .unwrap();
        }
        drop(pod);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while !datapath.status().devices.is_empty() || datapath.links().unwrap().len() != 8 {
        let status = datapath.status();
        assert!(
            Instant::now() < deadline,
            "{status:?} {:?}",
            datapath.links()
        );
        sleep(Duration::from_millis(20));
    }
    // And the watcher is alive.
    let pod = Netns::new("pod").unwrap();
    node.netns.veth("pod0", &pod, "eth0").unwrap();
    wait_for(&datapath, "pod0", |found| {
        found.is_some_and(|state| state.hooks.is_some())
    });
}
