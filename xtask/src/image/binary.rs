//! The static binary, and the list of what it is made of.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::stamp::{COMMIT, EPOCH, Stamp};
use super::target::{self, Arch, Target};
use crate::setup::Nightly;
use crate::setup::toolchain::install_crate;
use crate::sh::Sh;
use crate::{build, paths};

/// Writes the list of components into the binary while it is linked.
const AUDITABLE: (&str, &str) = ("cargo-auditable", "0.7.7");
/// Turns that list into CycloneDX.
const CYCLONEDX: (&str, &str) = ("auditable2cdx", "0.1.0");

/// What was built.
pub(super) struct Built {
    /// The program, `bascule`.
    pub(super) program: Vec<u8>,
    /// Its components: a bill of materials in CycloneDX's JSON.
    pub(super) components: Vec<u8>,
}

/// Builds the eBPF programs, and the agent that embeds them.
///
/// # Errors
/// A tool or toolchain is missing, or something does not compile.
pub(super) fn build(nightly: &Nightly, arch: Arch, stamp: &Stamp) -> Result<Built> {
    let target = target::ensure(arch)?;
    let auditable = tool(AUDITABLE)?;
    let cyclonedx = tool(CYCLONEDX)?;
    build::bpf(nightly)?;
    cargo(&auditable, &target, stamp).run()?;
    let path = target_dir()
        .join(target.triple)
        .join("release")
        .join("bascule");
    let program = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let components = Sh::new(cyclonedx)
        .arg(&path)
        .read()
        .context("the binary has no list of its components")?;
    Ok(Built {
        program,
        components: format!("{components}\n").into_bytes(),
    })
}

fn cargo(auditable: &PathBuf, target: &Target, stamp: &Stamp) -> Sh {
    let upper = |prefix: &str| format!("{prefix}_{}", target.triple.replace('-', "_"));
    Sh::new(auditable)
        .args(["auditable", "build", "--locked", "--release"])
        .args(["--package", "lb-userspace", "--bin", "bascule"])
        .args(["--target", target.triple])
        .dir(&paths::root())
        .env("CARGO_ENCODED_RUSTFLAGS", flags(target).join("\x1f"))
        .env(&upper("CC"), target.compiler)
        // A panic names its line all the same; what a debugger wants would double the size.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_INCREMENTAL", "0")
        .env(COMMIT, &stamp.commit)
        .env(EPOCH, stamp.epoch.to_string())
}

/// Flags of rustc: the target's, and other names for the places of this machine.
fn flags(target: &Target) -> Vec<String> {
    let mut flags = target.flags.clone();
    flags.extend(build::remaps(&[
        (paths::root(), "/bascule"),
        (paths::cargo_home(), "/cargo"),
    ]));
    flags
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| paths::root().join("target"), PathBuf::from)
}

/// A tool, built first if it is not there at this version.
fn tool((name, version): (&str, &str)) -> Result<PathBuf> {
    let cargo = || Sh::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let path = paths::tool(name);
    // Neither of them tells its version: cargo knows what it installed.
    let installed = cargo()
        .args(["install", "--list", "--root"])
        .arg(paths::tools())
        .read()?;
    if !path.is_file() || !is_installed(&installed, name, version) {
        install_crate(cargo(), name, version)
            .with_context(|| format!("cannot make an image without {name}"))?;
    }
    Ok(path)
}

/// Whether `cargo install --list` names a tool at a version: `name v1.2.3:`.
fn is_installed(list: &str, name: &str, version: &str) -> bool {
    list.lines()
        .any(|line| line.trim_end_matches(':') == format!("{name} v{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_of_a_tool_does_not_do() {
        let list =
            "bpf-linker v0.10.3:\n    bpf-linker\ncargo-auditable v0.7.7:\n    cargo-auditable\n";
        assert!(is_installed(list, "cargo-auditable", "0.7.7"));
        assert!(!is_installed(list, "cargo-auditable", "0.7"));
        assert!(!is_installed(list, "auditable", "0.7.7"));
    }
}
