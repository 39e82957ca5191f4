//! The load generator (`tests/loadgen`): what it is asked for, and what it answers.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Seconds of a load before it is measured: connections are made, or found again.
const WARM_UP: f64 = 0.005;

/// What a transaction is (the load generator's words).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Crr,
    Rr,
    Urr,
    Bulk,
}

impl Mode {
    /// What a transaction is, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crr => "TCP connect, request, close (crr)",
            Self::Rr => "TCP request on kept connections (rr)",
            Self::Urr => "UDP request (urr)",
            Self::Bulk => "TCP stream (bulk)",
        }
    }

    /// Unit of what is counted.
    pub(super) fn unit(self) -> &'static str {
        if self == Self::Bulk { "Gbit/s" } else { "1/s" }
    }

    /// Unit of the CPU time that it takes.
    pub(super) fn cpu_unit(self) -> &'static str {
        if self == Self::Bulk {
            "CPU-s/GB"
        } else {
            "CPU-s/million"
        }
    }
}

/// A request of the load generator.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request<'a> {
    /// A load.
    Run(&'a Load),
    /// A load whose connections stay for its next turn.
    Turn(&'a Load),
}

/// A load, as the load generator is asked for it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Load {
    pub(super) mode: Mode,
    pub(super) target: String,
    pub(super) connections: u32,
    pub(super) seconds: f64,
    pub(super) warmup: f64,
    pub(super) timeout_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate: Option<u32>,
}

impl Load {
    /// As much as there can be.
    pub(super) fn closed(mode: Mode, connections: u32, seconds: f64) -> Self {
        Self {
            mode,
            target: String::new(),
            connections,
            seconds,
            warmup: WARM_UP,
            timeout_ms: 1000,
            rate: None,
        }
    }

    /// New connections at a rate.
    pub(super) fn paced(rate: u32, seconds: f64) -> Self {
        Self {
            rate: Some(rate),
            ..Self::closed(Mode::Crr, 256, seconds)
        }
    }

    /// Enough to see whether somebody answers.
    pub(super) fn probe() -> Self {
        Self::closed(Mode::Crr, 1, 0.02)
    }

    /// Its name in the tables.
    pub(super) fn name(&self) -> String {
        match (self.rate, self.connections) {
            (Some(rate), _) => format!("{}, {rate} a second", self.mode.name()),
            (None, 1) => format!("{}, one at a time", self.mode.name()),
            (None, n) => format!("{}, {n} at a time", self.mode.name()),
        }
    }
}

/// What became of a load.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Outcome {
    pub(super) transactions: u64,
    pub(super) seconds: f64,
    pub(super) bytes: u64,
    pub(super) cpu_seconds: f64,
    pub(super) latency_us: Latency,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) answers: BTreeMap<char, u64>,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

impl Outcome {
    /// What was counted in all of some outcomes, without their latencies.
    pub(super) fn sum<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            transactions: sum.transactions + one.transactions,
            seconds: sum.seconds + one.seconds,
            bytes: sum.bytes + one.bytes,
            cpu_seconds: sum.cpu_seconds + one.cpu_seconds,
            ..sum
        })
    }

    /// Transactions that failed.
    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Whether all was well, and the right server answered.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn check(&self, server: Option<char>) -> Result<()> {
        ensure!(self.errors.is_empty(), "{:?}", self.errors);
        ensure!(self.transactions > 0, "nobody answered");
        let others = self.answers.keys().find(|id| Some(**id) != server);
        ensure!(others.is_none(), "another server answered: {others:?}");
        Ok(())
    }

    /// Transactions a second, or Gbit/s.
    pub(super) fn speed(&self, mode: Mode) -> f64 {
        match mode {
            Mode::Bulk => self.bytes as f64 * 8.0 / 1e9 / self.seconds,
            _ => self.transactions as f64 / self.seconds,
        }
    }

    /// CPU seconds of the machine for a million transactions, or for a gigabyte.
    pub(super) fn cpu(&self, mode: Mode) -> f64 {
        let work = match mode {
            Mode::Bulk => self.bytes as f64 / 1e9,
            _ => self.transactions as f64 / 1e6,
        };
        self.cpu_seconds / work
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_transactions_and_a_gigabyte() {
        let outcome = Outcome {
            transactions: 5000,
            seconds: 0.5,
            bytes: 250_000_000,
            cpu_seconds: 1.0,
            ..Outcome::default()
        };
        assert_eq!(
            (outcome.speed(Mode::Rr), outcome.cpu(Mode::Rr)),
            (10_000.0, 200.0)
        );
        assert_eq!(
            (outcome.speed(Mode::Bulk), outcome.cpu(Mode::Bulk)),
            (4.0, 4.0)
        );
    }

    #[test]
    fn the_wrong_server_and_no_answer_are_errors() {
        let mut outcome = Outcome {
            transactions: 1,
            ..Outcome::default()
        };
        outcome.answers.insert('b', 1);
        assert!(outcome.check(Some('b')).is_ok());
        assert!(outcome.check(Some('h')).is_err());
        outcome.transactions = 0;
        assert!(outcome.check(Some('b')).is_err());
    }

    #[test]
    fn all_failures_count() {
        let text = r#"{"transactions": 9, "seconds": 1.0, "bytes": 9, "cpu_seconds": 0.5,
            "latency_us": {"p50": 1.0, "p90": 1.0, "p99": 2.0, "p999": 2500.0, "max": 2500.0},
            "errors": {"timeout": 2, "refused": 1}, "answers": {"a": 9}}"#;
        let load: Outcome = serde_json::from_str(text).unwrap();
        assert_eq!((load.latency_us.p999 / 1000.0, load.failed()), (2.5, 3));
    }
}
