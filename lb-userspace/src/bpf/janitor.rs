//! The thread that keeps the datapath's own maps tidy: it forgets what a batch made
//! wrong, and counts flows. Flows that are over need nobody: their slots are free
//! for others. Programming never waits for this thread.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytemuck::bytes_of;
use lb_common::{Addr, CtSlot, FrontendKey, SockNat, proto, scope};
use serde::Serialize;

use super::{
    conntrack,
    error::Error,
    failure::Purge,
    kernel::KernelStore,
    load::map_error,
    map::BpfMap,
    probe::may_enter_namespaces,
    sockets::{close, victims},
    store::values_of,
    table::{Table, typed},
};

/// How often flows are counted: some 20 ms of reading memory for tables of the
/// default size.
const COUNT: Duration = Duration::from_secs(30);

/// What the janitor did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JanitorStats {
    /// Live entries of IPv4 conntrack when they were counted last.
    pub flows4: u64,
    /// The same of IPv6.
    pub flows6: u64,
    /// How often they were counted.
    pub counts: u64,
    /// Entries that were deleted because their UDP backend was gone.
    pub purged_flows: u64,
    /// Sockets that were closed because their UDP backend was gone.
    pub closed_sockets: u64,
    /// Affinities that were forgotten.
    pub purged_affinities: u64,
    /// Failures; the log names them.
    pub failures: u64,
}

/// The maps that it works on.
#[derive(Debug)]
struct Maps {
    ct4: BpfMap,
    ct6: BpfMap,
    affinity: BpfMap,
    sock_nat: BpfMap,
    frontends: BpfMap,
}

/// The thread's handle. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Janitor {
    orders: Option<Sender<Vec<Purge>>>,
    stats: Arc<Mutex<JanitorStats>>,
    thread: Option<JoinHandle<()>>,
}

impl Janitor {
    /// Starts the thread.
    pub(super) fn start(store: &KernelStore, cgroup: PathBuf) -> Result<Self, Error> {
        let maps = Maps {
            ct4: store.clone_map(Table::lb_ct4_v1)?,
            ct6: store.clone_map(Table::lb_ct6_v1)?,
            affinity: store.clone_map(Table::lb_affinity_v1)?,
            sock_nat: store.clone_map(Table::lb_sock_nat_v1)?,
            frontends: store.clone_map(Table::lb_frontends_v1)?,
        };
        let (orders, inbox) = mpsc::channel();
        let stats = Arc::new(Mutex::new(JanitorStats::default()));
        let worker = Worker {
            maps,
            cgroup,
            stats: stats.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("janitor".to_owned())
            .spawn(move || worker.run(&inbox))
            .map_err(|source| map_error(Table::lb_ct4_v1, "start the janitor", source))?;
        Ok(Self {
            orders: Some(orders),
            stats,
            thread: Some(thread),
        })
    }

    /// Has things forgotten, soon.
    pub(super) fn purge(&self, purges: Vec<Purge>) {
        if purges.is_empty() {
            return;
        }
        let sent = self
            .orders
            .as_ref()
            .is_some_and(|orders| orders.send(purges).is_ok());
        if !sent {
            tracing::warn!(
                "the janitor is gone: UDP flows to removed backends stay until they are idle"
            );
        }
    }

    /// What it did.
    pub(super) fn stats(&self) -> JanitorStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

struct Worker {
    maps: Maps,
    cgroup: PathBuf,
    stats: Arc<Mutex<JanitorStats>>,
}

impl Worker {
    fn run(&self, inbox: &Receiver<Vec<Purge>>) {
        let mut next = Instant::now();
        loop {
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(mut purges) => {
                    inbox.try_iter().for_each(|more| purges.extend(more));
                    self.purge(&purges);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.count();
                    next = Instant::now() + COUNT;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn note(&self, change: impl FnOnce(&mut JanitorStats)) {
        change(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn failed(&self, what: &str, error: &io::Error) {
        self.note(|stats| stats.failures += 1);
        tracing::warn!("{what}: {error}");
    }

    fn count(&self) {
        let four = conntrack::count(Table::lb_ct4_v1, &self.maps.ct4);
        let six = conntrack::count(Table::lb_ct6_v1, &self.maps.ct6);
        match four.and_then(|four| Ok((four, six?))) {
            Ok((four, six)) => self.note(|stats| {
                (stats.flows4, stats.flows6) = (four, six);
                stats.counts += 1;
            }),
            Err(error) => self.failed("counting flows", &error),
        }
    }

    fn purge(&self, purges: &[Purge]) {
        let mut affinities: HashSet<(u32, u32)> = HashSet::new();
        let mut flows: HashSet<(u32, u32)> = HashSet::new();
        let mut backends: HashMap<u32, HashSet<u32>> = HashMap::new();
        for purge in purges {
            match purge {
                Purge::Affinity { service, backend } => {
                    affinities.insert((*service, *backend));
                }
                Purge::Udp { service, id, .. } => {
                    flows.insert((*service, *id));
                    backends.entry(*id).or_default().insert(*service);
                }
            }
        }
        if !affinities.is_empty() {
            match self.purge_affinities(&affinities) {
                Ok(count) => self.note(|stats| stats.purged_affinities += count),
                Err(error) => self.failed("forgetting session affinities", &error),
            }
        }
        if !flows.is_empty() {
            match self.purge_flows(&flows) {
                Ok(count) => self.note(|stats| stats.purged_flows += count),
                Err(error) => self.failed("deleting UDP flows to removed backends", &error),
            }
            match self.close_sockets(&backends) {
                Ok(count) => self.note(|stats| stats.closed_sockets += count),
                Err(error) => self.failed("closing UDP sockets to removed backends", &error),
            }
        }
    }

    fn purge_affinities(&self, gone: &HashSet<(u32, u32)>) -> io::Result<u64> {
        let entries = self.maps.affinity.read_all()?;
        let mut dead = Vec::new();
        for (key, value) in entries.typed::<typed::lb_affinity_v1>() {
            if gone.contains(&(key.service, value.backend)) {
                dead.extend_from_slice(bytes_of(&key));
            }
        }
        self.maps
            .affinity
            .delete_batch(&dead)
            .map_err(|failure| failure.error)?;
        Ok((dead.len() / size_of::<lb_common::AffinityKey>()) as u64)
    }

    fn purge_flows(&self, gone: &HashSet<(u32, u32)>) -> io::Result<u64> {
        let udp = u32::from(proto::UDP);
        let over = |slot: &CtSlot<Addr>| {
            slot.key.proto == udp && gone.contains(&(slot.entry.service, slot.entry.backend))
        };
        let four = conntrack::each(Table::lb_ct4_v1, &self.maps.ct4, over)?;
        let six = conntrack::each(Table::lb_ct6_v1, &self.maps.ct6, over)?;
        Ok(four + six)
    }

    fn close_sockets(&self, gone: &HashMap<u32, HashSet<u32>>) -> io::Result<u64> {
        let entries = self.maps.sock_nat.read_all()?;
        let typed = entries.typed::<typed::lb_sock_nat_v1>();
        let found = victims(typed, gone, |nat| self.service_of(nat));
        if found.is_empty() {
            return Ok(0);
        }
        if !may_enter_namespaces() {
            tracing::warn!(
                "{} connected UDP sockets talk to removed backends and cannot be closed: \
                 the agent needs CAP_SYS_ADMIN to enter their network namespaces",
                found.len()
            );
            return Ok(0);
        }
        close(&found, &self.cgroup).map(|count| count as u64)
    }

    /// The service of the frontend that a socket dialled; sockets dial internal ones.
    fn service_of(&self, nat: &SockNat) -> Option<u32> {
        let key = FrontendKey {
            addr: nat.addr,
            port: nat.port,
            proto: nat.proto,
            scope: scope::INTERNAL,
        };
        let value = self.maps.frontends.lookup(bytes_of(&key)).ok()??;
        values_of::<lb_common::Frontend>(&value)
            .next()
            .map(|frontend| frontend.service)
    }
}
