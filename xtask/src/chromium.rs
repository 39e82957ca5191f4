//! Chromium, for the test of the status page: this machine's, or Debian's, unpacked without being
//! installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cache::Entry;
use crate::debian;
use crate::setup::Unfit;
use crate::sh::which;

/// A browser without a window.
const PACKAGE: &str = "chromium-headless-shell";
/// Where it is in the package.
const PROGRAM: &str = "usr/lib/chromium/chromium-headless-shell";

/// The directory of `chromium`.
///
/// # Errors
/// [`Unfit`] where there is no apt-get either; else what went wrong.
pub(crate) fn ensure() -> Result<PathBuf> {
    let here = which("chromium");
    match here.as_deref().and_then(Path::parent) {
        Some(dir) => Ok(dir.to_owned()),
        None => Entry::new("chromium", [PACKAGE]).ensure(fetch),
    }
}

fn fetch(whole: &Path, scratch: &Path) -> Result<()> {
    if which("apt-get").is_none() {
        let why = "neither chromium nor apt-get is here: install the former";
        return Err(Unfit::new(why).into());
    }
    debian::unpack_whole(&[PACKAGE], &scratch.join("packages"), whole)?;
    // The directory gets its place later.
    let libraries = debian::libraries(Path::new("$here"));
    let libraries = libraries.to_string_lossy();
    let script = format!(
        "#!/bin/sh\nhere=$(dirname \"$(readlink -f \"$0\")\")\n\
         LD_LIBRARY_PATH=\"{libraries}\" exec \"$here/{PROGRAM}\" \"$@\"\n"
    );
    let program = whole.join("chromium");
    let made = fs::write(&program, script)
        .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)));
    made.with_context(|| format!("cannot write {}", program.display()))
}
