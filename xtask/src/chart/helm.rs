//! Helm: the one on this machine, or one that Go builds from its module.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cache::Entry;
use crate::setup::Unfit;
use crate::sh::{Sh, which};

/// The module and version that is built where no helm is installed.
const MODULE: &str = "helm.sh/helm/v4/cmd/helm";
const VERSION: &str = "4.3.1";
/// Where the rendered objects live: kube-proxy's place, and the one where
/// `system-node-critical` pods are always admitted.
const NAMESPACE: &str = "kube-system";

/// A helm.
pub(super) struct Helm(PathBuf);

impl Helm {
    /// Finds it, or builds it.
    ///
    /// # Errors
    /// [`Unfit`] where there is no Go either; else what went wrong.
    pub(super) fn ensure() -> Result<Self> {
        let entry = Entry::new(&format!("helm-{VERSION}"), [MODULE]);
        let built = entry.dir().join("helm");
        if !built.is_file() {
            if let Some(found) = which("helm") {
                return Ok(Self(found));
            }
            entry.ensure(|whole, _| build(whole))?;
        }
        Ok(Self(built))
    }

    /// Helm's own rules.
    ///
    /// # Errors
    /// One does not hold.
    pub(super) fn lint(&self) -> Result<()> {
        Sh::new(&self.0)
            .args(["lint", "--strict", "--quiet"])
            .arg(super::chart())
            .run()
    }

    /// The objects, with some values set (`name=value,name=value`).
    ///
    /// # Errors
    /// The chart refuses the values.
    pub(super) fn render(&self, values: &str) -> Result<String> {
        let sh = Sh::new(&self.0)
            .args(["template", "bascule"])
            .arg(super::chart())
            .args(["--namespace", NAMESPACE]);
        let sh = match values {
            "" => sh,
            values => sh.args(["--set", values]),
        };
        sh.read()
    }
}

fn build(dir: &Path) -> Result<()> {
    if which("go").is_none() {
        return Err(Unfit::new(
            "neither helm nor go is on the PATH: install one of them (https://helm.sh, https://go.dev)",
        )
        .into());
    }
    Sh::new("go")
        .args(["install", "-trimpath", &format!("{MODULE}@v{VERSION}")])
        .env("GOBIN", dir)
        .env("CGO_ENABLED", "0")
        .run_quietly(&format!("building helm {VERSION}"))
        .context("cannot build helm from its Go module")
}
