//! The thread that keeps the datapath's own maps tidy: it collects flows that
//! are over, and forgets what a batch made wrong. Programming never waits for it.

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
use lb_common::{Addr, Be32, FrontendKey, Reason, SockNat, proto, scope};
use serde::Serialize;

use super::{
    conntrack::now,
    counters,
    error::Error,
    failure::Purge,
    gc::{FilterBits, Progress, Walk, collect, delete_where},
    kernel::KernelStore,
    load::map_error,
    map::BpfMap,
    pace::Pace,
    probe::may_enter_namespaces,
    sockets::{close, victims},
    store::values_of,
    table::{Table, typed},
};

/// How often it is looked whether a walk over conntrack is due.
const LOOK: Duration = Duration::from_secs(1);
/// A walk works this long at a time …
const SLICE: Duration = Duration::from_millis(2);
/// … and rests this long between: a fifth of one CPU at most.
const REST: Duration = Duration::from_millis(8);

/// What the janitor did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JanitorStats {
    /// Entries of IPv4 conntrack at the last walk.
    pub flows4: u64,
    /// Entries of IPv6 conntrack at the last walk.
    pub flows6: u64,
    /// Walks over both tables.
    pub walks: u64,
    /// Entries that were deleted because their flow was over.
    pub expired: u64,
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
    reasons: BpfMap,
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
            reasons: store.clone_map(Table::lb_reasons_v1)?,
        };
        let (orders, inbox) = mpsc::channel();
        let stats = Arc::new(Mutex::new(JanitorStats::default()));
        let mut worker = Worker::new(maps, cgroup, stats.clone())
            .map_err(|source| map_error(Table::lb_ct4_v1, "dup", source))?;
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
    walk4: Walk,
    walk6: Walk,
    cgroup: PathBuf,
    stats: Arc<Mutex<JanitorStats>>,
    pace: Pace,
    phase: Phase,
    seen: u64,
}

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Four,
    Six,
}

impl Worker {
    fn new(maps: Maps, cgroup: PathBuf, stats: Arc<Mutex<JanitorStats>>) -> io::Result<Self> {
        let capacity = u64::from(maps.ct4.info().max_entries);
        Ok(Self {
            walk4: Walk::new(maps.ct4.try_clone()?),
            walk6: Walk::new(maps.ct6.try_clone()?),
            maps,
            cgroup,
            stats,
            pace: Pace::new(capacity),
            // What was left while no agent ran is looked at right away.
            phase: Phase::Four,
            seen: 0,
        })
    }

    fn run(&mut self, inbox: &Receiver<Vec<Purge>>) {
        let mut next = Instant::now();
        loop {
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(mut purges) => {
                    inbox.try_iter().for_each(|more| purges.extend(more));
                    self.purge(&purges);
                }
                Err(RecvTimeoutError::Timeout) => next = Instant::now() + self.step(),
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

    /// Goes on collecting, if it is time; returns when to go on.
    fn step(&mut self) -> Duration {
        let result = match self.phase {
            Phase::Waiting => {
                if self.pace.is_due(self.new_flows(), Instant::now()) {
                    self.phase = Phase::Four;
                    return Duration::ZERO;
                }
                return LOOK;
            }
            Phase::Four => collect::<Be32>(&mut self.walk4, now(), SLICE),
            Phase::Six => collect::<Addr>(&mut self.walk6, now(), SLICE),
        };
        let progress = result.unwrap_or_else(|error| {
            self.failed("collecting flows that are over", &error);
            let finished = true;
            Progress {
                finished,
                ..Progress::default()
            }
        });
        self.seen += progress.seen;
        self.note(|stats| stats.expired += progress.deleted);
        if progress.finished {
            self.end_of_table();
        }
        REST
    }

    fn end_of_table(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        if self.phase == Phase::Four {
            self.note(|stats| stats.flows4 = seen);
            self.phase = Phase::Six;
            return;
        }
        self.note(|stats| {
            stats.flows6 = seen;
            stats.walks += 1;
        });
        self.phase = Phase::Waiting;
        let left = self
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flows4
            + seen;
        let new_flows = self.new_flows();
        self.pace.walked(left, new_flows, Instant::now());
    }

    /// Flows that were ever opened.
    fn new_flows(&self) -> u64 {
        let read = counters::reasons(&self.maps.reasons).unwrap_or_default();
        let mut packets = read.iter().filter(|(reason, _)| *reason == Reason::NewFlow);
        packets.next().map_or(0, |(_, counter)| counter.packets)
    }

    fn purge(&mut self, purges: &[Purge]) {
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
        let four = delete_where::<Be32>(&self.maps.ct4, |key, entry| {
            key.proto == udp && gone.contains(&(entry.service, entry.backend))
        })?;
        let six = delete_where::<Addr>(&self.maps.ct6, |key, entry| {
            key.proto == udp && gone.contains(&(entry.service, entry.backend))
        })?;
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

/// Bits of the filter that live flows need. Walks the whole of conntrack.
pub(super) fn filter_bits(store: &KernelStore) -> io::Result<FilterBits> {
    let mut bits = FilterBits::default();
    bits.add_all::<Be32>(store.map(Table::lb_ct4_v1))?;
    bits.add_all::<Addr>(store.map(Table::lb_ct6_v1))?;
    Ok(bits)
}
