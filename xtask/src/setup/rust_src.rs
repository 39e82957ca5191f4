//! `rust-src` where rustup has no server: Debian's package of the same library.
//!
//! Debian sid packages the source of a Rust release. The library of a release and that of a
//! nightly of the same minor version are close enough for `build-std=core`, which is all that
//! the eBPF programs need of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cache::{self, remove};
use crate::debian::{Unstable, unpack};
use crate::sh::Sh;
use crate::ui;

/// Puts the library that Debian packages to `library`.
///
/// # Errors
/// No Debian mirror is configured, the package is of another minor version than `release`, or
/// a command fails.
pub(super) fn from_debian(library: &Path, release: &str) -> Result<()> {
    let dir = cache::root().join(format!("rust-src.{}", std::process::id()));
    let result = install(&dir, library, release);
    remove(&dir)?;
    result
}

fn install(dir: &Path, library: &Path, release: &str) -> Result<()> {
    let unstable = Unstable::open(&dir.join("apt"))?;
    ui::say(format!("rust-src comes from {} (sid)", unstable.mirror));
    let unpacked = dir.join("unpacked");
    unpack(
        unstable.apt(),
        &["rust-src"],
        &dir.join("packages"),
        &unpacked,
    )?;
    let source = only_entry(&unpacked.join("usr/src"))?;
    check_release(&source, release)?;
    replace(&source.join("library"), library)
}

/// `rustc-1.97.1` serves the nightly 1.97.0, but not 1.98.0.
fn check_release(source: &Path, release: &str) -> Result<()> {
    let name = source
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let packaged = name.strip_prefix("rustc-").unwrap_or(&name);
    if minor(packaged) == minor(release) {
        return Ok(());
    }
    bail!("Debian sid packages the library of Rust {packaged}, and the pinned nightly is {release}")
}

fn minor(version: &str) -> Option<(&str, &str)> {
    let mut parts = version.split('.');
    Some((parts.next()?, parts.next()?))
}

/// Copies beside the target and renames, so that a library that is there is a whole one.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().context("the library's path has no parent")?;
    let partial = parent.join("library.partial");
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    remove(&partial)?;
    remove(to)?;
    Sh::new("cp")
        .arg("-r")
        .arg(from)
        .arg(&partial)
        .run_quietly(&format!("copying rust-src to {}", to.display()))?;
    fs::rename(&partial, to)
        .with_context(|| format!("cannot rename {} to {}", partial.display(), to.display()))
}

fn only_entry(dir: &Path) -> Result<PathBuf> {
    let mut entries =
        fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry
            .with_context(|| format!("cannot read {}", dir.display()))?
            .path()),
        _ => bail!("{} should hold one entry", dir.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_of_another_minor_version_is_refused() {
        assert!(check_release(Path::new("/x/rustc-1.97.1"), "1.97.0").is_ok());
        let error = check_release(Path::new("/x/rustc-1.98.0"), "1.97.0")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("1.98.0") && error.contains("1.97.0"),
            "{error}"
        );
    }
}
