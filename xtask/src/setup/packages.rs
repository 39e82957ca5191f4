//! Commands of the system that tests, lab, benchmarks and the cluster call.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::sh::{Sh, which};
use crate::ui;

use super::Unfit;

/// A command, and the package that has it.
pub(crate) struct Tool {
    command: &'static str,
    /// Packages of Debian and its kin; the first that the mirror has is installed.
    debian: &'static [&'static str],
    /// The package of other distributions, for the error message.
    elsewhere: &'static str,
}

/// What tests, lab and benchmarks need.
pub(super) const TOOLS: [Tool; 9] = [
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
    Tool::of("curl", &["curl"]),
    // docs/bpftool.md shows bpftool's output by it.
    Tool::of("jq", &["jq"]),
    // Reads what the proxy has compressed, in tests.
    Tool::of("brotli", &["brotli"]),
    // The other end of TLS in tests of the proxy.
    Tool::of("openssl", &["openssl"]),
    // A real kube-proxy, from which the agent takes over, calls these.
    Tool::of("nft", &["nftables"]),
    Tool {
        command: "iptables",
        debian: &["iptables"],
        elsewhere: "iptables (Fedora: iptables-nft)",
    },
];

/// What a cluster needs besides Go.
pub(crate) const CLUSTER: [Tool; 8] = [
    Tool::of("gcc", &["gcc"]),
    Tool::of("pkg-config", &["pkg-config"]),
    Tool::of("openssl", &["openssl"]),
    // The kubelet's, and that of kube-proxy in its two modes and of CNI plugins.
    Tool::of("nft", &["nftables"]),
    Tool::of("iptables", &["iptables"]),
    Tool::of("nsenter", &["util-linux"]),
    Tool::of("ip", &["iproute2"]),
    Tool::of("curl", &["curl"]),
];

impl Tool {
    /// A command whose package has one name everywhere.
    const fn of(command: &'static str, debian: &'static [&'static str]) -> Self {
        Self {
            command,
            debian,
            elsewhere: debian[0],
        }
    }
}

/// Each command, and where it is.
pub(super) fn found() -> Vec<(&'static str, Option<PathBuf>)> {
    TOOLS
        .iter()
        .map(|t| (t.command, which(t.command)))
        .collect()
}

/// What to type where something is missing.
pub(super) fn remedy(tools: &[Tool]) -> String {
    if which("apt-get").is_some() {
        format!(
            "as root: `apt-get install {}`",
            missing_packages(tools, |c| which(c).is_some()).join(" ")
        )
    } else {
        let names: Vec<_> = tools
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
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing = missing_packages(tools, |c| which(c).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    if which("apt-get").is_none() {
        return Err(Unfit::new(remedy(tools)).into());
    }
    ui::say(format!(
        "installing system packages with apt-get: {}",
        missing.join(" ")
    ));
    if install(&missing).is_err() {
        apt(&["update"]).run_quietly("reading the package lists")?;
        for packages in alternatives(tools) {
            install_first(packages)?;
        }
    }
    let still = missing_packages(tools, |c| which(c).is_some());
    if still.is_empty() {
        Ok(())
    } else {
        Err(Unfit::new(remedy(tools)).into())
    }
}

/// The first choice of package for every command that `present` denies, each once.
fn missing_packages(tools: &[Tool], present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut names: Vec<_> = tools
        .iter()
        .filter(|t| !present(t.command))
        .filter_map(|t| t.debian.first().copied())
        .collect();
    names.dedup();
    names
}

fn alternatives(tools: &[Tool]) -> impl Iterator<Item = &'static [&'static str]> {
    tools
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
        assert_eq!(
            missing_packages(&TOOLS, |_| false),
            [
                "iproute2", "bpftool", "curl", "jq", "brotli", "openssl", "nftables", "iptables"
            ]
        );
        assert_eq!(missing_packages(&TOOLS, |c| c != "bpftool"), ["bpftool"]);
        assert_eq!(missing_packages(&CLUSTER, |c| c != "nft"), ["nftables"]);
        assert!(missing_packages(&TOOLS, |_| true).is_empty());
    }
}
