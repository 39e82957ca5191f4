//! `bascule cleanup`: takes off a node what agents left there.

use std::path::Path;

use anyhow::{Context, bail};

use super::args::Paths;
use crate::{
    agent::{kernel::pins, state::StateDir},
    bpf,
    netfilter::kube_proxy,
};

/// Removes links, programs, maps, filters, pins, the table of a takeover, and the state
/// directory.
///
/// # Errors
/// An agent runs, or something cannot be removed; the message names it.
pub fn run(paths: &Paths) -> anyhow::Result<()> {
    let state = StateDir::new(&paths.state_dir);
    if state.is_claimed() {
        bail!(
            "{}: an agent runs with this state directory, and would put everything back: end it first",
            paths.state_dir.display()
        );
    }
    remove(&paths.bpffs, &state)
}

fn remove(bpffs: &Path, state: &StateDir) -> anyhow::Result<()> {
    let settings = pins(bpffs);
    bpf::Datapath::uninstall(&settings).context("not everything could be removed")?;
    kube_proxy::release_nat().with_context(|| {
        let table = kube_proxy::OWN_TABLE;
        format!("the nft table {table} cannot be removed")
    })?;
    let mounted = state.mounted();
    state
        .remove()
        .context("the state directory cannot be removed")?;
    if mounted.as_deref() == Some(bpffs) {
        bpf::unmount_bpffs(bpffs).with_context(|| {
            format!(
                "{}: mounted by the agent, and cannot be unmounted",
                bpffs.display()
            )
        })?;
    }
    Ok(())
}
