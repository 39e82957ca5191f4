//! Cookies that bind a client to an endpoint (`affinity: cookie`), as in ingress-nginx v1.15.1
//! (rootfs/etc/nginx/lua/balancer/sticky.lua, sticky_balanced.lua, sticky_persistent.lua).
//!
//! A cookie is `KEY|BACKEND`. Neither needs anything that is kept: every replica reads it, after a
//! restart too. `BACKEND`, and in the persistent mode `KEY`, are those of ingress-nginx: who was
//! bound by it stays where he was.

use std::{
    net::SocketAddr,
    time::{Duration, UNIX_EPOCH},
};

use http::HeaderValue;
use md5::{Digest as _, Md5};

use crate::{
    action::Upstream,
    balance::{hashed, index, mixed},
    settings::Affinity,
};

/// The last second that has a date in HTTP: 31 December 9999.
const LAST: i64 = 253_402_300_799;

/// What binds clients to the endpoints of an upstream.
#[derive(Clone, Copy, Debug)]
pub struct Sticky<'a> {
    /// How.
    pub affinity: &'a Affinity,
    /// The upstream's name.
    pub upstream: &'a str,
    /// Its endpoints, sorted.
    pub endpoints: &'a [SocketAddr],
}

/// An endpoint for a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Where the request goes.
    pub endpoint: SocketAddr,
    /// The key of the cookie that has to be set, if the client is bound anew.
    pub key: Option<String>,
}

/// What a cookie depends on besides its settings.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The path of the rule: where the cookie is valid, if nothing else is set.
    pub path: &'a str,
    /// Whether the request came by HTTPS.
    pub is_https: bool,
    /// `User-Agent` of the request.
    pub user_agent: Option<&'a str>,
    /// Unix time.
    pub now: Duration,
}

/// Whether a cookie binds its client to an endpoint of an upstream.
pub fn is_bound_to(cookie: &str, upstream: &Upstream) -> bool {
    parts(cookie).1 == Some(&backend(&upstream.name))
}

/// `KEY` and `BACKEND` of a cookie.
fn parts(cookie: &str) -> (Option<&str>, Option<&str>) {
    let mut parts = cookie.split('|').filter(|part| !part.is_empty());
    (parts.next(), parts.next())
}

/// What stands for an upstream in cookies.
fn backend(upstream: &str) -> String {
    let name = format!("{:032x}", digest(&[upstream]));
    format!("{:032x}", digest(&[&name, upstream]))
}

/// MD5 of joined texts. It hides addresses from clients, and guards nothing.
fn digest(texts: &[&str]) -> u128 {
    let md5 = texts.iter().fold(Md5::new(), Md5::chain_update);
    u128::from_be_bytes(md5.finalize().into())
}

impl<'a> Sticky<'a> {
    /// The endpoint for a client with a cookie, or without. `failed` are those that were tried for
    /// the request: they are avoided where the client is bound anew, and not where its cookie binds
    /// it (but for `session-cookie-change-on-failure`). `random` is another number for each
    /// attempt. `None` if no endpoint is left.
    pub fn choose(
        &self,
        cookie: Option<&str>,
        failed: &[SocketAddr],
        random: u64,
    ) -> Option<Bound> {
        let key = cookie.and_then(|cookie| parts(cookie).0);
        let may_stay = failed.is_empty() || !self.affinity.change_on_failure;
        let bound = key.filter(|_| may_stay).and_then(|key| self.find(key));
        if let Some(endpoint) = bound {
            let key = None;
            return Some(Bound { endpoint, key });
        }
        let (endpoint, key) = if self.affinity.persistent {
            let left = self.endpoints.iter().filter(|e| !failed.contains(e));
            let left: Vec<_> = left.collect();
            let endpoint = *left[index(random, left.len())?];
            (endpoint, format!("{:032x}", self.key_of(endpoint)))
        } else {
            self.new_key(failed, random)?
        };
        let key = Some(key);
        Some(Bound { endpoint, key })
    }

    /// The endpoint of a key. In the balanced mode each key has one, and some move when endpoints
    /// change; in the persistent one a key is an endpoint's, which may be gone.
    fn find(&self, key: &str) -> Option<SocketAddr> {
        if !self.affinity.persistent {
            return hashed(self.endpoints, key.as_bytes(), &[]);
        }
        let key = u128::from_str_radix(key, 16).ok()?;
        let mut endpoints = self.endpoints.iter().copied();
        endpoints.find(|endpoint| self.key_of(*endpoint) == key)
    }

    /// An endpoint's key in the persistent mode, where it is 32 hexadecimal digits.
    fn key_of(&self, endpoint: SocketAddr) -> u128 {
        digest(&[self.upstream, &endpoint.to_string()])
    }

    /// A key whose endpoint did not fail, and that endpoint.
    fn new_key(&self, failed: &[SocketAddr], random: u64) -> Option<(SocketAddr, String)> {
        if self.endpoints.iter().all(|e| failed.contains(e)) {
            return None;
        }
        // A key leads to the last one of n endpoints with a chance of 1/n: so many keys all miss it
        // with one of e^-20.
        let mut keys = (0..20 * self.endpoints.len() as u64).map(|try_number| {
            let key = format!("{:016x}", mixed(random.wrapping_add(try_number)));
            Some((self.find(&key)?, key))
        });
        keys.find_map(|found| found.filter(|(endpoint, _)| !failed.contains(endpoint)))
    }

    /// Value of `Set-Cookie` (RFC 6265, section 4.1) for a key; `None` if the settings cannot stand
    /// in a header.
    pub fn cookie(&self, key: &str, asker: &Asker<'_>) -> Option<HeaderValue> {
        let affinity = self.affinity;
        let mut out = format!("{}={key}|{}", affinity.cookie, backend(self.upstream));
        let mut add = |name: &str, value: &str| out.extend(["; ", name, value]);
        if let Some(seconds) = affinity.expires {
            let now = i64::try_from(asker.now.as_secs()).unwrap_or(LAST);
            let until = now.saturating_add(seconds).clamp(0, LAST);
            let until = UNIX_EPOCH + Duration::from_secs(until.unsigned_abs());
            add("Expires=", &httpdate::fmt_http_date(until));
        }
        if let Some(seconds) = affinity.max_age {
            add("Max-Age=", &seconds.to_string());
        }
        if let Some(domain) = affinity.domain.as_deref().filter(|d| !d.is_empty()) {
            add("Domain=", domain);
        }
        add("Path=", affinity.path.as_deref().unwrap_or(asker.path));
        if affinity.secure.unwrap_or(asker.is_https) {
            add("Secure", "");
        }
        add("HttpOnly", "");
        if let Some(value) = self.same_site(asker.user_agent) {
            add("SameSite=", value);
        }
        HeaderValue::from_bytes(out.as_bytes()).ok()
    }

    fn same_site(&self, user_agent: Option<&str>) -> Option<&'a str> {
        let value = self.affinity.same_site.as_deref();
        let value = value.filter(|value| ["Strict", "Lax", "None"].contains(value))?;
        let is_refused = value == "None"
            && self.affinity.conditional_same_site_none
            && user_agent.is_some_and(refuses_none);
        (!is_refused).then_some(value)
    }
}

/// Whether a browser refuses cookies with `SameSite=None`
/// (<https://www.chromium.org/updates/same-site/incompatible-clients/>; util/same_site.lua).
fn refuses_none(user_agent: &str) -> bool {
    let has = |part: &str| user_agent.contains(part);
    ["Chrome/4", "Chrome/5", "Chrome/6"].into_iter().any(has)
        || has("CPU iPhone OS 12")
        || has("iPad; CPU OS 12")
        || (has("Macintosh") && has("Intel Mac OS X 10_14") && has("Safari") && !has("Chrome"))
}

#[cfg(test)]
mod tests;
