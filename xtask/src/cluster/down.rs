//! The end of a cluster: nothing of it stays on this machine.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::process::{Daemon, output, signal};
use super::state::Settings;
use super::topology::{PREFIX, state};
use super::{cgroup, process};
use crate::lab::netns::{self, NETNS_DIR};

/// Removes processes, namespaces, cgroups, settings of the machine, and files.
///
/// # Errors
/// Something cannot be removed: the first such thing, after all others were tried.
pub(crate) fn down() -> Result<()> {
    let steps: [fn() -> Result<()>; 5] = [
        daemons,
        namespaces,
        cgroup::remove_all,
        Settings::restore,
        files,
    ];
    let mut first = Ok(());
    for step in steps {
        let outcome = step();
        if first.is_ok() {
            first = outcome;
        }
    }
    first
}

/// The nodes' first processes go first: with them all others of their nodes end.
fn daemons() -> Result<()> {
    let (inits, others): (Vec<_>, Vec<_>) = Daemon::all()
        .into_iter()
        .partition(|d| d.name().ends_with(".init"));
    inits
        .iter()
        .chain(&others)
        .try_for_each(|d| d.stop(Duration::ZERO))
}

fn namespaces() -> Result<()> {
    let Ok(entries) = fs::read_dir(NETNS_DIR) else {
        return Ok(());
    };
    for name in entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
    {
        if name
            .strip_prefix(PREFIX)
            .is_some_and(|rest| rest.starts_with('-'))
        {
            end_processes(&name)?;
            netns::ip(None, &format!("netns del {name}\n"))?;
        }
    }
    Ok(())
}

/// Ends what runs in a namespace still: somebody's kubectl, or a daemon that was not noted.
fn end_processes(netns: &str) -> Result<()> {
    let mut list = Command::new("ip");
    list.args(["netns", "pids", netns]);
    for pid in output(list)?.lines().filter_map(|l| l.trim().parse().ok()) {
        signal(pid, libc::SIGKILL);
    }
    Ok(())
}

fn files() -> Result<()> {
    let dir = state();
    if !dir.exists() {
        return Ok(());
    }
    // Mounts that outlived their namespace would be emptied with the files.
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    if let Some(mount) = mounts.lines().find(|l| l.contains(&*dir.to_string_lossy())) {
        bail!("{mount:?} is mounted still: `umount` it, and `cargo xtask cluster down`");
    }
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// Ends a daemon by its name; it may have ended.
///
/// # Errors
/// It does not end.
pub(crate) fn end(name: &str) -> Result<()> {
    process::Daemon::named(name).stop(Duration::ZERO)
}
