//! Pods that run a program of this checkout, for loads and benchmarks.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::control::{apply, kubectl};
use super::process::{enter, wait_for};
use super::topology::{AGNHOST, Node};
use super::{cgroup, process};

/// How long pods may take to be ready, or to be gone.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the program is in the pods.
pub(crate) const IN_POD: &str = "/peer/program";

/// A pod to be made. Its labels are `app` and `node`.
pub(crate) struct Pod<'a> {
    /// Where.
    pub(crate) node: Node,
    /// Its name.
    pub(crate) name: &'a str,
    /// Its label `app`.
    pub(crate) app: &'a str,
    /// Command and arguments.
    pub(crate) command: Vec<&'a str>,
    /// Its probe of readiness, but for the period.
    pub(crate) ready: Value,
}

impl Pod<'_> {
    /// The object, for a program of this machine.
    pub(crate) fn object(&self, program: &Path) -> Value {
        let mut ready = self.ready.clone();
        ready["periodSeconds"] = 1.into();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.name, "labels": {"app": self.app, "node": self.node.name()},
            },
            "spec": {
                "nodeName": self.node.name(), "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "peer", "image": AGNHOST, "command": self.command,
                    "readinessProbe": ready,
                    "volumeMounts": [{"name": "peer", "mountPath": IN_POD, "readOnly": true}],
                }],
                // The nodes' root file system is this machine's.
                "volumes": [{"name": "peer", "hostPath": {"path": program, "type": "File"}}],
            },
        })
    }
}

/// Makes a namespace with objects in it, and waits until so many pods are ready.
///
/// # Errors
/// The API server refuses an object, or the pods are not ready in time.
pub(crate) fn make(namespace: &str, mut objects: Vec<Value>, pods: usize) -> Result<()> {
    let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    apply(&own.to_string())?;
    for object in &mut objects {
        object["metadata"]["namespace"] = namespace.into();
    }
    apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
    let ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
    wait_for("the pods get ready", PATIENCE, None, || {
        let text = kubectl(&["-n", namespace, "get", "pods", "-o", ready])?;
        let count = text.split(' ').filter(|s| *s == "True").count();
        ensure!(
            count == pods,
            "{count} of {pods} are: `cargo xtask cluster kubectl -n {namespace} describe pods`"
        );
        Ok(())
    })
}

/// Removes a namespace with all that is in it.
///
/// # Errors
/// It is there still after a while.
pub(crate) fn remove(namespace: &str) -> Result<()> {
    let delete = [
        "delete",
        "namespace",
        namespace,
        "--wait=false",
        "--ignore-not-found",
    ];
    kubectl(&delete)?;
    let get = [
        "get",
        "namespace",
        namespace,
        "--ignore-not-found",
        "-o",
        "name",
    ];
    wait_for("the pods end", PATIENCE, None, || match kubectl(&get)? {
        text if text.is_empty() => Ok(()),
        text => bail!("{text} is there still"),
    })
}

/// A running pod: what a process needs that belongs to it.
pub(crate) struct Running {
    /// Its container's first process, as this machine numbers it.
    pid: i32,
    /// Its addresses, of both families.
    pub(crate) addrs: Vec<String>,
}

impl Running {
    /// Finds a pod.
    ///
    /// # Errors
    /// It is not there, or does not run.
    pub(crate) fn find(namespace: &str, name: &str) -> Result<Self> {
        let text = "jsonpath={.metadata.uid} {.status.podIPs[*].ip}";
        let text = kubectl(&["-n", namespace, "get", "pod", name, "-o", text])?;
        let mut words = text.split(' ').map(str::to_owned);
        let uid = words
            .next()
            .with_context(|| format!("pod {name} has no uid"))?;
        Ok(Self {
            pid: process_of(&uid).with_context(|| format!("pod {name} has no process"))?,
            addrs: words.collect(),
        })
    }

    /// A command that will run in the pod's network namespace and cgroup: what hooks of a
    /// cgroup serve, they serve it.
    ///
    /// # Errors
    /// The pod has ended.
    pub(crate) fn command(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        process::join(&mut command, vec![cgroup::open_of(self.pid)?]);
        self.enter(&mut command)?;
        Ok(command)
    }

    /// Lets a command enter the pod's network namespace only.
    ///
    /// # Errors
    /// The pod has ended.
    pub(crate) fn enter(&self, command: &mut Command) -> Result<()> {
        let file = format!("/proc/{}/ns/net", self.pid);
        enter(command, Path::new(&file))
    }
}

/// The process of a pod that runs our program: not the one that holds its namespaces.
fn process_of(uid: &str) -> Option<i32> {
    fs::read_dir("/proc").ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let groups = fs::read_to_string(entry.path().join("cgroup")).ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        (groups.contains(uid) && command.starts_with(IN_POD.as_bytes())).then_some(pid)
    })
}
