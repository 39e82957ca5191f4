//! A takeover step by step, on a node and a datapath that only note what is done.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use lb_plan::{Actual, Limits};

use super::*;
use crate::bpf::Sticky;
use crate::netfilter::{
    affinity::{Bound, Endpoint},
    conntrack::Translated,
};

/// What a node has, and what was done to it.
#[derive(Default)]
struct State {
    rules: Vec<Mode>,
    own_table: bool,
    connections: Vec<Translated>,
    processes: Vec<u32>,
    broken: bool,
    done: Vec<&'static str>,
}

#[derive(Clone, Default)]
struct Node(Arc<Mutex<State>>);

impl Node {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn does(&self, what: &'static str) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if state.broken {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        state.done.push(what);
        Ok(state)
    }

    /// What was done since the last call.
    fn done(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state().done)
    }
}

impl Host for Node {
    fn rules(&self) -> io::Result<Vec<Mode>> {
        Ok(self.state().rules.clone())
    }
    fn remove_rules(&self) -> io::Result<()> {
        self.does("remove")?
            .rules
            .retain(|mode| !mode.is_removable());
        Ok(())
    }
    fn keep_nat(&self) -> io::Result<()> {
        self.does("keep")?.own_table = true;
        Ok(())
    }
    fn keeps_nat(&self) -> io::Result<bool> {
        Ok(self.state().own_table)
    }
    fn release_nat(&self) -> io::Result<()> {
        self.does("release")?.own_table = false;
        Ok(())
    }
    fn connections(&self) -> io::Result<Vec<Translated>> {
        Ok(self.state().connections.clone())
    }
    fn bound(&self, _: &[Endpoint]) -> io::Result<Vec<Bound>> {
        Ok(Vec::new())
    }
    fn processes(&self) -> Vec<u32> {
        self.state().processes.clone()
    }
    fn cookies(&self) -> Vec<(IpAddr, u64)> {
        Vec::new()
    }
}

/// A datapath that notes what is done by the node's list.
struct Noted(Node);

impl Flows for Noted {
    fn leave(&self, flows: &[Translated]) -> io::Result<Seeded> {
        drop(self.0.does("leave")?);
        Ok(Seeded {
            left: flows.len(),
            ..Seeded::default()
        })
    }
    fn count_left(&self, flows: &[Translated]) -> io::Result<usize> {
        Ok(flows.len())
    }
    fn forget_left_udp(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn sticky(&self) -> io::Result<BTreeSet<Sticky>> {
        Ok(BTreeSet::new())
    }
    fn bind(&self, _: &[Binding], _: &[(IpAddr, u64)]) -> io::Result<usize> {
        self.0.does("bind").map(|_| 0)
    }
    fn set_beside_rules(&mut self, beside: bool) -> io::Result<()> {
        let what = if beside { "beside" } else { "alone" };
        self.0.does(what).map(|_| ())
    }
}

/// A node, its takeover, and the time.
struct Scene {
    node: Node,
    flows: Noted,
    takeover: Takeover<Node>,
    planner: Planner,
    now: Instant,
}

impl Scene {
    fn new(rules: &[Mode], wanted: bool) -> Self {
        let node = Node::default();
        node.state().rules = rules.to_vec();
        node.state().connections = vec![connection()];
        Self {
            flows: Noted(node.clone()),
            takeover: Takeover::new(node.clone(), wanted, true),
            planner: Planner::restore(Limits::default(), Actual::default()),
            now: Instant::now(),
            node,
        }
    }

    fn start(&mut self) {
        self.takeover.begin(&mut self.flows);
        self.takeover.programmed(&mut self.flows, &self.planner);
    }

    /// Later, by more than any pause.
    fn tick(&mut self) -> Vec<&'static str> {
        self.now += PATIENCE;
        self.takeover.tick(&mut self.flows, &self.planner, self.now);
        self.node.done()
    }

    fn reason(&self) -> Option<&'static str> {
        self.takeover.problem().map(|problem| problem.reason)
    }
}

fn connection() -> Translated {
    let ends = |src: &str, dst: &str| crate::netfilter::conntrack::Ends {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
    };
    Translated {
        proto: 6,
        original: ends("10.0.0.1:4000", "10.96.0.1:80"),
        reply: ends("10.0.0.2:8080", "10.0.0.1:4000"),
        answered: true,
        tcp: None,
        expires: 100,
    }
}

#[test]
fn the_kernels_nat_is_kept_and_connections_are_left_before_anything_is_taken() {
    let mut scene = Scene::new(&[Mode::Nftables], true);
    scene.takeover.begin(&mut scene.flows);
    assert_eq!(scene.node.done(), ["keep", "beside", "leave"]);
    scene.takeover.programmed(&mut scene.flows, &scene.planner);
    assert_eq!(scene.node.done(), ["leave", "bind"]);
}

#[test]
fn rules_stay_until_nobody_would_put_them_back() {
    let mut scene = Scene::new(&[Mode::Nftables], true);
    scene.start();
    scene.node.done();
    scene.node.state().processes = vec![77];
    // Nobody knows the pods yet, but the process is seen.
    assert_eq!((scene.tick(), scene.reason()), (vec![], Some(WAITS)));
    scene
        .takeover
        .set_pods(Ok(vec!["kube-system/kube-proxy-a".into()]));
    scene.tick();
    let message = &scene.takeover.problem().unwrap().message;
    for part in ["pod kube-system/kube-proxy-a", "process 77", "nftables"] {
        assert!(message.contains(part), "{message}");
    }
    scene.node.state().processes.clear();
    assert_eq!((scene.tick(), scene.reason()), (vec![], Some(WAITS)));
    scene
        .takeover
        .set_pods(Err("the API server is away".into()));
    assert_eq!((scene.tick(), scene.reason()), (vec![], Some(UNKNOWN)));
    scene.takeover.set_pods(Ok(vec![]));
    assert_eq!(scene.tick(), ["bind", "remove", "leave", "alone"]);
    assert_eq!(scene.reason(), None);
    // What was left ends, and the table with it.
    assert_eq!(scene.tick(), Vec::<&str>::new());
    scene.node.state().connections.clear();
    assert_eq!(scene.tick(), ["release"]);
    assert_eq!(scene.takeover.notes(), Vec::<String>::new());
}

#[test]
fn without_knowing_the_pods_nothing_is_removed() {
    let mut scene = Scene::new(&[Mode::Iptables], true);
    scene.start();
    scene.node.done();
    assert_eq!((scene.tick(), scene.reason()), (vec![], None));
    assert!(scene.takeover.asks());
}

#[test]
fn rules_that_another_removes_are_gone_as_well() {
    let mut scene = Scene::new(&[Mode::Ipvs], true);
    scene.start();
    scene.takeover.set_pods(Ok(vec![]));
    scene.node.done();
    assert_eq!(
        (scene.tick(), scene.reason()),
        (vec![], Some(NOT_REMOVABLE))
    );
    scene.node.state().rules.clear();
    assert_eq!(
        (scene.tick(), scene.reason()),
        (vec!["leave", "alone"], None)
    );
}

#[test]
fn rules_that_come_back_are_stood_beside_and_named() {
    let mut scene = Scene::new(&[Mode::Nftables], true);
    scene.start();
    scene.takeover.set_pods(Ok(vec![]));
    scene.tick();
    scene.node.state().rules = vec![Mode::Nftables];
    assert_eq!(scene.tick(), ["keep", "beside", "leave"]);
    assert_eq!((scene.tick(), scene.reason()), (vec![], Some(BACK)));
    scene.node.state().rules.clear();
    assert_eq!(
        (scene.tick(), scene.reason()),
        (vec!["leave", "alone"], None)
    );
}

#[test]
fn an_agent_that_is_not_to_take_over_only_tells() {
    let mut scene = Scene::new(&[Mode::Iptables], false);
    scene.start();
    scene.takeover.set_pods(Ok(vec![]));
    assert_eq!((scene.tick(), scene.reason()), (vec![], None));
    let notes = scene.takeover.notes().join("");
    assert!(
        notes.contains("iptables") && notes.contains("--takeover"),
        "{notes}"
    );
}

#[test]
fn a_later_agent_ends_what_an_earlier_one_began() {
    let mut scene = Scene::new(&[], false);
    scene.node.state().own_table = true;
    scene.start();
    assert_eq!(scene.tick(), Vec::<&str>::new());
    assert!(scene.takeover.notes()[0].starts_with("1 connections"));
    scene.node.state().connections.clear();
    assert_eq!(scene.tick(), ["release"]);
}

#[test]
fn what_fails_is_told_and_tried_again() {
    let mut scene = Scene::new(&[Mode::Nftables], true);
    scene.node.state().broken = true;
    scene.start();
    assert_eq!(scene.reason(), Some(FAILED));
    // Rules are not removed before the kernel's NAT is kept.
    scene.node.state().broken = false;
    scene.takeover.set_pods(Ok(vec![]));
    assert_eq!(scene.tick(), ["keep", "beside", "leave"]);
    scene.takeover.set_pods(Ok(vec![]));
    assert_eq!(scene.tick(), ["bind", "remove", "leave", "alone"]);
    assert_eq!(scene.reason(), None);
}
