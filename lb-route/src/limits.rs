//! Limits of clients: requests in a second and in a minute, and requests at once, as nginx counts
//! them (`ngx_http_limit_req_module`, `ngx_http_limit_conn_module`) in the zones that ingress-nginx
//! has for each Ingress.
//!
//! What is counted is this proxy's: each replica has limits of its own. What counts for all of
//! them together is in [`crate::overall`].

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use lru::LruCache;

use crate::settings::Limits;

/// Clients that are remembered for an Ingress: as many as fit into a zone of ingress-nginx, which
/// has 5 MiB and 128 bytes for each.
pub const CLIENTS: usize = 40_960;
/// Parts of a zone, each with its own lock.
pub(crate) const SHARDS: usize = 8;
/// A client that was not seen for so long, and has used nothing up, is forgotten.
const FORGET: u64 = 60_000;

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// The client's requests come too fast (`limit-rps`, `limit-rpm`): `limit-req-status-code`.
    #[error("requests come faster than limit-rps or limit-rpm allows")]
    Requests,
    /// The client has too many requests at once (`limit-connections`): `limit-conn-status-code`.
    #[error("there are as many requests at once as limit-connections allows")]
    Connections,
    /// All proxies together have let in as many requests as they may (`global-rate-limit`):
    /// `global-rate-limit-status-code`.
    #[error("requests come faster than global-rate-limit allows")]
    Overall,
}

/// What clients have used up of the limits of every Ingress. Asked by any number of threads.
#[derive(Debug)]
pub struct Limiter {
    zones: RwLock<HashMap<Arc<str>, Arc<Zone>>>,
    /// Clients of a part of a zone.
    capacity: usize,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(CLIENTS)
    }
}

/// A request that was let in. It counts as one of the client's requests at once until this is
/// dropped.
#[derive(Debug)]
#[must_use = "the request counts until this is dropped"]
pub struct Admitted(Option<(Arc<Zone>, IpAddr)>);

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some((zone, client)) = &self.0 {
            zone.shard(*client).leave(*client);
        }
    }
}

impl Limiter {
    /// One that remembers at most about so many clients of an Ingress. Beyond that, who was not
    /// seen for the longest time is forgotten.
    pub fn new(capacity: usize) -> Self {
        Self {
            zones: RwLock::default(),
            capacity: capacity.div_ceil(SHARDS).max(1),
        }
    }

    /// Whether a client's request is let in, at a time since any fixed point. The zone is the
    /// Ingress's, by its UID: what its paths get counts together. A request that is refused uses
    /// nothing up.
    ///
    /// # Errors
    /// Which limit the client has reached: requests at once before requests in time.
    pub fn admit(
        &self,
        uid: &Arc<str>,
        limits: &Limits,
        client: IpAddr,
        now: Duration,
    ) -> Result<Admitted, Refused> {
        let client = client.to_canonical();
        let rates = Rates::new(limits);
        let most = limits.connections.filter(|most| *most > 0);
        let is_limited = most.is_some() || rates != Rates::default();
        if !is_limited || limits.allow.iter().any(|net| net.contains(&client)) {
            return Ok(Admitted(None));
        }
        let zone = self.zone(uid);
        let mut shard = zone.shard(client);
        if most.is_some_and(|most| !shard.may_enter(client, most, self.capacity)) {
            return Err(Refused::Connections);
        }
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        if rates != Rates::default() && !shard.request(client, &rates, now, self.capacity) {
            return Err(Refused::Requests);
        }
        if most.is_none() {
            return Ok(Admitted(None));
        }
        *shard.connections.entry(client).or_default() += 1;
        drop(shard);
        Ok(Admitted(Some((zone, client))))
    }

    /// Forgets the clients of every Ingress but those whose UID is wanted still.
    pub fn retain(&self, is_wanted: impl Fn(&str) -> bool) {
        let mut zones = self.zones.write().unwrap_or_else(PoisonError::into_inner);
        zones.retain(|uid, _| is_wanted(uid));
    }

    /// How many clients are remembered, of each Ingress for itself.
    pub fn clients(&self) -> usize {
        let zones = self.zones.read().unwrap_or_else(PoisonError::into_inner);
        let shards = zones.values().flat_map(|zone| &zone.shards);
        shards.map(|shard| locked(shard).requests.len()).sum()
    }

    fn zone(&self, uid: &Arc<str>) -> Arc<Zone> {
        let zones = self.zones.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(zone) = zones.get(uid) {
            return zone.clone();
        }
        drop(zones);
        let mut zones = self.zones.write().unwrap_or_else(PoisonError::into_inner);
        zones.entry(uid.clone()).or_default().clone()
    }
}

/// The clients of an Ingress.
#[derive(Debug, Default)]
struct Zone {
    shards: [Mutex<Shard>; SHARDS],
    /// Random: nobody can choose addresses that are all in one part.
    hasher: RandomState,
}

impl Zone {
    fn shard(&self, client: IpAddr) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(client);
        locked(&self.shards[hash as usize % SHARDS])
    }
}

/// Counters are right after a panic elsewhere too.
pub(crate) fn locked<S>(shard: &Mutex<S>) -> MutexGuard<'_, S> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of a zone.
#[derive(Debug)]
struct Shard {
    /// Who was seen last is first.
    requests: LruCache<IpAddr, Used>,
    /// Requests at once; nobody has none.
    connections: HashMap<IpAddr, u32>,
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            requests: LruCache::unbounded(),
            connections: HashMap::new(),
        }
    }
}

/// What a client has used up, in thousandths of requests, at a time in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    at: u64,
    per_second: u64,
    per_minute: u64,
}

/// The limits of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Rates {
    per_second: Option<Rate>,
    per_minute: Option<Rate>,
}

/// In thousandths of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rate {
    /// In a second.
    rate: u64,
    /// What may be used up beyond that.
    burst: u64,
}

impl Rates {
    fn new(limits: &Limits) -> Self {
        let rate = |limit: Option<u32>, seconds: u64| {
            let limit = u64::from(limit.filter(|limit| *limit > 0)?);
            let burst = limit.saturating_mul(limits.burst_multiplier.into());
            Some(Rate {
                rate: limit * 1000 / seconds,
                burst: burst.saturating_mul(1000),
            })
        };
        Self {
            per_second: rate(limits.rps, 1),
            per_minute: rate(limits.rpm, 60),
        }
    }
}

impl Rate {
    /// What of `used` is left after milliseconds.
    fn drained(rate: Option<Self>, used: u64, millis: u64) -> u64 {
        let rate = rate.map_or(u64::MAX, |rate| rate.rate);
        used.saturating_sub(rate.saturating_mul(millis) / 1000)
    }

    /// What is used up with one request more; `None` if that is too much.
    fn another(rate: Option<Self>, used: u64, millis: u64) -> Option<u64> {
        let Some(Self { rate, burst }) = rate else {
            return Some(0);
        };
        // What a request needs can be there before it: that is not kept for the next.
        let used = (used + 1000).saturating_sub(rate.saturating_mul(millis) / 1000);
        (used <= burst).then_some(used)
    }
}

impl Shard {
    /// Whether a client may have one request at once more. Where nobody else can be counted,
    /// nobody else is let in.
    fn may_enter(&self, client: IpAddr, most: u32, capacity: usize) -> bool {
        match self.connections.get(&client) {
            Some(now) => *now < most,
            None => self.connections.len() < capacity,
        }
    }

    fn leave(&mut self, client: IpAddr) {
        if let Entry::Occupied(mut entry) = self.connections.entry(client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// Whether a client may send a request more; it is counted then.
    fn request(&mut self, client: IpAddr, rates: &Rates, now: u64, capacity: usize) -> bool {
        let Some(used) = self.requests.get_mut(&client) else {
            self.make_room(rates, now, capacity);
            self.requests.put(
                client,
                Used {
                    at: now,
                    ..Used::default()
                },
            );
            return true;
        };
        // Threads read the clock before they get the lock: it can go back a little.
        let millis = now.saturating_sub(used.at);
        let per_second = Rate::another(rates.per_second, used.per_second, millis);
        let per_minute = Rate::another(rates.per_minute, used.per_minute, millis);
        let (Some(per_second), Some(per_minute)) = (per_second, per_minute) else {
            return false;
        };
        *used = Used {
            at: used.at.max(now),
            per_second,
            per_minute,
        };
        true
    }

    /// Forgets up to two clients that have used nothing up, and one that has, if there is no room
    /// for another (`ngx_http_limit_req_expire`).
    fn make_room(&mut self, rates: &Rates, now: u64, capacity: usize) {
        for _ in 0..2 {
            let is_drained = self.requests.peek_lru().is_some_and(|(_, used)| {
                let millis = now.saturating_sub(used.at);
                let left = Rate::drained(rates.per_second, used.per_second, millis)
                    + Rate::drained(rates.per_minute, used.per_minute, millis);
                millis >= FORGET && left == 0
            });
            if !is_drained {
                break;
            }
            self.requests.pop_lru();
        }
        if self.requests.len() >= capacity {
            self.requests.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests;
