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

    /// C compilers for it, with headers of a C library: what is compiled (AWS-LC, the
    /// cryptography of TLS) calls few functions of it, so that one for glibc does as well
    /// ([`GLIBC_NAMES`]).
    fn compilers(self) -> Vec<&'static str> {
        let (musl, glibc) = match self {
            Self::Amd64 => ("x86_64-linux-musl-gcc", "x86_64-linux-gnu-gcc"),
            Self::Arm64 => ("aarch64-linux-musl-gcc", "aarch64-linux-gnu-gcc"),
        };
        match self.is_native() {
            true => vec![musl, "cc", glibc],
            false => vec![musl, glibc],
        }
    }

    /// Debian's packages with such a compiler, where this machine's own does not do.
    const fn packages(self) -> &'static str {
        match self {
            Self::Amd64 => "gcc-x86-64-linux-gnu and libc6-dev-amd64-cross",
            Self::Arm64 => "gcc-aarch64-linux-gnu and libc6-dev-arm64-cross",
        }
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

/// What headers of glibc 2.38 and later call these functions, and what musl does: for a binary
/// number (`0b1`), which AWS-LC reads nowhere, they differ.
const GLIBC_NAMES: [(&str, &str); 3] = [
    ("__isoc23_sscanf", "sscanf"),
    ("__isoc23_strtol", "strtol"),
    ("__isoc23_strtoul", "strtoul"),
];

/// How to compile for an architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Rust's name of it.
    pub(super) triple: &'static str,
    /// The C compiler.
    pub(super) compiler: &'static str,
    /// Its flags.
    pub(super) compiler_flags: &'static str,
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
            arch.packages(),
        ))
        .into());
    };
    let static_flag = "-Ctarget-feature=+crt-static".to_owned();
    match library(arch.musl()) {
        Ok(()) => {
            let mut flags = vec![static_flag];
            // rustup's musl has its own start files and libc; its own linker knows every
            // architecture, the system's only this one.
            let linker = match arch.is_native() {
                true => "-Clink-arg=-Wl,",
                false => {
                    flags.push("-Clinker=rust-lld".to_owned());
                    "-Clink-arg="
                }
            };
            let names = GLIBC_NAMES.iter();
            flags.extend(names.map(|(glibc, musl)| format!("{linker}--defsym={glibc}={musl}")));
            Ok(Target {
                triple: arch.musl(),
                compiler,
                // The checking variants of functions are glibc's alone.
                compiler_flags: "-U_FORTIFY_SOURCE",
                flags,
            })
        }
        Err(e) if arch.is_native() && library_is_there(arch.gnu())? => {
            ui::warn(format!("built with glibc, statically: {e:#}"));
            Ok(Target {
                triple: arch.gnu(),
                compiler,
                compiler_flags: "",
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
