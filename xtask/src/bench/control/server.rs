//! A real API server with its etcd, filled with services.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::isolate::Running;
use super::net::{API_SERVER, NODE, Place, SERVERS};
use super::proxy::NODE_NAME;
use crate::sh::Sh;
use crate::ui;
use crate::worker::Worker;

const TOKEN: &str = "bench";
/// Seconds that the API server may take until it is ready.
const PATIENCE: u32 = 120;
/// Services with endpoints that answer, and their addresses. Their names and that of their
/// namespace are the last in a list.
pub(super) const CHANGING: (&str, &str) = ("zy-changes", "10.96.1.1");
/// The endpoint of this one stays.
pub(super) const STEADY: (&str, &str) = ("zz-stays", "10.96.1.2");

/// What the worker did.
#[derive(Debug, Deserialize)]
pub(super) struct Done {
    /// Requests.
    pub(super) done: u64,
    /// Seconds for all.
    pub(super) seconds: f64,
    /// When it began.
    pub(super) sent_ns: u64,
}

/// The API server. It has as many services as it was last filled with.
pub(super) struct Server {
    worker: Worker,
    services: u32,
    kubeconfig: PathBuf,
    processes: Vec<Running>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody needs what it would bring to an end.
        self.processes.drain(..).for_each(Running::kill);
    }
}

impl Server {
    /// Starts it; `programs` has kube-apiserver and etcd, and `worker` is `bench_api`.
    ///
    /// # Errors
    /// It does not become ready.
    pub(super) fn start(programs: &Path, worker: &Path, dir: &Path) -> Result<Self> {
        let dir = dir.join("kubernetes");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write(
            &dir.join("tokens"),
            &format!("{TOKEN},bench,bench,system:masters\n"),
        )?;
        Sh::new("openssl")
            .args([
                "ecparam",
                "-name",
                "prime256v1",
                "-genkey",
                "-noout",
                "-out",
            ])
            .arg(dir.join("accounts.key"))
            .read()?;
        let kubeconfig = dir.join("kubeconfig");
        write(&kubeconfig, &config().to_string())?;
        let etcd = spawn(etcd(programs, &dir), &dir.join("etcd.log"))?;
        let server = spawn(apiserver(programs, &dir), &dir.join("server.log"))?;
        let mut command = Command::new(worker);
        command.args([&url(), TOKEN]);
        let mut worker = here().work(command)?;
        let ready: Result<Done> = worker.call(&json!({"ready": {"seconds": PATIENCE}}));
        ready.with_context(|| {
            let log = fs::read_to_string(dir.join("server.log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or_default().to_owned();
            format!("the API server does not become ready; its log ends: {last}")
        })?;
        let mut server = Self {
            worker,
            services: 0,
            kubeconfig,
            processes: vec![server, etcd],
        };
        server.begin()?;
        Ok(server)
    }

    /// Namespaces, the node, and services whose endpoints answer.
    fn begin(&mut self) -> Result<()> {
        let names = (0..100).map(|n| format!("ns-{n}")).chain(["zz".to_owned()]);
        let mut objects: Vec<Value> = names
            .map(
                |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            )
            .collect();
        objects.push(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME},
            "status": {"addresses": [{"type": "InternalIP", "address": NODE}]},
        }));
        let _: Done = self.worker.call(&json!({"create": {"objects": objects}}))?;
        for (name, ip) in [CHANGING, STEADY] {
            let request =
                json!({"name": name, "ip": ip, "endpoint": SERVERS[0].1, "node": NODE_NAME});
            let _: Done = self.worker.call(&json!({"serve": request}))?;
        }
        Ok(())
    }

    /// Lets it have at least so many services.
    ///
    /// # Errors
    /// It refuses one.
    pub(super) fn fill(&mut self, services: u32) -> Result<()> {
        if services <= self.services {
            return Ok(());
        }
        let progress = ui::Progress::start(&format!("an API server with {services} services"));
        let range = json!({"from": self.services, "to": services});
        let done: Result<Done> = self.worker.call(&json!({"populate": range}));
        progress.end(done.is_ok());
        done?;
        self.services = services;
        Ok(())
    }

    /// Sends a change of the service that changes: who is to answer, by its number.
    /// [`Self::sent`] waits for the API server's answer.
    ///
    /// # Errors
    /// The worker has ended.
    pub(super) fn change(&mut self, server: usize) -> Result<()> {
        let request = json!({"name": CHANGING.0, "endpoint": SERVERS[server].1, "node": NODE_NAME});
        self.worker.ask(&json!({"patch": request}))
    }

    /// When the change before was sent.
    ///
    /// # Errors
    /// The API server refused it.
    pub(super) fn sent(&mut self) -> Result<u64> {
        let done: Done = self.worker.answer()?;
        Ok(done.sent_ns)
    }

    /// Changes an endpoint of service after service; returns how many changes were made, and
    /// in how many seconds.
    ///
    /// # Errors
    /// The API server refuses one.
    pub(super) fn churn(&mut self, rate: u32, seconds: f64) -> Result<(u64, f64)> {
        let request = json!({"services": self.services, "rate": rate, "seconds": seconds});
        let done: Done = self.worker.call(&json!({"churn": request}))?;
        Ok((done.done, done.seconds))
    }

    /// The file that leads proxies here.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn url() -> String {
    format!("https://{API_SERVER}:6443")
}

fn here() -> Place<'static> {
    Place {
        netns: None,
        cgroup: None,
    }
}

fn config() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "bench", "cluster": {"server": url(), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "bench", "user": {"token": TOKEN}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    })
}

fn etcd(programs: &Path, dir: &Path) -> Command {
    let mut command = Command::new(programs.join("etcd"));
    command.arg("--data-dir").arg(dir.join("etcd")).args([
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:0",
        // It lives as long as the benchmark.
        "--unsafe-no-fsync",
        "--quota-backend-bytes=8000000000",
        "--log-level=warn",
    ]);
    command
}

fn apiserver(programs: &Path, dir: &Path) -> Command {
    let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
    let mut command = Command::new(programs.join("kube-apiserver"));
    command.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        "--service-cluster-ip-range=10.96.0.0/13",
        "--authorization-mode=AlwaysAllow",
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
        "--service-account-issuer=https://bench.invalid",
    ]);
    command.args([
        // There is no default route to tell it.
        format!("--advertise-address={API_SERVER}"),
        file("cert-dir", "certificates"),
        file("token-auth-file", "tokens"),
        file("service-account-key-file", "accounts.key"),
        file("service-account-signing-key-file", "accounts.key"),
    ]);
    command
}

fn spawn(mut command: Command, log: &Path) -> Result<Running> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("cannot duplicate a descriptor")?)
        .stderr(file);
    Ok(Running(here().spawn(command)?))
}
