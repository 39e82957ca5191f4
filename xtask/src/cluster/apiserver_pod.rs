//! A pod that stands for the API server, which runs as no pod here: the test that restarts it
//! deletes its pod, as where it is one of the cluster's own pods.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::control::{apply, kubectl, start_apiserver};
use super::down;
use super::process::wait_for;
use super::topology::PAUSE;
use crate::ui;

const NAME: &str = "kube-apiserver";
/// The label by which the test finds it (`clusterComponentKey` of its service.go).
const LABEL: &str = "component=kube-apiserver";
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(500);
/// From a deletion to the restart: the test asks once more whether a new pod is there, every
/// five seconds, and takes no error for an answer.
const DELAY: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(60);

/// The pod, and who restarts the API server when it is deleted.
pub(super) struct ApiserverPod {
    stop: Arc<AtomicBool>,
    restarts: Arc<Mutex<Result<u32>>>,
    watcher: JoinHandle<()>,
}

impl ApiserverPod {
    /// Makes the pod and watches it.
    ///
    /// # Errors
    /// It does not come up.
    pub(super) fn start() -> Result<Self> {
        let labels = json!({"component": NAME});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": NAME, "namespace": "kube-system", "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "stands-for-it", "image": PAUSE}]},
                },
            },
        });
        apply(&deployment.to_string())?;
        let mut first = String::new();
        wait_for(
            "the pod that stands for the API server",
            PATIENCE,
            None,
            || {
                first = uid()?;
                ensure!(!first.is_empty(), "it is not there");
                Ok(())
            },
        )?;
        let stop = Arc::new(AtomicBool::new(false));
        let restarts = Arc::new(Mutex::new(Ok(0)));
        let (stopped, count) = (stop.clone(), restarts.clone());
        let watcher = std::thread::spawn(move || watch(first, &stopped, &count));
        Ok(Self {
            stop,
            restarts,
            watcher,
        })
    }

    /// Removes the pod; how often the API server was restarted.
    ///
    /// # Errors
    /// A restart failed, or the pod cannot be removed.
    pub(super) fn end(self) -> Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.watcher.join();
        kubectl(&["-n", "kube-system", "delete", "deployment", NAME])?;
        let mut restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *restarts, Ok(0))
    }
}

fn uid() -> Result<String> {
    let uids = "jsonpath={.items[*].metadata.uid}";
    kubectl(&["-n", "kube-system", "get", "pods", "-l", LABEL, "-o", uids])
}

fn watch(mut known: String, stop: &AtomicBool, restarts: &Mutex<Result<u32>>) {
    while !stop.load(Ordering::Relaxed) {
        sleep(POLL);
        // No answer is the next one's matter: the API server may be on its way up.
        let Ok(now) = uid() else { continue };
        let Some(new) = now.split(' ').next().filter(|uid| !uid.is_empty()) else {
            continue;
        };
        if now.contains(&known) {
            continue;
        }
        known = new.to_owned();
        sleep(DELAY);
        ui::say("the API server's pod was deleted: the API server is restarted");
        let outcome = down::end("apiserver").and_then(|()| start_apiserver());
        let mut restarts = restarts.lock().unwrap_or_else(PoisonError::into_inner);
        match (outcome, &mut *restarts) {
            (Ok(()), Ok(count)) => *count += 1,
            (Err(e), _) => *restarts = Err(e),
            (Ok(()), Err(_)) => {}
        }
    }
}
