//! A real kube-proxy as a process of a node: the one that `cargo xtask` builds.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::apiserver::{ApiServer, assets};
use super::node::Node;

/// A running kube-proxy. It is killed when this is dropped; its rules stay.
#[derive(Debug)]
pub struct KubeProxy {
    child: Child,
    log: PathBuf,
}

impl KubeProxy {
    /// Starts it in a node's namespace, in a mode.
    ///
    /// # Panics
    /// It is not there, or cannot be started.
    #[must_use]
    pub fn start(node: &Node, api: &ApiServer<'_>, mode: &str) -> Self {
        let path = node.path("kube-proxy.conf");
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": api.kubeconfig()},
            "hostnameOverride": node.name(),
            "mode": mode,
            "clusterCIDR": "10.201.0.0/16,fd20:1::/48",
            // The size of the kernel's table cannot be set from another namespace than
            // the first.
            "conntrack": {"maxPerCore": 0, "min": 0},
        });
        fs::write(&path, config.to_string()).expect("a file can be written");
        let mut command = Command::new(program());
        command.arg("--config").arg(path);
        Self::spawn(node, command)
    }

    fn spawn(node: &Node, mut command: Command) -> Self {
        let log = node.path("kube-proxy.log");
        let file = File::options().create(true).append(true).open(&log);
        let file = file.expect("a log can be made");
        let both = file.try_clone().expect("a descriptor can be duplicated");
        command.stdin(Stdio::null()).stdout(both).stderr(file);
        let child = node.netns().spawn(command, &node.cgroup().join("host"));
        Self { child, log }
    }

    /// Removes what kube-proxies have left in a node's namespace.
    ///
    /// # Panics
    /// It does not end well.
    pub fn clean_up(node: &Node) {
        let mut command = Command::new(program());
        command.arg("--cleanup");
        let mut own = Self::spawn(node, command);
        let status = own.child.wait().expect("a child can be waited for");
        assert!(status.success(), "{status}:\n{}", own.log());
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// It has ended already.
    pub fn kill(mut self) {
        let ended = self.child.try_wait();
        assert!(
            matches!(ended, Ok(None)),
            "it ended by itself:\n{}",
            self.log()
        );
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of kube-proxy:\n{}", self.log());
        }
    }
}

fn program() -> PathBuf {
    assets().join("kube-proxy")
}
