//! Commands of the system that tests, lab and benchmarks call.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::sh::{Sh, which};
use crate::ui;

use super::Unfit;

/// A command, and the package that has it.
struct Tool {
    command: &'static str,
    /// Packages of Debian and its kin; the first that the mirror has is installed.
    debian: &'static [&'static str],
    /// The package of other distributions, for the error message.
    elsewhere: &'static str,
}

const TOOLS: [Tool; 4] = [
    Tool {
        command: "ip",
        debian: &["iproute2"],
        elsewhere: "iproute2 (Fedora: iproute)",
    },
    Tool {
        command: "tc",
        debian: &["iproute2"],
        elsewhere: "iproute2 (Fedora: iproute-tc)",
    },
    // Ubuntu before 24.10 has it among the tools of each kernel.
    Tool {
        command: "bpftool",
        debian: &["bpftool", "linux-tools-generic"],
        elsewhere: "bpftool (Arch: bpf)",
    },
    Tool {
        command: "curl",
        debian: &["curl"],
        elsewhere: "curl",
    },
];

/// Each command, and where it is.
pub(crate) fn found() -> Vec<(&'static str, Option<PathBuf>)> {
    TOOLS
        .iter()
        .map(|t| (t.command, which(t.command)))
        .collect()
}

/// What to type where something is missing.
pub(crate) fn remedy() -> String {
    if which("apt-get").is_some() {
        format!(
            "as root: `apt-get install {}`",
            missing_packages(|c| which(c).is_some()).join(" ")
        )
    } else {
        let names: Vec<_> = TOOLS
            .iter()
            .filter(|t| which(t.command).is_none())
            .map(|t| t.elsewhere)
            .collect();
        format!(
            "install {} with this system's package manager",
            names.join(", ")
        )
    }
}

/// Installs what is missing, where this is a Debian or one of its kin.
///
/// # Errors
/// A command is missing and its package cannot be installed.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing_packages(|c| which(c).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    if which("apt-get").is_none() {
        return Err(Unfit::new(remedy()).into());
    }
    ui::say(format!(
        "installing system packages with apt-get: {}",
        missing.join(" ")
    ));
    if install(&missing).is_err() {
        apt(&["update"]).run_quietly("reading the package lists")?;
        for packages in alternatives() {
            install_first(packages)?;
        }
    }
    let still = missing_packages(|c| which(c).is_some());
    if still.is_empty() {
        Ok(())
    } else {
        Err(Unfit::new(remedy()).into())
    }
}

/// The first choice of package for every command that `present` denies, each once.
fn missing_packages(present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut names: Vec<_> = TOOLS
        .iter()
        .filter(|t| !present(t.command))
        .filter_map(|t| t.debian.first().copied())
        .collect();
    names.dedup();
    names
}

fn alternatives() -> impl Iterator<Item = &'static [&'static str]> {
    TOOLS
        .iter()
        .filter(|t| which(t.command).is_none())
        .map(|t| t.debian)
}

fn install_first(packages: &[&str]) -> Result<()> {
    let mut last = None;
    for package in packages {
        match install(&[package]) {
            Ok(()) => return Ok(()),
            Err(e) => last = Some(e),
        }
    }
    last.map_or(Ok(()), Err).with_context(|| {
        format!(
            "none of these packages can be installed: {}",
            packages.join(", ")
        )
    })
}

fn install(packages: &[&str]) -> Result<()> {
    apt(&["install", "--yes", "--no-install-recommends"])
        .args(packages)
        .run_quietly(&format!("apt-get install {}", packages.join(" ")))
}

fn apt(args: &[&str]) -> Sh {
    Sh::new("apt-get")
        .arg("-qq")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_asked_for_once() {
        assert_eq!(missing_packages(|_| false), ["iproute2", "bpftool", "curl"]);
        assert_eq!(missing_packages(|c| c != "bpftool"), ["bpftool"]);
        assert!(missing_packages(|_| true).is_empty());
    }
}
