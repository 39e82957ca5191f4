//! The machine that is measured on: one CPU, and what else it does.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::topology::KUBERNETES;
use crate::image::stamp::Stamp;
use crate::setup::Unfit;

/// Statistics of the kernel that cost every run of a program 68 ns.
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// Share of a CPU that others may use before a suite is marked.
pub(super) const FOREIGN: f64 = 0.2;

/// Refuses to measure with the kernel's statistics on.
///
/// # Errors
/// They are on.
pub(super) fn check() -> Result<()> {
    let stats = fs::read_to_string(STATS).unwrap_or_default();
    if stats.trim() == "1" {
        return Err(Unfit::new(format!(
            "{STATS} is 1, which slows every program down: `sysctl kernel.bpf_stats_enabled=0`"
        ))
        .into());
    }
    Ok(())
}

/// The CPUs that the calling thread may use.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn cpus() -> Result<Vec<usize>> {
    // SAFETY: a cpu_set_t is plain bits, for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: the set has the size given.
    let got = unsafe { libc::sched_getaffinity(0, size, &raw mut set) };
    ensure!(
        got == 0,
        "cannot tell the CPUs: {}",
        std::io::Error::last_os_error()
    );
    // SAFETY: the index is within the set.
    let allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(allowed).collect())
}

/// Keeps the calling thread on these CPUs, and the processes that it starts from now on.
///
/// # Errors
/// The kernel refuses.
pub(super) fn stay(cpus: &[usize]) -> Result<()> {
    // SAFETY: a cpu_set_t is plain bits, for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    for cpu in cpus {
        // SAFETY: the set is one; a number beyond it is ignored.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: the set has the size given.
    let done = unsafe { libc::sched_setaffinity(0, size, &raw const set) };
    ensure!(
        done == 0,
        "cannot stay on CPUs {cpus:?}: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// Keeps the calling thread on the last CPU that it may use, where interrupts
/// are rarest; returns which.
///
/// # Errors
/// The kernel refuses.
pub(super) fn pin() -> Result<usize> {
    let cpu = *cpus()?.last().context("this process may use no CPU")?;
    stay(&[cpu])?;
    Ok(cpu)
}

/// One-minute load average, as the kernel writes it.
pub(super) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

/// `Linux 6.18.44, 2 CPUs, AMD EPYC`.
pub(super) fn describe() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpuinfo
        .lines()
        .filter_map(|l| l.strip_prefix("model name")?.split_once(": "))
        .map(|(_, model)| model.trim())
        .collect();
    let model = models.first().unwrap_or(&"unknown CPU");
    format!("Linux {}, {} × {model}", release.trim(), models.len())
}

/// `Bascule 0.1.0 (commit), kube-proxy 1.36.3`.
pub(super) fn versions() -> String {
    let stamp = Stamp::read().map_or_else(
        |_| format!("{} (no commit is known)", env!("CARGO_PKG_VERSION")),
        |stamp| format!("{} ({})", stamp.version, stamp.commit),
    );
    format!("Bascule {stamp}, kube-proxy {KUBERNETES}")
}

/// What others use of the CPUs while a suite runs.
pub(super) struct Watch {
    start: Instant,
    busy: f64,
    own: f64,
}

/// What [`Watch`] saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Foreign {
    /// CPUs that others kept busy, on average.
    pub(super) cpus: f64,
}

impl Foreign {
    /// Whether the figures should be read with care.
    pub(super) fn disturbs(self) -> bool {
        self.cpus > FOREIGN
    }
}

impl Watch {
    /// From now on.
    pub(super) fn start() -> Self {
        Self {
            start: Instant::now(),
            busy: busy(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            own: own(),
        }
    }

    /// Until now.
    pub(super) fn end(&self) -> Foreign {
        let busy = busy(&fs::read_to_string("/proc/stat").unwrap_or_default()) - self.busy;
        let others = (busy - (own() - self.own)).max(0.0);
        Foreign {
            cpus: others / self.start.elapsed().as_secs_f64().max(0.01),
        }
    }
}

/// Seconds that all CPUs together were busy (proc_stat(5): all but idle and
/// waiting for a disk; time that a hypervisor stole is foreign as well).
fn busy(stat: &str) -> f64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().skip(1).enumerate();
    let busy: u64 = ticks
        .filter(|(i, _)| matches!(i, 0 | 1 | 2 | 5 | 6 | 7))
        .filter_map(|(_, n)| n.parse::<u64>().ok())
        .sum();
    // SAFETY: sysconf has no preconditions.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    busy as f64 / hertz as f64
}

/// Seconds that this process and those that it waited for were busy.
fn own() -> f64 {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .iter()
        .map(|who| {
            // SAFETY: a rusage is plain numbers, for which zeros are valid.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: the memory is a rusage.
            unsafe { libc::getrusage(*who, &raw mut usage) };
            let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
            seconds(usage.ru_utime) + seconds(usage.ru_stime)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_time_is_not_busy() {
        // SAFETY: sysconf has no preconditions.
        let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let stat = "cpu  100 200 300 9999 8888 1 2 3 50 60\ncpu0 1 1 1 1\n";
        assert!((busy(stat) - 606.0 / hertz).abs() < 1e-9);
        assert_eq!(busy(""), 0.0);
    }
}
