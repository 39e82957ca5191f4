//! What the programs cost: the kernel's own run-time statistics, switched on while a round
//! runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// `BPF_ENABLE_STATS` of `enum bpf_cmd`.
const BPF_ENABLE_STATS: libc::c_int = 32;
/// `BPF_STATS_RUN_TIME` of `enum bpf_stats_type`.
const BPF_STATS_RUN_TIME: u32 = 0;
/// `BPF_PROG_TYPE_SCHED_CLS` and `BPF_PROG_TYPE_XDP`: the programs that meet packets.
const PACKET_TYPES: [&str; 2] = ["3", "6"];

/// Statistics are on while this lives. They cost each run of a program about 68 ns, and what
/// they measure includes part of that.
#[derive(Debug)]
pub(crate) struct Enabled(
    #[expect(dead_code, reason = "closing it switches the statistics off")] OwnedFd,
);

impl Enabled {
    /// Switches statistics on (kernel 5.8); `None` where the kernel refuses. Unlike the
    /// sysctl, it ends with the descriptor, even if this process is killed.
    pub(crate) fn new() -> Option<Self> {
        // The kernel accepts any size that covers the field, up to a page.
        let attr: [u32; 4] = [BPF_STATS_RUN_TIME, 0, 0, 0];
        // SAFETY: bpf(2) reads `size_of_val(&attr)` bytes of `attr`, which outlives the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_ENABLE_STATS,
                attr.as_ptr(),
                size_of_val(&attr),
            )
        };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel just made this descriptor for us.
        Some(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// Nanoseconds and runs of the packet programs that the processes hold, summed up.
pub(crate) fn totals(pids: &[u32]) -> (u64, u64) {
    let mut programs = BTreeMap::new();
    for pid in pids {
        // An agent that just died has no programs to show.
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            programs.extend(packet_program(&text));
        }
    }
    programs.values().fold((0, 0), |sum, one: &(u64, u64)| {
        (sum.0 + one.0, sum.1 + one.1)
    })
}

/// Id, nanoseconds and runs of a packet program, from the `fdinfo` of its descriptor.
fn packet_program(fdinfo: &str) -> Option<(u32, (u64, u64))> {
    let field = |name: &str| {
        fdinfo
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    if !PACKET_TYPES.contains(&field("prog_type")?) {
        return None;
    }
    let number = |name| field(name)?.parse::<u64>().ok();
    let id = field("prog_id")?.parse().ok()?;
    Some((id, (number("run_time_ns")?, number("run_cnt")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TC: &str = "pos:\t0\nflags:\t02000002\nprog_type:\t3\nprog_jited:\t1\nprog_tag:\t0c\nmemlock:\t4096\n\
                      prog_id:\t99\nrun_time_ns:\t5000\nrun_cnt:\t40\nrecursion_misses:\t0\n";

    #[test]
    fn a_packet_programs_figures_are_read() {
        assert_eq!(packet_program(TC), Some((99, (5000, 40))));
    }

    #[test]
    fn other_programs_and_descriptors_are_not_counted() {
        assert_eq!(
            packet_program(&TC.replace("prog_type:\t3", "prog_type:\t18")),
            None
        );
        assert_eq!(packet_program("link_type:\t11\nprog_id:\t99\n"), None);
        assert_eq!(packet_program("pos:\t0\n"), None);
    }
}
