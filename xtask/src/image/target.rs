//! Machines that images are for, and the compilers that make static binaries for them.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::setup::Unfit;
use crate::sh::{Sh, which};
use crate::ui;

/// A machine's architecture, by the name that images have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// x86-64
    Amd64,
    /// 64-bit Arm
    Arm64,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

impl Arch {
    /// The triple whose standard library links statically, without a libc of the system.
    const fn musl(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// The triple of this architecture's usual Linux.
    const fn gnu(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// C compilers for it. What is compiled (the cryptography of TLS) needs no C library, so
    /// that one for glibc does as well.
    fn compilers(self) -> Vec<&'static str> {
        let own: &[&str] = match self {
            Self::Amd64 => &["x86_64-linux-gnu-gcc", "x86_64-linux-musl-gcc"],
            Self::Arm64 => &["aarch64-linux-gnu-gcc", "aarch64-linux-musl-gcc"],
        };
        let native: &[&str] = if self.is_native() { &["cc"] } else { &[] };
        [native, own, &["clang"]].concat()
    }

    /// This machine's, if images can be made for it.
    pub(super) fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    fn is_native(self) -> bool {
        Self::native() == Some(self)
    }
}

/// How to compile for an architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Rust's name of it.
    pub(super) triple: &'static str,
    /// The C compiler.
    pub(super) compiler: &'static str,
    /// Flags of rustc that make the binary static.
    pub(super) flags: Vec<String>,
}

/// Finds, or has rustup install, what compiles static binaries.
///
/// # Errors
/// [`Unfit`] when there is no standard library or no C compiler for it.
pub(super) fn ensure(arch: Arch) -> Result<Target> {
    let candidates = arch.compilers();
    let Some(compiler) = candidates.iter().copied().find(|c| which(c).is_some()) else {
        return Err(Unfit::new(format!(
            "there is no C compiler for {arch} ({}): on Debian, install {}",
            candidates.join(", "),
            match arch {
                Arch::Amd64 => "gcc-x86-64-linux-gnu",
                Arch::Arm64 => "gcc-aarch64-linux-gnu",
            }
        ))
        .into());
    };
    let static_flag = "-Ctarget-feature=+crt-static".to_owned();
    match library(arch.musl()) {
        Ok(()) => {
            let mut flags = vec![static_flag];
            if !arch.is_native() {
                // rustup's musl has its own start files and libc; its own linker knows every
                // architecture, the system's only this one.
                flags.push("-Clinker=rust-lld".to_owned());
            }
            Ok(Target {
                triple: arch.musl(),
                compiler,
                flags,
            })
        }
        Err(e) if arch.is_native() && library_is_there(arch.gnu())? => {
            ui::warn(format!("built with glibc, statically: {e:#}"));
            Ok(Target {
                triple: arch.gnu(),
                compiler,
                flags: vec![static_flag],
            })
        }
        Err(e) => Err(Unfit::new(format!("cannot build for {arch}: {e:#}")).into()),
    }
}

/// Makes sure that the standard library for a triple is there.
fn library(triple: &str) -> Result<()> {
    if library_is_there(triple)? {
        return Ok(());
    }
    let remedy = || format!("no standard library for {triple}: `rustup target add {triple}`");
    if which("rustup").is_none() {
        return Err(Unfit::new(remedy()).into());
    }
    Sh::new("rustup")
        .args(["target", "add", triple])
        .dir(&crate::paths::root())
        .run_quietly(&format!("adding {triple} with rustup"))
        .with_context(remedy)
}

fn library_is_there(triple: &str) -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let dir = Sh::new(rustc)
        .args(["--print", "target-libdir", "--target", triple])
        .dir(&crate::paths::root())
        .read()?;
    Ok(Path::new(&dir).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machines_code_is_not_left_to_this_ones_compiler() {
        let foreign = match std::env::consts::ARCH {
            "aarch64" => Arch::Amd64,
            _ => Arch::Arm64,
        };
        assert!(!foreign.compilers().contains(&"cc"));
        assert!(!foreign.is_native());
    }
}
