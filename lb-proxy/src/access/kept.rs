//! Answers of servers that are asked, kept for a while (`auth-cache-*`): the `proxy_cache` of the
//! location of an `$authPath` in nginx.tmpl of ingress-nginx.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{Context, SHA256};
use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, EXPIRES, SET_COOKIE, VARY},
    response::Parts,
};
use lb_route::{
    action::Location,
    settings::{AuthCache, ExternalAuth},
};
use lru::LruCache;
use tokio::time::Instant;

use crate::headers::words;

/// Answers that are kept at most; the one that was not asked for longest goes.
const MOST: usize = 16_384;
/// Bytes of headers that one may have.
const LONGEST: usize = 4 << 10;

/// What an answer is found by: nobody can make two of one.
pub(super) type Key = [u8; 32];

/// Answers of all servers.
pub(crate) struct Kept(Mutex<LruCache<Key, (Arc<Parts>, Instant)>>);

impl Default for Kept {
    fn default() -> Self {
        // One with a limit takes the room for all at once.
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl Kept {
    /// One that is not too old.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Parts>> {
        let mut all = self.all();
        let (answer, until) = all.get(key)?;
        if *until > Instant::now() {
            return Some(answer.clone());
        }
        all.pop(key);
        None
    }

    /// Keeps one, if it may be.
    pub(super) fn keep(&self, key: Key, settings: &AuthCache, answer: &Arc<Parts>) {
        let Some(time) = time(settings, answer, SystemTime::now()) else {
            return;
        };
        let mut all = self.all();
        all.put(key, (answer.clone(), Instant::now() + time));
        if all.len() > MOST {
            all.pop_lru();
        }
    }

    fn all(&self) -> MutexGuard<'_, LruCache<Key, (Arc<Parts>, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of a path's requests that are alike.
pub(super) fn key(location: &Location, settings: &ExternalAuth, alike: &str) -> Key {
    let Location {
        uid, host, path, ..
    } = location;
    let mut digest = Context::new(&SHA256);
    // With the server: after a change of it what the earlier one said does not count.
    for part in [&**uid, host, path, settings.url.text(), alike] {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut key = Key::default();
    key.copy_from_slice(digest.finish().as_ref());
    key
}

/// How long an answer may be kept: as it says itself (`X-Accel-Expires`, `Cache-Control`,
/// `Expires`, in this order, as nginx has it), else as its status has it.
fn time(settings: &AuthCache, answer: &Parts, now: SystemTime) -> Option<Duration> {
    let headers = &answer.headers;
    let length: usize = headers
        .iter()
        .map(|(n, v)| n.as_str().len() + v.len())
        .sum();
    if length > LONGEST || headers.contains_key(SET_COOKIE) || varies(headers) {
        return None;
    }
    if let Some(value) = text(headers.get("x-accel-expires")) {
        return match value.strip_prefix('@') {
            Some(time) => {
                let time = SystemTime::UNIX_EPOCH.checked_add(seconds(time)?)?;
                time.duration_since(now).ok()
            }
            None => seconds(value),
        };
    }
    let words = || words(headers, CACHE_CONTROL);
    let is_against = |word: &str| {
        let name = word.split('=').next().unwrap_or_default();
        ["no-cache", "no-store", "private"].contains(&name)
    };
    if words().any(is_against) {
        return None;
    }
    let shared = words().find_map(|word| word.strip_prefix("s-maxage="));
    let age = shared.or_else(|| words().find_map(|word| word.strip_prefix("max-age=")));
    if let Some(age) = age {
        return seconds(age);
    }
    if let Some(date) = text(headers.get(EXPIRES)) {
        let date = httpdate::parse_http_date(date).ok()?;
        return date.duration_since(now).ok();
    }
    settings.time(answer.status)
}

/// Whether the answer goes by more of the question than its key. Which coding its body has does
/// not matter.
fn varies(headers: &HeaderMap) -> bool {
    let values = headers.get_all(VARY).iter();
    let mut words = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.any(|word| !word.trim_ascii().eq_ignore_ascii_case(b"accept-encoding"))
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok()
}

/// Some; none at all is not to keep it.
fn seconds(value: &str) -> Option<Duration> {
    let seconds: u32 = value.trim().parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use lb_route::variables::Template;

    use super::*;
    use crate::headers::testing::answer;

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_for_their_time_and_so_many() {
        let settings = AuthCache {
            key: Template::parse("$remote_user").unwrap(),
            times: vec![(vec![200], Duration::from_secs(5))],
        };
        let key = |number: usize| {
            let mut key = Key::default();
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        let kept = Kept::default();
        let yes = Arc::new(answer(200, &[]));
        kept.keep(key(0), &settings, &yes);
        kept.keep(key(1), &settings, &Arc::new(answer(403, &[])));
        tokio::time::advance(Duration::from_millis(4_999)).await;
        assert_eq!(kept.find(&key(0)).map(|a| a.status), Some(StatusCode::OK));
        assert!(kept.find(&key(1)).is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(kept.find(&key(0)).is_none());
        for number in 0..=MOST {
            kept.keep(key(number), &settings, &yes);
        }
        assert!(kept.find(&key(0)).is_none());
        assert!(kept.find(&key(1)).is_some() && kept.find(&key(MOST)).is_some());
    }

    /// A status, headers, and for how many seconds such an answer is kept.
    type Case = (u16, &'static [(&'static str, &'static str)], Option<u64>);

    #[rustfmt::skip]
    const TIMES: &[Case] = &[
        (200, &[], Some(300)),
        (401, &[], Some(7)),
        (403, &[], None),
        (200, &[("set-cookie", "a=b")], None),
        (200, &[("vary", "Accept-Encoding")], Some(300)),
        (200, &[("vary", "accept-encoding, cookie")], None),
        (200, &[("vary", "*")], None),
        (200, &[("cache-control", "public")], Some(300)),
        (200, &[("cache-control", "no-cache=\"x\", max-age=5")], None),
        (
            200,
            &[("cache-control", "max-age=5"), ("cache-control", "private")],
            None,
        ),
        (200, &[("cache-control", "max-age=5, s-maxage=6")], Some(6)),
        (403, &[("cache-control", "max-age=5")], Some(5)),
        (200, &[("cache-control", "max-age=0")], None),
        (
            200,
            &[("cache-control", "max-age=5"), ("expires", "0")],
            Some(5),
        ),
        (
            200,
            &[("expires", "Thu, 01 Jan 1970 00:17:00 GMT")],
            Some(20),
        ),
        (200, &[("expires", "Thu, 01 Jan 1970 00:16:00 GMT")], None),
        (200, &[("expires", "0")], None),
        (
            200,
            &[("x-accel-expires", "9"), ("cache-control", "no-store")],
            Some(9),
        ),
        (200, &[("x-accel-expires", "0")], None),
        (200, &[("x-accel-expires", "@1030")], Some(30)),
        (200, &[("x-accel-expires", "@970")], None),
    ];

    #[test]
    fn answers_say_how_long_they_are_kept() {
        let settings = AuthCache {
            key: Template::parse("$remote_user").unwrap(),
            times: vec![
                (vec![200, 202], Duration::from_secs(300)),
                (vec![401, 200], Duration::from_secs(7)),
            ],
        };
        // Thu, 01 Jan 1970 00:16:40 GMT
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (status, headers, expected) in TIMES {
            let found = time(&settings, &answer(*status, headers), now);
            assert_eq!(
                found,
                expected.map(Duration::from_secs),
                "{status} {headers:?}"
            );
        }
        let large = answer(200, &[("x-large", &"x".repeat(5000))]);
        assert_eq!(time(&settings, &large, now), None);
    }
}
