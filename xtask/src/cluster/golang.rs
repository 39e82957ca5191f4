//! Programs that Go builds from modules that are pinned in this checkout.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::topology::{KUBERNETES, source};
use crate::cache::{self, Entry};
use crate::debian;
use crate::setup::Unfit;
use crate::sh::{Sh, which};

/// Programs of one module that are built together: what they share is compiled once.
pub(super) struct Programs {
    /// Name of their entry in the cache.
    pub(super) name: &'static str,
    /// Directory below `tests/cluster`, with go.mod and go.sum.
    pub(super) module: &'static str,
    /// Their packages.
    pub(super) packages: &'static [&'static str],
    /// A program that is the tests of a package, and that package.
    pub(super) test: Option<(&'static str, &'static str)>,
}

impl Programs {
    /// Their entry in the cache.
    pub(super) fn entry(&self) -> Entry {
        // A file that is missing is said to be so when it is built from.
        let file = |name| fs::read(self.dir().join(name)).unwrap_or_default();
        let mut inputs = ["go.mod", "go.sum", "main.go"].map(file).to_vec();
        inputs.push(link_flags().into_bytes());
        inputs.extend(self.packages.iter().map(|p| p.as_bytes().to_vec()));
        Entry::new(self.name, inputs)
    }

    /// Where the program of this name is, once it was built.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.entry().dir().join(program)
    }

    fn dir(&self) -> PathBuf {
        source().join(self.module)
    }

    /// Builds them unless they are there.
    ///
    /// # Errors
    /// There is no Go, or one does not build.
    pub(super) fn ensure(&self) -> Result<()> {
        self.entry().ensure(|whole, _| self.build(whole)).map(drop)
    }

    /// Builds them into a directory.
    ///
    /// # Errors
    /// There is no Go, or one does not build.
    pub(super) fn build(&self, into: &Path) -> Result<()> {
        go_command()?;
        let names: Vec<_> = self.packages.iter().map(|p| name(p)).collect();
        self.go("build", "0")
            .args(["-ldflags", &link_flags(), "-o"])
            .arg(format!("{}/", into.display()))
            .args(self.packages)
            .run_quietly(&format!("building {}", names.join(", ")))?;
        let Some((program, package)) = self.test else {
            return Ok(());
        };
        self.go("test", "0")
            // Vetting somebody else's tests is not ours, and takes longer than to build them.
            .args(["-c", "-vet=off", "-ldflags", &link_flags(), "-o"])
            .arg(into.join(program))
            .arg(package)
            .run_quietly(&format!("building {program}"))
    }

    /// Go in the module. One setting for CGO wherever that is possible: with two, what the
    /// programs share would be compiled twice.
    fn go(&self, command: &str, cgo: &str) -> Sh {
        Sh::new("go")
            .args([command, "-trimpath", "-buildvcs=false"])
            .env("CGO_ENABLED", cgo)
            .dir(&self.dir())
    }
}

/// runc with seccomp: containerd gives every sandbox a profile.
pub(super) const RUNC: Programs = Programs {
    name: "runc",
    module: "runc",
    packages: &["github.com/opencontainers/runc"],
    test: None,
};

/// Builds runc unless it is there. Its library is linked in, from Debian's development package
/// of this machine's suite.
///
/// # Errors
/// The package cannot be had, or runc does not build.
pub(super) fn runc() -> Result<()> {
    let make = |whole: &Path, scratch: &Path| {
        go_command()?;
        let usr = scratch.join("libseccomp/usr");
        debian::unpack(
            Sh::new("apt-get"),
            &["libseccomp-dev"],
            &scratch.join("packages"),
            &scratch.join("libseccomp"),
        )?;
        let (libraries, pkgconfig) = find_pkgconfig(&usr.join("lib"))?;
        RUNC.go("build", "1")
            .env("PKG_CONFIG_PATH", pkgconfig)
            .env(
                "CGO_CFLAGS",
                format!("-O2 -I{}", usr.join("include").display()),
            )
            .env("CGO_LDFLAGS", format!("-L{}", libraries.display()))
            .args(["-tags", "netgo osusergo seccomp"])
            .args(["-ldflags", "-s -w -extldflags -static", "-o"])
            .arg(whole.join("runc"))
            .args(RUNC.packages)
            .run_quietly("building runc")
    };
    RUNC.entry().ensure(make).map(drop)
}

/// Where the unpacked libraries are: a directory named after the machine, and pkg-config's
/// below it.
fn find_pkgconfig(lib: &Path) -> Result<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(lib).with_context(|| format!("cannot read {}", lib.display()))?;
    entries
        .flatten()
        .map(|e| (e.path(), e.path().join("pkgconfig")))
        .find(|(_, p)| p.join("libseccomp.pc").is_file())
        .with_context(|| format!("no libseccomp.pc below {}", lib.display()))
}

/// Go, which nothing here installs.
fn go_command() -> Result<()> {
    if which("go").is_some() {
        return Ok(());
    }
    let why = format!(
        "Go is not installed (https://go.dev/dl): it builds Kubernetes and its tests, once, into {}",
        cache::root().display()
    );
    Err(Unfit::new(why).into())
}

/// Without the version the programs call themselves v0.0.0, and the suite skips what it must
/// not.
fn link_flags() -> String {
    let variable = "k8s.io/component-base/version";
    let mut numbers = KUBERNETES.split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    format!(
        "-s -w -X {variable}.gitVersion=v{KUBERNETES} -X {variable}.gitMajor={major} \
         -X {variable}.gitMinor={minor} -X {variable}.gitTreeState=clean"
    )
}

/// What Go calls the program of a package: its last part that is not the module's version.
fn name(package: &str) -> &str {
    let is_version = |part: &&str| {
        let number = part.strip_prefix('v');
        number.is_some_and(|n| n.parse::<u32>().is_ok())
    };
    let mut parts = package.rsplit('/');
    parts.find(|part| !is_version(part)).unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_not_called_after_versions() {
        assert_eq!(name("k8s.io/kubernetes/cmd/kubelet"), "kubelet");
        assert_eq!(
            name("github.com/oauth2-proxy/oauth2-proxy/v7"),
            "oauth2-proxy"
        );
        assert_eq!(name("example.com/vcs"), "vcs");
    }
}
