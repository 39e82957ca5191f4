//! The programs that Bascule is measured beside, and what loads them: those of this machine, or
//! Debian's, unpacked without being installed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cache::Entry;
use crate::debian;
use crate::setup::Unfit;
use crate::sh::{Sh, which};

/// Also the names of the packages.
const PROGRAMS: [&str; 4] = ["nginx", "haproxy", "wrk", "openssl"];

/// Where the programs are.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    unpacked: PathBuf,
}

impl Programs {
    /// Finds or fetches them.
    ///
    /// # Errors
    /// [`Unfit`] where there is no apt-get either; else what went wrong.
    pub(super) fn ensure() -> Result<Self> {
        let entry = Entry::new("l7-peers", PROGRAMS);
        let programs = Self {
            unpacked: entry.dir(),
        };
        if programs.missing().is_none() {
            return Ok(programs);
        }
        if which("apt-get").is_none() {
            let all = PROGRAMS.join(", ");
            let why = format!("the suite l7 needs {all}, and there is no apt-get: install them");
            return Err(Unfit::new(why).into());
        }
        entry.ensure(fetch)?;
        let missing = programs.missing();
        let name = missing.unwrap_or_default();
        let at = programs.unpacked.display();
        ensure!(
            missing.is_none(),
            "{at} has no {name}: remove that directory, or install {name}"
        );
        Ok(programs)
    }

    fn missing(&self) -> Option<&'static str> {
        let found = |name: &&&str| self.find(name).is_none();
        PROGRAMS.iter().find(found).copied()
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let unpacked = ["usr/sbin", "usr/bin"].map(|dir| self.unpacked.join(dir).join(name));
        let unpacked = unpacked.into_iter().find(|path| path.is_file());
        which(name).or(unpacked)
    }

    /// One of them, with its libraries.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.find(name).unwrap_or_else(|| name.into()));
        command.env("LD_LIBRARY_PATH", self.libraries());
        command
    }

    /// Directories of libraries that came with them.
    fn libraries(&self) -> OsString {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let dirs = ["usr/lib", "lib"].map(|dir| self.unpacked.join(dir).join(&triplet));
        // Cache directories have no colon, or the loader would have none of them either.
        std::env::join_paths(dirs).unwrap_or_default()
    }
}

fn fetch(whole: &Path, scratch: &Path) -> Result<()> {
    let names = match missing_packages() {
        Ok(names) => names,
        Err(_) => {
            // A fresh machine has not read the lists yet.
            Sh::new("apt-get")
                .args(["-qq", "update"])
                .run_quietly("reading the package lists")?;
            missing_packages()?
        }
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let packages = scratch.join("packages");
    debian::unpack(Sh::new("apt-get"), &names, &packages, whole)?;
    // Nothing of it is needed, and it may not be readable for others.
    let _ = fs::remove_dir_all(whole.join("var"));
    Ok(())
}

/// The packages, and those that they depend on and that are not installed.
fn missing_packages() -> Result<Vec<String>> {
    let wanted = PROGRAMS.into_iter().filter(|name| which(name).is_none());
    let plan = Sh::new("apt-get")
        .args(["-s", "--no-install-recommends", "install"])
        .args(wanted)
        .read()
        .context("nginx, haproxy and wrk cannot be had from this machine's packages")?;
    Ok(new_packages(&plan))
}

/// `Inst NAME (VERSION …)`; `Inst NAME [OLD] (VERSION …)` is there already, and is taken too.
fn new_packages(plan: &str) -> Vec<String> {
    let lines = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_names_what_is_missing() {
        let plan = "Reading package lists...\nThe following NEW packages will be installed:\n  wrk\n\
                    Inst libssl3 [3.0.19-1] (3.0.22-1 Debian-Security:12/oldstable-security [amd64])\n\
                    Inst wrk (4.1.0-3+b2 Debian:12.15/oldstable [amd64])\n\
                    Conf wrk (4.1.0-3+b2 Debian:12.15/oldstable [amd64])\n";
        assert_eq!(new_packages(plan), ["libssl3", "wrk"]);
    }
}
