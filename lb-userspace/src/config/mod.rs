//! The agent's configuration file: kube-proxy's `KubeProxyConfiguration`, and
//! beside it Bascule's own `BasculeConfiguration`, each a document of one file.
//!
//! kube-proxy reads the first document of its file only, so the same file serves
//! both. As there, fields of `KubeProxyConfiguration` that are unknown or given
//! twice are warned of and the file is read nevertheless (its lenient decoder);
//! those of `BasculeConfiguration` are refused.
//! kubernetes v1.36.3, cmd/kube-proxy/app/options.go.

mod bascule;
mod check;
mod conntrack;
pub mod fields;
pub mod kind;
mod kube_proxy;
pub mod period;
#[cfg(test)]
mod tests;
mod write;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::time;

pub use bascule::{Bascule, Max, MetricsDetail, SocketLb, Xdp};
pub use kube_proxy::{KubeProxy, Origin};

use crate::{log, watch::manifest::documents};

/// `apiVersion` and `kind` of kube-proxy's document.
pub const KUBE_PROXY: (&str, &str) = ("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration");
/// `apiVersion` and `kind` of Bascule's.
pub const BASCULE: (&str, &str) = ("config.bascule.dev/v1alpha1", "BasculeConfiguration");

/// What a file says.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct File {
    /// kube-proxy's document, if there is one.
    pub kube_proxy: Option<KubeProxy>,
    /// Bascule's own.
    pub bascule: Bascule,
    /// What was read although it is wrong.
    pub warnings: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// It cannot be read, or is no configuration; the message names the field.
pub fn read(path: &Path) -> anyhow::Result<File> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("the configuration {} cannot be read", path.display()))?;
    parse(&text).with_context(|| format!("the configuration {}", path.display()))
}

/// Reads the documents of a file.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str) -> anyhow::Result<File> {
    let mut file = File::default();
    let mut own = false;
    for text in documents(text) {
        let (document, again) = match yaml(text, false) {
            Ok(document) => (document, None),
            Err(error) => match yaml(text, true) {
                // Only for what is given twice.
                Ok(document) => (document, Some(error)),
                Err(_) => bail!(error),
            },
        };
        if document.is_null() {
            continue;
        }
        let head = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (head("apiVersion"), head("kind"));
        match (version.as_str(), kind.as_str()) {
            KUBE_PROXY if file.kube_proxy.is_none() => {
                file.warnings
                    .extend(again.map(|e| format!("{kind}: {e}; the last counts")));
                file.kube_proxy = Some(kube_proxy(&document, &mut file.warnings)?);
            }
            BASCULE if !own => {
                if let Some(error) = again {
                    bail!("{kind}: {error}");
                }
                let decoded = Bascule::decode(document).map_err(anyhow::Error::msg);
                file.bascule = decoded.with_context(|| kind.clone())?;
                own = true;
            }
            KUBE_PROXY | BASCULE => bail!("there are two documents {kind}: leave one out"),
            _ => bail!(
                "a document has apiVersion {version:?} and kind {kind:?}: it must be {} of {} or {} of {}",
                KUBE_PROXY.1,
                KUBE_PROXY.0,
                BASCULE.1,
                BASCULE.0
            ),
        }
    }
    if file.kube_proxy.is_none() && !own {
        bail!(
            "there is no document in it: write a {} of {}",
            KUBE_PROXY.1,
            KUBE_PROXY.0
        );
    }
    Ok(file)
}

fn kube_proxy(document: &Value, warnings: &mut Vec<String>) -> anyhow::Result<KubeProxy> {
    let kind = KUBE_PROXY.1;
    let mut unknown = Vec::new();
    let config = KubeProxy::decode(document, &mut unknown);
    let config = config.map_err(|errors| anyhow::anyhow!("{kind}: {}", errors.join("; ")))?;
    let unknown = unknown.iter().map(|path| {
        format!("{kind}: {path} is not a field of it, and is left out; correct or remove it")
    });
    warnings.extend(unknown);
    Ok(config)
}

/// Reads one document of YAML; JSON is YAML.
fn yaml(text: &str, lenient: bool) -> Result<Value, String> {
    use serde_saphyr::options::DuplicateKeyPolicy::{Error, LastWins};
    let options = serde_saphyr::options! {
        duplicate_keys: if lenient { LastWins } else { Error },
        with_snippet: false,
        // Kubernetes reads YAML 1.1.
        legacy_octal_numbers: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| {
        let text = e.to_string();
        // The hint is for programmers.
        match text.split_once(", set DuplicateKeyPolicy") {
            Some((what, _)) => match e.location() {
                Some(at) => format!("line {}: {what}", at.line()),
                None => what.to_owned(),
            },
            None => text,
        }
    })
}

/// The text of a file with both documents, every field with its value.
///
/// # Errors
/// Never for what was decoded.
pub fn write(kube_proxy: &KubeProxy, bascule: &Bascule) -> anyhow::Result<String> {
    let mut own = serde_json::to_value(bascule)?;
    own["apiVersion"] = BASCULE.0.into();
    own["kind"] = BASCULE.1.into();
    let documents = [kube_proxy.document(), own].map(|document| serde_saphyr::to_string(&document));
    let [first, second] = documents;
    Ok(format!("{}---\n{}", first?, second?))
}

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Returns when a file says something else than `known`: an error, as with kube-proxy, which
/// then ends and is started again. The log's levels alone are taken over without that. A file
/// that is gone, as for a moment while it is replaced, is waited for.
///
/// # Errors
/// The content has changed.
pub async fn changed(path: &Path, known: &[u8]) -> anyhow::Result<()> {
    let mut known = known.to_vec();
    loop {
        time::sleep(LOOK).await;
        let Ok(now) = tokio::fs::read(path).await else {
            continue;
        };
        if now == known {
            continue;
        }
        let Some(levels) = only_levels(&known, &now) else {
            bail!(
                "the configuration {} has changed: the agent ends, to be started with it",
                path.display()
            );
        };
        known = now;
        let path = path.display();
        match log::set_levels(levels.as_deref()) {
            Ok(()) => tracing::info!(%path, ?levels, "the log has other levels now"),
            Err(error) => tracing::warn!(%path, "logLevels: {error}; the levels stay as they were"),
        }
    }
}

/// The levels of the log that a configuration has, if nothing else is different.
fn only_levels(known: &[u8], now: &[u8]) -> Option<Option<String>> {
    let read = |bytes| parse(std::str::from_utf8(bytes).ok()?).ok();
    let (mut before, mut after) = (read(known)?, read(now)?);
    before.bascule.log_levels = None;
    let levels = after.bascule.log_levels.take();
    (before == after).then_some(levels)
}
