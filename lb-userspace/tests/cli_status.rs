//! What `status` and `maps` print, and when a node counts as degraded.

use lb_userspace::{
    agent::{
        fold::Standing,
        state::{Datapath, Device, Feature, Status, Trouble},
    },
    cli::status::{AGENT, DATAPATH, DropRow, MapRow, Report, maps_text},
};

fn status() -> Status {
    Status {
        pid: 7,
        version: "0.1.0".into(),
        node: "n1".into(),
        started: "2026-11-21T06:00:00Z".into(),
        synced: true,
        waiting_for: vec![],
        last_update: Some("2026-11-21T06:00:01Z".into()),
        services: 12,
        pending_writes: 0,
        troubles: vec![],
        problems: vec![],
        problem_count: 0,
        datapath: Datapath::default(),
    }
}

fn map(name: &str, owner: &'static str, entries: Option<u64>, capacity: u64) -> MapRow {
    MapRow {
        name: name.into(),
        holds: "things".into(),
        owner,
        entries,
        capacity,
        bytes: capacity * 64,
    }
}

fn report(running: bool, change: impl FnOnce(&mut Status)) -> Report {
    let mut status = status();
    change(&mut status);
    Report::new(
        running,
        Some(status),
        vec![map("lb_node_v1", AGENT, Some(1), 1)],
        vec![],
    )
}

#[test]
fn anything_that_is_not_well_makes_the_node_degraded() {
    assert!(!report(true, |_| {}).degraded);
    assert!(report(false, |_| {}).degraded);
    assert!(report(true, |s| s.synced = false).degraded);
    assert!(report(true, |s| s.pending_writes = 1).degraded);
    assert!(report(true, |s| s.problem_count = 1).degraded);
    let trouble = Trouble {
        place: "watch of Services".into(),
        message: "refused".into(),
    };
    assert!(report(true, |s| s.troubles.push(trouble)).degraded);
    let device = |failed| Device {
        name: "eth0".into(),
        role: "uplink".into(),
        hooks: String::new(),
        note: "no room".into(),
        failed,
    };
    assert!(report(true, |s| s.datapath.devices.push(device(true))).degraded);
    assert!(!report(true, |s| s.datapath.devices.push(device(false))).degraded);
    assert!(Report::new(true, None, vec![], vec![]).degraded);
    let maps = |owner, entries| {
        Report::new(
            true,
            Some(status()),
            vec![map("m", owner, entries, 1000)],
            vec![],
        )
    };
    assert!(maps(AGENT, Some(950)).degraded);
    assert!(!maps(AGENT, Some(949)).degraded);
    assert!(!maps(AGENT, None).degraded);
    assert!(
        !maps(DATAPATH, Some(1000)).degraded,
        "the datapath makes room by itself"
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of what is shown")]
fn a_degraded_node_is_shown_whole() {
    let mut status = status();
    status.troubles.push(Trouble {
        place: "watch of Services".into(),
        message: "connection refused".into(),
    });
    status.problems.push(Standing {
        object: "EndpointSlice default/lost".into(),
        reason: "NoServiceLabel".into(),
        message: "add the label".into(),
    });
    status.problem_count = 3;
    status.pending_writes = 2;
    status.datapath = Datapath {
        kernel: "6.18.44".into(),
        features: vec![Feature {
            name: "TCX links".into(),
            present: true,
            note: "since 6.6".into(),
        }],
        devices: vec![Device {
            name: "eth0".into(),
            role: "uplink".into(),
            hooks: "TCX".into(),
            note: "carries the default route; veth: no native XDP".into(),
            failed: false,
        }],
        notes: vec!["lb_ct4_v1 was resized".into()],
        ..Datapath::default()
    };
    let drops = vec![DropRow {
        reason: "no_endpoints",
        meaning: "The service has no endpoint.",
        packets: 17,
    }];
    let report = Report::new(
        false,
        Some(status),
        vec![map("lb_frontends_v1", AGENT, Some(12), 262_144)],
        drops,
    );
    let expected = "\
Agent     not running, version 0.1.0, node n1, started 2026-11-21T06:00:00Z; the programs and maps serve on
Objects   synced, 12 services, last update 2026-11-21T06:00:01Z
Writes    2 failed and are tried again
Health    answered by nobody
Trouble   watch of Services: connection refused
Problem   EndpointSlice default/lost: NoServiceLabel: add the label
          and 2 more problems
Kernel    6.18.44
          TCX links: yes (since 6.6)
Note      lb_ct4_v1 was resized

DEVICE  ROLE    HOOKS  WHY
eth0    uplink  TCX    carries the default route; veth: no native XDP

REFUSED OR DROPPED  PACKETS  MEANING
no_endpoints             17  The service has no endpoint.

MAP              ENTRIES      OF   FILL    MEMORY  WRITTEN BY  HOLDS
lb_frontends_v1       12  262144  0.0 %  16.0 MiB  agent       things
";
    assert_eq!(report.text(false), expected);
    assert!(report.text(true).contains("\x1b[31mnot running\x1b[0m"));
}

#[test]
fn a_node_that_waits_for_its_sources_says_for_which() {
    let text = report(true, |s| {
        s.synced = false;
        s.last_update = None;
        s.waiting_for = vec!["EndpointSlice".into(), "Node".into()];
    })
    .text(false);
    let line = "Objects   not synced: waiting for every EndpointSlice, Node; the maps serve what they held\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn maps_without_a_count_show_none() {
    let expected = "\
MAP  ENTRIES    OF  FILL    MEMORY  WRITTEN BY  HOLDS
m          -  1000     -  62.5 KiB  datapath    things
";
    assert_eq!(maps_text(&[map("m", DATAPATH, None, 1000)]), expected);
}

#[test]
fn who_answers_health_checks_is_said() {
    for (running, stood_in, words) in [
        (true, true, "answered by `bascule health`"),
        (false, true, "also while no agent runs"),
        (
            true,
            false,
            "answered by the agent, and not while it restarts",
        ),
        (false, false, "answered by nobody"),
    ] {
        let text = report(running, |_| {}).stood_in(stood_in).text(false);
        assert!(text.contains(words), "{text}");
    }
}
