//! Which endpoint a request goes to.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use lb_route::{
    action::{Endpoints, Forward, Upstream},
    affinity::Sticky,
    balance::{self, Ewma},
    settings::{Affinity, Balance, Settings},
};

use crate::upstream::Names;

/// How long the endpoints of upstreams take, of those that are chosen by it.
#[derive(Debug, Default)]
pub(crate) struct Averages(RwLock<HashMap<Arc<str>, Arc<Ewma>>>);

impl Averages {
    fn of(&self, upstream: &Upstream) -> Arc<Ewma> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&upstream.name) {
            return known.clone();
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(upstream.name.clone()).or_default().clone()
    }

    /// Endpoints of upstreams have changed, and only those are left.
    pub(crate) fn keep<'u>(
        &self,
        upstreams: impl Iterator<Item = &'u Arc<Upstream>>,
        now: Duration,
    ) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            return;
        }
        let mut left = HashMap::new();
        for upstream in upstreams {
            if let Some(averages) = known.remove(&upstream.name) {
                if let Endpoints::At(endpoints) = &upstream.endpoints {
                    averages.keep(endpoints, now);
                }
                left.insert(upstream.name.clone(), averages);
            }
        }
        *known = left;
    }
}

/// The endpoints of an upstream; none if its name has no address.
pub(crate) async fn endpoints<'u>(upstream: &'u Upstream, names: &Names) -> Cow<'u, [SocketAddr]> {
    match &upstream.endpoints {
        Endpoints::At(addresses) => Cow::Borrowed(addresses),
        Endpoints::Named(name, port) => match names.resolve(name, *port).await {
            Ok(addresses) => addresses.into(),
            Err(error) => {
                let upstream = &upstream.name;
                tracing::warn!(%upstream, %name, %error, "the name has no address");
                Vec::new().into()
            }
        },
    }
}

/// The endpoint whose turn it is; none that was tried, as long as there is another.
pub(crate) fn in_turn(
    upstream: &Upstream,
    endpoints: &[SocketAddr],
    tried: &[SocketAddr],
) -> Option<SocketAddr> {
    let turn = upstream.turn.fetch_add(1, Relaxed);
    let next = balance::round_robin(endpoints, turn, tried);
    next.or_else(|| balance::round_robin(endpoints, turn, &[]))
}

/// Chooses the endpoints of a request.
pub(crate) struct Choice<'c> {
    pub(crate) forward: &'c Forward,
    pub(crate) upstream: &'c Upstream,
    pub(crate) endpoints: Cow<'c, [SocketAddr]>,
    averages: Option<Arc<Ewma>>,
    /// All attempts have the same: with two endpoints of which one is dead, each request would
    /// begin with that one else.
    turn: usize,
}

/// An endpoint, and the key of a cookie that is to bind the client to it.
pub(crate) type Chosen = (SocketAddr, Option<String>);

impl<'c> Choice<'c> {
    /// For a request.
    pub(crate) fn new(
        forward: &'c Forward,
        upstream: &'c Upstream,
        endpoints: Cow<'c, [SocketAddr]>,
        averages: &Averages,
    ) -> Self {
        let balance = &settings(forward).upstream.balance;
        let averages = matches!(balance, Balance::Ewma).then(|| averages.of(upstream));
        Self {
            forward,
            upstream,
            endpoints,
            averages,
            turn: upstream.turn.fetch_add(1, Relaxed),
        }
    }

    /// The next one: none that was tried, as long as there is another. `now` is
    /// [`crate::Proxy::clock`].
    pub(crate) fn next(&self, tried: &[SocketAddr], now: impl Fn() -> Duration) -> Option<Chosen> {
        self.untried(tried, &now)
            .or_else(|| self.untried(&[], &now).filter(|_| !tried.is_empty()))
    }

    fn untried(&self, tried: &[SocketAddr], now: &impl Fn() -> Duration) -> Option<Chosen> {
        let (endpoints, settings) = (&*self.endpoints, settings(self.forward));
        if let Some(affinity) = &settings.affinity {
            let cookie = self.forward.cookie.as_deref();
            let sticky = self.sticky(affinity);
            let bound = sticky.choose(cookie, tried, rand::random())?;
            return Some((bound.endpoint, bound.key));
        }
        let hash = self.forward.hash.as_deref().unwrap_or_default();
        let endpoint = match &settings.upstream.balance {
            Balance::RoundRobin => balance::round_robin(endpoints, self.turn, tried),
            Balance::Ewma => {
                let averages = self.averages.as_ref()?;
                averages.choose(endpoints, tried, rand::random(), now())
            }
            Balance::Hash { subset: None, .. } => {
                balance::hashed(endpoints, hash.as_bytes(), tried)
            }
            Balance::Hash {
                subset: Some(size), ..
            } => {
                let random = rand::random();
                balance::hashed_subset(endpoints, hash.as_bytes(), *size, tried, random)
            }
        };
        Some((endpoint?, None))
    }

    /// What binds clients.
    pub(crate) fn sticky<'s>(&'s self, affinity: &'s Affinity) -> Sticky<'s> {
        Sticky {
            affinity,
            upstream: &self.upstream.name,
            endpoints: &self.endpoints,
        }
    }

    /// An endpoint has answered.
    pub(crate) fn answered(
        &self,
        endpoint: SocketAddr,
        took: Duration,
        now: impl Fn() -> Duration,
    ) {
        if let Some(averages) = &self.averages {
            averages.record(endpoint, took, now());
        }
    }
}

/// The settings of balancing and affinity: of the canary, if the request goes there.
pub(crate) fn settings(forward: &Forward) -> &Settings {
    match &forward.location.canary {
        Some(canary) if forward.canary => &canary.settings,
        _ => &forward.location.settings,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use lb_route::input::{Name, PortRef};

    use super::*;

    #[test]
    fn in_turn_and_none_twice() {
        let all: Vec<SocketAddr> = (1..=3).map(|n| ([192, 0, 2, n], 80).into()).collect();
        let upstream = Upstream {
            name: "a".into(),
            service: Name::new("a", "b"),
            port: PortRef::Number(80),
            endpoints: Endpoints::At(all.clone().into()),
            turn: Arc::new(AtomicUsize::new(0)),
        };
        let mut seen: Vec<_> = (0..3)
            .filter_map(|_| in_turn(&upstream, &all, &[]))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, all);
        for _ in 0..4 {
            assert_eq!(in_turn(&upstream, &all, &all[..2]), Some(all[2]));
            assert!(in_turn(&upstream, &all, &all).is_some());
        }
        assert_eq!(in_turn(&upstream, &[], &[]), None);
    }
}
