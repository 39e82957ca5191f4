//! What later commands must know of a cluster that is up.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::images::write;
use super::proxy::Choice;
use super::topology;

/// Settings of the whole machine that the kubelet or the number of its watches changes.
const SETTINGS: [&str; 7] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    INSTANCES,
];
/// Each kubelet and containerd follows many files.
const INSTANCES: &str = "fs/inotify/max_user_instances";

/// A cluster that is up.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Number of nodes.
    pub nodes: u8,
    /// What runs on them.
    pub proxy: Choice,
}

impl State {
    fn file() -> PathBuf {
        topology::state().join("cluster.json")
    }

    /// Reads it.
    ///
    /// # Errors
    /// No cluster is up.
    pub(crate) fn load() -> Result<Self> {
        let text = fs::read_to_string(Self::file())
            .context("no cluster is up: `cargo xtask cluster up`")?;
        serde_json::from_str(&text)
            .with_context(|| format!("cannot understand {}", Self::file().display()))
    }

    /// Writes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn store(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot write JSON")?;
        write(&Self::file(), &text)
    }
}

/// Settings of the machine, as they were before the cluster.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Settings(Vec<(String, String)>);

impl Settings {
    fn file() -> PathBuf {
        topology::state().join("sysctl.json")
    }

    /// Notes what they are, and makes room for the kubelets' watches.
    ///
    /// # Errors
    /// One cannot be read or written.
    pub(crate) fn keep() -> Result<()> {
        let read = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
            Some((name.to_owned(), text.trim().to_owned()))
        };
        let kept = Self(SETTINGS.iter().filter_map(|name| read(name)).collect());
        let text = serde_json::to_string_pretty(&kept).context("cannot write JSON")?;
        write(&Self::file(), &text)?;
        set(INSTANCES, "1024")
    }

    /// Sets them back.
    ///
    /// # Errors
    /// One cannot be written.
    pub(crate) fn restore() -> Result<()> {
        let Ok(text) = fs::read_to_string(Self::file()) else {
            return Ok(());
        };
        let kept: Self = serde_json::from_str(&text)
            .with_context(|| format!("cannot understand {}", Self::file().display()))?;
        kept.0.iter().try_for_each(|(name, value)| set(name, value))
    }
}

fn set(name: &str, value: &str) -> Result<()> {
    let path = PathBuf::from("/proc/sys").join(name);
    write(&path, value)
}
