//! From changes to maps: store, plan, apply, and what is told about it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use lb_common::{Addr, NodeConfig};
use lb_plan::{
    HealthCheck, Planner,
    model::{NodeView, ServiceKey},
    op::Batch,
    plan_service,
};
use tokio::sync::mpsc;

use super::{
    dataplane::{Dataplane, NodeProblem},
    fold::Fold,
    latency::{NoLocal, Programming},
    selftest::SelfTest,
    state::{Datapath, ServiceNames},
};
use crate::{
    backoff::Backoff,
    change::{Change, Notice},
    health::{Health, service::Servers},
    metrics::{IpFamily, Metrics},
    node::{self, Facts, Kernel},
    store::{Store, Touched},
};

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// From a source of objects.
    Change(Change),
    /// From the kernel.
    Facts(Facts),
    /// Which pods of the node are kube-proxy's, or why that is not known.
    Proxies(Result<Vec<String>, String>),
}

/// What others read: metrics, health checks, the names of services.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// For `/healthz` and `/livez`.
    pub health: Arc<Health>,
    /// For `/metrics`.
    pub metrics: Metrics,
    /// What services are called, and where they are dialled.
    pub names: Arc<RwLock<Arc<ServiceNames>>>,
    /// What is new about objects, for Kubernetes Events; none without a cluster.
    pub events: Option<mpsc::Sender<Notice>>,
    /// Whether [`Input::Proxies`] is wanted.
    pub ask_for_proxies: Arc<AtomicBool>,
}

/// What a [`Core`] is made of.
pub struct Setup<D> {
    /// The maps.
    pub dataplane: D,
    /// What they held at start.
    pub planner: Planner,
    /// What the user says about the node.
    pub node: node::Settings,
    /// What the kernel says about it, once.
    pub kernel: Kernel,
    /// What the kernel says about it now.
    pub facts: Facts,
    /// Where to tell.
    pub shared: Shared,
    /// The servers of `healthCheckNodePort`.
    pub servers: Servers,
}

/// The straight line.
pub struct Core<D> {
    pub(super) dataplane: D,
    pub(super) planner: Planner,
    pub(super) store: Store,
    node: node::Settings,
    kernel: Kernel,
    facts: Facts,
    facts_changed: bool,
    pub(super) view: NodeView,
    pub(super) configured: Option<NodeConfig>,
    pub(super) planned: bool,
    /// The planner starts over from what the maps hold.
    pub(super) anew: bool,
    pub(super) self_test: SelfTest,
    pub(super) shared: Shared,
    pub(super) servers: Servers,
    pub(super) fold: Fold,
    no_local: NoLocal,
    programming: Programming,
    pub(super) troubles: BTreeMap<String, String>,
    backoff: Backoff,
    retry_at: Option<Instant>,
    not_before: Instant,
    pub(super) started: (Instant, SystemTime),
    next_tick: Instant,
    pub(super) ticks: u64,
    pub(super) untold: bool,
    pub(super) names_stale: bool,
    pub(super) described: Datapath,
    /// Services whose health check cannot be served.
    pub(super) unheard: Vec<(ServiceKey, String)>,
    pub(super) node_problems: Vec<NodeProblem>,
    pub(super) updated: Option<SystemTime>,
}

/// Between two rounds at least this long, so that a burst of changes is
/// gathered; the first change after a while is applied at once.
const GATHER: Duration = Duration::from_millis(2);
/// However long a round took, the next one waits no longer than this.
const GATHER_MAX: Duration = Duration::from_millis(500);
/// Freed ids and slots are used again after a few ticks; problems and names are
/// told once a tick.
const TICK: Duration = Duration::from_secs(1);
/// The filter is tidied this often, in ticks.
const TIDY: u64 = 300;

impl<D: Dataplane> Core<D> {
    /// Starts with an empty snapshot.
    pub fn new(setup: Setup<D>, now: Instant) -> Self {
        Self {
            dataplane: setup.dataplane,
            planner: setup.planner,
            store: Store::new(),
            view: node::view(&setup.node, None, &setup.facts),
            node: setup.node,
            kernel: setup.kernel,
            facts: setup.facts,
            facts_changed: false,
            configured: None,
            planned: false,
            anew: false,
            self_test: SelfTest::default(),
            shared: setup.shared,
            servers: setup.servers,
            fold: Fold::default(),
            no_local: NoLocal::default(),
            programming: Programming::new(SystemTime::now()),
            troubles: BTreeMap::new(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
            retry_at: None,
            not_before: now,
            started: (now, SystemTime::now()),
            next_tick: now,
            ticks: 0,
            untold: true,
            names_stale: true,
            described: Datapath::default(),
            unheard: Vec::new(),
            node_problems: Vec::new(),
            updated: None,
        }
    }

    /// The maps.
    pub fn dataplane(&self) -> &D {
        &self.dataplane
    }

    /// The maps, for tests that make them fail.
    pub fn dataplane_mut(&mut self) -> &mut D {
        &mut self.dataplane
    }

    /// Takes something in. Nothing is written before [`Self::work`].
    pub fn take(&mut self, input: Input) {
        let wall = SystemTime::now();
        match input {
            Input::Facts(facts) => {
                self.facts_changed |= self.facts != facts;
                self.facts = facts;
            }
            Input::Proxies(pods) => self.dataplane.set_proxies(pods),
            Input::Change(Change::Trouble { place, message }) => self.trouble(place, message),
            Input::Change(change) => {
                let was_synced = self.store.synced();
                self.store.apply(change);
                if self.store.synced() && !was_synced {
                    tracing::info!("every source has been read");
                }
                self.shared.metrics.queued(&self.families(), wall);
            }
        }
        // Before that, changes wait for the source, which is no fault of the proxy.
        if self.store.synced() && self.is_behind() {
            self.shared.health.queued(wall);
        }
    }

    /// The families that the node has.
    fn families(&self) -> Vec<IpFamily> {
        let has = [self.view.ipv4, self.view.ipv6];
        let both = IpFamily::ALL.into_iter().zip(has);
        both.filter(|(_, has)| *has).map(|(f, _)| f).collect()
    }

    /// Whether the snapshot differs from what was planned.
    fn is_behind(&self) -> bool {
        !self.planned || self.anew || self.facts_changed || self.store.is_touched()
    }

    /// When [`Self::work`] is due next.
    pub fn due(&self) -> Instant {
        let mut due = self.next_tick;
        if self.store.synced() && (self.is_behind() || self.planner.has_pending()) {
            due = due.min(self.not_before);
        }
        due.min(self.retry_at.unwrap_or(due))
    }

    /// Does what is due: plans and applies what changed, tries failed writes
    /// again, tells about it.
    pub fn work(&mut self, now: Instant) {
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.ticks += 1;
            self.planner.tick(self.ticks);
            if self.planned {
                self.dataplane.tick(&self.planner);
                let asks = self.dataplane.asks_for_proxies();
                self.shared.ask_for_proxies.store(asks, Ordering::Relaxed);
                if self.self_test() {
                    self.start_over();
                }
            }
            if self.planned && self.ticks.is_multiple_of(TIDY) && self.dataplane.pending() == 0 {
                self.dataplane.tidy(&mut self.planner);
            }
        }
        let behind = self.is_behind() || self.planner.has_pending();
        if self.store.synced() && behind && now >= self.not_before {
            let start = Instant::now();
            self.round();
            let took = start.elapsed();
            self.not_before = now + took + took.clamp(GATHER, GATHER_MAX);
        } else if self.retry_at.is_some_and(|at| now >= at) {
            self.apply(&Batch::default());
            self.settled();
        }
    }

    /// Plans what changed, or everything, and applies it.
    fn round(&mut self) {
        let start = Instant::now();
        if !self.planned {
            self.dataplane.begin();
        }
        let touched = self.store.take_touched();
        let anew = !self.planned || self.anew;
        let full = self.look_at_node(&touched) || anew;
        self.count(&touched);
        self.programming.take(&touched.triggers);
        if full {
            let all: Vec<ServiceKey> = self.store.services().cloned().collect();
            self.planner.retain(|key| self.store.service(key).is_some());
            all.iter().for_each(|key| self.plan(key));
        }
        // What is gone is only among the touched.
        for key in &touched.services {
            if !full || self.store.service(key).is_none() {
                self.plan(key);
            }
        }
        if anew {
            self.planner.finish_sync();
        }
        self.anew = false;
        while self.planner.has_pending() {
            let batch = self.planner.take_batch();
            self.apply(&batch);
        }
        self.settled();
        self.names_stale |= full || touched.service_changes > 0;
        let wall = SystemTime::now();
        let whole = (self.dataplane.pending() == 0).then_some(wall);
        let families = self.families();
        let m = &self.shared.metrics;
        m.synced_round(&families, full, (start.elapsed(), whole));
        self.no_local.tell(&families, m);
        if !std::mem::replace(&mut self.planned, true) {
            let services = self.planner.services();
            tracing::info!(services, took = ?start.elapsed(), "the maps are programmed");
            self.dataplane.programmed(&self.planner);
            self.shared.health.synced();
            self.shared.metrics.synced.set(1);
        }
    }

    fn count(&self, touched: &Touched) {
        let m = &self.shared.metrics;
        m.service_changes.total.inc_by(touched.service_changes);
        m.endpoint_changes.total.inc_by(touched.slice_changes);
        m.service_changes
            .pending
            .set(touched.service_changes as i64);
        m.endpoint_changes.pending.set(touched.slice_changes as i64);
        m.services.set(self.store.service_count() as i64);
    }

    /// Brings the view of the node up to date; `true` when it changed.
    fn look_at_node(&mut self, touched: &Touched) -> bool {
        if self.planned && !self.anew && !touched.nodes && !self.facts_changed {
            return false;
        }
        self.facts_changed = false;
        let node = self.store.node(&self.node.name);
        if node.is_none() && !self.planned {
            let name = &self.node.name;
            tracing::warn!(
                "Node {name} is not there: its addresses are taken from the default routes, and it has no zone; give the right name with --node-name"
            );
        }
        let health = &self.shared.health;
        health.node(node.map(|n| n.leaving));
        let view = node::view(&self.node, node, &self.facts);
        health.families(view.ipv4, view.ipv6);
        self.configure(node::config(&self.node, &view, &self.kernel));
        let changed = view != self.view;
        self.view = view;
        changed
    }

    fn configure(&mut self, config: NodeConfig) {
        if self.configured == Some(config) {
            return;
        }
        let snat = [config.snat4, config.snat6].into_iter();
        self.planner
            .set_snat_addresses(snat.filter(|a| *a != Addr::UNSPECIFIED));
        match self.dataplane.configure(&config) {
            Ok(()) => self.configured = Some(config),
            // Tried again when the node changes, and with the next full round.
            Err(error) => {
                tracing::error!(%error, "the node's addresses could not be written to the map lb_node_v1: SNAT uses the earlier ones")
            }
        }
    }

    fn plan(&mut self, key: &ServiceKey) {
        let mut check: Option<HealthCheck> = None;
        match self.store.service(key) {
            Some((service, slices)) => {
                let plan = plan_service(service, &slices, &self.view);
                check = plan.health_check;
                self.no_local.planned(&plan);
                self.planner.upsert(plan);
            }
            None => {
                self.no_local.removed(key);
                self.planner.remove(key);
            }
        }
        self.servers.set(key, check);
    }

    fn apply(&mut self, batch: &Batch) {
        let report = self.dataplane.apply(batch);
        self.shared
            .metrics
            .apply_failures
            .inc_by(report.failed.len() as u64);
        // What only depends on a failed write says nothing new.
        for failure in report.failed.iter().filter(|f| !f.is_consequence()) {
            self.fold.failure(&failure.message, self.ticks);
        }
    }

    /// After writing: either all is in the maps, or there will be a retry.
    fn settled(&mut self) {
        let pending = self.dataplane.pending();
        self.shared.metrics.apply_pending.set(pending as i64);
        self.untold = true;
        if pending > 0 {
            self.retry_at = Some(Instant::now() + self.backoff.pause());
            return;
        }
        self.retry_at = None;
        self.backoff.reset();
        let wall = SystemTime::now();
        self.programming.done(wall, &self.shared.metrics);
        self.updated = Some(wall);
        self.shared.health.updated(wall);
    }
}
