//! `rust-src` where rustup has no server: Debian's package of the same library.
//!
//! Debian sid packages the source of a Rust release. The library of a release and that of a
//! nightly of the same minor version are close enough for `build-std=core`, which is all that
//! the eBPF programs need of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::sh::{Sh, which};
use crate::{paths, ui};

/// Puts the library that Debian packages to `library`.
///
/// The package is downloaded through an apt configuration of its own, so that the machine's
/// sources, lists and packages stay as they are.
///
/// # Errors
/// No Debian mirror is configured, the package is of another minor version than `release`, or
/// a command fails.
pub(super) fn from_debian(library: &Path, release: &str) -> Result<()> {
    for tool in ["apt-get", "dpkg"] {
        ensure!(
            which(tool).is_some(),
            "no {tool} here: Debian's package of rust-src cannot be unpacked"
        );
    }
    let dir = paths::tools().join("apt");
    remove(&dir)?;
    let result = install(&dir, library, release);
    remove(&dir)?;
    result
}

fn install(dir: &Path, library: &Path, release: &str) -> Result<()> {
    let mirror = mirror()?;
    ui::say(format!(
        "rust-src comes from {mirror} (sid), through a private apt configuration in {}",
        dir.display()
    ));
    let conf = configure(dir, &mirror)?;
    let apt = || Sh::new("apt-get").arg("-qq").arg("-c").arg(&conf);
    apt()
        .arg("update")
        .run_quietly("reading the package lists of Debian sid")?;
    let debs = dir.join("debs");
    apt()
        .args(["download", "rust-src"])
        .dir(&debs)
        .run_quietly("downloading rust-src")?;
    let deb = only_entry(&debs)?;
    let unpacked = dir.join("unpacked");
    Sh::new("dpkg")
        .arg("-x")
        .arg(&deb)
        .arg(&unpacked)
        .run_quietly("unpacking rust-src")?;
    let source = only_entry(&unpacked.join("usr/src"))?;
    check_release(&source, release)?;
    replace(&source.join("library"), library)
}

/// The machine's own Debian mirror.
fn mirror() -> Result<String> {
    let list = || {
        Sh::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI) $(LABEL)"])
            .read()
    };
    let mut found = debian_mirror(&list()?);
    if found.is_none() {
        // Labels come from the lists, which a fresh machine has not read yet.
        Sh::new("apt-get")
            .args(["-qq", "update"])
            .run_quietly("reading the package lists")?;
        found = debian_mirror(&list()?);
    }
    found.context("apt knows no Debian mirror on this machine")
}

fn debian_mirror(targets: &str) -> Option<String> {
    targets.lines().find_map(|l| match l.split_once(' ') {
        Some((uri, "Debian")) => Some(uri.to_owned()),
        _ => None,
    })
}

/// Writes the private configuration, and returns its path.
fn configure(dir: &Path, mirror: &str) -> Result<PathBuf> {
    for sub in ["lists/partial", "cache/archives/partial", "debs"] {
        fs::create_dir_all(dir.join(sub))
            .with_context(|| format!("cannot create {}", dir.join(sub).display()))?;
    }
    let sources = dir.join("sources.list");
    let line = format!(
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} sid main\n"
    );
    write(&sources, &line)?;
    let at = dir.display();
    let text = format!(
        "Dir::State::Lists \"{at}/lists\";\nDir::Cache \"{at}/cache\";\n\
         Dir::Etc::SourceList \"{at}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
         APT::Sandbox::User \"root\";\n"
    );
    let conf = dir.join("apt.conf");
    write(&conf, &text)?;
    Ok(conf)
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

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians_and_nobody_elses() {
        let targets = "https://packages.example.org/ Other\nhttps://deb.example.org/debian/ Debian\n\
                       https://deb.example.org/debian-security/ Debian-Security\n";
        assert_eq!(
            debian_mirror(targets).as_deref(),
            Some("https://deb.example.org/debian/")
        );
        assert_eq!(
            debian_mirror("https://packages.example.org/ Ubuntu\n"),
            None
        );
    }

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
