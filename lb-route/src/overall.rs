//! Limits of requests that count for all proxies together (`global-rate-limit`): a sliding window
//! over what this proxy has let in, and what others have told that they let in.
//!
//! What a proxy tells are not steps but its whole counts of a window ([`Counts`]), beside the
//! [`Life`] that they are of. So nothing counts twice, whether it comes again, late or in another
//! order; what is lost is in what is told next; and a proxy that starts anew counts beside what it
//! had let in before.
//!
//! What is known of others is never more than they have let in: no request is refused before the
//! limit is reached. How far beyond it they get together follows from how late they hear of each
//! other (docs/ingress.md).

mod counts;
mod zone;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub use counts::Counts;

use crate::{
    Table,
    action::Location,
    input::Name,
    limits::{CLIENTS, SHARDS},
    settings::OverallLimit,
};
use zone::{Shard, Zone, zone_id};

/// A proxy, from its start to its end: random, and another after each start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Life(pub u64);

/// An Ingress with a limit, alike in all proxies: of its names and its window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ZoneId(pub u64);

/// What requests are counted by, alike in all proxies. Nobody finds another value for the one of
/// somebody else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyId(pub [u8; 16]);

/// What a proxy tells others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Told {
    /// The Ingress.
    pub zone: ZoneId,
    /// The window that the counts are seen from.
    pub window: u64,
    /// Of whom.
    pub key: KeyId,
    /// Requests in the window.
    pub now: u32,
    /// Requests in the one before.
    pub before: u32,
}

impl Told {
    fn new(zone: ZoneId, key: KeyId, counts: Counts) -> Self {
        let Counts {
            window,
            now,
            before,
        } = counts;
        Self {
            zone,
            window,
            key,
            now,
            before,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// It is let in, and counted; others do not know of it, nor of those before it.
    First,
    /// It is let in.
    Yes,
    /// The limit is reached.
    No,
}

/// What was let in by all proxies, of every Ingress with a limit. Asked by any number of threads.
#[derive(Debug)]
pub struct Overall {
    zones: RwLock<Zones>,
    /// Keys of a part of a zone.
    capacity: usize,
    /// Whether somebody tells others what is counted here.
    is_told: AtomicBool,
    /// Whether there is something to tell.
    has_untold: AtomicBool,
    forgotten: AtomicU64,
}

/// The Ingresses with a limit.
#[derive(Debug, Default)]
struct Zones {
    of: HashMap<Name, Arc<Zone>>,
    by_id: HashMap<ZoneId, Arc<Zone>>,
}

impl Default for Overall {
    fn default() -> Self {
        Self::new(CLIENTS)
    }
}

impl Overall {
    /// One that remembers at most about so many keys of an Ingress. Beyond that, what was not seen
    /// for the longest time is forgotten.
    pub fn new(capacity: usize) -> Self {
        Self {
            zones: RwLock::default(),
            capacity: capacity.div_ceil(SHARDS).max(1),
            is_told: AtomicBool::new(false),
            has_untold: AtomicBool::new(false),
            forgotten: AtomicU64::new(0),
        }
    }

    /// There is another table: what Ingresses without a limit had counted is forgotten. Whether
    /// any has one.
    pub fn adapt(&self, table: &Table) -> bool {
        let locations = table.hosts().flat_map(|(_, host)| host.locations());
        self.set(locations)
    }

    /// As [`Overall::adapt`], for these paths.
    pub fn set<'l>(&self, locations: impl Iterator<Item = &'l Arc<Location>>) -> bool {
        let mut zones = Zones::default();
        for location in locations {
            let Some(limit) = &location.settings.limits.overall else {
                continue;
            };
            if zones.of.contains_key(&location.ingress) {
                continue;
            }
            let id = zone_id(&location.ingress, &location.uid, limit.window);
            let known = self.zones().by_id.get(&id).cloned();
            let zone = known.unwrap_or_else(|| Arc::new(Zone::new(id, limit.window)));
            zones.by_id.insert(id, zone.clone());
            zones.of.insert(location.ingress.clone(), zone);
        }
        let is_any = !zones.of.is_empty();
        if is_any || self.is_used() {
            *self.zones.write().unwrap_or_else(PoisonError::into_inner) = zones;
        }
        is_any
    }

    /// From now on somebody tells others what is counted: by [`Overall::take_untold`] and its
    /// companions, again and again.
    pub fn tell(&self) {
        self.is_told.store(true, Relaxed);
    }

    /// Whether a request of an Ingress is let in, by its key, at a time since 1970. One that is
    /// refused uses nothing up.
    pub fn admit(
        &self,
        ingress: &Name,
        limit: &OverallLimit,
        key: &[u8],
        now: Duration,
    ) -> Admitted {
        // An Ingress that is gone since the request came has no limit any more.
        let Some(zone) = self.zones().of.get(ingress).cloned() else {
            return Admitted::Yes;
        };
        let key = zone.key(key);
        let (window, passed) = zone.window(now);
        let mut shard = zone.shard(key);
        let sums = shard.sums(key, window);
        if !counts::is_within(limit.requests, sums, passed, zone.length) {
            return Admitted::No;
        }
        let is_told = self.is_told.load(Relaxed);
        self.forget(shard.add(key, window, is_told, self.capacity));
        drop(shard);
        match is_told && !self.has_untold.swap(true, Relaxed) {
            true => Admitted::First,
            false => Admitted::Yes,
        }
    }

    /// Takes in what another proxy has told, at a time since 1970. What is of no Ingress with a
    /// limit, or neither of this window nor of its neighbours, is left out.
    pub fn hear(&self, life: Life, told: impl IntoIterator<Item = Told>, now: Duration) {
        let zones = self.zones();
        for told in told {
            let Some(zone) = zones.by_id.get(&told.zone) else {
                continue;
            };
            let (window, _) = zone.window(now);
            let counts = Counts {
                window: told.window,
                now: told.now,
                before: told.before,
            };
            if told.window.abs_diff(window) > 1 || !counts.is_in_force(window) {
                continue;
            }
            let mut shard = zone.shard(told.key);
            self.forget(shard.hear(told.key, (life, counts), window, self.capacity));
        }
    }

    /// What others do not know yet. Each is in [`Overall::take_again`] once more.
    pub fn take_untold(&self) -> Vec<Told> {
        // Before it is taken: what comes meanwhile is told the next time.
        self.has_untold.store(false, Relaxed);
        self.collect(Shard::take_untold)
    }

    /// What was told since this was asked last: it may have been lost.
    pub fn take_again(&self) -> Vec<Told> {
        self.collect(Shard::take_again)
    }

    /// All that is in force at a time since 1970, for who knows nothing yet: what was counted here
    /// (`None`), and what some others have told.
    pub fn all(
        &self,
        now: Duration,
        is_wanted: impl Fn(Life) -> bool,
    ) -> BTreeMap<Option<Life>, Vec<Told>> {
        let is_wanted = |life: Option<Life>| life.is_none_or(&is_wanted);
        let all = self.each_shard(|zone, shard| {
            let (window, _) = zone.window(now);
            let all = shard.all(window).filter(|(life, ..)| is_wanted(*life));
            let told = all.map(|(life, key, counts)| (life, Told::new(zone.id, key, counts)));
            told.collect::<Vec<_>>()
        });
        let mut of_lives: BTreeMap<_, Vec<Told>> = BTreeMap::new();
        for (life, told) in all.flatten() {
            of_lives.entry(life).or_default().push(told);
        }
        of_lives
    }

    /// Whether any Ingress has a limit.
    pub fn is_used(&self) -> bool {
        !self.zones().of.is_empty()
    }

    /// How many keys are remembered, of each Ingress for itself.
    pub fn keys(&self) -> usize {
        self.each_shard(|_, shard| shard.len()).sum()
    }

    /// How many counts were forgotten that were in force: of keys, and of proxies beyond those
    /// that there is room for.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    fn forget(&self, count: u64) {
        if count > 0 {
            self.forgotten.fetch_add(count, Relaxed);
        }
    }

    fn collect(&self, take: fn(&mut Shard, ZoneId) -> Vec<Told>) -> Vec<Told> {
        let all = self.each_shard(|zone, shard| take(shard, zone.id));
        all.flatten().collect()
    }

    fn each_shard<T>(&self, mut of: impl FnMut(&Zone, &mut Shard) -> T) -> impl Iterator<Item = T> {
        let zones: Vec<Arc<Zone>> = self.zones().by_id.values().cloned().collect();
        zones.into_iter().flat_map(move |zone| {
            let shards = zone.shards();
            let all: Vec<T> = shards.map(|mut shard| of(&zone, &mut shard)).collect();
            all
        })
    }

    fn zones(&self) -> RwLockReadGuard<'_, Zones> {
        self.zones.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
