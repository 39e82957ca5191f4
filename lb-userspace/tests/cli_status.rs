//! What `status` and `maps` print, and when a node counts as degraded.

use std::time::{Duration, SystemTime};

use lb_common::limits;
use lb_userspace::{
    agent::{
        fold::Standing,
        state::{Datapath, Device, Feature, Hook, Status, Trouble},
    },
    cli::{
        maps::{AGENT, DATAPATH, MapRow, maps_text},
        status::{DropRow, Report, Seen, Verdict},
    },
    health::{Facts, Heard, View},
    log::recent::Line,
};

/// The time of all reports: 2027-01-15T08:00:00Z.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn ago(seconds: u64) -> SystemTime {
    now() - Duration::from_secs(seconds)
}

fn device(name: &str, role: &str, hooks: &str, note: &str) -> Device {
    Device {
        name: name.into(),
        role: role.into(),
        hooks: hooks.into(),
        note: note.into(),
        failed: false,
    }
}

fn agent() -> Status {
    let hook = |program: &str| Hook {
        program: program.into(),
        error: None,
    };
    Status {
        pid: 7,
        version: "1.2.3".into(),
        node: "n1".into(),
        started: "2027-01-15T06:00:00Z".into(),
        synced: true,
        waiting_for: Vec::new(),
        last_update: Some("2027-01-15T07:56:55Z".into()),
        services: 12,
        pending_writes: 0,
        troubles: Vec::new(),
        problems: Vec::new(),
        problem_count: 0,
        datapath: Datapath {
            kernel: "6.8.0".into(),
            features: vec![Feature {
                name: "TCX links".into(),
                present: true,
                note: "Linux 6.6 and newer".into(),
            }],
            socket_lb: "all".into(),
            sockets: vec![hook("lb_connect4"), hook("lb_connect6")],
            devices: vec![
                device("eth0", "uplink", "TCX, XDP native", "default route"),
                device("eth1", "uplink", "", "the driver has no XDP"),
            ],
            notes: Vec::new(),
            rules: Vec::new(),
            left: 0,
        },
    }
}

fn lost() -> Standing {
    Standing {
        object: "EndpointSlice default/lost".into(),
        reason: "NoServiceLabel".into(),
        message: "add the label".into(),
    }
}

fn map(name: &str, owner: &'static str, entries: u64, capacity: u64) -> MapRow {
    MapRow {
        name: name.into(),
        holds: "something".into(),
        owner,
        entries: Some(entries),
        capacity,
        bytes: 2048,
        setting: "--max-x",
    }
}

fn view(vouched: u64, queued: Option<u64>) -> View {
    View {
        facts: Facts {
            synced: true,
            queued: queued.map(ago),
            ..Facts::new(Duration::from_secs(60))
        },
        heard: Some(Heard {
            vouched: ago(vouched),
            alive: None,
        }),
    }
}

fn seen() -> Seen {
    Seen {
        running: true,
        stood_in: true,
        agent: Ok(Some(agent())),
        health: Some(view(1, None)),
        maps: vec![map("lb_frontends_v1", AGENT, 10, 1000)],
        unread: Vec::new(),
        drops: Vec::new(),
        log: Vec::new(),
        now: now(),
    }
}

fn line(level: &str, message: &str) -> Line {
    Line {
        at: "2027-01-15T07:59:00Z".into(),
        level: level.into(),
        target: "x".into(),
        message: message.into(),
    }
}

const WELL: &str = include_str!("cli_status/well.txt");

#[test]
fn a_node_that_is_well_is_one_screen() {
    let report = Report::new(seen());
    assert_eq!((report.verdict, report.degraded), (Verdict::Well, false));
    assert_eq!(report.update_age, Some(185));
    let expected = WELL.replace("VERSION", env!("BASCULE_VERSION"));
    assert_eq!(report.text(false), expected);
}

const DEGRADED: &str = include_str!("cli_status/degraded.txt");

#[test]
fn what_is_degraded_comes_first_with_its_remedy() {
    let mut agent = agent();
    agent.datapath.socket_lb = "host".into();
    agent.datapath.sockets.push(Hook {
        program: "lb_getpeer4".into(),
        error: Some("not permitted".into()),
    });
    agent.pending_writes = 2;
    agent.troubles.push(Trouble {
        place: "watch of Services".into(),
        message: "connection refused".into(),
    });
    agent.problems.push(lost());
    agent.problem_count = 3;
    agent.datapath.notes = vec!["lb_ct4_v1 was resized".into()];
    let log = [
        ("ERROR", "0"),
        ("WARN", "1"),
        ("INFO", "well"),
        ("WARN", "2"),
        ("WARN", "3"),
        ("ERROR", "4"),
        ("INFO", "well"),
        ("WARN", "5"),
        ("WARN", "6"),
    ];
    let log = log.map(|(level, message)| line(level, message)).to_vec();
    let report = Report::new(Seen {
        running: false,
        stood_in: false,
        agent: Ok(Some(agent)),
        // It has been silent for long, which is no news of an agent that is gone.
        health: Some(view(1000, None)),
        drops: vec![DropRow {
            reason: "no_endpoints",
            meaning: "none",
            packets: 3,
        }],
        log,
        ..seen()
    });
    assert_eq!((report.verdict, report.degraded), (Verdict::Degraded, true));
    let expected = DEGRADED.replace("VERSION", env!("BASCULE_VERSION"));
    assert_eq!(report.text(false), expected);
    assert!(report.text(true).contains("\x1b[31mnot running\x1b[0m"));
}

/// What is found of a node that is not as [`seen`], and its remedies.
fn found(change: impl FnOnce(&mut Seen, &mut Status)) -> Vec<(String, String)> {
    let (mut seen, mut agent) = (seen(), agent());
    change(&mut seen, &mut agent);
    if seen.agent.as_ref().is_ok_and(Option::is_some) {
        seen.agent = Ok(Some(agent));
    }
    let report = Report::new(seen);
    let all = report.findings.into_iter();
    all.map(|f| (f.what, f.remedy)).collect()
}

/// That there is one finding, which has the words, and so has its remedy.
fn one(found: &[(String, String)], what: &str, remedy: &str) {
    let [(found, todo)] = found else {
        panic!("{what}: {found:?}")
    };
    assert!(
        found.contains(what) && todo.contains(remedy),
        "{found}: {todo}"
    );
}

#[test]
fn what_the_agent_says_is_judged() {
    one(&found(|s, _| s.agent = Ok(None)), "said nothing yet", "log");
    one(
        &found(|_, a| {
            a.synced = false;
            a.waiting_for = vec!["Service".into(), "EndpointSlice".into()];
        }),
        "not every Service, EndpointSlice",
        "API server",
    );
    one(
        &found(|_, a| a.pending_writes = 3),
        "3 writes",
        "last errors",
    );
    let trouble = Trouble {
        place: "web.yaml".into(),
        message: "line 3".into(),
    };
    one(
        &found(|_, a| a.troubles.push(trouble)),
        "web.yaml: line 3",
        "correct",
    );
    one(
        &found(|_, a| {
            a.problem_count = 7;
            a.problems.push(lost());
        }),
        "7 problems of objects: EndpointSlice default/lost: add the label",
        "correct the objects",
    );
    one(
        &found(|_, a| {
            a.datapath.devices[1].failed = true;
        }),
        "uplink eth1 has not all of its hooks: the driver has no XDP",
        "tried again",
    );
}

#[test]
fn an_agent_that_hangs_is_told_from_one_that_is_busy() {
    for (vouched, queued, words) in [
        (59, None, None),
        (1, Some(59), None),
        (60, None, Some("no sign for 1m00s")),
        (90, Some(3000), Some("no sign for 1m30s")),
        (1, Some(61), Some("a change has been waiting for 1m01s")),
    ] {
        let found = found(|s, _| s.health = Some(view(vouched, queued)));
        match words {
            Some(words) => one(&found, words, "restart it"),
            None => assert_eq!(found, [], "{vouched} {queued:?}"),
        }
    }
    // One that has just started has nothing to vouch for.
    let started = found(|s, _| {
        let mut view = view(1000, None);
        view.heard.as_mut().unwrap().alive = Some(ago(1));
        s.health = Some(view);
    });
    assert_eq!(started, []);
}

#[test]
fn a_map_is_full_where_that_harms() {
    let ct = "lb_ct4_v1";
    for (map, full) in [
        (map("lb_slots_v1", AGENT, 949, 1000), false),
        (map("lb_slots_v1", AGENT, 950, 1000), true),
        (map("lb_node_v1", AGENT, 1, 1), false),
        (map(ct, DATAPATH, 599, 1000), false),
        (map(ct, DATAPATH, 600, 1000), true),
        (map("lb_affinity_v1", DATAPATH, 1000, 1000), false),
        (
            MapRow {
                entries: None,
                ..map(ct, DATAPATH, 0, u64::from(limits::CONNTRACK))
            },
            false,
        ),
    ] {
        let (name, entries) = (map.name.clone(), map.entries);
        let found = found(|s, _| s.maps = vec![map]);
        match full {
            true => one(&found, &name, "raise --max-x"),
            false => assert_eq!(found, [], "{name} {entries:?}"),
        }
    }
}

#[test]
fn what_cannot_be_read_cannot_be_told() {
    let report = Report::new(Seen {
        agent: Err("status.json: not permitted".into()),
        ..seen()
    });
    assert_eq!((report.verdict, report.degraded), (Verdict::Unknown, true));
    let text = report.text(false);
    assert!(text.contains(": cannot tell how it is\n"), "{text}");
    assert!(text.contains("status.json: not permitted"), "{text}");
}

#[test]
fn a_node_that_waits_for_its_sources_says_for_which() {
    let mut agent = agent();
    agent.synced = false;
    agent.last_update = None;
    agent.waiting_for = vec!["EndpointSlice".into(), "Node".into()];
    let report = Report::new(Seen {
        agent: Ok(Some(agent)),
        ..seen()
    });
    let line = "Objects   not synced: waiting for every EndpointSlice, Node; the maps serve what they held\n";
    assert!(report.text(false).contains(line), "{}", report.text(false));
}

#[test]
fn maps_without_a_count_show_none() {
    let expected = "\
MAP  ENTRIES    OF  FILL   MEMORY  WRITTEN BY  HOLDS
m          -  1000     -  2.0 KiB  datapath    something
";
    let map = MapRow {
        entries: None,
        ..map("m", DATAPATH, 0, 1000)
    };
    assert_eq!(maps_text(&[map]), expected);
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
        let report = Report::new(Seen {
            running,
            stood_in,
            ..seen()
        });
        assert!(report.text(false).contains(words), "{}", report.text(false));
    }
}
