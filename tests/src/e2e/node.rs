//! A node: a namespace on the fabric, a cgroup subtree, a bpffs of its own, a directory of
//! manifests, and the agent.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::agent::Agent;
use super::netns::Netns;
use super::peer::Peer;
use super::pod::Pod;
use super::pty::Pty;
use super::world::{Shared, World};
use super::{beside, eventually};

/// What a command printed.
#[derive(Clone, Debug)]
pub struct Said {
    /// Exit status; `None` after a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// The JSON that it printed.
    ///
    /// # Panics
    /// It failed, or that is none.
    #[must_use]
    pub fn json(&self) -> Value {
        assert_eq!(self.status, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A node of the cluster.
#[derive(Debug)]
pub struct Node {
    world: Arc<Shared>,
    number: u8,
    netns: Netns,
    dir: PathBuf,
    mounted: bool,
}

impl Node {
    /// Makes node `number` (1 to 9), at `172.29.0.1NUMBER` and `fd29::1NUMBER`. Its pods have
    /// the networks `10.201.NUMBER.0/24` and `fd20:1:0:NUMBER::/64`.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn new(world: &World, number: u8) -> Self {
        let shared = world.shared.clone();
        let label = format!("n{number}");
        let netns = shared.host(&label, 10 + number, Netns::router);
        shared.fabric.ip(&format!(
            "route add 10.201.{number}.0/24 via 172.29.0.1{number}\n\
             route add fd20:1:0:{number}::/64 via fd29::1{number}\n"
        ));
        let dir = shared.dir.path().join(&label);
        for sub in ["bpffs", "state", "manifests"] {
            fs::create_dir_all(dir.join(sub)).expect("a directory can be made");
        }
        for sub in ["host", "pods"] {
            shared.cgroup_of(&format!("{label}/{sub}"));
        }
        let mut node = Self {
            world: shared,
            number,
            netns,
            dir,
            mounted: false,
        };
        node.mount_bpffs();
        node
    }

    /// Its name, as objects name it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("n{}", self.number)
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Where its bpffs is.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.dir.join("bpffs")
    }

    /// Its directory of manifests.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    /// A directory or file of its own.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The subtree that its socket hooks serve.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        self.world.cgroup.join(self.name())
    }

    /// Writes a file of objects, in one step, as a careful user does.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn apply(&self, file: &str, objects: &[Value]) {
        let texts: Vec<String> = objects.iter().map(ToString::to_string).collect();
        self.write(&format!("{file}.yaml"), &texts.join("\n---\n"));
    }

    /// Writes a manifest as it is.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.manifests().join(file);
        let new = self.manifests().join(format!(".{file}.new"));
        fs::write(&new, text).expect("a manifest can be written");
        fs::rename(&new, &path).expect("a manifest can be put in place");
    }

    /// Removes a file of objects.
    ///
    /// # Panics
    /// There is none.
    pub fn withdraw(&self, file: &str) {
        fs::remove_file(self.manifests().join(format!("{file}.yaml"))).expect("there is one");
    }

    /// Starts the agent, with `flags` besides those that say where this node is, and waits
    /// until it serves.
    #[must_use]
    pub fn agent(&self, flags: &[&str]) -> Agent {
        let agent = self.agent_unready(flags);
        agent.ready(&self.netns);
        agent
    }

    /// Starts the agent.
    #[must_use]
    pub fn agent_unready(&self, flags: &[&str]) -> Agent {
        Agent::start(self, flags)
    }

    /// Runs a command of `bascule` against the node's pins and the agent's files.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn bascule(&self, words: &[&str]) -> Said {
        let mut command = self.command(words);
        let out = self.netns.inside(|| command.output());
        let out = out.unwrap_or_else(|e| panic!("bascule {words:?}: {e}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said {
            status: out.status.code(),
            out: text(out.stdout),
            err: text(out.stderr),
        }
    }

    /// Runs one on a terminal of 80×24.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn on_terminal(&self, words: &[&str]) -> Pty {
        Pty::start(
            &self.netns,
            self.command(words),
            &self.cgroup().join("host"),
        )
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(beside("bascule"));
        command.args(words).arg("--bpffs").arg(self.bpffs());
        command.arg("--state-dir").arg(self.path("state"));
        command
    }

    /// Waits until the agent has loaded what it loads when it serves already, for `bascule
    /// explain` and its self-test.
    ///
    /// # Panics
    /// It does not.
    pub fn can_explain(&self) {
        eventually(Duration::from_secs(20), || {
            let loaded = self.bpffs().join("bascule/programs/lb_dry").exists();
            loaded.then_some(()).ok_or("lb_dry is not there".to_owned())
        });
    }

    /// A process of the node itself, in its namespace and in its own cgroup.
    #[must_use]
    pub fn host(&self) -> Peer {
        Peer::start(&self.netns, &self.cgroup().join("host"))
    }

    /// Makes pod `number` (2 to 250), which serves as `nNODE-NUMBER`.
    #[must_use]
    pub fn pod(&self, number: u8) -> Pod {
        let cgroup = self
            .world
            .cgroup_of(&format!("{}/pods/p{number}", self.name()));
        self.pod_in(number, &cgroup)
    }

    /// Makes a pod that the socket hooks do not serve, as one of a sandboxed runtime: it is
    /// outside the node's cgroup, and its packets are translated one by one.
    #[must_use]
    pub fn sandboxed_pod(&self, number: u8) -> Pod {
        let cgroup = self
            .world
            .cgroup_of(&format!("sandboxed/{}-p{number}", self.name()));
        self.pod_in(number, &cgroup)
    }

    fn pod_in(&self, number: u8, cgroup: &Path) -> Pod {
        let netns = self.world.name(&format!("{}-p{number}", self.name()));
        Pod::new(&self.netns, &netns, (self.number, number), cgroup)
    }

    /// Mounts its bpffs.
    ///
    /// # Panics
    /// It cannot be mounted: this needs root.
    pub fn mount_bpffs(&mut self) {
        let path = c_path(&self.bpffs());
        // SAFETY: all pointers are strings that end with NUL; bpffs takes no data.
        let done = unsafe {
            libc::mount(
                c"bpf".as_ptr(),
                path.as_ptr(),
                c"bpf".as_ptr(),
                0,
                std::ptr::null(),
            )
        };
        assert_eq!(done, 0, "mount: {}", std::io::Error::last_os_error());
        self.mounted = true;
    }

    /// Takes over a bpffs that somebody else mounted there, to be unmounted with the node.
    pub fn adopt_bpffs(&mut self) {
        self.mounted = true;
    }

    /// Unmounts it, and what was pinned there ends.
    pub fn unmount_bpffs(&mut self) {
        if std::mem::take(&mut self.mounted) {
            let path = c_path(&self.bpffs());
            // SAFETY: the path ends with NUL.
            let done = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
            if done != 0 {
                eprintln!("umount {path:?}: {}", std::io::Error::last_os_error());
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.unmount_bpffs();
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("paths have no NUL")
}
