//! Sessions that clients resume: kept here, and not in tickets, whose key would be a secret that
//! outlives connections.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

/// The part of the sessions that hosts with one demand for certificates of clients share.
///
/// rustls resumes a session only under the name that it began with. What a client has to show
/// may have changed meanwhile: a session from before shows what was asked for then.
#[derive(Debug)]
pub(super) struct Scope {
    sessions: Arc<ServerSessionMemoryCache>,
    number: u64,
}

impl Scope {
    /// A part of its own.
    pub(super) fn new(sessions: &Arc<ServerSessionMemoryCache>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            sessions: sessions.clone(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    fn key(&self, id: &[u8]) -> Vec<u8> {
        [&self.number.to_be_bytes(), id].concat()
    }
}

impl StoresServerSessions for Scope {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        self.sessions.put(self.key(&id), session)
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.sessions.get(&self.key(id))
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.sessions.take(&self.key(id))
    }

    fn can_cache(&self) -> bool {
        true
    }
}
