//! Connections to endpoints that wait for requests.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use tokio::{task::unconstrained, time::Instant};

use crate::{
    options::Options,
    upstream::{
        Connect, Lane, Target,
        h2::{Line, Stream},
    },
};

/// Connections of HTTP/1 that wait, the least recently used first, and those of HTTP/2.
pub(crate) struct Pool<C: Connect> {
    connect: C,
    options: ArcSwap<Options>,
    waiting: Mutex<Waiting<C>>,
    lines: Mutex<HashMap<Target<C::Tls>, Vec<Line>>>,
}

struct Waiting<C: Connect> {
    /// By the order in which they came.
    lanes: BTreeMap<u64, Idle<C>>,
    /// Where those of a target are; the last came last.
    of: HashMap<Target<C::Tls>, Vec<u64>>,
    next: u64,
}

struct Idle<C: Connect> {
    target: Target<C::Tls>,
    since: Instant,
    lane: Box<Lane<C::Io>>,
}

impl<C: Connect> Waiting<C> {
    fn remove(&mut self, number: u64) -> Option<Idle<C>> {
        let idle = self.lanes.remove(&number)?;
        if let Some(numbers) = self.of.get_mut(&idle.target) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.of.remove(&idle.target);
            }
        }
        Some(idle)
    }

    fn last(&mut self, target: &Target<C::Tls>) -> Option<Idle<C>> {
        // An empty list stays: its next connection comes soon.
        let number = self.of.get_mut(target)?.pop()?;
        self.lanes.remove(&number)
    }
}

impl<C: Connect> Pool<C> {
    /// Without a connection.
    pub(crate) fn new(connect: C, options: Options) -> Self {
        Self {
            connect,
            options: ArcSwap::from_pointee(options),
            waiting: Mutex::new(Waiting {
                lanes: BTreeMap::new(),
                of: HashMap::new(),
                next: 0,
            }),
            lines: Mutex::default(),
        }
    }

    /// What counts for all of them.
    pub(crate) fn options(&self) -> Arc<Options> {
        self.options.load_full()
    }

    /// From now on other settings count.
    pub(crate) fn set_options(&self, options: Options) {
        self.options.store(Arc::new(options));
    }

    /// How connections are made.
    pub(crate) fn connector(&self) -> &C {
        &self.connect
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<C>> {
        // A panic under the lock would leave a connection out, and nothing wrong.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Target<C::Tls>, Vec<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection of HTTP/1 that was used last, if one waits that is of use.
    pub(crate) fn take(&self, target: &Target<C::Tls>) -> Option<Box<Lane<C::Io>>> {
        loop {
            let idle = self.waiting().last(target);
            let mut lane = idle?.lane;
            if lane.is_ready() {
                return Some(lane);
            }
        }
    }

    /// A fresh connection of HTTP/1.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn open(&self, target: &Target<C::Tls>) -> io::Result<Box<Lane<C::Io>>> {
        let io = self.connect.connect(target).await?;
        Ok(Box::new(Lane::new(io)))
    }

    /// A connection has no more to do.
    pub(super) fn put(&self, target: Target<C::Tls>, lane: Box<Lane<C::Io>>) {
        let options = self.options.load();
        let options = &options.pool;
        let since = Instant::now();
        if lane.requests >= options.requests || since.duration_since(lane.born) >= options.time {
            return;
        }
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        if let Some(numbers) = waiting.of.get_mut(&target) {
            numbers.push(number);
        } else {
            waiting.of.insert(target.clone(), vec![number]);
        }
        let idle = Idle {
            target,
            since,
            lane,
        };
        waiting.lanes.insert(number, idle);
        let oldest = match waiting.lanes.first_key_value() {
            Some((oldest, _)) if waiting.lanes.len() > options.connections as usize => {
                Some(*oldest)
            }
            _ => None,
        };
        let closed = oldest.and_then(|oldest| waiting.remove(oldest));
        drop(waiting);
        drop(closed);
    }

    /// A place on a connection of HTTP/2, if there is one left.
    pub(crate) fn stream(&self, target: &Target<C::Tls>) -> Option<Stream> {
        let mut lines = self.lines();
        let lines = lines.get_mut(target)?;
        let options = &self.options.load().pool;
        lines.iter_mut().find_map(|line| line.stream(options))
    }

    /// A place on a fresh connection of HTTP/2.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn open_stream(&self, target: &Target<C::Tls>) -> io::Result<Stream> {
        let io = self.connect.connect(target).await?;
        let mut line = Line::new(io).await.map_err(io::Error::other)?;
        let stream = line.stream(&self.options.load().pool);
        let stream = stream.ok_or_else(|| io::Error::other("the connection takes no request"))?;
        self.lines().entry(target.clone()).or_default().push(line);
        Ok(stream)
    }

    /// Closes what has waited too long, and what the endpoint has closed.
    pub(crate) async fn sweep(&self) {
        let options = self.options();
        let numbers: Vec<u64> = self.waiting().lanes.keys().copied().collect();
        for number in numbers {
            let mut waiting = self.waiting();
            let Some(idle) = waiting.lanes.get_mut(&number) else {
                continue;
            };
            let old = idle.since.elapsed() >= options.pool.timeout
                || idle.lane.born.elapsed() >= options.pool.time;
            if old || !idle.lane.is_ready() {
                let closed = waiting.remove(number);
                drop(waiting);
                drop(closed);
            }
        }
        self.waiting().of.retain(|_, numbers| !numbers.is_empty());
        self.lines().retain(|_, lines| {
            lines.retain(|line| line.is_kept(&options.pool));
            !lines.is_empty()
        });
    }

    /// [`Pool::sweep`], now and then, for ever.
    pub(crate) async fn tend(&self) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // The budget of a task would make a closed connection look like one that waits.
            unconstrained(self.sweep()).await;
        }
    }

    /// Closes the connections that wait for endpoints that are not `there` any more.
    pub(crate) fn keep(&self, there: impl Fn(&SocketAddr) -> bool) {
        let mut waiting = self.waiting();
        let gone = waiting.lanes.iter();
        let gone = gone.filter(|(_, idle)| !there(&idle.target.address));
        let gone: Vec<u64> = gone.map(|(number, _)| *number).collect();
        let closed: Vec<_> = gone
            .into_iter()
            .map(|number| waiting.remove(number))
            .collect();
        drop(waiting);
        drop(closed);
        // Requests on the way have places of their own.
        self.lines().retain(|target, _| there(&target.address));
    }

    /// How many connections of HTTP/1 wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting().lanes.len()
    }
}

/// How often connections that wait are looked at: so long one that the endpoint has closed stays.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(1);
