//! An agent on maps in memory.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use lb_common::{Addr, Be16, FrontendKey, NodeConfig, proto, scope};
use lb_plan::{Actual, Expectation, Limits, Planner, model::NodePortAddresses, op::Batch};
use lb_userspace::{
    agent::{Core, Dataplane, Input, Setup, Shared},
    bpf::{
        ApplyReport, Programmer,
        examine::Finding,
        fake::{FakeStore, FaultyStore},
        store::MapStoreExt,
        table::typed,
    },
    change::{Change, Kind, Notice},
    health::service::Servers,
    intern::Interner,
    node::{self, Facts, Kernel},
    watch::manifest,
};
use tokio::sync::mpsc;

type Store = FaultyStore<FakeStore>;

/// Maps in memory, and what was asked of them.
pub(crate) struct Maps {
    pub(crate) programmer: Programmer<Store>,
    pub(crate) batches: usize,
    pub(crate) config: Option<NodeConfig>,
    /// What examinations find, one after the other; then that all is right.
    pub(crate) findings: RefCell<Vec<Finding>>,
}

impl Maps {
    pub(crate) fn new(inner: FakeStore) -> Self {
        let store = FaultyStore {
            inner,
            fail_after: None,
            only: None,
            errno: libc::ENOMEM,
            forever: false,
        };
        Self {
            programmer: Programmer::new(store).unwrap(),
            batches: 0,
            config: None,
            findings: RefCell::default(),
        }
    }
}

impl Dataplane for Maps {
    fn apply(&mut self, batch: &Batch) -> ApplyReport {
        self.batches += usize::from(!batch.ops.is_empty());
        self.programmer.apply(batch)
    }
    fn configure(&mut self, config: &NodeConfig) -> io::Result<()> {
        self.config = Some(*config);
        self.programmer.configure(config)
    }
    fn pending(&self) -> usize {
        self.programmer.pending().len()
    }
    fn reread(&mut self) -> io::Result<Actual> {
        self.programmer.reread()?;
        let held = self.programmer.store().inner.clone();
        Programmer::new(held)?.snapshot()
    }
    fn examine(&self, _: &Expectation, _: u16) -> io::Result<Finding> {
        Ok(self.findings.borrow_mut().pop().unwrap_or(Finding::Right))
    }
    fn tidy(&mut self, planner: &mut Planner) {
        self.programmer.apply(&planner.clear_filter(|_| false));
    }
}

pub(crate) struct Agent {
    pub(crate) core: Core<Maps>,
    pub(crate) shared: Shared,
    pub(crate) now: Instant,
    interner: Interner,
    _runtime: tokio::runtime::Runtime,
}

impl Agent {
    /// Starts an agent on these maps.
    pub(crate) fn start(inner: FakeStore) -> Self {
        Self::telling(inner, None)
    }

    /// The same, with somebody who writes Events.
    pub(crate) fn telling(inner: FakeStore, events: Option<mpsc::Sender<Notice>>) -> Self {
        let held = Programmer::new(inner.clone()).unwrap().snapshot().unwrap();
        let planner = Planner::restore(Limits::default(), held);
        let maps = Maps::new(inner);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let shared = Shared {
            events,
            ..Shared::default()
        };
        let now = Instant::now();
        let setup = Setup {
            dataplane: maps,
            planner,
            node: node::Settings {
                name: "n1".into(),
                node_port_addresses: NodePortAddresses::Cidrs(vec![(
                    "10.9.0.0".parse().unwrap(),
                    16,
                )]),
                localhost_node_ports: false,
                node_port_range: (30_000, 32_767),
                proxy_name: None,
                socket_lb_host_only: false,
                bind_address: None,
            },
            kernel: Kernel {
                local_ports: (32_768, 60_999),
                netns_cookie: 1,
            },
            facts: Facts {
                addresses: vec!["10.9.0.1".parse().unwrap()],
                default_sources: vec!["10.9.0.1".parse().unwrap()],
            },
            servers: Servers::new(runtime.handle().clone(), shared.health.clone()),
            shared: shared.clone(),
        };
        Self {
            core: Core::new(setup, now),
            shared,
            now,
            interner: Interner::default(),
            _runtime: runtime,
        }
    }

    /// Ends the agent as SIGKILL does, and returns what the maps hold.
    pub(crate) fn kill(self) -> FakeStore {
        self.core.dataplane().programmer.store().inner.clone()
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.core.take(Input::Change(change));
    }

    pub(crate) fn put(&mut self, manifests: &str) {
        let parsed = manifest::parse(manifests, &Kind::AGENT, &self.interner);
        assert_eq!(parsed.bad, []);
        for object in parsed.objects {
            self.change(Change::Put(object));
        }
    }

    pub(crate) fn delete(&mut self, manifests: &str) {
        for object in manifest::parse(manifests, &Kind::AGENT, &self.interner).objects {
            self.change(Change::Delete(object.key));
        }
    }

    pub(crate) fn list(&mut self, manifests: &str) {
        Kind::AGENT
            .into_iter()
            .for_each(|k| self.change(Change::Begin(k)));
        self.put(manifests);
        Kind::AGENT
            .into_iter()
            .for_each(|k| self.change(Change::Done(k)));
    }

    /// Lets time pass until nothing is due within the next half second.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            let due = self.core.due();
            if due > self.now + Duration::from_millis(500) {
                return;
            }
            self.now = self.now.max(due);
            self.core.work(self.now);
        }
        panic!("the agent never settles");
    }

    /// Lets so much time pass, and whatever becomes due.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.core.due() <= end {
            self.now = self.now.max(self.core.due());
            self.core.work(self.now);
        }
        self.now = end;
    }

    pub(crate) fn contents(&self) -> BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.core.dataplane().programmer.store().inner.contents()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.shared.names.read().unwrap().clone();
        names.ports.values().map(ToString::to_string).collect()
    }

    /// The backends of a frontend, as "address:port", sorted; `None` without frontend.
    pub(crate) fn backends(&self, vip: &str, port: u16) -> Option<Vec<String>> {
        let key = FrontendKey {
            addr: Addr::from(vip.parse::<std::net::IpAddr>().unwrap()),
            port: Be16::new(port),
            proto: proto::TCP,
            scope: scope::INTERNAL,
        };
        let store = self.core.dataplane().programmer.store();
        let frontend = store.get_one::<typed::lb_frontends_v1>(&key).unwrap()?;
        let ids = match frontend.len {
            0 => vec![],
            1 => vec![frontend.slots],
            n => store
                .load_many::<typed::lb_slots_v1>(frontend.slots, n)
                .unwrap(),
        };
        let mut found: Vec<String> = ids
            .into_iter()
            .map(|id| {
                let backend = store.load_many::<typed::lb_backends_v1>(id, 1).unwrap()[0];
                format!("{}:{}", backend.addr, backend.port.get())
            })
            .collect();
        found.sort();
        found.dedup();
        Some(found)
    }
}
