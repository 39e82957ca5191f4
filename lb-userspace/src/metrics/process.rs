//! The process' own metrics, under the names that every exporter has for them
//! (prometheus.io/docs/instrumenting/writing_clientlibs, "Process metrics"):
//! dashboards for kube-proxy show them.

use std::{fmt, fs, sync::OnceLock};

use prometheus_client::{
    collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// What `/proc` says about this process.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Process {
    /// Time on a CPU, in seconds.
    pub(crate) cpu: f64,
    /// When it started, in seconds since 1970.
    started: f64,
    /// Memory of addresses, in bytes.
    pub(crate) virtual_memory: u64,
    /// Memory in use, in bytes.
    pub(crate) resident: u64,
}

impl Process {
    /// Reads it; `None` where `/proc` is not readable.
    pub(crate) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let system = fs::read_to_string("/proc/stat").ok()?;
        // SAFETY: sysconf only reads a constant.
        let (tick, page) = unsafe {
            (
                libc::sysconf(libc::_SC_CLK_TCK),
                libc::sysconf(libc::_SC_PAGESIZE),
            )
        };
        parse(&stat, &system, tick as f64, u64::try_from(page).ok()?)
    }
}

/// Reads the texts of `/proc/self/stat` and `/proc/stat` (proc_pid_stat(5)), given
/// the ticks of a second and the bytes of a page.
fn parse(stat: &str, system: &str, tick: f64, page: u64) -> Option<Process> {
    // The name, in parentheses, may have any character.
    let (_, fields) = stat.rsplit_once(')')?;
    // The first field after it is the third of the page.
    let field = |number: usize| fields.split_whitespace().nth(number - 3);
    let number = |at: usize| field(at)?.parse::<u64>().ok();
    let booted = system.lines().find_map(|l| l.strip_prefix("btime "))?;
    let booted: f64 = booted.trim().parse().ok()?;
    Some(Process {
        cpu: (number(14)? + number(15)?) as f64 / tick,
        started: booted + number(22)? as f64 / tick,
        virtual_memory: number(23)?,
        resident: number(24)? * page,
    })
}

/// Turns it into metrics at every scrape.
#[derive(Debug)]
pub(crate) struct Collector;

impl collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(process) = Process::read() else {
            return Ok(());
        };
        let help = "Time on a CPU, in seconds";
        let kind = MetricType::Counter;
        let cpu = encoder.encode_descriptor("process_cpu_seconds", help, None, kind)?;
        ConstCounter::new(process.cpu).encode(cpu)?;
        // Read once: it is reckoned from the wall clock, whose corrections would look like
        // restarts.
        static STARTED: OnceLock<f64> = OnceLock::new();
        let started = *STARTED.get_or_init(|| process.started);
        let files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let mut gauge = |name: &str, help: &str, value: f64| {
            let kind = MetricType::Gauge;
            let descriptor = encoder.encode_descriptor(name, help, None, kind)?;
            ConstGauge::new(value).encode(descriptor)
        };
        gauge(
            "process_start_time_seconds",
            "When the process started, since 1970",
            started,
        )?;
        gauge(
            "process_virtual_memory_bytes",
            "Addresses in use",
            process.virtual_memory as f64,
        )?;
        gauge(
            "process_resident_memory_bytes",
            "Memory in use",
            process.resident as f64,
        )?;
        gauge("process_open_fds", "Open files", files as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_fields_are_those_of_the_manual() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 4 0 1200 8192 3 99";
        let process = parse(stat, "cpu 1\nbtime 1000\nprocesses 5\n", 100.0, 4096);
        let expected = Process {
            cpu: 3.0,
            started: 1012.0,
            virtual_memory: 8192,
            resident: 12_288,
        };
        assert_eq!(process, Some(expected));
        assert_eq!(parse("7 (a) S 1", "btime 1\n", 100.0, 4096), None);
    }

    #[test]
    fn this_process_started_before_now_and_uses_memory() {
        let process = Process::read().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - process.started;
        assert!((-1.0..3600.0).contains(&age), "{process:?}");
        assert!(process.resident > 1 << 20 && process.virtual_memory > process.resident);
    }
}
