//! The programs that Bascule is measured beside, and what loads them: those of this machine, or
//! Debian's, unpacked without being installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::cache::Entry;
use crate::debian;
use crate::setup::Unfit;
use crate::sh::which;

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
        command.env("LD_LIBRARY_PATH", debian::libraries(&self.unpacked));
        command
    }
}

fn fetch(whole: &Path, scratch: &Path) -> Result<()> {
    let wanted: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|name| which(name).is_none())
        .collect();
    debian::unpack_whole(&wanted, &scratch.join("packages"), whole)
}
