//! What the kernel is, as far as Bascule depends on it.

use std::{fs, io::Read as _, path::Path};

use anyhow::Context as _;
use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

/// Options that the probes ask for, and what serves beside them, by their beginnings.
const OPTIONS: [&str; 19] = [
    "CONFIG_BPF",
    "CONFIG_CGROUP_BPF",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_HAVE_EBPF_JIT",
    "CONFIG_HZ",
    "CONFIG_INET_DIAG",
    "CONFIG_INET_UDP_DIAG",
    "CONFIG_NETFILTER_BPF",
    "CONFIG_NET_CLS_ACT",
    "CONFIG_NET_CLS_BPF",
    "CONFIG_NET_EGRESS",
    "CONFIG_NET_INGRESS",
    "CONFIG_NET_SCH_INGRESS",
    "CONFIG_NET_XGRESS",
    "CONFIG_NF_CONNTRACK",
    "CONFIG_NF_TABLES",
    "CONFIG_PREEMPT",
    "CONFIG_SECURITY_LOCKDOWN_LSM",
    "CONFIG_XDP_SOCKETS",
];

/// Settings below `/proc/sys` that change what happens to packets or to programs.
const SYSCTLS: [&str; 15] = [
    "kernel/unprivileged_bpf_disabled",
    "net/core/bpf_jit_enable",
    "net/core/bpf_jit_harden",
    "net/core/bpf_jit_limit",
    "net/core/rmem_max",
    "net/ipv4/conf/all/accept_local",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/ip_local_port_range",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/all/forwarding",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
];

fn read(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// Release, settings, and what this process may do. What there is not is `null`.
pub(super) fn facts() -> Value {
    let sysctl = |name: &&str| ((*name).to_owned(), json!(read(format!("/proc/sys/{name}"))));
    let sysctls: Map<String, Value> = SYSCTLS.iter().map(sysctl).collect();
    let status = read("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    json!({
        "release": read("/proc/sys/kernel/osrelease"),
        "version": read("/proc/version"),
        "machine": std::env::consts::ARCH,
        "cpus": read("/sys/devices/system/cpu/possible"),
        "lockdown": read("/sys/kernel/security/lockdown"),
        "lsm": read("/sys/kernel/security/lsm"),
        "btf": Path::new("/sys/kernel/btf/vmlinux").exists(),
        "capabilities": capabilities.map(str::trim),
        "sysctls": sysctls,
    })
}

/// The lines of the kernel's configuration that matter.
///
/// # Errors
/// The configuration is nowhere, as in a container that does not mount it.
pub(super) fn config() -> anyhow::Result<Vec<u8>> {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let boot = format!("/boot/config-{release}");
    let text = match fs::File::open("/proc/config.gz") {
        Ok(file) => {
            let mut text = String::new();
            let read = GzDecoder::new(file).read_to_string(&mut text);
            read.map(|_| text).context("/proc/config.gz")?
        }
        Err(_) => fs::read_to_string(&boot)
            .with_context(|| format!("/proc/config.gz is not there, and {boot}"))?,
    };
    Ok(of_note(&text).into_bytes())
}

fn of_note(config: &str) -> String {
    let lines = config.lines().filter(|line| {
        let option = line.strip_prefix("# ").unwrap_or(line);
        OPTIONS.iter().any(|o| option.starts_with(o))
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn options_of_note_are_kept_whether_set_or_not() {
        let config = "# CONFIG_X is not set\nCONFIG_BPF=y\nCONFIG_BPF_JIT=y\nCONFIG_VT=y\n\
                      # CONFIG_NET_CLS_ACT is not set\n# Networking\n";
        let kept = "CONFIG_BPF=y\nCONFIG_BPF_JIT=y\n# CONFIG_NET_CLS_ACT is not set\n";
        assert_eq!(super::of_note(config), kept);
    }
}
