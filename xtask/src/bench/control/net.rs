//! A node with three pods, two that serve and one that dials, each in a network namespace. They
//! vanish with the mount namespace that has their names (`isolate`); the cgroup does not, and
//! has somebody who removes it whenever this process ends.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use super::super::isolate::{self, Running};
use crate::cluster::process;
use crate::lab::netns::{NETNS_DIR, ip};
use crate::worker::Worker;

/// Where the API server listens, for the node.
pub(super) const API_SERVER: &str = "172.31.255.1";
/// The node's address.
pub(super) const NODE: &str = "172.31.0.2";
/// The network of its pods.
pub(super) const PODS: &str = "10.240.0.0/16";
/// Address of the pods that serve as `a` and as `b`.
pub(super) const SERVERS: [(&str, &str); 2] = [("a", "10.240.0.2"), ("b", "10.240.0.3")];
/// Address of the pod that dials.
pub(super) const CLIENT_ADDR: &str = "10.240.0.4";
/// The node's device that leads to the API server.
const UPLINK: &str = "up0";

/// Where a process runs.
pub(super) struct Place<'a> {
    /// Its network namespace; without one that of the API server.
    pub(super) netns: Option<&'a str>,
    /// Its cgroup, if that matters.
    pub(super) cgroup: Option<&'a Path>,
}

impl Place<'_> {
    /// Starts a program there that does what lines of JSON ask for.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn work(&self, mut command: Command) -> Result<Worker> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Worker::of(name, self.spawn(command)?)
    }

    /// Starts a program there, out of Ctrl-C's reach. It is killed with the thread that calls.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn spawn(&self, mut command: Command) -> Result<Child> {
        if let Some(dir) = self.cgroup {
            let procs = dir.join("cgroup.procs");
            let file = File::options().write(true).open(&procs);
            let file = file.with_context(|| format!("cannot open {}", procs.display()))?;
            process::join(&mut command, vec![file]);
        }
        if let Some(name) = self.netns {
            process::enter(&mut command, &Path::new(NETNS_DIR).join(name))?;
        }
        // SAFETY: the closure runs between fork and exec and makes one system call.
        unsafe {
            command.process_group(0).pre_exec(|| {
                match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .spawn()
            .with_context(|| format!("cannot start {name}"))
    }
}

/// Prepares the calling thread's namespaces: names of others, and the API server's address.
///
/// # Errors
/// The kernel refuses.
pub(super) fn prepare() -> Result<()> {
    let names = Path::new(NETNS_DIR);
    fs::create_dir_all(names).with_context(|| format!("cannot make {NETNS_DIR}"))?;
    isolate::mount("tmpfs", names, Some("tmpfs"), 0)?;
    ip(None, &format!("addr add {API_SERVER}/32 dev lo\n"))
}

/// The cgroups of a node: its own, and of its pods.
pub(super) struct Cgroup {
    dir: PathBuf,
    remover: Child,
}

impl Cgroup {
    /// Makes them in a mounted cgroup2 hierarchy.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn make(mount: &Path) -> Result<Self> {
        let dir = mount.join(format!("bascule-bench-{}", std::process::id()));
        fs::create_dir_all(dir.join("pods"))
            .with_context(|| format!("cannot make {}", dir.display()))?;
        // Its standard input ends when we do, however that comes. What kube-proxy has started
        // (nft, for many seconds) would outlive it.
        let script = "read _; echo 1 > \"$0/cgroup.kill\"; i=0; while [ -d \"$0\" ] && [ $i -lt 100 ]; do \
             rmdir \"$0/pods\" \"$0\" 2>/dev/null || sleep 0.1; i=$((i + 1)); done";
        let remover = Command::new("sh")
            .args(["-c", script])
            .arg(&dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start sh")?;
        Ok(Self { dir, remover })
    }

    /// That of the node: socket hooks serve what is in it.
    pub(super) fn node(&self) -> &Path {
        &self.dir
    }

    /// That of its pods.
    pub(super) fn pods(&self) -> PathBuf {
        self.dir.join("pods")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}

/// A node that nobody has used yet, and its pods.
pub(super) struct World {
    servers: Vec<Running>,
}

impl World {
    /// Network namespace of the node.
    pub(super) const NODE: &str = "node";
    /// Network namespace of the pod that dials.
    pub(super) const CLIENT: &str = "client";

    /// Makes it. There is one at a time.
    ///
    /// # Errors
    /// A command of `ip` fails, or a server cannot be started.
    pub(super) fn make(cgroup: &Cgroup, loadgen: &Path) -> Result<Self> {
        let mut world = Self {
            servers: Vec::new(),
        };
        world.lay()?;
        for (name, _) in SERVERS {
            let mut command = Command::new(loadgen);
            command.args(["serve", "--id", name, "--port", "8080"]);
            command.stdin(Stdio::null()).stdout(Stdio::null());
            let pods = cgroup.pods();
            let place = Place {
                netns: Some(name),
                cgroup: Some(&pods),
            };
            world.servers.push(Running(place.spawn(command)?));
        }
        Ok(world)
    }

    fn lay(&self) -> Result<()> {
        crate::lab::netns::add(Self::NODE, true)?;
        ip(
            None,
            &format!(
                "link add toward type veth peer name {UPLINK} netns node\naddr add 172.31.0.1/24 dev toward\nlink set toward up\n"
            ),
        )?;
        ip(
            Some(Self::NODE),
            &format!(
                "addr add {NODE}/24 dev {UPLINK}\nlink set {UPLINK} up\nroute add default via 172.31.0.1\n"
            ),
        )?;
        let clients = [(Self::CLIENT, CLIENT_ADDR)];
        for (i, (name, addr)) in SERVERS.into_iter().chain(clients).enumerate() {
            crate::lab::netns::add(name, false)?;
            ip(
                Some(Self::NODE),
                &format!(
                    "link add pod{i} type veth peer name eth0 netns {name}\n\
                     addr add 10.240.0.1/32 dev pod{i}\n\
                     link set pod{i} up\n\
                     route add {addr}/32 dev pod{i}\n"
                ),
            )?;
            ip(
                Some(name),
                &format!(
                    "addr add {addr}/32 dev eth0\nlink set eth0 up\n\
                     route add 10.240.0.1 dev eth0 scope link\n\
                     route add default via 10.240.0.1\n"
                ),
            )?;
            settle(name)?;
        }
        Ok(())
    }

    /// Bytes that the node has received from the API server, with their headers.
    ///
    /// # Errors
    /// `ip` does not tell.
    pub(super) fn received(&self) -> Result<f64> {
        let text = crate::sh::Sh::new("ip")
            .args(["-n", Self::NODE, "-json", "-stats", "link", "show", UPLINK])
            .read()?;
        let value: serde_json::Value = serde_json::from_str(&text)?;
        value[0]["stats64"]["rx"]["bytes"]
            .as_f64()
            .with_context(|| format!("`ip` does not tell what {UPLINK} received: {text}"))
    }
}

/// A client that opens many thousand connections must not run out of ports.
fn settle(netns: &str) -> Result<()> {
    let settings = [("ip_local_port_range", "1024 65000"), ("tcp_tw_reuse", "1")];
    crate::lab::netns::inside(netns, || {
        settings.iter().try_for_each(|(name, value)| {
            let path = format!("/proc/sys/net/ipv4/{name}");
            fs::write(&path, value).with_context(|| format!("cannot write {path}"))
        })
    })?
}

impl Drop for World {
    fn drop(&mut self) {
        self.servers.clear();
        // The kernel would remove rules after the namespace, while something else is measured.
        // Without nft there are none.
        let _ = Command::new("ip")
            .args(["netns", "exec", Self::NODE, "nft", "flush", "ruleset"])
            .output();
        // Devices go some time after their namespace, and their names with them.
        let _ = Command::new("ip").args(["link", "del", "toward"]).output();
        for name in [Self::NODE, Self::CLIENT, SERVERS[0].0, SERVERS[1].0] {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}
