//! The toolchain of the eBPF programs: a pinned nightly, its `rust-src`, and bpf-linker.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::rust_src;
use crate::sh::{Sh, which};
use crate::tool::Tool;
use crate::ui;

/// The nightly: `build-std` and the BPF target need one, and a pinned one gives everybody the
/// same code generation, which the verifier is sensitive to.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";
/// Commit date of that nightly; it tells whether a toolchain called `nightly` is the same one.
const COMMIT_DATE: &str = "2026-05-19";
/// 0.11 and later need LLVM 23; the pinned nightly has 22, and its libLLVM is what this loads.
const BPF_LINKER: Tool = Tool {
    package: "bpf-linker",
    program: "bpf-linker",
    version: "0.10.3",
    toolchain: NIGHTLY,
};

/// The toolchain, complete and ready to build with.
#[derive(Clone, Debug)]
pub(crate) struct Nightly {
    /// Its directory, with `bin/cargo` and `bin/rustc`.
    pub(crate) sysroot: PathBuf,
}

impl Nightly {
    /// The toolchain's own cargo.
    pub(crate) fn cargo(&self) -> Sh {
        self.alone(Sh::new(self.sysroot.join("bin/cargo")))
    }

    /// A program in an environment that leads to nothing of another toolchain.
    pub(crate) fn alone(&self, program: Sh) -> Sh {
        let mut path = self.sysroot.join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        // `cargo run` and rustup hand their own toolchain down through these.
        let inherited = [
            "CARGO",
            "RUSTC",
            "RUSTDOC",
            "RUSTUP_TOOLCHAIN",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
        ];
        let sh = inherited
            .iter()
            .fold(program, |sh, name| sh.env_remove(name));
        // bpf-linker loads LLVM from the first libLLVM that it finds there.
        sh.env("PATH", path)
            .env("LD_LIBRARY_PATH", self.sysroot.join("lib"))
    }

    /// Whether this toolchain has clippy (rustup's minimal profile has not).
    pub(crate) fn has_clippy(&self) -> bool {
        self.sysroot.join("bin/cargo-clippy").is_file()
    }

    /// Directory of the standard library's source.
    pub(crate) fn library(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }

    fn has_source(&self) -> bool {
        self.library().join("core/src/lib.rs").is_file()
            && self.library().join("Cargo.lock").is_file()
    }
}

/// Finds or installs the nightly, its source and the linker.
///
/// # Errors
/// Something is missing and cannot be installed; the error says what to do by hand.
pub(crate) fn ensure() -> Result<Nightly> {
    let nightly = match find() {
        Some(n) => n,
        None => install()?,
    };
    if !nightly.has_source() {
        install_source(&nightly)?;
    }
    BPF_LINKER.ensure(nightly.cargo())?;
    Ok(nightly)
}

/// The linker of the eBPF programs, once [`ensure`] built it.
pub(crate) fn linker() -> PathBuf {
    BPF_LINKER.path()
}

/// What is there, for the report of `cargo xtask setup`.
pub(crate) fn describe(nightly: &Nightly) -> Vec<(&'static str, String)> {
    vec![
        (
            "nightly",
            format!("{NIGHTLY} in {}", nightly.sysroot.display()),
        ),
        ("rust-src", nightly.library().display().to_string()),
        (
            "bpf-linker",
            format!("{} in {}", BPF_LINKER.version, linker().display()),
        ),
    ]
}

/// The pinned nightly among rustup's toolchains, under its own name or as `nightly`.
fn find() -> Option<Nightly> {
    let dir = rustup_home()?.join("toolchains");
    let mut names: Vec<_> = fs::read_dir(&dir)
        .ok()?
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| n.starts_with("nightly"))
        .collect();
    // The exact name first: the others are asked for their commit date just the same.
    names.sort_by_key(|n| (!n.starts_with(NIGHTLY), n.clone()));
    names
        .into_iter()
        .map(|n| Nightly {
            sysroot: dir.join(n),
        })
        .find(is_pinned)
}

fn is_pinned(nightly: &Nightly) -> bool {
    let rustc = nightly.sysroot.join("bin/rustc");
    Sh::new(rustc)
        .arg("-vV")
        .read()
        .is_ok_and(|v| commit_date(&v) == Some(COMMIT_DATE))
}

/// The commit date in the output of `rustc -vV`.
fn commit_date(version: &str) -> Option<&str> {
    version
        .lines()
        .find_map(|l| l.strip_prefix("commit-date: "))
}

/// The release in the output of `rustc -vV`, without a suffix: `1.97.0`.
fn release(version: &str) -> Option<&str> {
    let release = version.lines().find_map(|l| l.strip_prefix("release: "))?;
    release.split('-').next()
}

fn rustup_home() -> Option<PathBuf> {
    match std::env::var_os("RUSTUP_HOME") {
        Some(dir) => Some(dir.into()),
        None => Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")),
    }
}

fn install() -> Result<Nightly> {
    if which("rustup").is_none() {
        bail!(
            "the pinned toolchain {NIGHTLY} is not there, and rustup, which installs it, is not on the PATH: \
             install rustup (https://rustup.rs) and try again"
        );
    }
    Sh::new("rustup")
        .args(["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "rust-src", "--component", "clippy"])
        .arg("--no-self-update")
        .run_quietly(&format!("installing {NIGHTLY} with rustup"))
        .with_context(|| format!("cannot install the pinned toolchain {NIGHTLY}: see whether rustup's server is reachable"))?;
    find().with_context(|| {
        format!("rustup installed {NIGHTLY}, yet no toolchain has commit date {COMMIT_DATE}")
    })
}

/// Gives the nightly its `rust-src`: from rustup, else from Debian.
fn install_source(nightly: &Nightly) -> Result<()> {
    let name = nightly.sysroot.file_name().unwrap_or_default().to_owned();
    let by_rustup = Sh::new("rustup")
        .args(["component", "add", "rust-src", "--toolchain"])
        .arg(&name)
        .run_quietly(&format!(
            "adding rust-src to {} with rustup",
            name.display()
        ));
    match by_rustup {
        Ok(()) if nightly.has_source() => return Ok(()),
        Ok(()) => {
            ui::warn("rustup added rust-src, but the library is not where build-std looks for it")
        }
        Err(e) => ui::warn(format!(
            "rustup cannot add rust-src ({}); trying Debian's package",
            first_line(&e)
        )),
    }
    let version = Sh::new(nightly.sysroot.join("bin/rustc"))
        .arg("-vV")
        .read()?;
    let release =
        release(&version).context("`rustc -vV` of the pinned nightly names no release")?;
    rust_src::from_debian(&nightly.library(), release)
        .with_context(|| format!("rust-src of {NIGHTLY} is missing: try `rustup component add rust-src --toolchain {NIGHTLY}`"))
}

fn first_line(e: &anyhow::Error) -> String {
    let text = e.to_string();
    text.lines()
        .find(|l| l.contains("error:"))
        .or(text.lines().next())
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTC: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
        commit-hash: e50aa6fba4e63ab34c72bf9acfd2c307c1155d1a\ncommit-date: 2026-05-19\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";

    #[test]
    fn the_commit_date_tells_nightlies_apart() {
        assert_eq!(commit_date(RUSTC), Some("2026-05-19"));
        assert_eq!(commit_date("rustc 1.95.0\nrelease: 1.95.0\n"), None);
    }

    #[test]
    fn the_release_has_no_channel() {
        assert_eq!(release(RUSTC), Some("1.97.0"));
        assert_eq!(release("release: 1.95.0\n"), Some("1.95.0"));
    }
}
