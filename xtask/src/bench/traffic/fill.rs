//! More services: what nobody dials, and a proxy must program all the same.

use anyhow::{Context as _, Result};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::cluster::control::{apply, kubectl};
use crate::cluster::process::{Place, command};
use crate::cluster::topology::API_SERVER;
use crate::worker::Worker;
use crate::{paths, ui};

/// What the API server takes our changes for.
const ACCOUNT: &str = "bascule-bench";
/// The last namespace in a list, which the marks are in (`tests/src/bench/objects.rs`).
const LAST: &str = "zz";

/// A program that fills the API server.
pub(super) struct Filler {
    worker: Worker,
    services: u32,
}

impl Filler {
    /// Starts it, with the rights of an administrator.
    ///
    /// # Errors
    /// The API server refuses something.
    pub(super) fn start() -> Result<Self> {
        let namespaces = (0..100).map(|n| format!("ns-{n}")).chain([LAST.to_owned()]);
        let mut objects: Vec<Value> = namespaces
            .map(
                |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            )
            .collect();
        objects.push(json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": ACCOUNT, "namespace": "default"},
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}],
        }));
        apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
        let token = kubectl(&["create", "token", ACCOUNT, "--duration=12h"])?;
        let program = paths::root().join("target/release/bench_api");
        let mut command = command(Place::Control, program)?;
        command.args([API_SERVER, &token]);
        Ok(Self {
            worker: Worker::start("the program that fills the API server", command)?,
            services: 0,
        })
    }

    /// Lets the cluster have so many services more than its own, and then one that marks that:
    /// who serves it has learned of the others. Returns the mark's address.
    ///
    /// # Errors
    /// The API server refuses one.
    pub(super) fn fill(&mut self, services: u32, pod: &str) -> Result<String> {
        let progress = ui::Progress::start(&format!("an API server with {services} services"));
        let range = json!({"from": self.services, "to": services});
        let done: Result<IgnoredAny> = self.worker.call(&json!({"populate": range}));
        progress.end(done.is_ok());
        done.with_context(|| format!("cannot make {services} services"))?;
        self.services = services;
        // Beyond those of 44,000 services.
        let ip = format!("10.98.255.{}", 1 + services.ilog10());
        let name = format!("mark-{services}");
        let mark = json!({"name": name, "ip": ip, "endpoint": pod, "node": "n1"});
        let _: IgnoredAny = self.worker.call(&json!({"serve": mark}))?;
        Ok(format!("{ip}:80"))
    }
}
