//! Sessions that clients resume: kept here, and in tickets only where that is asked for, whose key
//! is a secret that outlives connections. None is resumed after its time
//! (`ssl-session-timeout`).

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::{
    crypto::aws_lc_rs,
    server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions},
};

/// How long sessions live, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lifetime(u64);

/// Bytes of the time that stands before a session.
const STAMP: usize = size_of::<u64>();

impl Lifetime {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX))
    }

    /// A session with its time before it.
    fn stamp(self, session: &[u8]) -> Vec<u8> {
        [&now().to_be_bytes(), session].concat()
    }

    /// The session, if its time is not over.
    fn good(self, mut stamped: Vec<u8>) -> Option<Vec<u8>> {
        let (stamp, _) = stamped.split_first_chunk::<STAMP>()?;
        let age = now().checked_sub(u64::from_be_bytes(*stamp))?;
        (age < self.0).then(|| stamped.split_off(STAMP))
    }
}

/// Milliseconds since the first session. No session outlives the process: tickets' keys do not.
fn now() -> u64 {
    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    // So many are not reached.
    u64::try_from(BEGINNING.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The part of the sessions that hosts with one demand for certificates of clients share.
///
/// rustls resumes a session only under the name that it began with. What a client has to show
/// may have changed meanwhile: a session from before shows what was asked for then.
#[derive(Debug)]
pub(super) struct Scope {
    sessions: Arc<ServerSessionMemoryCache>,
    lifetime: Lifetime,
    number: u64,
}

impl Scope {
    /// A part of its own.
    pub(super) fn new(sessions: &Arc<ServerSessionMemoryCache>, lifetime: Lifetime) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            sessions: sessions.clone(),
            lifetime,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    fn key(&self, id: &[u8]) -> Vec<u8> {
        [&self.number.to_be_bytes(), id].concat()
    }
}

impl StoresServerSessions for Scope {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        self.sessions
            .put(self.key(&id), self.lifetime.stamp(&session))
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.lifetime.good(self.sessions.get(&self.key(id))?)
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.lifetime.good(self.sessions.take(&self.key(id))?)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// Tickets that are good for a time. Their keys are rustls', which change after six hours and are
/// gone after twelve: longer no ticket is good.
#[derive(Debug)]
pub(super) struct Tickets {
    sealed: Arc<dyn ProducesTickets>,
    lifetime: Lifetime,
}

impl Tickets {
    /// With keys of their own.
    ///
    /// # Errors
    /// There is no randomness for a key.
    pub(super) fn new(lifetime: Lifetime) -> Result<Arc<Self>, rustls::Error> {
        let sealed = aws_lc_rs::Ticketer::new()?;
        Ok(Arc::new(Self { sealed, lifetime }))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.sealed.enabled()
    }

    fn lifetime(&self) -> u32 {
        let seconds = u32::try_from(self.lifetime.0 / 1000).unwrap_or(u32::MAX);
        seconds.min(self.sealed.lifetime())
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.sealed.encrypt(&self.lifetime.stamp(session))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.lifetime.good(self.sealed.decrypt(ticket)?)
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(3600);

    fn lasts(lifetime: Duration) -> bool {
        let lifetime = Lifetime::new(lifetime);
        let tickets = Tickets::new(lifetime).expect("there is randomness");
        let scope = Scope::new(&ServerSessionMemoryCache::new(16), lifetime);
        let ticket = tickets.encrypt(b"session").expect("it is sealed");
        for id in [b"1", b"2"] {
            assert!(scope.put(id.to_vec(), b"session".to_vec()));
        }
        sleep(SHORT + Duration::from_millis(20));
        let found = [tickets.decrypt(&ticket), scope.get(b"1"), scope.take(b"2")];
        let are_there = found.iter().all(Option::is_some);
        assert!(are_there || found.iter().all(Option::is_none), "{found:?}");
        let found = found.into_iter().flatten();
        assert!(found.into_iter().all(|session| session == b"session"));
        are_there
    }

    #[test]
    fn sessions_are_good_for_a_time() {
        assert!(!lasts(SHORT));
        assert!(lasts(LONG));
        assert!(!lasts(Duration::ZERO));
    }

    #[test]
    fn clients_are_told_how_long() {
        let told = |lifetime| {
            let tickets = Tickets::new(Lifetime::new(lifetime)).expect("there is randomness");
            tickets.lifetime()
        };
        assert_eq!(told(Duration::from_secs(600)), 600);
        // Twelve hours: then the key is gone.
        assert_eq!(told(Duration::from_secs(86_400)), 43_200);
        assert_eq!(told(Duration::MAX), 43_200);
    }
}
