//! What the samples say: rows of speed, of CPU time, beside each peer, and by number of services.

use std::collections::BTreeMap;

use super::cell::{Cell, From, To};
use super::world::Proxy;
use crate::bench::loadgen::{Load, Mode, Outcome};
use crate::bench::report::thousands;
use crate::bench::stats::{Row, Spot, Target};

/// Suite of these rows.
pub(super) const SUITE: &str = "traffic";

/// Outcomes of one load with one number of services, in the order of the repetitions.
pub(super) struct Samples {
    /// Services that are programmed.
    pub(super) services: u32,
    /// The load.
    pub(super) load: Load,
    /// By proxy and way.
    pub(super) outcomes: BTreeMap<(Proxy, Cell), Vec<Outcome>>,
}

/// What is taken of an outcome.
type Figure = (&'static str, fn(&Outcome, Mode) -> f64);

/// Latencies at a rate.
const LATENCIES: [Figure; 3] = [
    ("p50", |o, _| o.latency_us.p50),
    ("p99", |o, _| o.latency_us.p99),
    ("p99.9", |o, _| o.latency_us.p999),
];

impl Samples {
    fn title(&self) -> String {
        format!(
            "{} services: {}",
            thousands(self.services),
            self.load.name()
        )
    }

    fn of(&self, proxy: Proxy, cell: Cell, take: impl Fn(&Outcome) -> f64) -> Option<Vec<f64>> {
        let outcomes = self.outcomes.get(&(proxy, cell))?;
        Some(outcomes.iter().map(take).collect())
    }

    fn speeds(&self, proxy: Proxy, cell: Cell) -> Option<Vec<f64>> {
        self.of(proxy, cell, |o| o.speed(self.load.mode))
    }

    fn row(&self, what: &str, unit: &str, (line, column): (&str, &str), samples: Vec<f64>) -> Row {
        let table = match what {
            "" => format!("{}, {unit}", self.title()),
            _ => format!("{}, {what}, {unit}", self.title()),
        };
        let mut row = Row::new(SUITE, format!("{table}: {line}: {column}"), unit);
        row.samples = samples;
        row.spot = Some(Spot {
            table,
            line: line.to_owned(),
            column: column.to_owned(),
        });
        row
    }

    /// All rows of these samples.
    pub(super) fn rows(&self) -> Vec<Row> {
        if self.load.rate.is_some() {
            return LATENCIES.iter().flat_map(|f| self.latency(*f)).collect();
        }
        [self.speed(), self.cpu(), self.beside()].concat()
    }

    /// Each way and each proxy, to the direct way of the same pods.
    fn against_direct(
        &self,
        what: &str,
        unit: &str,
        take: fn(&Outcome, Mode) -> f64,
    ) -> Vec<(Cell, Proxy, Row)> {
        let mut rows = Vec::new();
        for cell in Cell::of(Proxy::Bascule) {
            for proxy in Proxy::ALL {
                let take = |cell| self.of(proxy, cell, |o| take(o, self.load.mode));
                let Some(samples) = take(cell) else { continue };
                let mut row = self.row(what, unit, (cell.name(), proxy.name()), samples);
                if cell.to != To::Pod {
                    let direct = take(cell.direct()).unwrap_or_default();
                    row.reference = Some(("the same pods directly".to_owned(), direct));
                }
                rows.push((cell, proxy, row));
            }
        }
        rows
    }

    fn speed(&self) -> Vec<Row> {
        let mode = self.load.mode;
        let rows = self.against_direct("", mode.unit(), Outcome::speed);
        let judged = rows.into_iter().map(|(cell, proxy, mut row)| {
            if is_judged(cell, proxy) {
                row.target = target(&self.load, cell, proxy);
            }
            row
        });
        judged.collect()
    }

    fn latency(&self, (name, take): Figure) -> impl Iterator<Item = Row> {
        let rows = self.against_direct(name, "us", take);
        rows.into_iter().map(|(_, _, row)| row)
    }

    /// CPU time of the machine; ours to that of kube-proxy.
    fn cpu(&self) -> Vec<Row> {
        let mode = self.load.mode;
        let main = mode == Mode::Crr && self.load.connections > 1;
        let rows = self.against_direct("CPU time", mode.cpu_unit(), Outcome::cpu);
        let judged = rows.into_iter().map(|(cell, proxy, mut row)| {
            let peer = self.of(Proxy::Nftables, cell, |o| o.cpu(mode));
            if let Some(peer) = peer.filter(|_| is_judged(cell, proxy)) {
                row.reference = Some((Proxy::Nftables.name().to_owned(), peer));
                if main && cell.to == To::NodePortElsewhere {
                    row.target = Some(Target::AtMost(0.88));
                }
            }
            row
        });
        judged.collect()
    }

    /// Ours beside each peer.
    fn beside(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (cell, ours) in pairs(&Proxy::OURS) {
            for peer in Proxy::PEERS {
                let (Some(own), Some(theirs)) = (self.speeds(ours, cell), self.speeds(peer, cell))
                else {
                    continue;
                };
                let column = format!("{} : {}", ours.name(), peer.name());
                let place = (cell.name(), column.as_str());
                let mut row = self.row("side by side", self.load.mode.unit(), place, own);
                row.reference = Some((peer.name().to_owned(), theirs));
                row.target = Some(Target::AtLeast(1.0));
                rows.push(row);
            }
        }
        rows
    }

    /// What more services do: the share of the direct way's speed, to that with fewer services.
    pub(super) fn growth(&self, few: &Self) -> Vec<Row> {
        let share = |samples: &Self, proxy, cell: Cell| {
            let served = samples.speeds(proxy, cell)?;
            let direct = samples.speeds(proxy, cell.direct())?;
            let shares = served.iter().zip(direct).map(|(s, d)| s / d);
            Some(shares.collect::<Vec<_>>())
        };
        let all: Vec<Proxy> = [&Proxy::OURS[..], &Proxy::PEERS[..]].concat();
        let mut rows = Vec::new();
        for (cell, proxy) in pairs(&all) {
            let (Some(many), Some(before)) = (share(self, proxy, cell), share(few, proxy, cell))
            else {
                continue;
            };
            let what = format!("share of direct, beside {} services", few.services);
            let mut row = self.row(&what, "ratio", (cell.name(), proxy.name()), many);
            row.reference = Some((format!("{} services", few.services), before));
            if Proxy::OURS.contains(&proxy) {
                row.target = Some(Target::AtLeast(0.98));
            }
            rows.push(row);
        }
        rows
    }
}

/// Every way by a service with each of some proxies.
fn pairs(proxies: &[Proxy]) -> impl Iterator<Item = (Cell, Proxy)> {
    let each = |cell| proxies.iter().map(move |proxy| (cell, *proxy));
    Cell::SERVED.into_iter().flat_map(each)
}

/// Whether a row is ours, and by a service.
fn is_judged(cell: Cell, proxy: Proxy) -> bool {
    cell.to != To::Pod && Proxy::OURS.contains(&proxy)
}

/// Least share of the direct way's speed.
fn target(load: &Load, cell: Cell, ours: Proxy) -> Option<Target> {
    let by_socket = ours == Proxy::Bascule || cell.from == From::Node;
    let share = match (load.mode, load.connections, cell.to) {
        (Mode::Crr, 1, _) => return None,
        (_, _, To::NodePortElsewhere) if load.mode != Mode::Bulk => 0.78,
        (Mode::Crr, _, To::NodePortThere) => 0.97,
        (Mode::Bulk, _, _) | (_, _, To::NodePortThere) => 0.98,
        (_, _, _) if by_socket => 0.99,
        (Mode::Crr, _, _) if cell.from == From::Same => 0.96,
        (Mode::Crr, _, _) => 0.97,
        _ => return None,
    };
    Some(Target::AtLeast(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two repetitions in which a proxy has so many transactions a second by a service, and 1,000
    /// without.
    fn samples(services: u32, speeds: &[(Proxy, u64)]) -> Samples {
        let outcome = |transactions| Outcome {
            transactions,
            seconds: 1.0,
            cpu_seconds: 1.0,
            ..Outcome::default()
        };
        let mut outcomes = BTreeMap::new();
        for (proxy, speed) in speeds {
            for cell in Cell::of(*proxy) {
                let speed = if cell.to == To::Pod { 1000 } else { *speed };
                outcomes.insert((*proxy, cell), vec![outcome(speed); 2]);
            }
        }
        Samples {
            services,
            load: Load::closed(Mode::Crr, 16, 1.0),
            outcomes,
        }
    }

    /// The only row whose name begins and ends like this.
    fn find<'a>(rows: &'a [Row], start: &str, end: &str) -> &'a Row {
        let is = |row: &&Row| row.case.contains(start) && row.case.ends_with(end);
        let mut found = rows.iter().filter(is);
        let row = found.next().expect("there is one");
        assert!(found.next().is_none(), "{start}…{end} is not one row");
        row
    }

    #[test]
    fn speed_is_a_share_of_the_direct_ways() {
        let rows = samples(10, &[(Proxy::Bascule, 980), (Proxy::Nftables, 900)]).rows();
        let ours = find(
            &rows,
            "16 at a time, 1/s",
            "pod, same node, ClusterIP: Bascule",
        );
        assert_eq!((ours.ratio(), ours.met()), (Some(0.98), Some(false)));
        let port = find(&rows, "16 at a time, 1/s", "backend on that node: Bascule");
        assert_eq!((port.ratio(), port.met()), (Some(0.98), Some(true)));
    }

    #[test]
    fn ours_must_be_ahead_of_every_peer_that_was_measured() {
        let rows = samples(10, &[(Proxy::Host, 900), (Proxy::Iptables, 901)]).rows();
        let beside: Vec<&Row> = rows
            .iter()
            .filter(|r| r.case.contains("side by side"))
            .collect();
        assert_eq!(beside.len(), Cell::SERVED.len());
        assert!(beside.iter().all(|row| row.met() == Some(false)));
    }

    #[test]
    fn cpu_time_is_compared_with_kube_proxys() {
        let rows = samples(10, &[(Proxy::Bascule, 1000), (Proxy::Nftables, 500)]).rows();
        let row = find(&rows, "CPU", "backend on the other node: Bascule");
        assert_eq!((row.ratio(), row.met()), (Some(0.5), Some(true)));
    }

    #[test]
    fn more_services_may_cost_a_fiftieth() {
        let few = samples(10, &[(Proxy::Bascule, 1000)]);
        let many = samples(10_000, &[(Proxy::Bascule, 970)]);
        let rows = many.growth(&few);
        assert_eq!(rows.len(), Cell::SERVED.len());
        assert!(rows.iter().all(|row| row.met() == Some(false)), "{rows:?}");
        assert!(rows[0].case.starts_with("10,000 services: "), "{rows:?}");
    }
}
