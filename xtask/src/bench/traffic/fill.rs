//! More services: what nobody dials, and a proxy must program all the same.

use anyhow::Result;
use serde_json::json;

use crate::bench::api::Api;
use crate::cluster::control::{apply, kubectl};
use crate::cluster::process::{Place, command};
use crate::cluster::topology::API_SERVER;
use crate::paths;
use crate::worker::Worker;

/// What the API server takes our changes for.
const ACCOUNT: &str = "bascule-bench";
/// Fills the API server of the cluster.
pub(super) struct Filler(Api);

impl Filler {
    /// Starts it, with the rights of an administrator.
    ///
    /// # Errors
    /// The API server refuses something.
    pub(super) fn start() -> Result<Self> {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": ACCOUNT, "namespace": "default"},
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}],
        });
        let both = json!({"apiVersion": "v1", "kind": "List", "items": [account, binding]});
        apply(&both.to_string())?;
        let token = kubectl(&["create", "token", ACCOUNT, "--duration=12h"])?;
        let program = paths::root().join("target/release/bench_api");
        let mut command = command(Place::Control, program)?;
        command.args([API_SERVER, &token]);
        let worker = Worker::start("the program that fills the API server", command)?;
        let mut api = Api::new(worker);
        api.begin(&[])?;
        Ok(Self(api))
    }

    /// Lets the cluster have so many services more than its own, and then one that marks that:
    /// who serves it has learned of the others. Returns the mark's address.
    ///
    /// # Errors
    /// The API server refuses one.
    pub(super) fn fill(&mut self, services: u32, pod: &str) -> Result<String> {
        self.0.fill(services)?;
        // Beyond those of 44,000 services.
        let ip = format!("10.98.255.{}", 1 + services.ilog10());
        let name = format!("mark-{services}");
        self.0.serve((&name, &ip), (pod, "n1"))?;
        Ok(format!("{ip}:80"))
    }
}
