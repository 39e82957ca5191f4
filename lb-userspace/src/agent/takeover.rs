//! A takeover from kube-proxy: connections that its rules translate stay the kernel's,
//! everything new is ours, and its rules go when nobody would put them back
//! (`docs/adr/0007-takeover.md`).
//!
//! Nothing is remembered here but what the kernel has: kube-proxy's rules say that it is
//! still to be done, and our own table says that connections are left to the kernel.

use std::{
    cmp::Reverse,
    collections::HashMap,
    io,
    time::{Duration, Instant},
};

use lb_plan::Planner;

use super::{
    dataplane::NodeProblem,
    host::{Flows, Host},
};
use crate::{
    bpf::{Binding, Dialled, Seeded},
    netfilter::{
        affinity::Endpoint,
        conntrack::Tcp,
        kube_proxy::{Mode, OWN_TABLE},
    },
};

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing.
    Rest,
    /// kube-proxy's rules are there, and are to go.
    Beside,
    /// Connections are left to the kernel.
    Left,
}

/// Between two looks at who would put the rules back.
const PACE: Duration = Duration::from_secs(2);
/// Between two looks at the connections that are left, and at rules that come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// A takeover.
#[derive(Debug)]
pub struct Takeover<H> {
    host: H,
    wanted: bool,
    phase: Phase,
    rules: Vec<Mode>,
    removed: bool,
    left: usize,
    /// Whether there is a cluster, which knows the node's pods.
    cluster: bool,
    /// kube-proxy's pods on the node; `None` until they are known.
    pods: Option<Result<Vec<String>, String>>,
    problem: Option<NodeProblem>,
    next: Option<Instant>,
}

impl<H: Host> Takeover<H> {
    /// Nothing is looked at yet. `cluster` says that there is one, which knows the node's
    /// pods.
    pub fn new(host: H, wanted: bool, cluster: bool) -> Self {
        Self {
            host,
            wanted,
            phase: Phase::Rest,
            rules: Vec::new(),
            removed: false,
            left: 0,
            cluster,
            pods: None,
            problem: None,
            next: None,
        }
    }

    /// Before the first frontend is written.
    pub fn begin(&mut self, flows: &mut impl Flows) {
        let begun = self.try_begin(flows);
        self.report(begun);
    }

    fn try_begin(&mut self, flows: &mut impl Flows) -> io::Result<()> {
        self.rules = self.host.rules()?;
        if self.wanted && !self.rules.is_empty() {
            return self.stand_beside(flows);
        }
        if !self.rules.is_empty() {
            tracing::warn!("{}", self.unwanted());
        }
        if self.host.keeps_nat()? {
            self.phase = Phase::Left;
        }
        Ok(())
    }

    fn stand_beside(&mut self, flows: &mut impl Flows) -> io::Result<()> {
        // Whoever removes the rules, the kernel's NAT stays.
        self.host.keep_nat()?;
        flows.set_beside_rules(true)?;
        let seeded = self.seed(flows)?;
        self.phase = Phase::Beside;
        // What was known of pods may be old.
        self.pods = (!self.cluster).then(|| Ok(Vec::new()));
        tracing::info!(
            rules = %names(&self.rules),
            connections = seeded.left,
            "takes over from kube-proxy: connections that its rules translate are left to the kernel"
        );
        Ok(())
    }

    /// Every frontend is written.
    pub fn programmed(&mut self, flows: &mut impl Flows, planner: &Planner) {
        if self.phase == Phase::Beside {
            let done = self.seed(flows).and_then(|_| self.bind(flows, planner));
            self.report(done);
        }
    }

    /// From time to time.
    pub fn tick(&mut self, flows: &mut impl Flows, planner: &Planner, now: Instant) {
        if self.next.is_some_and(|at| now < at) {
            return;
        }
        let done = match self.phase {
            Phase::Beside => self.try_remove(flows, planner),
            Phase::Left => self.look_at_left(flows),
            Phase::Rest if self.wanted => self.look_for_rules(flows),
            Phase::Rest => Ok(()),
        };
        self.report(done);
        let pause = match self.phase {
            Phase::Beside => PACE,
            _ => PATIENCE,
        };
        self.next = Some(now + pause);
    }

    /// Which pods of the node are kube-proxy's.
    pub fn set_pods(&mut self, pods: Result<Vec<String>, String>) {
        self.pods = Some(pods);
    }

    /// Whether [`Self::set_pods`] is wanted.
    pub fn asks(&self) -> bool {
        self.phase == Phase::Beside
    }

    /// What stands in the way.
    pub fn problem(&self) -> Option<&NodeProblem> {
        self.problem.as_ref()
    }

    /// The modes whose rules are there, and how many connections are left to the kernel.
    pub fn state(&self) -> (&[Mode], usize) {
        (&self.rules, self.left)
    }

    /// What a user ought to know.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.wanted && !self.rules.is_empty() {
            notes.push(self.unwanted());
        }
        if self.wanted && self.phase == Phase::Beside {
            let rules = names(&self.rules);
            notes.push(format!(
                "kube-proxy's rules ({rules}) are still there; new connections are served by Bascule"
            ));
        }
        if self.phase == Phase::Left {
            let left = self.left;
            notes.push(format!(
                "{left} connections of before are left to the kernel's NAT until they end (nft table {OWN_TABLE})"
            ));
        }
        notes
    }

    fn unwanted(&self) -> String {
        let rules = names(&self.rules);
        format!(
            "kube-proxy's rules ({rules}) are in the kernel, and connections that they translate may break: let the agent take over with --takeover, or remove the rules with `kube-proxy --cleanup`"
        )
    }

    /// Removes the rules, if nobody would put them back.
    fn try_remove(&mut self, flows: &mut impl Flows, planner: &Planner) -> io::Result<()> {
        self.rules = self.host.rules()?;
        self.problem = self.hindrance();
        if !self.rules.is_empty() {
            if self.problem.is_some() || self.pods.is_none() {
                return Ok(());
            }
            // Clients that were bound meanwhile: the sets go with the rules.
            self.bind(flows, planner)?;
            self.host.remove_rules()?;
            self.removed = true;
            self.rules = self.host.rules()?;
            self.problem = self.hindrance();
        }
        if self.rules.is_empty() {
            let seeded = self.seed(flows)?;
            flows.set_beside_rules(false)?;
            self.left = seeded.left;
            self.phase = Phase::Left;
            tracing::info!(
                left = seeded.left,
                "kube-proxy's rules are gone; connections of before are left to the kernel until they end"
            );
        }
        Ok(())
    }

    /// Why the rules stay.
    fn hindrance(&self) -> Option<NodeProblem> {
        let rules = names(&self.rules);
        let problem = |reason, message| Some(NodeProblem { reason, message });
        if self.rules.is_empty() {
            return None;
        }
        if let Some(Err(why)) = &self.pods {
            let message = format!("kube-proxy's rules ({rules}) stay: {why}");
            return problem(UNKNOWN, message);
        }
        let pods = self.pods.iter().flatten().flatten();
        let pods = pods.map(|pod| format!("pod {pod}"));
        let processes = self.host.processes().into_iter();
        let processes = processes.map(|pid| format!("process {pid}"));
        let who: Vec<String> = pods.chain(processes).collect();
        if !who.is_empty() {
            let who = who.join(", ");
            let message = format!(
                "kube-proxy still runs here ({who}) and would put its rules ({rules}) back: end it, as with `kubectl -n kube-system delete daemonset kube-proxy`; new connections are served by Bascule already, and the rules are removed when it is gone"
            );
            return problem(WAITS, message);
        }
        let foreign: Vec<Mode> = self
            .rules
            .iter()
            .copied()
            .filter(|m| !m.is_removable())
            .collect();
        if foreign.len() == self.rules.len() {
            let message = format!(
                "kube-proxy's rules ({}) cannot be removed by Bascule: run `kube-proxy --cleanup` on the node",
                names(&foreign)
            );
            return problem(NOT_REMOVABLE, message);
        }
        if self.removed {
            let message = format!(
                "kube-proxy's rules ({rules}) were removed and are there again: something that is not seen from here puts them back, such as a distribution with a kube-proxy of its own; end that, then restart the agent"
            );
            return problem(BACK, message);
        }
        None
    }

    fn look_at_left(&mut self, flows: &mut impl Flows) -> io::Result<()> {
        self.look_for_rules(flows)?;
        if self.phase != Phase::Left {
            return Ok(());
        }
        let connections = self.host.connections()?;
        flows.forget_left_udp()?;
        self.left = flows.count_left(&connections)?;
        if self.left == 0 {
            self.host.release_nat()?;
            self.phase = Phase::Rest;
            tracing::info!("no connection is left to the kernel any more");
        }
        Ok(())
    }

    fn look_for_rules(&mut self, flows: &mut impl Flows) -> io::Result<()> {
        if !self.wanted {
            return Ok(());
        }
        self.rules = self.host.rules()?;
        self.problem = self.hindrance();
        if self.rules.is_empty() {
            return Ok(());
        }
        self.stand_beside(flows)
    }

    fn seed(&self, flows: &mut impl Flows) -> io::Result<Seeded> {
        let seeded = flows.leave(&self.host.connections()?)?;
        if seeded.lost > 0 {
            tracing::warn!(
                "{} connections that kube-proxy's rules translate have no room in conntrack, and may break: give more with --max-conntrack",
                seeded.lost
            );
        }
        Ok(seeded)
    }

    /// Binds clients where kube-proxy has them: by its sets and lists, else by
    /// connections.
    fn bind(&self, flows: &mut impl Flows, planner: &Planner) -> io::Result<()> {
        let ids: HashMap<_, u32> = planner
            .service_ids()
            .map(|(id, key)| {
                let name = (
                    key.service.namespace.to_string(),
                    key.service.name.to_string(),
                );
                ((name, key.port.to_string(), key.protocol.number()), id)
            })
            .collect();
        let by_sets = self
            .host
            .bound(&sticky(flows, planner)?)?
            .into_iter()
            .filter_map(|bound| {
                let endpoint = bound.endpoint;
                let name = (endpoint.namespace, endpoint.service);
                let id = ids.get(&(name, endpoint.port, endpoint.protocol))?;
                Some(Binding {
                    client: bound.client,
                    what: Dialled::Service(*id),
                    proto: endpoint.protocol,
                    backend: endpoint.addr,
                    idle: bound.idle,
                })
            });
        let mut connections = self.host.connections()?;
        // The first binding of a client counts: that of its latest connection.
        connections.sort_by_key(|flow| Reverse((flow.tcp == Some(Tcp::Open), flow.expires)));
        let by_connections = connections.into_iter().map(|flow| Binding {
            client: flow.original.src.ip(),
            what: Dialled::Frontend(flow.original.dst),
            proto: flow.proto,
            backend: flow.reply.src,
            idle: Duration::ZERO,
        });
        let bindings: Vec<Binding> = by_sets.chain(by_connections).collect();
        let bound = flows.bind(&bindings, &self.host.cookies())?;
        tracing::info!(
            bound,
            "clients keep the backends that session affinity gave them"
        );
        Ok(())
    }

    fn report(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            self.problem = Some(NodeProblem {
                reason: FAILED,
                message: format!(
                    "the takeover from kube-proxy cannot go on and is tried again: {error}"
                ),
            });
        }
    }
}

/// Reasons of problems.
const WAITS: &str = "TakeoverWaits";
const UNKNOWN: &str = "TakeoverUncertain";
const NOT_REMOVABLE: &str = "TakeoverByHand";
const BACK: &str = "RulesCameBack";
const FAILED: &str = "TakeoverFailed";

fn names(modes: &[Mode]) -> String {
    let names: Vec<&str> = modes.iter().map(|mode| mode.name()).collect();
    names.join(", ")
}

/// The endpoints of services with affinity.
fn sticky(flows: &impl Flows, planner: &Planner) -> io::Result<Vec<Endpoint>> {
    let keys: HashMap<u32, _> = planner.service_ids().collect();
    let named = flows.sticky()?.into_iter().filter_map(|one| {
        let key = keys.get(&one.service)?;
        Some(Endpoint {
            namespace: key.service.namespace.to_string(),
            service: key.service.name.to_string(),
            port: key.port.to_string(),
            protocol: one.proto,
            addr: one.addr,
        })
    });
    Ok(named.collect())
}

#[cfg(test)]
#[path = "takeover_tests.rs"]
mod tests;
