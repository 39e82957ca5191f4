//! What is counted of requests, by the path of the table that they were for. There are series of
//! paths that are in the table alone, and none has a word in it that a client has chosen.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use http::Method;
use lb_proxy::Record;
use lb_route::{Host, Table, action::Location, limits::Refused};

use super::histogram::{Lengths, Times};

/// Statuses and methods that a path has series for. What comes beyond is counted by the class of
/// its status: backends choose these.
const CELLS: usize = 64;
/// Methods with series of their own (RFC 9110, section 9.1, and RFC 5789).
const METHODS: [Method; 9] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::CONNECT,
    Method::TRACE,
];

/// Limits that refuse requests: of a client's in time, of those at once, and of those that all
/// proxies let in.
pub(super) const LIMITS: [&str; 3] = ["requests", "connections", "overall"];

/// What the series of a path have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Labels {
    pub(super) namespace: Arc<str>,
    pub(super) ingress: Arc<str>,
    pub(super) service: Arc<str>,
    pub(super) host: Arc<str>,
    pub(super) path: Arc<str>,
}

impl Labels {
    fn of(location: &Location) -> Self {
        Self {
            namespace: location.ingress.namespace.clone(),
            ingress: location.ingress.name.clone(),
            service: location.service.name.clone(),
            host: location.host.clone(),
            path: location.path.clone(),
        }
    }

    /// Of what no rule has.
    fn of_nobody() -> Self {
        let empty = || Arc::from("");
        Self {
            namespace: empty(),
            ingress: empty(),
            service: empty(),
            host: "_".into(),
            path: empty(),
        }
    }
}

/// The series of a path.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    cells: ArcSwap<Vec<Arc<Cell>>>,
    /// Requests that limits refused, by [`LIMITS`].
    limited: [AtomicU64; LIMITS.len()],
}

/// What tells the series of a path from each other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Kind {
    /// Place of the method in [`METHODS`].
    method: u8,
    /// The status; below 100, its class.
    status: u16,
    /// The upstream of the canary that the request went to.
    pub(super) canary: Option<Arc<str>>,
}

impl Kind {
    fn of(record: &Record) -> Self {
        let method = METHODS.iter().position(|known| *known == record.method);
        let forward = record.forward.as_ref().filter(|forward| forward.canary);
        Self {
            // There are less than 256.
            method: method.unwrap_or(METHODS.len()) as u8,
            status: record.status.as_u16(),
            canary: forward.map(|forward| forward.upstream.name.clone()),
        }
    }

    /// The label of the method.
    pub(super) fn method(&self) -> &str {
        let method = METHODS.get(usize::from(self.method));
        method.map_or("other", Method::as_str)
    }

    /// The label of the status.
    pub(super) fn status(&self) -> String {
        match self.status {
            class @ 0..100 => format!("{class}xx"),
            status => status.to_string(),
        }
    }
}

/// Requests of a kind, for a path.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) kind: Kind,
    pub(super) requests: AtomicU64,
    pub(super) connect: Times,
    pub(super) header: Times,
    pub(super) response: Times,
    pub(super) request: Times,
    pub(super) request_size: Lengths,
    pub(super) response_size: Lengths,
}

impl Cell {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            requests: AtomicU64::new(0),
            connect: Times::default(),
            header: Times::default(),
            response: Times::default(),
            request: Times::default(),
            request_size: Lengths::default(),
            response_size: Lengths::default(),
        }
    }

    /// Counts a request. Of the endpoint's times those of the last attempt count.
    fn count(&self, record: &Record) {
        self.requests.fetch_add(1, Relaxed);
        self.request.observe(record.request_time);
        self.request_size.observe(record.request_length);
        self.response_size
            .observe(record.head_bytes_sent + record.body_bytes_sent);
        let Some(last) = record.attempts.last() else {
            return;
        };
        self.response.observe(last.response_time);
        last.connect_time
            .iter()
            .for_each(|time| self.connect.observe(*time));
        last.header_time
            .iter()
            .for_each(|time| self.header.observe(*time));
    }
}

impl Series {
    fn new(labels: Labels) -> Self {
        Self {
            labels,
            cells: ArcSwap::default(),
            limited: Default::default(),
        }
    }

    fn count(&self, record: &Record) {
        match record.limited {
            Some(Refused::Requests) => _ = self.limited[0].fetch_add(1, Relaxed),
            Some(Refused::Connections) => _ = self.limited[1].fetch_add(1, Relaxed),
            Some(Refused::Overall) => _ = self.limited[2].fetch_add(1, Relaxed),
            None => {}
        }
        let kind = Kind::of(record);
        let cells = self.cells.load();
        match cells.iter().find(|cell| cell.kind == kind) {
            Some(cell) => cell.count(record),
            None => self.add(kind).count(record),
        }
    }

    /// The cell of a kind that was not seen yet, or of its class.
    fn add(&self, kind: Kind) -> Arc<Cell> {
        let mut cell = Arc::new(Cell::new(kind.clone()));
        self.cells.rcu(|cells| {
            let mut kind = kind.clone();
            let find = |kind: &Kind| cells.iter().find(|cell| cell.kind == *kind);
            if cells.len() >= CELLS && find(&kind).is_none() {
                kind.status /= 100;
            }
            // Another thread may have been faster.
            if let Some(known) = find(&kind) {
                cell = known.clone();
                return cells.clone();
            }
            if cell.kind != kind {
                cell = Arc::new(Cell::new(kind));
            }
            let mut cells = (**cells).clone();
            cells.push(cell.clone());
            Arc::new(cells)
        });
        cell
    }

    /// Drops what went to canaries that are gone.
    fn keep_canaries(&self, there: &[Arc<str>]) {
        let is_there = |cell: &Arc<Cell>| {
            let canary = cell.kind.canary.as_ref();
            canary.is_none_or(|canary| there.contains(canary))
        };
        if self.cells.load().iter().all(is_there) {
            return;
        }
        self.cells.rcu(|cells| {
            let kept = cells.iter().filter(|cell| is_there(cell));
            kept.cloned().collect::<Vec<_>>()
        });
    }

    /// What there is of it.
    pub(super) fn cells(&self) -> Arc<Vec<Arc<Cell>>> {
        self.cells.load_full()
    }

    /// Requests that limits refused, by [`LIMITS`].
    pub(super) fn limited(&self) -> [u64; LIMITS.len()] {
        self.limited.each_ref().map(|count| count.load(Relaxed))
    }
}

/// The series of a table.
#[derive(Clone, Debug, Default)]
struct Known {
    /// By the address of a location, which lives as long as its host: no other gets it.
    by_address: HashMap<usize, Arc<Series>>,
    by_host: HashMap<Arc<str>, Arc<[Arc<Series>]>>,
    /// By their addresses.
    hosts: HashMap<usize, Arc<Host>>,
}

fn address<T>(of: &Arc<T>) -> usize {
    Arc::as_ptr(of).addr()
}

impl Known {
    /// Those of another table. A host that has not changed is the same in both, and costs little.
    fn of(&self, table: &Table) -> Self {
        let hosts = table.hosts();
        let hosts: HashMap<_, _> = hosts
            .map(|(_, host)| (address(host), host.clone()))
            .collect();
        let mut new = Self {
            hosts,
            ..self.clone()
        };
        let is_gone = |(at, _): &(&usize, &Arc<Host>)| !new.hosts.contains_key(at);
        let gone: Vec<_> = self.hosts.iter().filter(is_gone).collect();
        for (_, host) in gone {
            new.by_host.remove(&host.name);
            for location in host.locations() {
                new.by_address.remove(&address(location));
            }
        }
        let hosts = std::mem::take(&mut new.hosts);
        for (at, host) in &hosts {
            if !self.hosts.contains_key(at) {
                new.add(host, table, self.by_host.get(&host.name));
            }
        }
        Self { hosts, ..new }
    }

    /// A host that is new, or has changed and had series before.
    fn add(&mut self, host: &Host, table: &Table, before: Option<&Arc<[Arc<Series>]>>) {
        let before = before.into_iter().flat_map(|before| before.iter());
        let before: HashMap<_, _> = before.map(|series| (&series.labels, series)).collect();
        let mut all: HashMap<Labels, (Arc<Series>, Vec<Arc<str>>)> = HashMap::new();
        for location in host.locations() {
            let (series, canaries) = all
                .entry(Labels::of(location))
                .or_insert_with_key(|labels| {
                    let known = before.get(labels).map(|series| Arc::clone(series));
                    let fresh = || Arc::new(Series::new(labels.clone()));
                    (known.unwrap_or_else(fresh), Vec::new())
                });
            let canary = location.canary.as_ref();
            let canary = canary.and_then(|canary| table.upstream(&canary.upstream));
            canaries.extend(canary.map(|upstream| upstream.name.clone()));
            self.by_address.insert(address(location), series.clone());
        }
        let all = all.into_values().map(|(series, canaries)| {
            series.keep_canaries(&canaries);
            series
        });
        self.by_host.insert(host.name.clone(), all.collect());
    }

    fn series(&self, location: &Arc<Location>) -> Option<&Arc<Series>> {
        let known = self.by_address.get(&address(location));
        known.or_else(|| {
            // The request began by a table from before.
            let labels = Labels::of(location);
            let mut of_host = self.by_host.get(&location.host)?.iter();
            of_host.find(|series| series.labels == labels)
        })
    }
}

/// The series of all paths.
#[derive(Debug)]
pub(super) struct Requests {
    known: ArcSwap<Known>,
    of_nobody: Arc<Series>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            known: ArcSwap::default(),
            of_nobody: Arc::new(Series::new(Labels::of_nobody())),
        }
    }
}

impl Requests {
    /// From now on there are the series of this table's paths, and no others.
    pub(super) fn take(&self, table: &Table) {
        self.known.store(Arc::new(self.known.load().of(table)));
    }

    /// Counts a request. One for a path that is gone is not.
    pub(super) fn done(&self, record: &Record) {
        match &record.location {
            None => self.of_nobody.count(record),
            Some(location) => {
                if let Some(series) = self.known.load().series(location) {
                    series.count(record);
                }
            }
        }
    }

    /// All series, in the order of their labels.
    pub(super) fn all(&self) -> Vec<Arc<Series>> {
        let known = self.known.load();
        let of_hosts = known.by_host.values().flat_map(|series| series.iter());
        let mut all: Vec<_> = of_hosts.chain([&self.of_nobody]).cloned().collect();
        all.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        all
    }
}
