//! `cargo xtask build`: the eBPF object, then the programs of the host that embed it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::sh::Sh;
use crate::{elf, paths, setup, tool, ui};

/// Target triple of the eBPF programs.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";
/// Code generation for the kernel.
/// - debug information and `--btf`: `bpftool` prints map fields and source lines by it;
/// - cpu v3 (kernel 5.1): 32-bit jumps and ALU, 2 % fewer instructions.
const BPF_FLAGS: [&str; 3] = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"];

/// What to build.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask build\n  cargo xtask build --release   # target/release/bascule"
)]
pub(crate) struct Args {
    /// Build the host's programs with optimisations (the eBPF programs always are)
    #[arg(long)]
    release: bool,
}

/// The subcommand.
///
/// # Errors
/// A tool is missing or something does not compile.
pub(crate) fn run(args: &Args) -> Result<()> {
    let nightly = setup::ensure(setup::Need::Build)?;
    bpf(&nightly)?;
    host(args.release)
}

/// Builds the eBPF programs into [`paths::bpf_object`]; untouched when nothing changed, so that
/// the agent, which embeds it, is not built again.
///
/// # Errors
/// The programs do not compile, or may panic.
pub(crate) fn bpf(nightly: &setup::Nightly) -> Result<()> {
    bpf_cargo(nightly, "build")
        .args(["--package", "lb-ebpf"])
        .run()?;
    publish("bascule-bpf", &paths::bpf_object())?;
    publish("bascule-bench", &paths::bench_object())
}

/// Checks what cargo built and puts it in its place.
fn publish(bin: &str, object: &Path) -> Result<()> {
    let built = paths::bpf_target()
        .join(BPF_TARGET)
        .join("release")
        .join(bin);
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let summary =
        elf::check(&bytes).with_context(|| format!("{} cannot be loaded", built.display()))?;
    if replace_if_changed(object, &bytes)? {
        ui::say(format!("{}: {summary}", object.display()));
    }
    Ok(())
}

/// A cargo command for the BPF target: `build`, `clippy`.
pub(crate) fn bpf_cargo(nightly: &setup::Nightly, command: &str) -> Sh {
    // The object is the same wherever it is built. The linker runs in the workspace, and finds
    // the lines of our own source, which it quotes in the debug information.
    let places = remaps(&[
        (paths::root(), "."),
        (paths::cargo_home(), "/cargo"),
        (nightly.sysroot.clone(), "/rust"),
    ]);
    let flags: Vec<_> = BPF_FLAGS
        .map(str::to_owned)
        .into_iter()
        .chain(places)
        .collect();
    nightly
        .cargo()
        .args([
            command,
            "--release",
            "--locked",
            "--target",
            BPF_TARGET,
            "-Zbuild-std=core",
        ])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
            setup::toolchain::linker(),
        )
        .env("CARGO_TARGET_DIR", paths::bpf_target())
        // The linker optimizes the whole object, from crates that are left as they are.
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .dir(&paths::root())
}

/// Flags of rustc that name places of this machine otherwise in what it compiles.
pub(crate) fn remaps(places: &[(PathBuf, &str)]) -> Vec<String> {
    let flag =
        |(from, to): &(PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
    places.iter().map(flag).collect()
}

/// Builds the agent and what else runs on the host.
///
/// # Errors
/// Something does not compile.
pub(crate) fn host(release: bool) -> Result<()> {
    // xtask itself is running and up to date; lb-ebpf is only for the kernel.
    let sh = cargo("build").args(["--workspace", "--exclude", "xtask", "--exclude", "lb-ebpf"]);
    if release {
        sh.arg("--release").run()
    } else {
        sh.run()
    }
}

/// The host's cargo, in the workspace, with the locked dependencies.
pub(crate) fn cargo(command: &str) -> Sh {
    tool::cargo()
        .args([command, "--locked"])
        .dir(&paths::root())
}

/// Writes beside the target and renames: nobody ever reads half an object.
fn replace_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let partial = path.with_extension(format!("partial.{}", std::process::id()));
    fs::write(&partial, bytes).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, path)
        .with_context(|| format!("cannot rename {} to {}", partial.display(), path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let path = std::env::temp_dir().join(format!("xtask-object-{}", std::process::id()));
        assert!(replace_if_changed(&path, b"one").unwrap());
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(!replace_if_changed(&path, b"one").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        assert!(replace_if_changed(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::remove_file(&path).unwrap();
    }
}
