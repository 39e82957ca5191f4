//! Network namespaces, bpffs mounts and cgroups that a test makes, and a node of
//! them; each is removed when it is dropped, also by a panic.

use std::{
    fs,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_plan::Actual;
use lb_userspace::bpf::{Datapath, Error, MapSizes, Settings, views::Views};

/// Runs a command; its output, or an error with what it said.
///
/// # Errors
/// The command cannot be run, or fails.
pub fn sh(command: &str) -> Result<String> {
    let output = Command::new("sh").args(["-c", command]).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    ensure!(
        output.status.success(),
        "{command}: {}",
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}

/// A name that no other test of this machine has.
fn unique(tag: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("bascule-test-{}-{number}-{tag}", std::process::id())
}

/// A network namespace, with its loopback device up.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// A new one. `tag` shows in its name.
    ///
    /// # Errors
    /// Namespaces cannot be made: the test needs root and `iproute2`.
    pub fn new(tag: &str) -> Result<Self> {
        let name = unique(tag);
        sh(&format!("ip netns add {name}"))?;
        let made = Self { name };
        made.exec("ip link set lo up")?;
        Ok(made)
    }

    /// Its name, for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs a command in it.
    ///
    /// # Errors
    /// The command fails.
    pub fn exec(&self, command: &str) -> Result<String> {
        sh(&format!("ip netns exec {} sh -c '{command}'", self.name))
    }

    /// Runs a closure in it, on a thread of its own: threads that this one starts
    /// are in the namespace too.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    ///
    /// # Panics
    /// When the closure does.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let file = fs::File::open(self.path())?;
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                // SAFETY: the descriptor is open; only this thread changes namespace.
                if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(body())
            });
            match worker.join() {
                Ok(done) => done.context("setns"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Joins this one to another by a veth pair; both ends are up.
    ///
    /// # Errors
    /// A name is taken.
    pub fn veth(&self, device: &str, peer: &Self, peer_device: &str) -> Result<()> {
        let (here, there) = (&self.name, &peer.name);
        sh(&format!(
            "ip -n {here} link add {device} type veth peer name {peer_device} netns {there} && \
             ip -n {here} link set {device} up && ip -n {there} link set {peer_device} up"
        ))?;
        Ok(())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = sh(&format!("ip netns del {}", self.name)) {
            eprintln!("{error}");
        }
    }
}

/// A private mount of a bpffs.
#[derive(Debug)]
pub struct Bpffs {
    dir: tempfile::TempDir,
}

impl Bpffs {
    /// A new mount.
    ///
    /// # Errors
    /// The test may not mount.
    pub fn new() -> Result<Self> {
        let made = Self {
            dir: tempfile::tempdir()?,
        };
        sh(&format!("mount -t bpf bpf {}", made.path().display()))?;
        Ok(made)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        if let Err(error) = sh(&format!("umount -l {}", self.path().display())) {
            eprintln!("{error}");
        }
    }
}

/// A cgroup of the unified hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A new one at the top. `tag` shows in its name.
    ///
    /// # Errors
    /// No cgroup2 is mounted, or the test may not make cgroups.
    pub fn new(tag: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mut fields = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let Some(mount) = fields.find(|f| f.get(2) == Some(&"cgroup2")) else {
            bail!("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup");
        };
        let path = Path::new(mount[1]).join(unique(tag));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes of the test may take a moment to end.
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                _ => return,
            }
        }
        eprintln!("{}: still in use", self.path.display());
    }
}

/// A node for tests of the loaded datapath: a network namespace, a bpffs and a
/// cgroup of its own.
#[derive(Debug)]
pub struct Node {
    /// Where its devices are.
    pub netns: Netns,
    /// Where its pins are.
    pub bpffs: Bpffs,
    /// Whose sockets it serves.
    pub cgroup: Cgroup,
}

impl Node {
    /// A new one. `tag` shows in its names.
    ///
    /// # Errors
    /// The test may not make namespaces, mounts or cgroups.
    pub fn new(tag: &str) -> Result<Self> {
        let (netns, bpffs, cgroup) = (Netns::new(tag)?, Bpffs::new()?, Cgroup::new(tag)?);
        Ok(Self {
            netns,
            bpffs,
            cgroup,
        })
    }

    /// Settings for it, with small maps.
    pub fn settings(&self) -> Settings {
        let sizes = MapSizes {
            frontends: 1024,
            backends: 1024,
            services: 256,
            slots: 65_536,
            ranges: 256,
            conntrack: 32_768,
            affinity: 256,
            sock_nat: 1024,
        };
        Settings {
            bpffs: self.bpffs.path().to_owned(),
            cgroup: self.cgroup.path().to_owned(),
            sizes,
            ..Settings::default()
        }
    }

    /// Loads the datapath in the node's namespace.
    ///
    /// # Errors
    /// As [`Datapath::load`].
    pub fn try_load(&self, settings: &Settings) -> Result<(Datapath, Actual), Error> {
        let entered = self.netns.run(|| Datapath::load(settings));
        entered.unwrap_or_else(|error| {
            let source = std::io::Error::other(error.to_string());
            Err(Error::Netlink {
                call: "enter the namespace",
                source,
            })
        })
    }

    /// The same, where it is to succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn load(&self, settings: &Settings) -> (Datapath, Actual) {
        match self.try_load(settings) {
            Ok(loaded) => loaded,
            Err(error) => panic!("{error}"),
        }
    }

    /// Its pinned maps.
    ///
    /// # Errors
    /// Nothing was loaded yet.
    pub fn views(&self) -> Result<Views, Error> {
        Views::open(&self.settings())
    }
}
