//! Packages of Debian, fetched and unpacked without being installed: the machine's sources,
//! lists and packages stay as they are.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::cache::{remake, remove};
use crate::setup::Unfit;
use crate::sh::{Sh, which};

/// Debian's unstable suite, by package lists of its own.
pub(crate) struct Unstable {
    conf: PathBuf,
    /// Where it is.
    pub(crate) mirror: String,
}

impl Unstable {
    /// Reads the lists of the machine's mirror into a directory.
    ///
    /// # Errors
    /// No mirror is configured, or it does not answer.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        for tool in ["apt-get", "dpkg-deb"] {
            if which(tool).is_none() {
                let why = format!("no {tool} here: packages of Debian unstable cannot be had");
                return Err(Unfit::new(why).into());
            }
        }
        let mirror = mirror()?;
        for sub in ["lists/partial", "cache/archives/partial"] {
            remake(&dir.join(sub))?;
        }
        let conf = dir.join("apt.conf");
        let at = dir.display();
        let sources = format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} sid main\n"
        );
        write(&dir.join("sources.list"), &sources)?;
        let text = format!(
            "Dir::State::Lists \"{at}/lists\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc::SourceList \"{at}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             APT::Sandbox::User \"root\";\n"
        );
        write(&conf, &text)?;
        let unstable = Self { conf, mirror };
        unstable
            .apt()
            .args(["-qq", "update"])
            .run_quietly("reading the package lists of Debian unstable")?;
        Ok(unstable)
    }

    /// apt-get with these lists.
    pub(crate) fn apt(&self) -> Sh {
        Sh::new("apt-get").arg("-c").arg(&self.conf)
    }
}

/// The machine's own Debian mirror.
fn mirror() -> Result<String> {
    // Labels come from the lists.
    by_lists(|| {
        let targets = Sh::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI) $(LABEL)"])
            .read()?;
        debian_mirror(&targets).context("apt knows no Debian mirror on this machine")
    })
}

/// Gets what the machine's package lists tell; a fresh machine has not read them yet.
///
/// # Errors
/// It is not there afterwards either.
pub(crate) fn by_lists<T>(get: impl Fn() -> Result<T>) -> Result<T> {
    if let Ok(found) = get() {
        return Ok(found);
    }
    Sh::new("apt-get")
        .args(["-qq", "update"])
        .run_quietly("reading the package lists")?;
    get()
}

fn debian_mirror(targets: &str) -> Option<String> {
    targets.lines().find_map(|l| match l.split_once(' ') {
        Some((uri, "Debian")) => Some(uri.to_owned()),
        _ => None,
    })
}

/// Fetches packages, without what they depend on, and unpacks them; `scratch` is emptied.
///
/// # Errors
/// One cannot be had or unpacked.
pub(crate) fn unpack(apt: Sh, packages: &[&str], scratch: &Path, into: &Path) -> Result<()> {
    remake(scratch)?;
    apt.args(["-qq", "download"])
        .args(packages)
        .dir(scratch)
        .run_quietly(&format!("fetching {}", packages.join(", ")))?;
    let files = list(scratch)?;
    ensure!(
        files.len() == packages.len(),
        "apt-get fetched {} packages for {}",
        files.len(),
        packages.join(", ")
    );
    for file in files {
        Sh::new("dpkg-deb")
            .arg("--extract")
            .arg(&file)
            .arg(into)
            .read()?;
    }
    remove(scratch)
}

/// Fetches packages and unpacks them, with those that they depend on and that are not installed;
/// `scratch` is emptied.
///
/// # Errors
/// One cannot be had or unpacked.
pub(crate) fn unpack_whole(packages: &[&str], scratch: &Path, into: &Path) -> Result<()> {
    let names = by_lists(|| with_dependencies(packages))?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    unpack(Sh::new("apt-get"), &names, scratch, into)?;
    // Nothing of it is needed, and it may not be readable for others.
    let _ = fs::remove_dir_all(into.join("var"));
    Ok(())
}

/// Packages, and those that they depend on and that are not installed.
fn with_dependencies(packages: &[&str]) -> Result<Vec<String>> {
    let plan = Sh::new("apt-get")
        .args(["-s", "--no-install-recommends", "install"])
        .args(packages)
        .read()
        .with_context(|| {
            let all = packages.join(", ");
            format!("{all} cannot be had from this machine's packages")
        })?;
    Ok(new_packages(&plan))
}

/// `Inst NAME (VERSION …)`; `Inst NAME [OLD] (VERSION …)` is there already, and is taken too.
fn new_packages(plan: &str) -> Vec<String> {
    let lines = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// Where the libraries of unpacked packages are, for `LD_LIBRARY_PATH`.
pub(crate) fn libraries(unpacked: &Path) -> OsString {
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    // Some are in a directory below.
    let dirs = ["usr/lib", "lib"].map(|dir| unpacked.join(dir).join(&triplet));
    let below = ["pulseaudio"].map(|name| dirs[0].join(name));
    // Cache directories have no colon, or the loader would have none of them either.
    std::env::join_paths(dirs.iter().chain(&below)).unwrap_or_default()
}

/// The files of a directory, in order.
///
/// # Errors
/// It cannot be read.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<_> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    Ok(files)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
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
}
