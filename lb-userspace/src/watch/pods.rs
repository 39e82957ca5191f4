//! Pods: those of kube-proxy on this node, which would put its rules back, and one's
//! addresses.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{Api, Client, api::ListParams};

use super::{reflect, trouble::unreachable};

/// The label that kubeadm and most distributions give the pods of kube-proxy.
const LABEL: (&str, &str) = ("k8s-app", "kube-proxy");
const PROGRAM: &str = "kube-proxy";

/// The pods of a node, asked for one list at a time.
pub struct Pods {
    settings: reflect::Settings,
    client: Option<(Client, String)>,
}

impl Pods {
    /// Asks nothing yet.
    pub fn new(settings: reflect::Settings) -> Self {
        Self {
            settings,
            client: None,
        }
    }

    /// The names of kube-proxy's pods on the node that have not ended.
    ///
    /// # Errors
    /// Why that is not known, and what to do.
    pub async fn of_kube_proxy(&mut self) -> Result<Vec<String>, String> {
        if self.client.is_none() {
            let client = reflect::client(&self.settings).await;
            self.client = Some(client.map_err(|error| error.to_string())?);
        }
        let Some((client, url)) = &self.client else {
            return Err("there is no client of the API server".to_owned());
        };
        let on_node = format!("spec.nodeName={}", self.settings.node_name);
        let list = ListParams::default().fields(&on_node);
        match Api::<Pod>::all(client.clone()).list(&list).await {
            Ok(pods) => Ok(pods.items.iter().filter_map(name).collect()),
            Err(kube::Error::Api(status)) if status.is_forbidden() => Err(format!(
                "{}: whether kube-proxy would put them back is not known; let the agent's ServiceAccount list pods (the chart's value `takeover`)",
                status.message
            )),
            Err(error) => Err(unreachable(url, &error)),
        }
    }
}

/// A pod's addresses. The API server is asked with the rights of a kubeconfig, or of the
/// pod that this runs in.
///
/// # Errors
/// It cannot be asked, or the pod is not there or has no address.
pub fn addresses(
    kubeconfig: Option<PathBuf>,
    namespace: &str,
    name: &str,
) -> anyhow::Result<Vec<IpAddr>> {
    let settings = reflect::Settings {
        kubeconfig,
        apiserver: None,
        node_name: String::new(),
        proxy_name: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pod = runtime.block_on(async {
        let (client, url) = reflect::client(&settings).await?;
        let pods = Api::<Pod>::namespaced(client, namespace);
        pods.get(name).await.map_err(|error| match error {
            kube::Error::Api(status) => anyhow!("{}", status.message),
            error => anyhow!("{}", unreachable(&url, &error)),
        })
    });
    let pod = pod.with_context(|| {
        format!("the address of pod {namespace}/{name} is not known; give it in place of the name")
    })?;
    let ips = ips(&pod);
    ensure!(
        !ips.is_empty(),
        "pod {namespace}/{name} has no address yet: kubectl describe pod --namespace {namespace} {name}"
    );
    Ok(ips)
}

/// The addresses that a pod has.
pub(crate) fn ips(pod: &Pod) -> Vec<IpAddr> {
    let ips = pod.status.iter().filter_map(|s| s.pod_ips.as_ref());
    let ips = ips.flatten().filter_map(|ip| ip.ip.parse().ok());
    ips.collect()
}

/// Namespace and name of a pod that is kube-proxy's and has not ended.
fn name(pod: &Pod) -> Option<String> {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    let labels = pod.metadata.labels.iter().flatten();
    let labelled = labels
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .any(|l| l == LABEL);
    let spec = pod.spec.as_ref()?;
    let is_proxy = labelled || spec.containers.iter().any(runs_kube_proxy);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref()?;
    (is_proxy && !ended).then(|| format!("{namespace}/{name}"))
}

/// Whether a container is named so, or runs the program.
fn runs_kube_proxy(container: &Container) -> bool {
    let first = container.command.iter().flatten().next();
    let program = first.and_then(|path| path.rsplit('/').next());
    container.name == PROGRAM || program == Some(PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn kube_proxy_is_known_by_its_label_its_name_or_its_command() {
        let of = |labels: serde_json::Value, container: serde_json::Value, phase: &str| {
            name(&pod(serde_json::json!({
                "metadata": {"name": "p", "namespace": "kube-system", "labels": labels},
                "spec": {"containers": [container]}, "status": {"phase": phase},
            })))
        };
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let (none, plain) = (json("{}"), json(r#"{"name": "c"}"#));
        let labelled = json(r#"{"k8s-app": "kube-proxy"}"#);
        let named = json(r#"{"name": "kube-proxy"}"#);
        let command = json(r#"{"name": "c", "command": ["/usr/local/bin/kube-proxy", "--v=2"]}"#);
        let found = Some("kube-system/p".to_owned());
        assert_eq!(of(labelled.clone(), plain.clone(), "Running"), found);
        assert_eq!(of(none.clone(), named, "Running"), found);
        assert_eq!(of(none.clone(), command, "Pending"), found);
        assert_eq!(of(labelled, plain.clone(), "Succeeded"), None);
        assert_eq!(of(none, plain, "Running"), None);
    }
}
