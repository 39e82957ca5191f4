//! Programs that cargo builds from a registry, at pinned versions, into the cache.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cache::Entry;
use crate::sh::Sh;

/// A crate with a program.
pub(crate) struct Tool {
    /// Its name in the registry.
    pub(crate) package: &'static str,
    /// Name of the program.
    pub(crate) program: &'static str,
    /// The version that everybody uses.
    pub(crate) version: &'static str,
    /// The toolchain that it must be built with, where another would not do.
    pub(crate) toolchain: &'static str,
}

impl Tool {
    /// A tool that any toolchain builds.
    pub(crate) const fn new(
        package: &'static str,
        program: &'static str,
        version: &'static str,
    ) -> Self {
        Self {
            package,
            program,
            version,
            toolchain: "",
        }
    }

    fn entry(&self) -> Entry {
        Entry::new(
            &format!("{}-{}", self.package, self.version),
            [self.toolchain],
        )
    }

    /// Where the program is, once it was built.
    pub(crate) fn path(&self) -> PathBuf {
        self.entry().dir().join("bin").join(self.program)
    }

    /// Builds it unless it is there.
    ///
    /// # Errors
    /// It does not build, most often for want of a network.
    pub(crate) fn ensure(&self, cargo: Sh) -> Result<PathBuf> {
        let (package, version) = (self.package, self.version);
        self.entry().ensure(|whole, scratch| {
            cargo
                .args(["install", package, "--version", version, "--locked"])
                .arg("--root")
                .arg(whole)
                .env("CARGO_TARGET_DIR", scratch)
                .dir(&std::env::temp_dir())
                .run_quietly(&format!("building {package} {version}"))
                .with_context(|| format!("cannot build {package} {version}"))
        })?;
        Ok(self.path())
    }

    /// As [`Tool::ensure`], by the cargo that runs this, of a tool that runs for seconds and would
    /// compile for minutes.
    ///
    /// # Errors
    /// It does not build, most often for want of a network.
    pub(crate) fn ensure_soon(&self) -> Result<PathBuf> {
        let cargo = cargo()
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        self.ensure(cargo)
    }
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Sh {
    Sh::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
