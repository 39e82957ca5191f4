//! Prometheus and its promtool, for the test of the alerts and dashboards: those on this
//! machine, or Debian's, unpacked without being installed. The package would start a server.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cache::Entry;
use crate::debian;
use crate::setup::Unfit;
use crate::sh::{Sh, which};

const PACKAGE: &str = "prometheus";
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// The directory of both programs.
///
/// # Errors
/// [`Unfit`] where there is no apt-get either; else what went wrong.
pub(crate) fn ensure() -> Result<PathBuf> {
    let [server, tool] = PROGRAMS.map(which);
    let here = server.as_deref().and_then(Path::parent);
    match here.filter(|dir| tool.is_some_and(|tool| tool.parent() == Some(dir))) {
        Some(dir) => Ok(dir.to_owned()),
        None => Entry::new(PACKAGE, [PACKAGE]).ensure(fetch),
    }
}

fn fetch(whole: &Path, scratch: &Path) -> Result<()> {
    if which("apt-get").is_none() {
        return Err(Unfit::new(
            "neither prometheus and promtool nor apt-get is here: install the former",
        )
        .into());
    }
    let (packages, unpacked) = (scratch.join("packages"), scratch.join("unpacked"));
    debian::by_lists(|| debian::unpack(Sh::new("apt-get"), &[PACKAGE], &packages, &unpacked))?;
    for program in PROGRAMS {
        let from = unpacked.join("usr/bin").join(program);
        fs::rename(&from, whole.join(program))
            .with_context(|| format!("Debian's {PACKAGE} has no {}", from.display()))?;
    }
    Ok(())
}
