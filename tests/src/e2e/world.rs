//! What a test's nodes share: a fabric, a cgroup, a directory, and a client outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::netns::Netns;
use super::peer::Peer;

/// One test at a time: with two cores, a second would be the first one's noise.
static TURN: Mutex<()> = Mutex::new(());
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The fabric that nodes and outside clients are on.
#[derive(Debug)]
pub struct World {
    pub(super) shared: Arc<Shared>,
    _turn: MutexGuard<'static, ()>,
}

/// What lives as long as anything of the world does.
#[derive(Debug)]
pub(super) struct Shared {
    id: String,
    pub(super) fabric: Netns,
    pub(super) cgroup: PathBuf,
    pub(super) dir: tempfile::TempDir,
}

impl World {
    /// Makes a fabric: a bridge that refuses what it has no route for, so that a packet that
    /// should have been translated fails at once.
    ///
    /// # Panics
    /// It cannot be made: this needs root, iproute2 and a cgroup2 mount.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it has effects")]
    pub fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("be2e{}-{count}", std::process::id());
        let cgroup = cgroup2().join(&id);
        fs::create_dir_all(&cgroup).expect("the cgroup can be made");
        let fabric = Netns::router(&format!("{id}-fabric"));
        fabric.ip("link add br0 type bridge mcast_snooping 0\n\
             addr add 172.29.0.1/24 dev br0\n\
             addr add fd29::1/64 dev br0 nodad\n\
             link set br0 up\n\
             route add unreachable 0.0.0.0/0\n\
             route add unreachable ::/0\n");
        let dir = tempfile::tempdir().expect("a directory can be made");
        let shared = Arc::new(Shared {
            id,
            fabric,
            cgroup,
            dir,
        });
        Self {
            shared,
            _turn: turn,
        }
    }

    /// A host on the fabric that is no node: a client outside, at `172.29.0.HOST` and
    /// `fd29::HOST`, with routes to all vips by the node 1.
    #[must_use]
    pub fn outside(&self, host: u8) -> Outside {
        let netns = self.shared.host(&format!("out{host}"), host, Netns::new);
        netns.ip("route add 10.97.0.0/16 via 172.29.0.11\n\
             route add fd97::/64 via fd29::11\n");
        let peer = Peer::start(&netns, &self.shared.cgroup_of("outside"));
        Outside { peer, netns }
    }

    /// A directory of the test's own.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.shared.dir.path()
    }
}

/// A client outside.
#[derive(Debug)]
pub struct Outside {
    /// What dials there.
    pub peer: Peer,
    /// Its namespace.
    pub netns: Netns,
}

impl Shared {
    pub(super) fn name(&self, label: &str) -> String {
        format!("{}-{label}", self.id)
    }

    /// A namespace with a device `eth0` on the fabric.
    pub(super) fn host(&self, label: &str, host: u8, make: fn(&str) -> Netns) -> Netns {
        let netns = make(&self.name(label));
        let name = netns.name();
        self.fabric.ip(&format!(
            "link add {label} type veth peer name eth0 netns {name}\n\
             link set {label} master br0 up\n"
        ));
        netns.ip(&format!(
            "addr add 172.29.0.{host}/24 dev eth0\n\
             addr add fd29::{host}/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via 172.29.0.1\n\
             route add default via fd29::1\n"
        ));
        netns
    }

    pub(super) fn cgroup_of(&self, below: &str) -> PathBuf {
        let dir = self.cgroup.join(below);
        fs::create_dir_all(&dir).expect("a cgroup can be made");
        dir
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The kernel lets go of processes that have ended a moment after they were waited for.
        let end = Instant::now() + Duration::from_secs(2);
        while !remove(&self.cgroup) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a cgroup and those below it.
fn remove(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    fs::remove_dir(dir).is_ok() || !dir.exists()
}

/// Where the machine's cgroup2 hierarchy is mounted.
fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let mut words = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = words
        .find(|w| w[2] == "cgroup2")
        .expect("a cgroup2 hierarchy is mounted");
    PathBuf::from(mount[1])
}
