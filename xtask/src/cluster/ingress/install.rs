//! The proxy of the chart on the cluster, and the load balancer in front of the nodes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::BALANCER;
use crate::chart;
use crate::cluster::control::{apply, delete, kubectl};
use crate::cluster::daemonset::{self, NAMESPACE};
use crate::cluster::process::wait_for;
use crate::cluster::proxy::Choice;
use crate::cluster::topology::{Node, fabric_netns};
use crate::lab::netns;
use crate::ui;

/// How long pods of the proxy may take to be ready, or to be gone.
const PATIENCE: Duration = Duration::from_secs(120);
/// The name of the proxy's objects.
const NAME: &str = "bascule-proxy";
/// What its pods have.
const LABEL: &str = "app.kubernetes.io/name=bascule-proxy";
/// Where helm says that an object comes from the proxy's templates.
const SOURCE: &str = "# Source: bascule/templates/proxy/";
/// Who reviews Ingresses has to be reached.
const VALUES: &str = "proxy.enabled=true,proxy.ingressClass.nginx=true,proxy.webhook.enabled=true,\
                      proxy.webhook.failurePolicy=Fail";
/// Pods of a Deployment.
const REPLICAS: usize = 2;

/// The two kinds of the proxy's workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A pod on each node: every node has one while they are replaced, as `Local` wants.
    DaemonSet,
    /// Two pods, wherever they are.
    Deployment,
}

impl Kind {
    /// The chart's objects that are the proxy's.
    ///
    /// # Errors
    /// The chart refuses the values.
    pub(super) fn objects(self, choice: &Choice) -> Result<String> {
        let policy = match self {
            Self::DaemonSet => "Local",
            Self::Deployment => "Cluster",
        };
        let values = format!(
            "{},{VALUES},proxy.kind={self:?},proxy.replicas={REPLICAS},proxy.service.externalTrafficPolicy={policy}",
            daemonset::all_values(&choice.flags)?
        );
        let whole = chart::render(&values)?;
        let own = whole
            .split("\n---\n")
            .filter(|object| object.contains(SOURCE));
        Ok(own.collect::<Vec<_>>().join("\n---\n"))
    }

    /// Its name for kubectl.
    fn resource(self) -> String {
        format!("{}/{NAME}", format!("{self:?}").to_lowercase())
    }

    /// Replaces every pod, as an update does, and waits until the earlier ones are gone.
    ///
    /// # Errors
    /// They are not in time.
    pub(super) fn restart(self, nodes: u8) -> Result<()> {
        let before = Pods::read()?;
        kubectl(&["-n", NAMESPACE, "rollout", "restart", &self.resource()])?;
        let count = match self {
            Self::DaemonSet => nodes.into(),
            Self::Deployment => REPLICAS,
        };
        replaced(&before, count)
    }
}

/// Puts a Deployment in the place of the DaemonSet: the objects are the chart's.
///
/// # Errors
/// Its pods are not ready in time, or the others not gone.
pub(super) fn to_deployment(objects: &str) -> Result<()> {
    let before = Pods::read()?;
    apply(objects)?;
    let both = before.names.len() + REPLICAS;
    ready(both)?;
    let daemonset = Kind::DaemonSet.resource();
    kubectl(&["-n", NAMESPACE, "delete", &daemonset, "--wait=false"])?;
    replaced(&before, REPLICAS)
}

/// Waits until so many pods are ready.
fn ready(count: usize) -> Result<()> {
    wait_for("the pods of the proxy get ready", PATIENCE, None, || {
        let ready = Pods::read()?.ready;
        ensure!(
            ready == count,
            "{ready} are: `cargo xtask cluster kubectl describe pods -n {NAMESPACE} -l {LABEL}`"
        );
        Ok(())
    })
}

/// Waits until the pods of before are gone, and so many are ready.
fn replaced(before: &Pods, count: usize) -> Result<()> {
    let what = "the pods of the proxy are replaced";
    wait_for(what, PATIENCE, None, || {
        let now = Pods::read()?;
        let left = before.names.iter().filter(|name| now.names.contains(name));
        let left = left.count();
        ensure!(
            left == 0 && now.ready == count,
            "{left} are there still, and {} are ready",
            now.ready
        );
        Ok(())
    })
}

/// Starts the proxy, and leads the load balancer's addresses to it. The NodePorts of HTTP and
/// HTTPS.
///
/// # Errors
/// The API server refuses an object, or the pods are not ready in time.
pub(super) fn start(nodes: u8, objects: &str) -> Result<[u16; 2]> {
    apply(objects)?;
    lead(nodes)?;
    ready(nodes.into())?;
    let ports = service("{.spec.ports[*].nodePort}")?;
    let mut ports = ports.split(' ').map(str::parse);
    let mut next = || ports.next().context("its Service has two NodePorts");
    Ok([next()??, next()??])
}

/// Gives the Service its addresses, as a load balancer's controller does, and the fabric's router
/// a way to them by every node.
fn lead(nodes: u8) -> Result<()> {
    let addrs = BALANCER.map(|ip| json!({"ip": ip}));
    let status = json!({"status": {"loadBalancer": {"ingress": addrs}}}).to_string();
    let patch = ["--subresource=status", "--type=merge", "--patch", &status];
    kubectl(&[&["-n", NAMESPACE, "patch", "service", NAME], &patch[..]].concat())?;
    let mut script = String::new();
    for (at, addr) in BALANCER.iter().enumerate() {
        script.push_str(&format!("route replace {addr}"));
        for node in Node::first(nodes) {
            let (v4, v6) = node.addrs();
            script.push_str(&format!(" nexthop via {}", [v4, v6][at]));
        }
        script.push('\n');
    }
    netns::ip(Some(&fabric_netns()), &script)
}

fn service(path: &str) -> Result<String> {
    let path = format!("jsonpath={path}");
    kubectl(&["-n", NAMESPACE, "get", "service", NAME, "-o", &path])
}

/// Sets the Service's `externalTrafficPolicy`.
///
/// # Errors
/// The API server refuses it.
pub(super) fn set_policy(policy: &str) -> Result<()> {
    let spec = json!({"spec": {"externalTrafficPolicy": policy}}).to_string();
    let patch = ["patch", "service", NAME, "--patch", &spec];
    kubectl(&[&["-n", NAMESPACE], &patch[..]].concat()).map(drop)
}

/// The pods of the proxy.
struct Pods {
    names: Vec<String>,
    ready: usize,
}

impl Pods {
    fn read() -> Result<Self> {
        let text = kubectl(&["-n", NAMESPACE, "get", "pods", "-l", LABEL, "-o", "json"])?;
        let list: Value = serde_json::from_str(&text).context("kubectl prints no JSON")?;
        Ok(Self::of(&list))
    }

    fn of(list: &Value) -> Self {
        let pods = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let name = |pod: &Value| pod["metadata"]["name"].as_str().map(str::to_owned);
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        Self {
            names: pods.iter().filter_map(name).collect(),
            ready: pods.iter().filter(is_ready).count(),
        }
    }
}

/// What the pods' logs have but requests, for who looks why something is not as it should be.
pub(super) fn show_logs() {
    // Where there are none, the error of the check is what counts.
    let words = ["logs", "--prefix", "--tail=-1", "-l", LABEL];
    let said = kubectl(&[&["-n", NAMESPACE], &words[..]].concat()).unwrap_or_default();
    let is_told = |line: &&str| {
        [" INFO ", " WARN ", "ERROR "]
            .iter()
            .any(|l| line.contains(l))
    };
    said.lines().filter(is_told).for_each(ui::say);
}

/// Removes the proxy and the load balancer, and waits until the pods are gone.
///
/// # Errors
/// Something stays.
pub(super) fn remove(objects: &[&str]) -> Result<()> {
    objects.iter().try_for_each(|objects| delete(objects))?;
    // By which the pods agreed who writes the status; it is none of the chart's.
    let lease = format!("lease/{NAME}-leader");
    kubectl(&["-n", NAMESPACE, "delete", &lease, "--ignore-not-found"])?;
    let script: String = BALANCER.map(|ip| format!("route del {ip}\n")).concat();
    netns::ip(Some(&fabric_netns()), &script)?;
    wait_for("the pods of the proxy end", PATIENCE, None, || {
        let names = Pods::read()?.names;
        ensure!(names.is_empty(), "{} are there still", names.join(", "));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_counted_by_their_condition() {
        let pod = |name: &str, ready: &str| {
            json!({
                "metadata": {"name": name},
                "status": {"conditions": [
                    {"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready},
                ]},
            })
        };
        let list = json!({"items": [
            pod("a", "True"), pod("b", "False"), {"metadata": {"name": "c"}},
        ]});
        let pods = Pods::of(&list);
        assert_eq!((pods.names.join(" ").as_str(), pods.ready), ("a b c", 1));
    }
}
