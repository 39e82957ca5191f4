//! Which endpoint of an upstream is next.
//!
//! Endpoints are sorted, and each is there once. Those that were tried for a request already are
//! never chosen again: where nothing is chosen, all were tried, and the caller may begin anew with
//! none, as ingress-nginx does while `proxy-next-upstream-tries` allows.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use md5::{Digest as _, Md5};

/// Seconds after which a latency counts e times less (ingress-nginx v1.15.1,
/// rootfs/etc/nginx/lua/balancer/ewma.lua, `DECAY_TIME`).
const DECAY: f64 = 10.0;

/// The endpoint whose turn it is, or the next behind it that was not tried. The turn is any number
/// that grows by one for each request.
pub fn round_robin(
    endpoints: &[SocketAddr],
    turn: usize,
    tried: &[SocketAddr],
) -> Option<SocketAddr> {
    let first = turn.checked_rem(endpoints.len())?;
    let (before, from) = endpoints.split_at(first);
    let mut all = from.iter().chain(before);
    all.find(|endpoint| !tried.contains(endpoint)).copied()
}

/// The endpoint of a key: every replica of the proxy finds the same. An endpoint that goes leaves
/// its keys to all others, one that comes takes its share from all, and no other key moves
/// (rendezvous hashing; Thaler and Ravishankar, 1998). To have been tried is to be gone.
///
/// ```
/// let endpoints = ["10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap()];
/// let found = lb_route::balance::hashed(&endpoints, b"key", &[]).unwrap();
/// let other = lb_route::balance::hashed(&endpoints, b"key", &[found]).unwrap();
/// assert_ne!(found, other);
/// ```
pub fn hashed(endpoints: &[SocketAddr], key: &[u8], tried: &[SocketAddr]) -> Option<SocketAddr> {
    let key = digest(key);
    let left = endpoints
        .iter()
        .filter(|endpoint| !tried.contains(endpoint));
    left.max_by_key(|endpoint| score(key, endpoint)).copied()
}

/// One of the endpoints of a key's subset, by a random number
/// (`upstream-hash-by-subset`). A subset has `size` endpoints, at least one, and changes as little
/// as the endpoint of a key does.
pub fn hashed_subset(
    endpoints: &[SocketAddr],
    key: &[u8],
    size: usize,
    tried: &[SocketAddr],
    random: u64,
) -> Option<SocketAddr> {
    let key = digest(key);
    let mut best: Vec<_> = endpoints.iter().map(|e| (score(key, e), *e)).collect();
    let size = size.max(1);
    if size < best.len() {
        best.select_nth_unstable_by(size, |a, b| b.cmp(a));
        best.truncate(size);
    }
    best.retain(|(_, endpoint)| !tried.contains(endpoint));
    // In an order that does not depend on how the best were found.
    best.sort_unstable();
    best.get(index(random, best.len())?)
        .map(|(_, endpoint)| *endpoint)
}

/// 64 bits of a key's MD5: every version of the proxy has the same.
fn digest(key: &[u8]) -> u64 {
    let digest: [u8; 16] = Md5::digest(key).into();
    digest[..8]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// How much a key likes an endpoint.
fn score(key: u64, endpoint: &SocketAddr) -> u64 {
    let address = match endpoint.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let bits = address.to_bits();
    let network = mixed(key ^ (bits >> 64) as u64);
    mixed(mixed(network ^ bits as u64) ^ u64::from(endpoint.port()))
}

/// A number of which every bit depends on every bit of another (the end of SplitMix64).
pub(crate) fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// A place among `len`, by a random number; `None` among none.
pub(crate) fn index(random: u64, len: usize) -> Option<usize> {
    // The high bits decide, so that every place is as likely as the next.
    let place = (u128::from(random) * len as u128) >> 64;
    (len > 0).then_some(place as usize)
}

/// Moving averages of how long the endpoints of an upstream take (`load-balance: ewma`), as in
/// ingress-nginx's balancer/ewma.lua. Times are those since any fixed point.
#[derive(Debug, Default)]
pub struct Ewma(Mutex<HashMap<SocketAddr, Average>>);

#[derive(Clone, Copy, Debug)]
struct Average {
    seconds: f64,
    at: Duration,
}

impl Average {
    /// With a time that an answer took, by now.
    fn with(self, seconds: f64, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        let weight = (-passed / DECAY).exp();
        self.seconds * weight + seconds * (1.0 - weight)
    }
}

impl Ewma {
    /// The better of two endpoints that a random number chooses of those that were not tried. One
    /// that has not answered yet is better than any that has.
    pub fn choose(
        &self,
        endpoints: &[SocketAddr],
        tried: &[SocketAddr],
        random: u64,
        now: Duration,
    ) -> Option<SocketAddr> {
        let left = endpoints
            .iter()
            .filter(|endpoint| !tried.contains(endpoint));
        let left: Vec<_> = left.copied().collect();
        let first = index(random, left.len())?;
        let Some(step) = index(mixed(random), left.len() - 1) else {
            return Some(left[first]);
        };
        let (one, other) = (left[first], left[(first + 1 + step) % left.len()]);
        let averages = self.averages();
        let score = |endpoint| averages.get(endpoint).map_or(0.0, |own| own.with(0.0, now));
        Some(if score(&other) < score(&one) {
            other
        } else {
            one
        })
    }

    /// Counts an answer: how long the connection and the answer took.
    pub fn record(&self, endpoint: SocketAddr, took: Duration, now: Duration) {
        let took = took.as_secs_f64();
        let mut averages = self.averages();
        let seconds = averages
            .get(&endpoint)
            .map_or(took, |own| own.with(took, now));
        averages.insert(endpoint, Average { seconds, at: now });
    }

    /// Forgets endpoints that are gone, and gives new ones the mean of the others, so that they are
    /// not overrun. To be called when the endpoints change.
    pub fn keep(&self, endpoints: &[SocketAddr], now: Duration) {
        let mut averages = self.averages();
        let there: HashSet<_> = endpoints.iter().collect();
        averages.retain(|endpoint, _| there.contains(endpoint));
        if averages.is_empty() {
            return;
        }
        let sum: f64 = averages.values().map(|average| average.seconds).sum();
        let seconds = sum / averages.len() as f64;
        for endpoint in endpoints {
            let new = Average { seconds, at: now };
            averages.entry(*endpoint).or_insert(new);
        }
    }

    /// Averages are right after a panic elsewhere too.
    fn averages(&self) -> MutexGuard<'_, HashMap<SocketAddr, Average>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
