//! What the samples say: rows of speed, of CPU time, beside each peer, and by number of services.

use std::collections::BTreeMap;

use super::cell::{Cell, From, To};
use super::proxy::Proxy;
use crate::bench::loadgen::{Latency, Load, Mode, Outcome};
use crate::bench::report::thousands;
use crate::bench::stats::{Row, Spot, Target, ratios};

/// Suite of these rows.
pub(super) const SUITE: &str = "traffic";

/// Outcomes of one load with one number of services.
pub(super) struct Samples {
    /// Services that are programmed.
    pub(super) services: u32,
    /// The load.
    pub(super) load: Load,
    /// By proxy and way: the turns of each repetition. Those of one round are at the same place.
    pub(super) turns: BTreeMap<(Proxy, Cell), Vec<Vec<Outcome>>>,
}

/// What is taken of outcomes.
#[derive(Clone, Copy)]
enum Figure {
    /// Speed, of every turn.
    Speed,
    /// CPU time, of all turns of a repetition together: it is counted in ticks.
    Cpu,
    /// A latency, by its name.
    Latency(&'static str, fn(&Latency) -> f64),
}

/// Latencies at a rate.
const LATENCIES: [Figure; 3] = [
    Figure::Latency("p50", |l| l.p50),
    Figure::Latency("p99", |l| l.p99),
    Figure::Latency("p99.9", |l| l.p999),
];

impl Figure {
    /// Before the unit, in the heading of a table.
    fn name(self) -> String {
        match self {
            Self::Speed => String::new(),
            Self::Cpu => "CPU time, ".to_owned(),
            Self::Latency(name, _) => format!("{name}, "),
        }
    }

    fn unit(self, mode: Mode) -> &'static str {
        match self {
            Self::Speed => mode.unit(),
            Self::Cpu => mode.cpu_unit(),
            Self::Latency(..) => "us",
        }
    }

    fn of(self, outcome: &Outcome, mode: Mode) -> f64 {
        match self {
            Self::Speed => outcome.speed(mode),
            Self::Cpu => outcome.cpu(mode),
            Self::Latency(_, take) => take(&outcome.latency_us),
        }
    }
}

impl Samples {
    fn title(&self) -> String {
        format!(
            "{} services: {}",
            thousands(self.services),
            self.load.name()
        )
    }

    /// One of each turn or repetition, by a proxy.
    fn all(&self, figure: Figure, proxy: Proxy, cell: Cell) -> Option<Vec<f64>> {
        let repetitions = self.turns.get(&(proxy, cell))?.iter();
        let mode = self.load.mode;
        Some(match figure {
            Figure::Cpu => repetitions
                .map(|turns| figure.of(&Outcome::sum(turns.iter()), mode))
                .collect(),
            _ => repetitions
                .flatten()
                .map(|turn| figure.of(turn, mode))
                .collect(),
        })
    }

    /// Speeds as shares of those without a proxy.
    fn shares(&self, proxy: Proxy, cell: Cell) -> Option<Vec<f64>> {
        let of = |proxy| self.all(Figure::Speed, proxy, cell);
        Some(ratios(&of(proxy)?, &of(Proxy::None)?))
    }

    fn row(&self, what: &str, unit: &str, (line, column): (&str, &str), samples: Vec<f64>) -> Row {
        let table = format!("{}, {what}{unit}", self.title());
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
            let latencies = LATENCIES.into_iter();
            return latencies.flat_map(|f| self.against_direct(f)).collect();
        }
        let figures = [Figure::Speed, Figure::Cpu];
        let rows = |figure| [self.against_direct(figure), self.beside(figure)].concat();
        figures.into_iter().flat_map(rows).collect()
    }

    /// Each way and each proxy, to pods of nodes without one.
    fn against_direct(&self, figure: Figure) -> Vec<Row> {
        let mut rows = Vec::new();
        for (cell, proxy) in each(&Proxy::ALL) {
            let Some(samples) = self.all(figure, proxy, cell) else {
                continue;
            };
            let place = (cell.name(), proxy.name());
            let unit = figure.unit(self.load.mode);
            let mut row = self.row(&figure.name(), unit, place, samples);
            if proxy != Proxy::None {
                let direct = self.all(figure, Proxy::None, cell);
                row.reference = direct.map(|d| (Proxy::None.name().to_owned(), d));
            }
            if matches!(figure, Figure::Speed) && Proxy::OURS.contains(&proxy) {
                row.target = target(&self.load, cell, proxy);
            }
            rows.push(row);
        }
        rows
    }

    /// Ours beside each peer.
    fn beside(&self, figure: Figure) -> Vec<Row> {
        let mut rows = Vec::new();
        for (cell, ours) in each(&Proxy::OURS) {
            for peer in Proxy::PEERS {
                let of = |proxy| self.all(figure, proxy, cell);
                let (Some(own), Some(theirs)) = (of(ours), of(peer)) else {
                    continue;
                };
                let column = format!("{} : {}", ours.name(), peer.name());
                let what = format!("{}side by side, ", figure.name());
                let place = (cell.name(), column.as_str());
                let unit = figure.unit(self.load.mode);
                let mut row = self.row(&what, unit, place, own);
                row.reference = Some((peer.name().to_owned(), theirs));
                row.target = match figure {
                    Figure::Cpu => self.cpu_target(cell, peer),
                    _ => Some(Target::AtLeast(1.0)),
                };
                rows.push(row);
            }
        }
        rows
    }

    /// Most CPU time, of a peer's.
    fn cpu_target(&self, cell: Cell, peer: Proxy) -> Option<Target> {
        let main = self.load.mode == Mode::Crr && self.load.connections > 1;
        let judged = main && cell.to == To::NodePortElsewhere && peer == Proxy::Nftables;
        judged.then_some(Target::AtMost(0.88))
    }

    /// What more services do: the share of the speed without a proxy, to that with fewer services.
    pub(super) fn growth(&self, few: &Self) -> Vec<Row> {
        let all: Vec<Proxy> = [&Proxy::OURS[..], &Proxy::PEERS[..]].concat();
        let mut rows = Vec::new();
        for (cell, proxy) in each(&all) {
            let of = |samples: &Self| samples.shares(proxy, cell);
            let (Some(many), Some(before)) = (of(self), of(few)) else {
                continue;
            };
            let what = format!("beside {} services, ", few.services);
            let place = (cell.name(), proxy.name());
            let mut row = self.row(&what, "of no proxy's", place, many);
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
fn each(proxies: &[Proxy]) -> impl Iterator<Item = (Cell, Proxy)> {
    let each = |cell| proxies.iter().map(move |proxy| (cell, *proxy));
    Cell::SERVED.into_iter().flat_map(each)
}

/// Least share of the speed without a proxy.
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

    /// Two repetitions of two turns in which a proxy has so many transactions a second, and none
    /// has 1,000, on a machine that gets faster.
    fn samples(services: u32, speeds: &[(Proxy, u64)]) -> Samples {
        let outcome = |transactions| Outcome {
            transactions,
            seconds: 1.0,
            cpu_seconds: 1.0,
            ..Outcome::default()
        };
        let repetition = |speed: u64| [1, 2].map(|faster| outcome(speed * faster)).to_vec();
        let mut turns = BTreeMap::new();
        for cell in Cell::SERVED {
            for (proxy, speed) in speeds.iter().copied().chain([(Proxy::None, 1000)]) {
                turns.insert((proxy, cell), vec![repetition(speed); 2]);
            }
        }
        Samples {
            services,
            load: Load::closed(Mode::Crr, 16, 1.0),
            turns,
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
    fn speed_is_a_share_of_that_without_a_proxy() {
        let rows = samples(10, &[(Proxy::Bascule, 980), (Proxy::Nftables, 900)]).rows();
        let ours = find(
            &rows,
            "16 at a time, 1/s",
            "pod, same node, ClusterIP: Bascule",
        );
        assert_eq!((ours.ratio(), ours.met()), (Some(0.98), Some(false)));
        assert_eq!(ours.samples, [980.0, 1960.0, 980.0, 1960.0]);
        let port = find(&rows, "16 at a time, 1/s", "backend on that node: Bascule");
        assert_eq!((port.ratio(), port.met()), (Some(0.98), Some(true)));
    }

    #[test]
    fn ours_must_be_ahead_of_every_peer_that_was_measured() {
        let rows = samples(10, &[(Proxy::Host, 900), (Proxy::Iptables, 901)]).rows();
        let beside: Vec<&Row> = rows
            .iter()
            .filter(|r| r.case.contains("at a time, side by side"))
            .collect();
        assert_eq!(beside.len(), Cell::SERVED.len());
        assert!(beside.iter().all(|row| row.met() == Some(false)));
    }

    #[test]
    fn cpu_time_is_of_a_whole_repetition_and_compared_with_kube_proxys() {
        let rows = samples(10, &[(Proxy::Bascule, 1000), (Proxy::Nftables, 500)]).rows();
        let all = find(&rows, "CPU time, CPU", "backend on the other node: Bascule");
        // Two seconds for 1,000 and 2,000 transactions.
        assert_eq!((all.samples.len(), all.samples[0].round()), (2, 667.0));
        let row = find(
            &rows,
            "CPU time, side by side",
            "other node: Bascule : kube-proxy nftables",
        );
        assert_eq!((row.ratio(), row.met()), (Some(0.5), Some(true)));
    }

    #[test]
    fn more_services_may_cost_a_fiftieth() {
        let few = samples(10, &[(Proxy::Bascule, 1000)]);
        let many = samples(10_000, &[(Proxy::Bascule, 970)]);
        let rows = many.growth(&few);
        assert_eq!(rows.len(), Cell::SERVED.len());
        assert!(rows.iter().all(|row| row.met() == Some(false)));
        assert!(rows[0].case.starts_with("10,000 services: "), "{rows:?}");
    }
}
