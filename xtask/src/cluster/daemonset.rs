//! The agent as pods: the image that `cargo xtask image` makes and the chart of `manifests/`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use super::cgroup::hierarchies;
use super::control::{apply, kubectl};
use super::node::load;
use super::process::wait_for;
use super::proxy::Choice;
use super::topology::{CONTROL, Node};
use crate::{chart, paths};

/// How long the pods may take to be ready, or to be gone.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the chart's objects are.
pub(super) const NAMESPACE: &str = "kube-system";
/// What all objects of the chart have.
const LABEL: &str = "app.kubernetes.io/instance=bascule";

/// Gives the nodes the image, and the cluster the chart's objects; pods of before are
/// replaced one after the other, whether something of theirs changed or not.
///
/// # Errors
/// There is no image, or the chart or the cluster refuses something.
pub(crate) fn install(nodes: u8, choice: &Choice) -> Result<()> {
    let archive = archive(choice.image.as_deref())?;
    Node::first(nodes).try_for_each(|n| load(n, &archive))?;
    let mut values = all_values(&choice.flags)?;
    if choice.takeover {
        values.push_str(",takeover=true");
    }
    apply(&chart::render(&values)?)
}

/// The image's archive: the one that the user names, or the one that is made by default.
fn archive(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return given
            .canonicalize()
            .with_context(|| format!("cannot find {}", given.display()));
    }
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let file = paths::root().join(format!("target/image/bascule-{arch}.tar"));
    ensure!(
        file.is_file(),
        "there is no image {}: `cargo xtask image` makes it",
        file.display()
    );
    Ok(file)
}

/// The chart's values: what this cluster needs, and then what the user wants.
///
/// # Errors
/// The machine has no cgroup2.
pub(super) fn all_values(more: &[String]) -> Result<String> {
    let unified = hierarchies()?.into_iter().find(|h| h.v1.is_none());
    let unified = unified.context("no cgroup2 hierarchy is mounted")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_millis();
    let mut values = vec![
        // The image may have the name of another one before: this starts its new content.
        format!("podAnnotations.cluster/started=at-{now}"),
        format!("k8sServiceHost={}", CONTROL.0),
        "k8sServicePort=6443".to_owned(),
        format!("paths.cgroup={}", unified.place.display()),
    ];
    values.extend_from_slice(more);
    Ok(values.join(","))
}

/// Waits until a pod runs on every node, ready or not.
///
/// # Errors
/// One does not in time.
pub(crate) fn wait_running(nodes: u8) -> Result<()> {
    let fields = "jsonpath={.items[*].status.phase}";
    wait_for("the proxy's pods run", PATIENCE, None, || {
        let text = kubectl(&["-n", NAMESPACE, "get", "pods", "-l", LABEL, "-o", fields])?;
        let running = text.split(' ').filter(|p| *p == "Running").count();
        ensure!(
            running >= usize::from(nodes),
            "{running} do: `cargo xtask cluster kubectl describe pods -n {NAMESPACE} -l {LABEL}`"
        );
        Ok(())
    })
}

/// Waits until all pods are of the newest kind and ready.
///
/// # Errors
/// They are not in time.
pub(crate) fn wait(nodes: u8) -> Result<()> {
    let fields = "jsonpath={range .items[*]}{.metadata.generation} {.status.observedGeneration} \
                  {.status.updatedNumberScheduled} {.status.numberReady}{'\\n'}{end}";
    wait_for("the proxy's pods get ready", PATIENCE, None, || {
        let text = kubectl(&[
            "-n",
            NAMESPACE,
            "get",
            "daemonset",
            "-l",
            LABEL,
            "-o",
            fields,
        ])?;
        ensure!(
            all_ready(&text, nodes),
            "they are not: `cargo xtask cluster kubectl describe pods -n {NAMESPACE} -l {LABEL}`"
        );
        Ok(())
    })
}

/// Whether there are DaemonSets, and each has a pod of its newest kind ready on every node.
fn all_ready(sets: &str, nodes: u8) -> bool {
    let wanted = nodes.to_string();
    let ready = |set: &str| match set.split(' ').collect::<Vec<_>>()[..] {
        [generation, seen, updated, ready] => {
            generation == seen && updated == wanted && ready == wanted
        }
        _ => false,
    };
    !sets.is_empty() && sets.lines().all(ready)
}

/// Removes the chart's objects, and waits until the pods are gone.
///
/// # Errors
/// They stay.
pub(crate) fn remove() -> Result<()> {
    let kinds = "daemonset,deployment,service,serviceaccount,clusterrole,clusterrolebinding,role,rolebinding,\
                 configmap,secret,poddisruptionbudget,ingressclass,validatingwebhookconfiguration";
    kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        kinds,
        "-l",
        LABEL,
        "--wait=false",
    ])?;
    wait_for("the proxy's pods end", PATIENCE, None, || {
        let pods = kubectl(&["-n", NAMESPACE, "get", "pods", "-l", LABEL, "-o", "name"])?;
        ensure!(pods.is_empty(), "{pods} is there still");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_must_be_ready_on_all_nodes() {
        assert!(all_ready("4 4 3 3\n1 1 3 3", 3));
        assert!(!all_ready("", 3));
        assert!(!all_ready("4 4 3 3\n1 1 3 2", 3), "a pod is not ready");
        assert!(!all_ready("4 3 3 3", 3), "the update has not been seen");
        assert!(!all_ready("4 4 2 3", 3), "a pod is of before");
        assert!(!all_ready("4 4  ", 3), "nothing is known yet");
    }
}
