//! A real kube-apiserver with its etcd, on the loopback of a node's namespace.
//!
//! The programs are those of `KUBEBUILDER_ASSETS`, which `cargo xtask test` sets.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::eventually;
use super::node::Node;

const URL: &str = "https://127.0.0.1:6443";
const TOKEN: &str = "e2e";
/// How long a start may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running API server. It is killed when this is dropped.
#[derive(Debug)]
pub struct ApiServer<'a> {
    node: &'a Node,
    assets: PathBuf,
    dir: PathBuf,
    etcd: Child,
    server: Option<Child>,
}

impl<'a> ApiServer<'a> {
    /// Starts both programs in a node's namespace.
    ///
    /// # Panics
    /// They cannot be had or started.
    #[must_use]
    pub fn start(node: &'a Node) -> Self {
        let assets = assets();
        let dir = node.path("kubernetes");
        fs::create_dir_all(&dir).expect("a directory can be made");
        fs::write(
            dir.join("tokens"),
            format!("{TOKEN},e2e,e2e,system:masters\n"),
        )
        .expect("a file");
        let key = Command::new("openssl")
            .args([
                "ecparam",
                "-name",
                "prime256v1",
                "-genkey",
                "-noout",
                "-out",
            ])
            .arg(dir.join("accounts.key"))
            .output()
            .expect("openssl is installed");
        assert!(key.status.success(), "{key:?}");
        let mut etcd = Command::new(assets.join("etcd"));
        etcd.arg("--data-dir").arg(dir.join("etcd")).args([
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:0",
            // What a test writes need not outlive the machine.
            "--unsafe-no-fsync",
        ]);
        let etcd = spawn(node, etcd, &dir.join("etcd.log"));
        let mut api = Self {
            node,
            assets,
            dir,
            etcd,
            server: None,
        };
        api.up();
        api
    }

    /// Starts the API server, on the etcd that goes on all the time.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn up(&mut self) {
        let mut command = Command::new(self.assets.join("kube-apiserver"));
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.dir.join(name).display());
        command.args([
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=127.0.0.1",
            "--secure-port=6443",
            "--service-cluster-ip-range=10.97.0.0/16,fd97::/112",
            "--authorization-mode=AlwaysAllow",
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://e2e.invalid",
        ]);
        command.args([
            file("cert-dir", "certificates"),
            file("token-auth-file", "tokens"),
            file("service-account-key-file", "accounts.key"),
            file("service-account-signing-key-file", "accounts.key"),
        ]);
        let log = self.dir.join("server.log");
        self.server = Some(spawn(self.node, command, &log));
        eventually(PATIENCE, || {
            let answer = self.call("GET", "/readyz", None);
            let log = || fs::read_to_string(&log).unwrap_or_default();
            let tail = || log().lines().rev().take(5).collect::<Vec<_>>().join("\n");
            answer
                .map(|_| ())
                .map_err(|e| format!("{e}; the log ends:\n{}", tail()))
        });
    }

    /// Kills the API server; etcd keeps what it knew.
    pub fn down(&mut self) {
        end(self.server.as_mut());
        self.server = None;
    }

    /// A kubeconfig that leads here.
    ///
    /// # Panics
    /// It cannot be written.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: e2e\n\
             clusters: [{{name: e2e, cluster: {{server: '{URL}', insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: e2e, user: {{token: {TOKEN}}}}}]\n\
             contexts: [{{name: e2e, context: {{cluster: e2e, user: e2e}}}}]\n"
        );
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Creates objects.
    ///
    /// # Panics
    /// The server refuses one.
    pub fn create(&self, objects: &[Value]) {
        for object in objects {
            let path = collection(object);
            self.call("POST", &path, Some(object))
                .unwrap_or_else(|e| panic!("{path}: {e}"));
        }
    }

    /// Replaces objects.
    ///
    /// # Panics
    /// The server refuses one.
    pub fn replace(&self, objects: &[Value]) {
        for object in objects {
            let path = one(object);
            self.call("PUT", &path, Some(object))
                .unwrap_or_else(|e| panic!("{path}: {e}"));
        }
    }

    /// Replaces the status of objects.
    ///
    /// # Panics
    /// The server refuses one.
    pub fn replace_status(&self, objects: &[Value]) {
        for object in objects {
            let path = format!("{}/status", one(object));
            self.call("PUT", &path, Some(object))
                .unwrap_or_else(|e| panic!("{path}: {e}"));
        }
    }

    /// Creates an object; what the server says when it refuses it.
    ///
    /// # Errors
    /// It refuses it.
    pub fn try_create(&self, object: &Value) -> Result<(), String> {
        self.call("POST", &collection(object), Some(object))
            .map(drop)
    }

    /// Deletes objects.
    ///
    /// # Panics
    /// The server refuses to.
    pub fn delete(&self, objects: &[Value]) {
        for object in objects {
            // Nobody here ends a pod's containers, which its grace is for.
            let path = format!("{}?gracePeriodSeconds=0", one(object));
            self.call("DELETE", &path, None)
                .unwrap_or_else(|e| panic!("{path}: {e}"));
        }
    }

    /// What is at a path.
    ///
    /// # Errors
    /// There is nothing, or the server does not answer.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        let text = self.call("GET", path, None)?;
        serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))
    }

    /// Asks the server with curl(1).
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<String, String> {
        let url = format!("{URL}{path}");
        let authorization = format!("authorization: Bearer {TOKEN}");
        let body = body.map(ToString::to_string);
        self.node.netns().inside(|| {
            let mut curl = Command::new("curl");
            curl.args([
                "--silent",
                "--show-error",
                "--insecure",
                "--fail-with-body",
                "--max-time",
                "10",
            ]);
            curl.args(["--request", method, "--header", &authorization, &url]);
            if let Some(body) = &body {
                curl.args([
                    "--header",
                    "content-type: application/json",
                    "--data-binary",
                    body,
                ]);
            }
            let out = curl.output().map_err(|e| format!("curl: {e}"))?;
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let errors = String::from_utf8_lossy(&out.stderr);
            if out.status.success() {
                Ok(text)
            } else {
                Err(format!("{errors}{text}"))
            }
        })
    }
}

impl Drop for ApiServer<'_> {
    fn drop(&mut self) {
        self.down();
        end(Some(&mut self.etcd));
    }
}

fn end(child: Option<&mut Child>) {
    if let Some(child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn spawn(node: &Node, mut command: Command, log: &Path) -> Child {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("a log can be made");
    let both = file.try_clone().expect("a descriptor can be duplicated");
    command.stdin(Stdio::null()).stdout(both).stderr(file);
    node.netns().spawn(command, &node.cgroup().join("host"))
}

/// Where objects of a kind are.
fn collection(object: &Value) -> String {
    match object["kind"].as_str() {
        Some("Service") => "/api/v1/namespaces/default/services".to_owned(),
        Some("EndpointSlice") => {
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices".to_owned()
        }
        Some("Node") => "/api/v1/nodes".to_owned(),
        Some("Ingress") => "/apis/networking.k8s.io/v1/namespaces/default/ingresses".to_owned(),
        Some("IngressClass") => "/apis/networking.k8s.io/v1/ingressclasses".to_owned(),
        Some("ValidatingWebhookConfiguration") => {
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations".to_owned()
        }
        Some("Pod") => "/api/v1/namespaces/kube-system/pods".to_owned(),
        other => panic!("no tests with {other:?}"),
    }
}

fn one(object: &Value) -> String {
    let name = object["metadata"]["name"]
        .as_str()
        .expect("objects have names");
    format!("{}/{name}", collection(object))
}

/// The directory with kube-apiserver, etcd and kube-proxy.
pub(super) fn assets() -> PathBuf {
    std::env::var_os("KUBEBUILDER_ASSETS")
        .expect("`cargo xtask test api` builds kube-apiserver, etcd and kube-proxy, and sets KUBEBUILDER_ASSETS; by hand, set it to their directory")
        .into()
}
