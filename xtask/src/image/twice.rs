//! Whether the same source gives the same image: it is built again from a copy in another
//! place, with nothing of what the first build left, and compared.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::oci::Archive;
use super::stamp::{COMMIT, EPOCH, Stamp};
use super::target::Arch;
use crate::sh::Sh;
use crate::{paths, ui};

/// Builds again and compares.
///
/// # Errors
/// It cannot be built again, or is not the same.
pub(super) fn check(arch: Arch, stamp: &Stamp, name: &str, first: &Archive) -> Result<()> {
    let copy = Copy::make()?;
    let output = copy.0.join("image.tar");
    let program = std::env::current_exe().context("the path of xtask itself")?;
    Sh::new(program)
        .args(["image", "--arch", &arch.to_string(), "--name", name])
        .arg("--output")
        .arg(&output)
        // By this xtask knows where the source is.
        .env("CARGO_MANIFEST_DIR", copy.0.join("xtask"))
        .env_remove("CARGO_TARGET_DIR")
        .env(COMMIT, &stamp.commit)
        .env(EPOCH, stamp.epoch.to_string())
        .run_quietly("building the image again, from a copy of the source")?;
    let second = fs::read(&output).with_context(|| format!("cannot read {}", output.display()))?;
    if second != first.bytes {
        let kept = super::directory().join(format!("bascule-{arch}-second.tar"));
        super::write(&kept, &second)?;
        bail!(
            "the same source gave two images: compare {} with the first, for example with diffoscope",
            kept.display()
        );
    }
    ui::say(format!("the same twice: {}", first.digest));
    Ok(())
}

/// A copy of the source, removed in the end.
struct Copy(PathBuf);

impl Copy {
    fn make() -> Result<Self> {
        let root = paths::root();
        let list = Sh::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .dir(&root)
            .read()?;
        let copy = Self(root.join(format!("target/image/copy.{}", std::process::id())));
        for name in list.lines().filter(|n| root.join(n).is_file()) {
            let (from, to) = (root.join(name), copy.0.join(name));
            copy_file(&from, &to).with_context(|| format!("cannot copy {name}"))?;
        }
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            ui::warn(format!("cannot remove {}: {e}", self.0.display()));
        }
    }
}

fn copy_file(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(from, to).map(drop)
}
