//! What is asked of the load generator, from where to where, and what it answers.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::world::Proxy;

/// Where the client is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum From {
    /// A pod of the server's node.
    Same,
    /// A pod of the other node.
    Across,
    /// The other node itself.
    Node,
    /// A host outside.
    Outside,
}

/// Whom it dials.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum To {
    /// The server's pod.
    Pod,
    /// The service.
    ClusterIp,
    /// The service's port of the server's node.
    NodePortThere,
    /// The service's port of the other node: one hop more.
    NodePortElsewhere,
}

/// One way to the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Cell {
    pub(super) from: From,
    pub(super) to: To,
}

impl Cell {
    /// The ways by a service, in the order of the tables.
    pub(super) const SERVED: [Self; 5] = [
        Self::new(From::Same, To::ClusterIp),
        Self::new(From::Across, To::ClusterIp),
        Self::new(From::Node, To::ClusterIp),
        Self::new(From::Outside, To::NodePortThere),
        Self::new(From::Outside, To::NodePortElsewhere),
    ];

    const fn new(from: From, to: To) -> Self {
        Self { from, to }
    }

    /// The way from the same place without a service.
    pub(super) const fn direct(self) -> Self {
        Self::new(self.from, To::Pod)
    }

    /// All ways of a pair of nodes: each by a service after the one that it is compared with.
    pub(super) fn of(proxy: Proxy) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for cell in Self::SERVED {
            if !all.contains(&cell.direct()) {
                all.push(cell.direct());
            }
            if proxy != Proxy::None {
                all.push(cell);
            }
        }
        all
    }

    /// Its name in the tables.
    pub(super) fn name(self) -> &'static str {
        match (self.from, self.to) {
            (From::Same, To::Pod) => "pod, same node, direct",
            (From::Across, To::Pod) => "pod, across nodes, direct",
            (From::Node, To::Pod) => "node, across nodes, direct",
            (From::Outside, To::Pod) => "outside, direct",
            (From::Same, _) => "pod, same node, ClusterIP",
            (From::Across, _) => "pod, across nodes, ClusterIP",
            (From::Node, _) => "node, across nodes, ClusterIP",
            (From::Outside, To::NodePortElsewhere) => {
                "outside, NodePort, backend on the other node"
            }
            (From::Outside, _) => "outside, NodePort, backend on that node",
        }
    }
}

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
            warmup: 0.06,
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
    fn every_way_by_a_service_follows_the_direct_one_from_there() {
        let all = Cell::of(Proxy::Bascule);
        assert_eq!(all.len(), 9);
        for cell in Cell::SERVED {
            let at = |c: Cell| all.iter().position(|other| *other == c);
            assert!(at(cell.direct()) < at(cell));
        }
        assert!(Cell::of(Proxy::None).iter().all(|c| c.to == To::Pod));
    }

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
}
