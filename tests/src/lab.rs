//! Looking at the lab of `cargo xtask run` from outside.

use std::fs;
use std::path::{Path, PathBuf};

use crate::e2e::beside;

/// The program `xtask`, which is built beside the tests.
///
/// # Panics
/// It is not there: `cargo build -p xtask`.
#[must_use]
pub fn xtask() -> PathBuf {
    beside("xtask")
}

/// The program `bascule`, which is built beside the tests.
///
/// # Panics
/// It is not there: `cargo build -p lb-userspace`.
#[must_use]
pub fn bascule() -> PathBuf {
    beside("bascule")
}

/// What a lab leaves on the machine, found without the lab's own code.
#[derive(Debug)]
pub struct Leftovers;

impl Leftovers {
    /// Everything of a lab that is there.
    #[must_use]
    pub fn find() -> Vec<String> {
        let mut found = Vec::new();
        let entries = |dir: &str| {
            fs::read_dir(dir)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path())
        };
        let named = |path: &PathBuf| path.to_string_lossy().contains("bascule-lab");
        found.extend(
            entries("/run/netns")
                .filter(named)
                .map(|p| p.display().to_string()),
        );
        found.extend(
            entries("/run")
                .filter(named)
                .map(|p| p.display().to_string()),
        );
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        found.extend(
            mounts
                .lines()
                .filter(|l| l.contains("bascule-lab"))
                .map(str::to_owned),
        );
        let cgroups = mounts
            .lines()
            .map(|l| l.split(' ').collect::<Vec<_>>())
            .filter(|w| w[2] == "cgroup2");
        found.extend(
            cgroups
                .flat_map(|w| entries(w[1]))
                .filter(named)
                .map(|p| p.display().to_string()),
        );
        found.extend(entries("/proc").filter_map(|p| process(&p)));
        found
    }

    /// Asserts that nothing is there.
    ///
    /// # Panics
    /// Something is.
    pub fn assert_none() {
        let found = Self::find();
        assert!(
            found.is_empty(),
            "the lab left behind:\n{}",
            found.join("\n")
        );
    }
}

/// A process that belongs to a lab, by its command line or its cgroup.
fn process(dir: &Path) -> Option<String> {
    dir.file_name()?.to_str()?.parse::<u32>().ok()?;
    let cmdline = fs::read(dir.join("cmdline")).ok()?;
    // A dead process has none; to wait for an orphan is init's business.
    if cmdline.is_empty() {
        return None;
    }
    let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
    let cgroup = fs::read_to_string(dir.join("cgroup")).ok()?;
    let of_lab = cmdline.contains("lab-serve")
        || cmdline.contains("lab-client")
        || cgroup.contains("bascule-lab");
    of_lab.then(|| format!("{}: {cmdline}", dir.display()))
}
