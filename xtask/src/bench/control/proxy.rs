//! The proxies that are measured, as processes of the node: the agent, and kube-proxy.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use lb_common::limits;
use serde_json::json;

use super::super::isolate::Running;
use super::net::{Cgroup, PODS, Place, World};
use super::{agent, mebibytes};

/// Name of the node.
pub(super) const NODE_NAME: &str = "node-0";
/// A proxy rests when it used less than this share of a CPU for a moment.
const REST: f64 = 0.05;
/// That moment.
const MOMENT: Duration = Duration::from_millis(400);
/// How long it may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(120);

/// A kind of proxy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Kind {
    /// The agent.
    Bascule,
    /// kube-proxy in nftables mode.
    Nftables,
    /// kube-proxy in iptables mode.
    Iptables,
}

impl Kind {
    /// Its name in a table.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bascule => "bascule",
            Self::Nftables => "kube-proxy nftables",
            Self::Iptables => "kube-proxy iptables",
        }
    }
}

/// Endpoints of a service at most.
const ENDPOINTS: u32 = 10;
/// Slots of the table of such a service, and a tenth more for tables that have just been replaced.
const SLOTS: u32 = 1_110;

/// What proxies need.
pub(super) struct Means<'a> {
    /// Services that there are.
    pub(super) services: u32,
    /// kube-proxy.
    pub(super) kube_proxy: PathBuf,
    /// Leads to the API server.
    pub(super) kubeconfig: &'a Path,
    /// The node's cgroups.
    pub(super) cgroup: &'a Cgroup,
    /// A directory, with a bpffs in `bpf`.
    pub(super) dir: &'a Path,
}

impl Means<'_> {
    /// Milliseconds that a command of the agent's program takes on the node.
    ///
    /// # Errors
    /// It fails.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<f64> {
        let start = Instant::now();
        let output = self.run(arguments, Stdio::null())?;
        let took = start.elapsed();
        if !output.status.success() {
            // What it prints says why, and while it is measured nobody reads that.
            let said = self.run(arguments, Stdio::piped())?.stdout;
            let said = String::from_utf8_lossy(&said);
            let said: Vec<&str> = said.lines().take(10).collect();
            let why = String::from_utf8_lossy(&output.stderr);
            let (why, said) = (why.trim(), said.join("\n"));
            bail!("bascule {}: {why}{said}", arguments.join(" "));
        }
        Ok(took.as_secs_f64() * 1000.0)
    }

    /// Runs a command of the agent's program to its end.
    fn run(&self, arguments: &[&str], stdout: Stdio) -> Result<Output> {
        let mut command = self.bascule(arguments);
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped());
        let child = self.node().spawn(command)?;
        child
            .wait_with_output()
            .context("cannot wait for a command")
    }

    /// A command of the agent's program, with the node's directories.
    fn bascule(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(agent());
        command
            .args(arguments)
            .arg("--bpffs")
            .arg(self.dir.join("bpf"))
            .arg("--state-dir")
            .arg(self.dir.join("state"));
        command
    }

    /// Where processes of the node run.
    fn node(&self) -> Place<'_> {
        Place {
            netns: Some(World::NODE),
            cgroup: Some(self.cgroup.node()),
        }
    }
}

/// A proxy that runs. It ends with this; what it left in the kernel stays.
pub(super) struct Proxy {
    process: Running,
    log: PathBuf,
    /// When it was started, by the system's clock in nanoseconds.
    pub(super) started_ns: u64,
}

impl Proxy {
    /// Starts one.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(kind: Kind, means: &Means<'_>) -> Result<Self> {
        let log = means.dir.join("proxy.log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = match kind {
            Kind::Bascule => agent_of(means),
            Kind::Nftables => kube_proxy(means, "nftables")?,
            Kind::Iptables => kube_proxy(means, "iptables")?,
        };
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("cannot duplicate a descriptor")?)
            .stderr(file);
        let started_ns = now_ns();
        let process = Running(means.node().spawn(command)?);
        Ok(Self {
            process,
            log,
            started_ns,
        })
    }

    /// Kills it, as a crash does.
    pub(super) fn kill(self) {
        self.process.kill();
    }

    /// An error with the end of its log.
    pub(super) fn failed(&self, error: &anyhow::Error) -> anyhow::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n");
        anyhow::anyhow!("{error:#}; the proxy's log ends:\n{tail}")
    }

    /// Seconds of CPU that it and its children which have ended took.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(self.file("stat")).context("the proxy has ended")?;
        cpu(&stat).context("the kernel tells no times of a process")
    }

    /// Waits until it has nothing to do; returns the seconds of CPU until then.
    ///
    /// # Errors
    /// It ends, or never rests.
    pub(super) fn rest(&self) -> Result<f64> {
        let start = Instant::now();
        let mut before = self.cpu()?;
        loop {
            std::thread::sleep(MOMENT);
            let now = self.cpu()?;
            if now - before < REST * MOMENT.as_secs_f64() && !self.has_children() {
                return Ok(now);
            }
            if start.elapsed() > PATIENCE {
                bail!("the proxy is busy for ever");
            }
            before = now;
        }
    }

    /// Whether it waits for children: kube-proxy has `nft` do its work.
    fn has_children(&self) -> bool {
        let tasks = fs::read_dir(self.file("task"))
            .into_iter()
            .flatten()
            .flatten();
        let mut children = tasks.map(|t| fs::read_to_string(t.path().join("children")));
        children.any(|c| c.is_ok_and(|c| !c.trim().is_empty()))
    }

    /// MiB of resident memory.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(self.file("status")).context("the proxy has ended")?;
        mebibytes(&status, "VmRSS:")
    }

    /// MiB of the maps that it has open (`bpf_map_show_fdinfo`: their memory since Linux 6.4).
    pub(super) fn maps(&self) -> f64 {
        let files = fs::read_dir(self.file("fdinfo"))
            .into_iter()
            .flatten()
            .flatten();
        let infos = files.filter_map(|f| fs::read_to_string(f.path()).ok());
        let maps: HashMap<u64, u64> = infos.filter_map(|info| map(&info)).collect();
        maps.values().sum::<u64>() as f64 / 1048576.0
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.process.0.id())
    }
}

/// Id and bytes of the map that a descriptor is of.
fn map(info: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        info.lines()
            .find_map(|l| l.strip_prefix(name)?.trim().parse().ok())
    };
    Some((field("map_id:")?, field("memlock:")?))
}

/// Of proc(5): `utime`, `stime`, and those of children that were waited for. The second field
/// may have blanks and brackets.
fn cpu(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|n| n.parse::<u64>().ok());
    // SAFETY: sysconf has no preconditions.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(ticks.sum::<Option<u64>>()? as f64 / hertz as f64)
}

/// The system's clock, by which processes here tell each other times.
pub(super) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |t| t.as_nanos() as u64)
}

/// Removes what the agent leaves in the kernel.
///
/// # Errors
/// It cannot be removed.
pub(super) fn forget(dir: &Path) -> Result<()> {
    for path in [dir.join("bpf/bascule"), dir.join("state")] {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn agent_of(means: &Means<'_>) -> Command {
    let words = ["agent", "--node-name", NODE_NAME, "--xdp", "off"];
    let mut command = means.bascule(&words);
    command
        .args(["--uplinks", "up0", "--pod-devices", "pod*"])
        .arg("--kubeconfig")
        .arg(means.kubeconfig)
        .arg("--cgroup")
        .arg(means.cgroup.node());
    // What it would ask for itself, by an Event (`MapFull`), and what `bascule status` warns of.
    let sizes = [
        ("--max-slots", SLOTS, limits::SLOTS),
        ("--max-backends", ENDPOINTS, limits::BACKENDS),
    ];
    for (flag, of_one, default) in sizes {
        let wanted = means.services.saturating_mul(of_one);
        if wanted > default {
            command.arg(format!("{flag}={wanted}"));
        }
    }
    command
}

fn kube_proxy(means: &Means<'_>, mode: &str) -> Result<Command> {
    let path = means.dir.join("kube-proxy.conf");
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": means.kubeconfig},
        "hostnameOverride": NODE_NAME,
        "mode": mode,
        "clusterCIDR": PODS,
        // The size of the kernel's table cannot be set from another namespace than the first.
        "conntrack": {"maxPerCore": 0, "min": 0},
    });
    fs::write(&path, config.to_string())
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new(&means.kube_proxy);
    command.arg("--config").arg(path);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_that_ended_count() {
        // SAFETY: sysconf has no preconditions.
        let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 4242 99 0";
        assert_eq!(cpu(stat), Some(100.0 / hertz));
        assert_eq!(cpu("7 (a) S"), None);
    }

    #[test]
    fn only_maps_have_memory_here() {
        let info = "pos:\t0\nflags:\t02000002\nmap_type:\t2\nmemlock:\t4096\nmap_id:\t12\n";
        assert_eq!(map(info), Some((12, 4096)));
        assert_eq!(map("pos:\t0\nprog_id:\t3\nmemlock:\t4096\n"), None);
    }
}
