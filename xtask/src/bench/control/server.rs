//! A real API server with its etcd, filled with services.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::super::api::Api;
use super::super::isolate::Running;
use super::net::{API_SERVER, NODE, Place, SERVERS};
use super::proxy::NODE_NAME;
use crate::sh::Sh;

const TOKEN: &str = "bench";
/// Seconds that the API server may take until it is ready.
const PATIENCE: u32 = 120;
/// Services with endpoints that answer, and their addresses. Their names and that of their
/// namespace are the last in a list.
pub(super) const CHANGING: (&str, &str) = ("zy-changes", "10.96.1.1");
/// The endpoint of this one stays.
pub(super) const STEADY: (&str, &str) = ("zz-stays", "10.96.1.2");

/// The API server.
pub(super) struct Server {
    pub(super) api: Api,
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
        let mut api = Api::new(here().work(command)?);
        api.ready(PATIENCE).with_context(|| {
            let log = fs::read_to_string(dir.join("server.log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or_default().to_owned();
            format!("the API server does not become ready; its log ends: {last}")
        })?;
        let mut server = Self {
            api,
            kubeconfig,
            processes: vec![server, etcd],
        };
        server.begin()?;
        Ok(server)
    }

    /// Namespaces, the node, and services whose endpoints answer.
    fn begin(&mut self) -> Result<()> {
        self.api.begin(&[json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME},
            "status": {"addresses": [{"type": "InternalIP", "address": NODE}]},
        })])?;
        for service in [CHANGING, STEADY] {
            self.api.serve(service, (SERVERS[0].1, NODE_NAME))?;
        }
        Ok(())
    }

    /// Sends a change of the service that changes: who is to answer, by its number.
    /// [`Api::sent`] waits for the API server's answer.
    ///
    /// # Errors
    /// The worker has ended.
    pub(super) fn change(&mut self, server: usize) -> Result<()> {
        self.api.change(CHANGING.0, (SERVERS[server].1, NODE_NAME))
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
