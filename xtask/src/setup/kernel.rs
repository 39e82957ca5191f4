//! What the kernel has of what Bascule needs, one [`Feature`] a line.
//!
//! Features are tried out where that is cheap (see `probe` and `netprobe`); without privilege
//! only the version and the kernel's configuration can tell.

use std::collections::HashMap;
use std::fs;

use crate::sh::Sh;

use super::{netprobe, probe};

/// The oldest kernel that is supported, see DESIGN.md.
const OLDEST: (u32, u32) = (5, 15);

/// One thing that the kernel should have.
#[derive(Clone, Debug)]
pub(crate) struct Feature {
    /// What it is.
    pub(crate) name: &'static str,
    /// Whether it is there.
    pub(crate) state: State,
    /// Where or how it is there, or what to do.
    pub(crate) detail: String,
}

/// Whether a [`Feature`] is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// There.
    Present,
    /// Not there, and something older takes its place.
    Fallback,
    /// Cannot be told without privilege.
    Unknown,
    /// Not there: programs cannot be loaded or tested.
    Missing,
}

impl Feature {
    pub(super) fn new(name: &'static str, state: State, detail: impl Into<String>) -> Self {
        Self {
            name,
            state,
            detail: detail.into(),
        }
    }
}

/// Everything, in the order in which a user should mend it.
pub(crate) fn features() -> Vec<Feature> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut all = vec![
        version(&read("/proc/sys/kernel/osrelease")),
        privilege(),
        btf(),
        jit(),
    ];
    all.push(cgroup2(&mounts));
    all.push(bpffs(&mounts, &read("/proc/filesystems")));
    all.push(ipv6());
    if is_privileged() {
        all.extend(probe::features());
        all.extend(netprobe::features());
        explain(&mut all, &Config::read);
    } else {
        all.extend(by_config(&Config::read()));
    }
    all
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn version(release: &str) -> Feature {
    let (state, detail) = match parse_version(release) {
        Some(v) if v >= OLDEST => (State::Present, release.to_owned()),
        Some(_) => (
            State::Missing,
            format!("this is {release}: boot {}.{} or newer", OLDEST.0, OLDEST.1),
        ),
        None => (
            State::Unknown,
            format!("cannot read the version '{release}'"),
        ),
    };
    Feature::new("version", state, detail)
}

/// Major and minor of `6.8.0-41-generic`.
fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What the tests need, by bit (include/uapi/linux/capability.h).
const CAPABILITIES: [(u32, &str); 4] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (21, "CAP_SYS_ADMIN"),
    (19, "CAP_SYS_PTRACE"),
];

/// Whether programs can be loaded and namespaces made.
pub(crate) fn is_privileged() -> bool {
    missing_capabilities(&read("/proc/self/status")).is_empty()
}

fn privilege() -> Feature {
    let missing = missing_capabilities(&read("/proc/self/status"));
    if missing.is_empty() {
        return Feature::new(
            "privilege",
            State::Present,
            "root, or every capability that is needed",
        );
    }
    let detail = format!(
        "{} missing, and loading programs and making network namespaces needs them: call it as \
         `sudo -E env \"PATH=$PATH\" cargo xtask …`",
        missing.join(", ")
    );
    Feature::new("privilege", State::Missing, detail)
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES
        .iter()
        .filter(|(bit, _)| effective >> bit & 1 == 0)
        .map(|(_, name)| *name)
        .collect()
}

fn btf() -> Feature {
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    match fs::metadata(PATH) {
        Ok(_) => Feature::new("BTF", State::Present, PATH),
        Err(_) => Feature::new(
            "BTF",
            State::Missing,
            format!("no {PATH}: boot a kernel with CONFIG_DEBUG_INFO_BTF=y"),
        ),
    }
}

fn jit() -> Feature {
    // The file is readable by root only, and absent where the JIT cannot be switched off.
    let (state, detail) = match read("/proc/sys/net/core/bpf_jit_enable").as_str() {
        "1" | "2" => (State::Present, "on".to_owned()),
        "0" => (
            State::Fallback,
            "off, programs are interpreted: `sysctl -w net.core.bpf_jit_enable=1`".to_owned(),
        ),
        _ => (
            State::Unknown,
            "net.core.bpf_jit_enable cannot be read".to_owned(),
        ),
    };
    Feature::new("BPF JIT", state, detail)
}

fn cgroup2(mounts: &str) -> Feature {
    match mounted(mounts, "cgroup2") {
        Some(at) => Feature::new("cgroup v2", State::Present, at),
        None => Feature::new(
            "cgroup v2",
            State::Missing,
            "not mounted: `mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2`",
        ),
    }
}

fn bpffs(mounts: &str, filesystems: &str) -> Feature {
    if let Some(at) = mounted(mounts, "bpf") {
        return Feature::new("bpffs", State::Present, at);
    }
    if filesystems
        .lines()
        .any(|l| l.split_whitespace().last() == Some("bpf"))
    {
        return Feature::new("bpffs", State::Present, "can be mounted");
    }
    Feature::new(
        "bpffs",
        State::Missing,
        "not known to this kernel: boot one with CONFIG_BPF_SYSCALL=y",
    )
}

/// The first mount point of a file system type in `/proc/mounts`.
fn mounted(mounts: &str, kind: &str) -> Option<String> {
    mounts.lines().find_map(|l| {
        let mut fields = l.split(' ');
        let (at, fs) = (fields.nth(1)?, fields.next()?);
        // Blanks and backslashes are written as octal escapes (fs/proc_namespace.c, mangle()).
        (fs == kind).then(|| {
            at.replace("\\040", " ")
                .replace("\\011", "\t")
                .replace("\\134", "\\")
        })
    })
}

fn ipv6() -> Feature {
    match fs::metadata("/proc/net/if_inet6") {
        Ok(_) => Feature::new("IPv6", State::Present, "on"),
        Err(_) => Feature::new(
            "IPv6",
            State::Missing,
            "off: boot without ipv6.disable=1, or a kernel with CONFIG_IPV6",
        ),
    }
}

/// Which option of the kernel's configuration stands behind a feature that can be tried out.
const OPTIONS: [(&str, &str); 8] = [
    ("bpf(2)", "CONFIG_BPF_SYSCALL"),
    ("XDP", "CONFIG_BPF_SYSCALL"),
    ("TC programs", "CONFIG_NET_CLS_ACT"),
    ("socket hooks", "CONFIG_CGROUP_BPF"),
    ("veth", "CONFIG_VETH"),
    ("clsact", "CONFIG_NET_SCH_INGRESS"),
    ("TUN", "CONFIG_TUN"),
    ("SOCK_DESTROY", "CONFIG_INET_DIAG_DESTROY"),
];

/// Without privilege: what the configuration says.
fn by_config(config: &Config) -> Vec<Feature> {
    OPTIONS
        .iter()
        .map(|&(name, option)| match config.get(option) {
            Some(v) => Feature::new(name, State::Present, format!("{option}={v}")),
            None if config.is_known() => Feature::new(name, State::Missing, missing_option(option)),
            None => Feature::new(name, State::Unknown, "needs privilege to try"),
        })
        .collect()
}

/// Adds to what failed the option that a kernel needs for it.
fn explain(features: &mut [Feature], config: &dyn Fn() -> Config) {
    let mut read = None;
    for feature in features.iter_mut().filter(|f| f.state == State::Missing) {
        let Some((_, option)) = OPTIONS.iter().find(|(name, _)| *name == feature.name) else {
            continue;
        };
        let config = read.get_or_insert_with(config);
        let why = match config.get(option) {
            Some("m") => format!(
                "{option}=m, but the module does not load: install the modules of this kernel"
            ),
            Some(_) => {
                format!("{option} is set all the same: is it forbidden by lockdown or a container?")
            }
            None => missing_option(option),
        };
        feature.detail = format!("{}; {why}", feature.detail);
    }
}

fn missing_option(option: &str) -> String {
    format!("boot a kernel with {option}")
}

/// The options that the running kernel was built with.
struct Config(HashMap<String, String>);

impl Config {
    /// From where distributions keep it; empty where they do not.
    fn read() -> Self {
        let release = read("/proc/sys/kernel/osrelease");
        let places = [
            format!("/boot/config-{release}"),
            format!("/lib/modules/{release}/config"),
        ];
        let text = Sh::new("zcat").arg("/proc/config.gz").read().ok();
        let text = text.or_else(|| places.iter().find_map(|p| fs::read_to_string(p).ok()));
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let options = text
            .lines()
            .filter_map(|l| l.split_once('='))
            .filter(|(name, _)| name.starts_with("CONFIG_"));
        Self(
            options
                .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
                .collect(),
        )
    }

    fn get(&self, option: &str) -> Option<&str> {
        self.0.get(option).map(String::as_str)
    }

    fn is_known(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
