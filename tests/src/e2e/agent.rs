//! The agent as a process of a node.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::netns::Netns;
use super::node::Node;
use super::{beside, eventually};

const HEALTHZ: &str = "127.0.0.1:10256";
const METRICS: &str = "127.0.0.1:10249";
/// How long a start may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A running agent. It is killed when this is dropped; what it left in the kernel stays until
/// its node's bpffs is unmounted.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    pub(super) fn start(node: &Node, flags: &[&str]) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = node.path(&format!("agent{count}.log"));
        let mut command = Command::new(beside("bascule"));
        command.args(Self::arguments(node)).args(flags);
        if !flags
            .iter()
            .any(|f| matches!(*f, "--kubeconfig" | "--apiserver"))
        {
            command.arg("--source").arg(node.manifests());
        }
        Self::spawn(node, command, log)
    }

    /// Starts `command` as the agent of a node: for a start under another program, such as
    /// one that takes privileges away.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn spawn(node: &Node, mut command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).expect("a log can be made");
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor can be duplicated"))
            .stderr(file)
            .env_remove("RUST_LOG");
        let child = node.netns().spawn(command, &node.cgroup().join("host"));
        Self { child, log }
    }

    /// The arguments of an agent of `node`, but for its source.
    #[must_use]
    pub fn arguments(node: &Node) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        let own = [
            "agent",
            "--node-name",
            &node.name(),
            "--uplinks",
            "eth0",
            "--pod-devices",
            "pod*",
        ]
        .map(str::to_owned);
        let places = [
            "--bpffs".to_owned(),
            path(node.bpffs()),
            "--cgroup".to_owned(),
            path(node.cgroup()),
            "--state-dir".to_owned(),
            path(node.path("state")),
            "--healthz-bind-address".to_owned(),
            HEALTHZ.to_owned(),
            "--metrics-bind-address".to_owned(),
            METRICS.to_owned(),
        ];
        own.into_iter().chain(places).collect()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says that it serves.
    ///
    /// # Panics
    /// It does not.
    pub fn ready(&self, netns: &Netns) {
        eventually(PATIENCE, || {
            let answer = get(netns, HEALTHZ, "/healthz");
            let well = answer
                .as_ref()
                .is_ok_and(|text| text.starts_with("HTTP/1.1 200 "));
            well.then_some(())
                .ok_or_else(|| format!("{answer:?}; the log:\n{}", self.log()))
        });
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said something.
    ///
    /// # Panics
    /// It does not.
    pub fn says(&self, words: &[&str]) -> String {
        eventually(PATIENCE, || {
            let log = self.log();
            let line = log
                .lines()
                .find(|line| words.iter().all(|w| line.contains(w)));
            line.map(str::to_owned)
                .ok_or_else(|| format!("no line with {words:?} in:\n{log}"))
        })
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// It does not.
    pub fn ended(&mut self) -> ExitStatus {
        eventually(PATIENCE, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!(
                "it runs; the log:\n{}",
                fs::read_to_string(&self.log).unwrap_or_default()
            )),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Whether it runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// It has ended already.
    pub fn kill(mut self) {
        assert!(self.is_alive(), "it ended by itself:\n{}", self.log());
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// The status of its answer to `/healthz` or `/livez`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn health(&self, netns: &Netns, path: &str) -> Result<u16, String> {
        let answer = get(netns, HEALTHZ, path)?;
        let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok());
        status.ok_or(answer)
    }

    /// A page of its metrics.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self, netns: &Netns) -> Result<String, String> {
        get(netns, METRICS, "/metrics")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of agent {}:\n{}", self.child.id(), self.log());
        }
    }
}

/// An HTTP GET in a namespace.
fn get(netns: &Netns, address: &str, path: &str) -> Result<String, String> {
    netns.inside(|| {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        ask().map_err(|e| e.to_string())
    })
}
