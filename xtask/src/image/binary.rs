//! The static binary, and the list of what it is made of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::stamp::{COMMIT, EPOCH, Stamp};
use super::target::{self, Arch, Target};
use crate::setup::Nightly;
use crate::sh::Sh;
use crate::tool::{self, Tool};
use crate::{build, paths};

/// Writes the list of components into the binary while it is linked.
const AUDITABLE: Tool = Tool::new("cargo-auditable", "cargo-auditable", "0.7.7");
/// Turns that list into CycloneDX.
const CYCLONEDX: Tool = Tool::new("auditable2cdx", "auditable2cdx", "0.1.0");

/// What was built.
pub(super) struct Built {
    /// The program, `bascule`.
    pub(super) program: Vec<u8>,
    /// Its components: a bill of materials in CycloneDX's JSON.
    pub(super) components: Vec<u8>,
    /// Manual pages and completions, by their paths below `usr/share`.
    pub(super) manual: Vec<(String, Vec<u8>)>,
}

/// Builds the eBPF programs, and the agent that embeds them.
///
/// # Errors
/// A tool or toolchain is missing, or something does not compile.
pub(super) fn build(nightly: &Nightly, arch: Arch, stamp: &Stamp) -> Result<Built> {
    let target = target::ensure(arch)?;
    let auditable = ensure(&AUDITABLE)?;
    let cyclonedx = ensure(&CYCLONEDX)?;
    build::bpf(nightly)?;
    let path = compile(&auditable, &target, stamp)?;
    // What the program says of itself is the same on every machine; it must run on this one.
    let own = match Arch::native().filter(|native| *native != arch) {
        Some(native) => compile(&auditable, &target::ensure(native)?, stamp)?,
        None => path.clone(),
    };
    let program = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let components = Sh::new(cyclonedx)
        .arg(&path)
        .read()
        .context("the binary has no list of its components")?;
    Ok(Built {
        program,
        components: format!("{components}\n").into_bytes(),
        manual: manual(&own)?,
    })
}

/// Compiles the program; returns where it is.
fn compile(auditable: &PathBuf, target: &Target, stamp: &Stamp) -> Result<PathBuf> {
    cargo(auditable, target, stamp).run()?;
    let dir = target_dir().join(target.triple).join("release");
    Ok(dir.join("bascule"))
}

/// What a program writes as its manual.
fn manual(program: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let share = target_dir().join(format!("image/share.{}", std::process::id()));
    let written = Sh::new(program).arg("manual").arg(&share).run();
    let read = written.and_then(|()| {
        let mut files = Vec::new();
        read_below(&share, "", &mut files).context("the manual cannot be read")?;
        Ok(files)
    });
    // It is of no use any more, whatever became of it.
    let _ = fs::remove_dir_all(&share);
    read
}

/// Reads the files of a directory and of those below it.
fn read_below(dir: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type()?.is_dir() {
            true => read_below(&entry.path(), &format!("{name}/"), files)?,
            false => files.push((name, fs::read(entry.path())?)),
        }
    }
    Ok(())
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
        .env(&upper("CFLAGS"), target.compiler_flags)
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

/// A tool's program, built first if it is not there.
fn ensure(tool: &Tool) -> Result<PathBuf> {
    tool.ensure(tool::cargo())
        .with_context(|| format!("cannot make an image without {}", tool.package))
}
