//! What proxies tell each other of limits that count for all of them together
//! ([`lb_route::overall`]), by datagrams of UDP.
//!
//! What a proxy has counted it tells after [`EVERY`], if there is anything, and what it has told
//! once more within [`AGAIN`]: it may have been lost. Who is new is told all that is in force, also
//! of proxies that have ended. As long as no Ingress has such a limit, nothing is sent.

pub mod datagram;
mod lives;
mod socket;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use lb_route::{
    Table,
    action::Location,
    input::Name,
    overall::{Admitted, Life, Overall, Told},
    settings::OverallLimit,
};
use tokio::{
    net::UdpSocket,
    sync::Notify,
    task::JoinHandle,
    time::{self, MissedTickBehavior},
};

use crate::listen::canonical;
use datagram::{LONGEST, Of, Refused, Seal};
use lives::Lives;

/// How long what is counted waits for more before it is told.
pub const EVERY: Duration = Duration::from_millis(20);
/// After so long at most it is told once more.
pub const AGAIN: Duration = Duration::from_millis(500);
/// Bytes of a key at least.
pub const SHORTEST_KEY: usize = 16;
/// Datagrams that are sent to each without a pause: buffers of sockets are finite.
const BURST: usize = 32;
const PAUSE: Duration = Duration::from_millis(1);

/// How a proxy hears others.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it hears, and whence it tells.
    pub listen: SocketAddr,
    /// What all proxies know and nobody else: who has it is believed. Without it, whoever sends
    /// from the address of another proxy is.
    pub key: Option<Vec<u8>>,
}

/// Why a proxy cannot hear others.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is taken, or not there.
    #[error("other proxies cannot be heard at {address}: {error}: give another by --peers-listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        error: io::Error,
    },
    /// A key that can be guessed.
    #[error(
        "the key of the proxies has {0} bytes; it has to have {SHORTEST_KEY} at least, of random \
         text"
    )]
    ShortKey(
        /// Its length.
        usize,
    ),
}

/// The limits that count for all proxies together, and what passes between these.
#[derive(Debug, Default)]
pub struct Together {
    limits: Overall,
    untold: Notify,
    traffic: Traffic,
}

#[derive(Debug, Default)]
struct Traffic {
    peers: AtomicUsize,
    sent: AtomicU64,
    failed: AtomicU64,
    heard: AtomicU64,
    strange: AtomicU64,
    forged: AtomicU64,
    malformed: AtomicU64,
}

impl Together {
    /// There is another table. Whether an Ingress of it has a limit.
    pub fn adapt(&self, table: &Table) -> bool {
        self.limits.adapt(table)
    }

    /// As [`Together::adapt`], for these paths.
    pub fn set<'l>(&self, locations: impl Iterator<Item = &'l Arc<Location>>) -> bool {
        self.limits.set(locations)
    }

    /// Whether any Ingress has a limit.
    pub fn is_used(&self) -> bool {
        self.limits.is_used()
    }

    /// Keys that are remembered, of each Ingress for itself.
    pub fn keys(&self) -> usize {
        self.limits.keys()
    }

    /// Counts that were forgotten while they were in force, for want of room.
    pub fn forgotten(&self) -> u64 {
        self.limits.forgotten()
    }

    /// How many others are told.
    pub fn peers(&self) -> usize {
        self.traffic.peers.load(Relaxed)
    }

    /// What became of datagrams, and of how many: `sent` and `failed` to be, `heard`, and of those
    /// that count for nothing `strange` (of none of the proxies' addresses, without a key),
    /// `forged` (with another key, or none) and `malformed`.
    pub fn datagrams(&self) -> [(&'static str, u64); 6] {
        let Traffic {
            sent,
            failed,
            heard,
            strange,
            forged,
            malformed,
            ..
        } = &self.traffic;
        [
            ("sent", sent),
            ("failed", failed),
            ("heard", heard),
            ("strange", strange),
            ("forged", forged),
            ("malformed", malformed),
        ]
        .map(|(what, count)| (what, count.load(Relaxed)))
    }

    /// Whether a request is let in.
    pub(crate) fn admit(&self, ingress: &Name, limit: &OverallLimit, key: &[u8]) -> bool {
        let admitted = self.limits.admit(ingress, limit, key, now());
        if admitted == Admitted::First {
            self.untold.notify_one();
        }
        admitted != Admitted::No
    }
}

/// Since 1970: windows are the same for all proxies.
fn now() -> Duration {
    // A clock that is set to before 1970 stands still.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// A proxy that tells others and hears them, until this is dropped.
pub struct Peers {
    talk: Arc<Talk>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Peers {
    /// Tells others what is counted, and hears them, from now on.
    ///
    /// # Errors
    /// It cannot hear there, or its key is none.
    pub fn start(settings: &Settings, together: Arc<Together>) -> Result<Self, Error> {
        let key = settings.key.as_deref();
        if let Some(short) = key.filter(|key| key.len() < SHORTEST_KEY) {
            return Err(Error::ShortKey(short.len()));
        }
        let address = settings.listen;
        let socket = socket::bind(address).map_err(|error| Error::Listen { address, error })?;
        together.limits.tell();
        let talk = Arc::new(Talk {
            together,
            socket,
            seal: Seal::new(key),
            life: Life(rand::random()),
            peers: ArcSwap::default(),
            lives: Mutex::default(),
            is_one_new: AtomicBool::new(true),
        });
        let tasks = [
            tokio::spawn(talk.clone().tell()),
            tokio::spawn(talk.clone().hear()),
        ];
        Ok(Self { talk, tasks })
    }

    /// From now on these are all proxies, this one among them perhaps.
    pub fn set(&self, addresses: &BTreeSet<SocketAddr>) {
        let own = self.address();
        let is_own = |peer: &SocketAddr| own.as_ref().is_ok_and(|own| socket::is_own(*peer, *own));
        let peers = addresses.iter().map(|peer| canonical(*peer));
        let peers: BTreeSet<SocketAddr> = peers.filter(|peer| !is_own(peer)).collect();
        self.talk.together.traffic.peers.store(peers.len(), Relaxed);
        let known = self.talk.peers.swap(Arc::new(peers.clone()));
        if !peers.is_subset(&known) {
            self.talk.is_one_new.store(true, Relaxed);
        }
    }

    /// Where it hears.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.talk.socket.local_addr().map(canonical)
    }

    /// Tells what is not told yet, at the end.
    pub async fn tell_last(&self) {
        let last = self.talk.together.limits.take_untold();
        if !last.is_empty() {
            self.talk.send_own(last).await;
        }
    }
}

/// What both tasks have.
struct Talk {
    together: Arc<Together>,
    socket: UdpSocket,
    seal: Seal,
    life: Life,
    peers: ArcSwap<BTreeSet<SocketAddr>>,
    lives: Mutex<Lives>,
    /// Whether there is one that does not know what was told before.
    is_one_new: AtomicBool,
}

impl Talk {
    async fn tell(self: Arc<Self>) {
        let Together { limits, untold, .. } = &*self.together;
        let mut again = time::interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = untold.notified() => {
                    time::sleep(EVERY).await;
                    self.send_own(limits.take_untold()).await;
                }
                _ = again.tick() => self.tell_again().await,
            }
        }
    }

    async fn tell_again(&self) {
        let limits = &self.together.limits;
        if !limits.is_used() {
            return;
        }
        let again = limits.take_again();
        if !self.is_one_new.swap(false, Relaxed) {
            if !again.is_empty() {
                self.send_own(again).await;
            }
            return;
        }
        let peers = self.peers.load_full();
        let mut all = {
            let lives = self.lives();
            limits.all(now(), |life| lives.has_ended(life, &peers))
        };
        // It tells that this one is there, even if that is all.
        self.send_own(all.remove(&None).unwrap_or_default()).await;
        for (life, told) in all {
            if let Some(life) = life {
                self.send(Of::Another(life), told).await;
            }
        }
    }

    async fn send_own(&self, told: Vec<Told>) {
        self.send(Of::Sender(self.life), told).await;
    }

    async fn send(&self, whose: Of, told: Vec<Told>) {
        let peers = self.peers.load_full();
        if peers.is_empty() {
            return;
        }
        let datagrams = self.seal.write(whose, told);
        for burst in datagrams.chunks(BURST) {
            for datagram in burst {
                self.send_to_all(datagram, &peers).await;
            }
            if burst.len() == BURST {
                time::sleep(PAUSE).await;
            }
        }
    }

    async fn send_to_all(&self, datagram: &[u8], peers: &BTreeSet<SocketAddr>) {
        let traffic = &self.together.traffic;
        for peer in peers {
            let sent = socket::send(&self.socket, datagram, *peer).await;
            let count = match sent {
                Ok(()) => &traffic.sent,
                Err(_) => &traffic.failed,
            };
            count.fetch_add(1, Relaxed);
        }
    }

    async fn hear(self: Arc<Self>) {
        // What is longer is cut, and is none then.
        let mut buffer = [0; LONGEST + 1];
        loop {
            match self.socket.recv_from(&mut buffer).await {
                Ok((length, from)) => {
                    let from = canonical(from);
                    self.take(&buffer[..length], from);
                }
                // Of a datagram that was sent before.
                Err(_) => time::sleep(PAUSE).await,
            }
        }
    }

    /// Takes in what has come.
    fn take(&self, datagram: &[u8], from: SocketAddr) {
        let traffic = &self.together.traffic;
        let count = |of: &AtomicU64| {
            of.fetch_add(1, Relaxed);
        };
        if !self.seal.is_keyed() && !self.peers.load().contains(&from) {
            return count(&traffic.strange);
        }
        let (whose, told) = match self.seal.read(datagram) {
            Ok(read) => read,
            Err(Refused::Forged) => return count(&traffic.forged),
            Err(Refused::Malformed) => return count(&traffic.malformed),
        };
        if whose.life() == self.life {
            return;
        }
        count(&traffic.heard);
        if let Of::Sender(life) = whose
            && self.lives().heard(life, from)
        {
            self.is_one_new.store(true, Relaxed);
        }
        self.together.limits.hear(whose.life(), told, now());
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
