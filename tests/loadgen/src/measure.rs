//! Counting: latencies, failures, and the machine's CPU time.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use rustix::io::Errno;

use super::proto::{Latency, Outcome};

/// Nanoseconds that a latency may have; longer ones count as this.
const LONGEST: u64 = 60_000_000_000;
/// Of latencies, in decimal digits.
const PRECISION: u8 = 3;

/// What happened in the time that is measured.
pub(crate) struct Tally {
    histogram: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    answers: BTreeMap<char, u64>,
    bytes: u64,
}

impl Tally {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            histogram: Histogram::new_with_bounds(1, LONGEST, PRECISION)?,
            errors: BTreeMap::new(),
            answers: BTreeMap::new(),
            bytes: 0,
        })
    }

    /// A transaction that a server answered after so long.
    pub(crate) fn answered(&mut self, by: u8, after: Duration) {
        let ns = u64::try_from(after.as_nanos()).unwrap_or(LONGEST);
        self.histogram.saturating_record(ns.clamp(1, LONGEST));
        *self.answers.entry(char::from(by)).or_default() += 1;
    }

    /// A failure.
    pub(crate) fn failed(&mut self, kind: &str) {
        *self.errors.entry(kind.to_owned()).or_default() += 1;
    }

    /// Bytes that were sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// All of it, for a time and the CPU time in it.
    pub(crate) fn outcome(self, seconds: f64, cpu_seconds: f64) -> Outcome {
        let at = |q: f64| self.histogram.value_at_quantile(q) as f64 / 1000.0;
        let latency_us = match self.histogram.len() {
            0 => Latency::default(),
            _ => Latency {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: self.histogram.max() as f64 / 1000.0,
            },
        };
        Outcome {
            transactions: self.histogram.len(),
            seconds,
            bytes: self.bytes,
            cpu_seconds,
            latency_us,
            errors: self.errors,
            answers: self.answers,
        }
    }
}

/// The name of an error.
pub(crate) fn kind(error: Errno) -> String {
    match error {
        Errno::CONNREFUSED => "refused".to_owned(),
        Errno::CONNRESET | Errno::PIPE => "reset".to_owned(),
        Errno::TIMEDOUT => "timeout".to_owned(),
        Errno::HOSTUNREACH | Errno::NETUNREACH => "unreachable".to_owned(),
        Errno::ADDRNOTAVAIL => "no free port".to_owned(),
        other => other.to_string(),
    }
}

/// The machine's clock and idle time at a moment.
pub(crate) struct Cpu {
    at: Instant,
    idle: f64,
    cpus: usize,
}

impl Cpu {
    /// Now.
    ///
    /// # Errors
    /// There is no /proc.
    pub(crate) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let (idle, cpus) = idle(&stat).context("/proc/stat does not tell the idle time")?;
        Ok(Self {
            at: Instant::now(),
            idle,
            cpus,
        })
    }

    /// Seconds that all CPUs together were busy since.
    ///
    /// # Errors
    /// There is no /proc.
    pub(crate) fn busy_since(&self) -> Result<f64> {
        let now = Self::now()?;
        let elapsed = (now.at - self.at).as_secs_f64();
        Ok((elapsed * self.cpus as f64 - (now.idle - self.idle)).max(0.0))
    }
}

/// Seconds that the CPUs idled, and how many there are. A kernel that stops its tick on an idle
/// CPU accounts idle time exactly; busy time it samples.
fn idle(stat: &str) -> Option<(f64, usize)> {
    let words: Vec<&str> = stat.lines().next()?.split_whitespace().collect();
    // proc_stat(5): user, nice, system, idle, iowait; in ticks of 10 ms for user space on all
    // architectures (USER_HZ).
    let ticks: u64 = words.get(4)?.parse::<u64>().ok()? + words.get(5)?.parse::<u64>().ok()?;
    let cpus = stat
        .lines()
        .skip(1)
        .take_while(|l| l.starts_with("cpu"))
        .count();
    Some((ticks as f64 / 100.0, cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_includes_waiting_for_a_disk() {
        let stat = "cpu  100 200 300 9900 100 1 2 3 0 0\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 5\n";
        assert_eq!(idle(stat), Some((100.0, 2)));
        assert_eq!(idle(""), None);
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut tally = Tally::new().unwrap();
        for us in 1..=1000 {
            tally.answered(b'a', Duration::from_micros(us));
        }
        tally.failed("timeout");
        let outcome = tally.outcome(2.0, 0.5);
        assert_eq!(outcome.transactions, 1000);
        assert!((outcome.latency_us.p50 - 500.0).abs() < 1.0);
        assert!((outcome.latency_us.p999 - 999.0).abs() < 1.5);
        assert!((outcome.latency_us.max - 1000.0).abs() < 1.5);
        assert_eq!(outcome.answers[&'a'], 1000);
        assert_eq!(outcome.errors["timeout"], 1);
    }

    #[test]
    fn no_transaction_has_no_latency() {
        let outcome = Tally::new().unwrap().outcome(1.0, 0.0);
        assert_eq!((outcome.transactions, outcome.latency_us.max), (0, 0.0));
    }
}
