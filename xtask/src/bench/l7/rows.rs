//! What the samples say, beside nginx.

use std::collections::BTreeMap;

use super::SUITE;
use super::load::Load;
use super::proxies::Proxy;
use crate::bench::stats::{Row, Spot, Target};

/// What is told of a load.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Figure {
    /// CPU time of the proxy's processes for a million requests.
    Cpu,
    /// Requests a second.
    Requests,
    /// Handshakes a second.
    Handshakes,
    /// CPU time of the proxy's processes for a handshake with its request.
    HandshakeCpu,
    /// Latency at a rate, from when a request was due.
    P50,
    /// The same.
    P99,
    /// The same.
    P999,
    /// Memory of a proxy that nobody has asked yet.
    Fresh,
    /// Memory of one with connections that wait.
    Memory,
}

impl Figure {
    /// Heading, and unit.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Cpu => ("CPU time of the proxy", "CPU-s/million"),
            Self::Requests => ("requests", "1/s"),
            Self::Handshakes => ("whole handshakes of TLS 1.3", "1/s"),
            Self::HandshakeCpu => ("CPU time of the proxy", "ms"),
            Self::P50 => ("p50", "us"),
            Self::P99 => ("p99", "us"),
            Self::P999 => ("p99.9", "us"),
            Self::Fresh => ("memory without a connection", "MiB"),
            Self::Memory => ("memory", "MiB"),
        }
    }

    /// What Bascule must reach, of nginx's.
    fn target(self) -> Option<Target> {
        match self {
            Self::Cpu | Self::P99 => Some(Target::AtMost(1.0)),
            Self::Handshakes => Some(Target::AtLeast(1.5)),
            Self::Memory => Some(Target::AtMost(1.5)),
            _ => None,
        }
    }
}

/// By load and figure: of each proxy, one a round. Those of one round are at the same place.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<(Load, Figure), BTreeMap<Proxy, Vec<f64>>>);

impl Samples {
    pub(super) fn add(&mut self, load: Load, figure: Figure, proxy: Proxy, sample: f64) {
        let of_load = self.0.entry((load, figure)).or_default();
        of_load.entry(proxy).or_default().push(sample);
    }

    /// All rows.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for ((load, figure), samples) in &self.0 {
            let (what, unit) = figure.words();
            for (proxy, own) in samples {
                let table = format!("{what}, {unit}");
                let case = format!("{table}: {}: {}", load.name(), proxy.name());
                let mut row = Row::new(SUITE, case, unit);
                row.samples.clone_from(own);
                row.spot = Some(Spot {
                    table,
                    line: load.name().to_owned(),
                    column: proxy.name().to_owned(),
                });
                if *proxy != Proxy::Nginx {
                    let theirs = samples.get(&Proxy::Nginx);
                    row.reference = theirs.map(|s| (Proxy::Nginx.name().to_owned(), s.clone()));
                }
                if *proxy == Proxy::Bascule {
                    row.target = figure.target();
                }
                rows.push(row);
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_judged_beside_nginx() {
        let mut samples = Samples::default();
        for (proxy, cpu) in [
            (Proxy::Bascule, [9.0, 22.0]),
            (Proxy::Nginx, [10.0, 20.0]),
            (Proxy::Haproxy, [20.0, 40.0]),
        ] {
            for cpu in cpu {
                samples.add(Load::Http, Figure::Cpu, proxy, cpu);
            }
        }
        let rows = samples.rows();
        let judged: Vec<_> = rows.iter().map(|row| (row.ratio(), row.met())).collect();
        assert_eq!(
            judged,
            [(Some(1.0), Some(true)), (None, None), (Some(2.0), None)]
        );
        assert!(
            rows[0].case.ends_with("64 connections: Bascule"),
            "{}",
            rows[0].case
        );
    }
}
