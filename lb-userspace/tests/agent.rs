//! The straight line from changes to maps, with maps in memory.

mod line;

use std::{
    cell::RefCell,
    time::{Duration, Instant, SystemTime},
};

use lb_common::{Backend, FrontendKey};
use lb_userspace::{
    agent::{Dataplane, Input},
    bpf::{MapSizes, examine::Finding, fake::FakeStore, store::MapStore, table::Table},
    change::{Change, Kind},
    node::Facts,
};
use line::Agent;

const NODE: &str = "kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 10.9.0.1}]}
---
";

fn service(name: &str, vip: &str) -> String {
    format!(
        "kind: Service
metadata: {{name: {name}}}
spec: {{type: NodePort, clusterIP: {vip}, ports: [{{port: 80, nodePort: 30080}}]}}
---
"
    )
}

fn slice(of: &str, ips: &[&str]) -> String {
    let endpoints: Vec<String> = ips
        .iter()
        .map(|ip| format!("{{addresses: [{ip}]}}"))
        .collect();
    format!(
        "kind: EndpointSlice
metadata: {{name: {of}-1, labels: {{kubernetes.io/service-name: {of}}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{}]
---
",
        endpoints.join(", ")
    )
}

fn web(ips: &[&str]) -> String {
    NODE.to_owned() + &service("web", "10.96.0.1") + &slice("web", ips)
}

#[test]
fn nothing_is_written_before_every_source_is_read() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    agent.change(Change::Begin(Kind::Service));
    agent.put(&web(&["10.1.0.1"]));
    agent.change(Change::Done(Kind::Service));
    agent.change(Change::Done(Kind::Node));
    agent.settle();
    assert!(agent.contents().is_empty());
    assert!(!agent.shared.health.is_healthy(SystemTime::now()));
    agent.change(Change::Done(Kind::EndpointSlice));
    agent.settle();
    assert_eq!(agent.backends("10.96.0.1", 80).unwrap(), ["10.1.0.1:8080"]);
    assert!(agent.shared.health.is_healthy(SystemTime::now()));
    assert_eq!(
        agent.core.dataplane().config.unwrap().snat4.to_string(),
        "10.9.0.1"
    );
}

#[test]
fn a_restart_with_the_same_objects_writes_nothing() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    agent.list(&web(&["10.1.0.1", "10.1.0.2", "10.1.0.3"]));
    agent.settle();
    let before = agent.contents();
    let mut agent = Agent::start(agent.kill());
    agent.settle();
    assert_eq!(
        agent.contents(),
        before,
        "unsynced, it leaves the maps alone"
    );
    agent.list(&web(&["10.1.0.1", "10.1.0.2", "10.1.0.3"]));
    agent.settle();
    assert_eq!(agent.contents(), before);
    assert_eq!(agent.core.dataplane().batches, 0);
}

#[test]
fn what_changed_while_the_agent_was_down_is_found_after_sync() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    agent.list(&(web(&["10.1.0.1", "10.1.0.2"]) + &service("old", "10.96.0.9")));
    agent.settle();
    assert!(agent.backends("10.96.0.9", 80).is_some());
    let mut agent = Agent::start(agent.kill());
    agent.list(&web(&["10.1.0.2", "10.1.0.4"]));
    agent.settle();
    assert_eq!(
        agent.backends("10.96.0.1", 80).unwrap(),
        ["10.1.0.2:8080", "10.1.0.4:8080"]
    );
    assert_eq!(agent.backends("10.96.0.9", 80), None);
}

#[test]
fn the_first_change_is_applied_at_once_and_a_burst_is_gathered() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    agent.list(&web(&["10.1.0.1"]));
    agent.settle();
    agent.now += Duration::from_secs(60);
    agent.core.work(agent.now);
    let batches = agent.core.dataplane().batches;
    agent.put(&slice("web", &["10.1.0.2"]));
    assert!(
        agent.core.due() <= agent.now,
        "the first one waits for nothing"
    );
    agent.core.work(agent.now);
    assert_eq!(agent.backends("10.96.0.1", 80).unwrap(), ["10.1.0.2:8080"]);
    for i in 3..50 {
        agent.put(&slice("web", &[&format!("10.1.0.{i}")]));
        assert!(agent.core.due() > agent.now);
        agent.core.work(agent.now);
    }
    agent.settle();
    assert_eq!(agent.backends("10.96.0.1", 80).unwrap(), ["10.1.0.49:8080"]);
    assert_eq!(agent.core.dataplane().batches, batches + 2);
}

#[test]
fn a_failed_write_is_tried_again_and_everything_else_is_written() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    agent.list(NODE);
    agent.settle();
    let store = agent.core.dataplane_mut().programmer.store_mut();
    (store.fail_after, store.only, store.forever) = (Some(3), Some(Table::lb_frontends_v1), true);
    agent.put(&service("a", "10.96.0.1"));
    agent.put(&slice("a", &["10.1.0.1"]));
    agent.core.work(agent.core.due().max(agent.now));
    assert!(agent.core.dataplane().pending() > 0);
    assert!(agent.shared.metrics.apply_failures.get() > 0);
    let late = SystemTime::now() + Duration::from_secs(61);
    assert!(
        !agent.shared.health.is_healthy(late),
        "a change that stays out of the maps is told"
    );
    let status = agent.core.tell().unwrap();
    assert!(status.pending_writes > 0);

    agent.core.dataplane_mut().programmer.store_mut().fail_after = None;
    // The pause before the retry is counted from the real clock.
    agent.now = Instant::now() + Duration::from_secs(1);
    agent.core.work(agent.now);
    agent.settle();
    assert_eq!(agent.core.dataplane().pending(), 0);
    assert_eq!(agent.backends("10.96.0.1", 80).unwrap(), ["10.1.0.1:8080"]);
    assert!(
        agent
            .shared
            .health
            .is_healthy(SystemTime::now() + Duration::from_secs(61))
    );
}

#[test]
fn a_source_in_trouble_changes_nothing_in_the_maps() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    agent.list(&web(&["10.1.0.1"]));
    agent.settle();
    let before = agent.contents();
    let trouble = |message: Option<&str>| Change::Trouble {
        place: "watch of Services".into(),
        message: message.map(Into::into),
    };
    agent.change(trouble(Some("connection refused")));
    agent.settle();
    assert_eq!(agent.contents(), before);
    let status = agent.core.tell().unwrap();
    assert_eq!(status.troubles[0].message, "connection refused");
    let later = SystemTime::now() + Duration::from_secs(600);
    assert!(agent.shared.health.is_healthy(later), "the maps serve on");
    agent.change(trouble(None));
    assert_eq!(agent.core.tell().unwrap().troubles, []);
}

#[test]
fn a_node_port_answers_on_an_address_that_the_node_gains_later() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    agent.list(&web(&["10.1.0.1"]));
    agent.settle();
    assert!(agent.backends("10.9.0.1", 30_080).is_some());
    assert_eq!(agent.backends("10.9.0.7", 30_080), None);
    let facts = |list: &[&str]| {
        Input::Facts(Facts {
            addresses: list.iter().map(|ip| ip.parse().unwrap()).collect(),
            default_sources: vec!["10.9.0.1".parse().unwrap()],
        })
    };
    agent.core.take(facts(&["10.9.0.1", "10.9.0.7"]));
    agent.settle();
    assert_eq!(
        agent.backends("10.9.0.7", 30_080).unwrap(),
        ["10.1.0.1:8080"]
    );
    agent.core.take(facts(&["10.9.0.1"]));
    agent.settle();
    assert_eq!(agent.backends("10.9.0.7", 30_080), None);
}

#[test]
fn deleting_everything_leaves_nothing_but_the_node() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    let all = web(&["10.1.0.1", "10.1.0.2"]);
    agent.list(&all);
    agent.settle();
    agent.delete(&all.replace(NODE, ""));
    agent.settle();
    // The filter is tidied after some time, and freed slots are left as they are:
    // no frontend leads there.
    agent.now += Duration::from_secs(1);
    for _ in 0..301 {
        agent.now += Duration::from_secs(1);
        agent.core.work(agent.now);
    }
    let mut left: Vec<_> = agent.contents().into_keys().collect();
    left.retain(|name| *name != "lb_slots_v1");
    assert_eq!(left, ["lb_filter_v1", "lb_node_v1"]);
    // The node keeps the bit of the address that SNAT writes.
    let bits = |word: &Vec<u8>| word.iter().map(|b| b.count_ones()).sum::<u32>();
    let filter = &agent.contents()["lb_filter_v1"];
    assert_eq!(filter.values().map(bits).sum::<u32>(), 1);
}

#[test]
fn problems_are_counted_and_shown_by_object() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    let bad = "kind: EndpointSlice\nmetadata: {name: lost}\naddressType: IPv4\n---\n";
    agent.list(&(web(&["10.1.0.1"]) + bad));
    agent.settle();
    let status = agent.core.tell().unwrap();
    assert!(status.synced);
    assert_eq!(status.services, 1);
    let shown: Vec<_> = status
        .problems
        .iter()
        .map(|p| (&*p.object, &*p.reason))
        .collect();
    assert_eq!(shown, [("EndpointSlice default/lost", "NoServiceLabel")]);
    assert_eq!(agent.core.tell(), None, "nothing new, nothing told");
    agent.delete(bad);
    agent.settle();
    assert_eq!(agent.core.tell().unwrap().problem_count, 0);
    assert_eq!(agent.names(), ["default/web"]);
    agent.put(&service("api", "10.96.0.2").replace("30080", "30081"));
    agent.settle();
    agent.core.tell();
    assert_eq!(agent.names(), ["default/web", "default/api"]);
    // Neither the NodePorts of the two nor their frontends for clients outside.
    let names = agent.shared.names.read().unwrap().clone();
    let vips: Vec<_> = names.vips.iter().map(|(_, at)| at.to_string()).collect();
    assert_eq!(vips, ["10.96.0.1:80", "10.96.0.2:80"]);
}

#[test]
fn what_is_new_about_objects_is_told_once_and_nobody_waits_for_who_hears_it() {
    let (events, mut heard) = tokio::sync::mpsc::channel(2);
    let store = FakeStore::new(MapSizes::default());
    let mut agent = Agent::telling(store, Some(events));
    let mut objects = web(&["10.1.0.1"]);
    for n in 2..20 {
        // All with the NodePort of the first.
        objects += &service(&format!("s{n}"), &format!("10.96.0.{n}"));
    }
    agent.list(&objects);
    agent.settle();
    let status = agent.core.tell().expect("there is news");
    assert!(status.problem_count >= 18, "{status:?}");
    let first = heard.try_recv().unwrap();
    assert_eq!(first.reason, "FrontendConflict");
    assert!(
        first.message.contains("another address or port"),
        "{first:?}"
    );
    assert_eq!(first.object.kind, Kind::Service);
    // The channel is full, and everything else was done nevertheless.
    assert!(heard.try_recv().is_ok() && heard.try_recv().is_err());
    assert!(agent.backends("10.96.0.19", 80).is_some());
    // What stands is not told again.
    agent.put(&slice("web", &["10.1.0.2"]));
    agent.settle();
    agent.now += Duration::from_secs(60);
    agent.core.work(agent.now);
    agent.core.tell();
    assert!(heard.try_recv().is_err());
}

#[test]
fn who_holds_a_frontend_that_two_want_holds_it_after_a_restart() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    // By name the later one comes first.
    let first = NODE.to_owned() + &service("web", "10.96.0.1") + &slice("web", &["10.1.0.1"]);
    let second = service("other", "10.96.0.2") + &slice("other", &["10.1.0.2"]);
    agent.list(&first);
    agent.settle();
    agent.put(&second);
    agent.settle();
    let holder = |agent: &Agent| agent.backends("10.9.0.1", 30080).unwrap();
    assert_eq!(holder(&agent), ["10.1.0.1:8080"]);
    let before = (agent.contents(), agent.names());
    let mut agent = Agent::start(agent.kill());
    agent.list(&(first + &second));
    agent.settle();
    assert_eq!(holder(&agent), ["10.1.0.1:8080"]);
    agent.core.tell();
    assert_eq!(before.0, agent.contents());
    assert_eq!(agent.core.dataplane().batches, 0);
}

#[test]
fn what_is_no_longer_in_the_maps_is_written_anew() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    agent.list(&web(&["10.1.0.1", "10.1.0.2"]));
    agent.settle();
    let right = [
        agent.backends("10.96.0.1", 80),
        agent.backends("10.9.0.1", 30_080),
    ];
    assert_eq!(right[0].as_ref().map(Vec::len), Some(2));
    // Somebody deletes a frontend, and a backend is overwritten.
    let maps = agent.core.dataplane_mut();
    let store = &mut maps.programmer.store_mut().inner;
    let frontends = store.entries(Table::lb_frontends_v1).unwrap();
    let key = &frontends.keys[..size_of::<FrontendKey>()];
    store.delete(Table::lb_frontends_v1, key).unwrap();
    store
        .store(Table::lb_backends_v1, 1, &[0xff; size_of::<Backend>()])
        .unwrap();
    maps.findings = RefCell::new(vec![Finding::Drift("a frontend is missing".into())]);
    agent.pass(Duration::from_secs(1));
    let now = [
        agent.backends("10.96.0.1", 80),
        agent.backends("10.9.0.1", 30_080),
    ];
    assert_eq!(now, right);
    assert_eq!(agent.shared.metrics.drifts.get(), 1);
    assert!(agent.shared.health.is_healthy(SystemTime::now()));
    // What is right is left alone.
    let batches = agent.core.dataplane().batches;
    agent.pass(Duration::from_secs(3));
    assert_eq!(agent.core.dataplane().batches, batches);
    assert!(agent.shared.metrics.examined.get() > 10);
}

#[test]
fn a_datapath_that_decides_otherwise_is_not_healthy_until_it_does_not() {
    let mut agent = Agent::start(FakeStore::new(MapSizes::default()));
    agent.list(&web(&["10.1.0.1"]));
    agent.settle();
    assert!(agent.shared.health.is_healthy(SystemTime::now()));
    let findings = vec![Finding::Astray("backend 9".into())];
    agent.core.dataplane_mut().findings = RefCell::new(findings);
    agent.pass(Duration::from_secs(1));
    let status = agent.core.tell().expect("news");
    assert!(!agent.shared.health.is_healthy(SystemTime::now()));
    // A restart by the kubelet would not help.
    assert!(agent.shared.health.is_alive(SystemTime::now()));
    let problem = &status.problems[0];
    assert_eq!(problem.reason, "DatapathAstray");
    assert!(problem.message.contains("backend 9"), "{problem:?}");
    agent.pass(Duration::from_secs(1));
    let status = agent.core.tell().expect("news");
    assert!(agent.shared.health.is_healthy(SystemTime::now()));
    assert_eq!(status.problems.len(), 0);
    assert_eq!(agent.shared.metrics.astray.get(), 1);
}
