//! What the running kernel and this process may do: asked once, at start.

use std::{fs, io};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
    util::KernelVersion,
};
use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use serde::Serialize;

use super::{error::Error, prog, settings::ProbeOverrides, sys};

/// The first kernel that this runs on.
const OLDEST: KernelVersion = KernelVersion::new(5, 15, 0);

/// A feature of the kernel that has a fallback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// The first kernel that has it.
    pub since: &'static str,
    /// Whether it is used.
    pub present: bool,
    /// Whether a setting says so, instead of the kernel.
    pub overridden: bool,
    /// What happens without it.
    pub fallback: &'static str,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Features {
    /// The kernel's release.
    pub kernel: String,
    /// TCX links.
    pub tcx: Feature,
    /// `bpf_set_retval` in socket hooks.
    pub set_retval: Feature,
}

impl Features {
    /// Every feature, in the order in which it is shown.
    pub fn list(&self) -> [&Feature; 2] {
        [&self.tcx, &self.set_retval]
    }

    /// Asks the kernel, but for what the settings already say.
    pub(super) fn probe(overrides: ProbeOverrides) -> Result<Self, Error> {
        let kernel = release();
        if let Ok(version) = KernelVersion::current()
            && version < OLDEST
        {
            return Err(Error::Kernel {
                found: kernel,
                feature: "Bascule",
                needed: "5.15",
            });
        }
        let tcx = overrides.tcx.unwrap_or_else(has_tcx);
        let set_retval = overrides.set_retval.unwrap_or_else(has_set_retval);
        Ok(Self {
            kernel,
            tcx: Feature {
                name: "TCX links",
                since: "6.6",
                present: tcx,
                overridden: overrides.tcx.is_some(),
                fallback: "filters of a clsact qdisc, replaced in place",
            },
            set_retval: Feature {
                name: "bpf_set_retval in socket hooks",
                since: "5.18",
                present: set_retval,
                overridden: overrides.set_retval.is_some(),
                fallback: "a refused connect fails with EPERM instead of ECONNREFUSED",
            },
        })
    }
}

/// The kernel's release as `uname(2)` has it, from which its version is taken too.
fn release() -> String {
    // SAFETY: a utsname is arrays of characters, for which zeros are valid.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the argument is a utsname that outlives the call.
    if unsafe { libc::uname(&mut name) } != 0 {
        return "unknown".to_owned();
    }
    // SAFETY: the kernel ends each of its texts with NUL.
    let release = unsafe { std::ffi::CStr::from_ptr(name.release.as_ptr()) };
    release.to_string_lossy().into_owned()
}

/// Asks for a TCX link on a device that cannot exist: a kernel that knows TCX
/// looks for the device (ENODEV), another one refuses the attach type (EINVAL).
fn has_tcx() -> bool {
    let answer = prog::trivial(bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32).and_then(|prog| {
        use std::os::fd::AsFd as _;
        let kind = bpf_attach_type::BPF_TCX_INGRESS as u32;
        sys::link_create(prog.as_fd(), i32::MAX as u32, kind, 0)
    });
    matches!(answer, Err(error) if error.raw_os_error() == Some(libc::ENODEV))
}

fn has_set_retval() -> bool {
    let kind = ProgramType::CgroupSockAddr;
    is_helper_supported(kind, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
}

// Bits of a capability set (include/uapi/linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Refuses to go on without the capabilities that loading and attaching need,
/// with one sentence instead of the first call's EPERM.
pub(super) fn check_privileges() -> Result<(), Error> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    match effective(&status).map(missing) {
        Some(missing) if !missing.is_empty() => Err(Error::Privilege {
            missing: missing.join(", "),
        }),
        _ => Ok(()),
    }
}

/// Whether another network namespace may be entered (`setns(2)`).
pub(super) fn may_enter_namespaces() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    effective(&status).is_some_and(|caps| caps & (1 << CAP_SYS_ADMIN) != 0)
}

fn effective(status: &str) -> Option<u64> {
    let hex = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn missing(caps: u64) -> Vec<&'static str> {
    let has = |bit: u32| caps & (1 << bit) != 0;
    // Before 5.8 CAP_SYS_ADMIN was all of CAP_BPF and CAP_PERFMON; it still is.
    let all = [
        (CAP_BPF, "CAP_BPF"),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (CAP_PERFMON, "CAP_PERFMON"),
    ];
    all.into_iter()
        .filter(|(bit, _)| !has(*bit) && (*bit == CAP_NET_ADMIN || !has(CAP_SYS_ADMIN)))
        .map(|(_, name)| name)
        .collect()
}

/// Lifts the limit on locked memory. Since 5.11 (commit d5299b67dd59) maps are
/// charged to the cgroup and not to this limit, so a refusal does no harm on the
/// kernels we support; only vendors that took the old accounting back notice.
pub(super) fn lift_memlock() {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the argument is a valid rlimit that outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &unlimited) } != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_from_the_status() {
        let status = "CapPrm:\t000001ffffffffff\nCapEff:\t000000c000001000\n";
        assert_eq!(effective(status), Some(0xc0_0000_1000));
    }

    #[test]
    fn each_missing_capability_is_named() {
        let bpf = 1u64 << CAP_BPF;
        let perfmon = 1u64 << CAP_PERFMON;
        let net = 1u64 << CAP_NET_ADMIN;
        assert_eq!(missing(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing(bpf | net), ["CAP_PERFMON"]);
        assert!(missing(bpf | net | perfmon).is_empty());
        assert_eq!(missing(1 << CAP_SYS_ADMIN), ["CAP_NET_ADMIN"]);
    }
}
