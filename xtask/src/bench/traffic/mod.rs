//! What a service costs a client: transactions by a service beside the same without one, and
//! beside kube-proxy, on a real cluster.

mod cell;
mod fill;
mod proxy;
mod rows;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};

use self::cell::Cell;
use self::fill::Filler;
use self::proxy::Proxy;
use self::rows::{SUITE, Samples};
use self::world::World;
use super::loadgen::{Load, Mode, Outcome};
use super::machine::{Foreign, Watch};
use super::report::thousands;
use super::stats::Row;
use super::{Plan, control, machine};
use crate::setup::Unfit;
use crate::ui;

/// How long a proxy may take to serve.
const PATIENCE: Duration = Duration::from_secs(180);
/// Services of a small cluster.
const FEW: u32 = 10;
/// Services of larger ones.
const MANY: [u32; 2] = [1_000, 10_000];
/// Most services that kube-proxy in iptables mode programs in a time that can be waited for.
const MOST_IPTABLES: u32 = 1_000;
/// Most services that kube-proxy in nftables mode does, likewise.
const MOST: u32 = 10_000;
/// Seconds of a turn: the speed of a shared machine changes from one tenth of a second to the
/// next, and many short rounds tell more than few long ones.
const SECONDS: f64 = 0.025;
/// Rounds of a repetition, in each of which every proxy has a turn.
const ROUNDS: usize = 24;
/// Seconds at a rate: the slowest of a thousand are looked for.
const PACED: f64 = 1.0;
/// New connections a second of the rows of latency.
const RATE: u32 = 2000;
/// How long the machine is watched before a repetition.
const LOOK: Duration = Duration::from_millis(200);

/// Measures all rows of this suite; notes what else was seen. An error that came later is returned
/// beside the rows.
///
/// # Errors
/// There are too few CPUs, or the cluster does not come up.
pub(super) fn measure(plan: &Plan, notes: &mut Vec<String>) -> Result<(Vec<Row>, Option<Error>)> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if cpus < 2 {
        return Err(Unfit::new(
            "clients and servers need a CPU each, and this machine has one: use one with two",
        )
        .into());
    }
    control::build()?;
    let mut world = World::up()?;
    let closed = |mode, connections| Load::closed(mode, connections, SECONDS);
    let loads = [
        closed(Mode::Crr, 16),
        closed(Mode::Crr, 1),
        closed(Mode::Rr, 16),
        closed(Mode::Rr, 1),
        closed(Mode::Urr, 16),
        closed(Mode::Urr, 1),
        closed(Mode::Bulk, 1),
        Load::paced(RATE, PACED),
    ];
    let mut bench = Bench {
        plan,
        world: &mut world,
        notes,
        filler: None,
    };
    let asked = loads.iter().filter(|l| plan.wants_case(SUITE, &l.name()));
    let mut rows = Vec::new();
    let failed = bench.all(asked, &mut rows).err();
    Ok((rows, failed))
}

/// Numbers of services beyond those that are measured.
fn sizes(plan: &Plan) -> Vec<u32> {
    let mut sizes = match (plan.services.is_empty(), plan.divisor > 1) {
        (true, true) => Vec::new(),
        (true, false) => MANY.to_vec(),
        (false, _) => plan.services.clone(),
    };
    sizes.retain(|services| (FEW + 1..=MOST).contains(services));
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

struct Bench<'a> {
    plan: &'a Plan,
    world: &'a mut World,
    notes: &'a mut Vec<String>,
    filler: Option<Filler>,
}

impl Bench<'_> {
    /// Loads with few services, then with more.
    fn all<'a>(
        &mut self,
        loads: impl Iterator<Item = &'a Load>,
        rows: &mut Vec<Row>,
    ) -> Result<()> {
        let mut few = Vec::new();
        for load in loads {
            let samples = self.samples(FEW, load)?;
            rows.extend(samples.rows());
            few.push(samples);
        }
        for services in sizes(self.plan) {
            rows.extend(self.more(services, &few)?);
        }
        if self.plan.services.iter().any(|services| *services > MOST) {
            let most = thousands(MOST);
            self.notes.push(format!(
                "{SUITE}: nothing is measured with more than {most} services: kube-proxy needs many minutes for them"
            ));
        }
        Ok(())
    }

    /// The same with more services: of 16 at a time only, where a difference would be seen.
    fn more(&mut self, services: u32, few: &[Samples]) -> Result<Vec<Row>> {
        if services > MOST_IPTABLES {
            self.world.leave_out(Proxy::Iptables)?;
            self.notes.push(format!(
                "{SUITE}: {} is not measured with {services} services: it needs many minutes for them",
                Proxy::Iptables.name()
            ));
        }
        let filler = match &mut self.filler {
            Some(filler) => filler,
            none => none.insert(Filler::start()?),
        };
        let mark = filler.fill(services, self.world.pod())?;
        self.world.programmed(&mark)?;
        let mut rows = Vec::new();
        for few in few.iter().filter(|s| s.load.connections == 16) {
            let many = self.samples(services, &few.load)?;
            rows.extend(many.rows());
            rows.extend(many.growth(few));
        }
        Ok(rows)
    }

    /// All repetitions of a load.
    fn samples(&mut self, services: u32, load: &Load) -> Result<Samples> {
        let mut samples = Samples {
            services,
            load: load.clone(),
            turns: BTreeMap::new(),
        };
        let mut progress = ui::Progress::start(&format!("{services} services: {}", load.name()));
        let mut foreign = Vec::new();
        for repetition in 0..self.plan.reps as usize {
            foreign.push(look());
            for cell in Cell::SERVED {
                progress.tick(&format!(
                    "{}/{}: {}",
                    repetition + 1,
                    self.plan.reps,
                    cell.name()
                ));
                for (proxy, turns) in self.repetition(cell, load)? {
                    self.note_failures(load, proxy, cell, &turns);
                    samples.turns.entry((proxy, cell)).or_default().push(turns);
                }
            }
        }
        progress.end(true);
        self.note_load(load, &foreign);
        Ok(samples)
    }

    /// A repetition of a way: rounds in which every proxy has a turn. Whoever begins one ends the
    /// next, so that what the machine does besides, and what one leaves behind for the next,
    /// meets all alike.
    fn repetition(&mut self, cell: Cell, load: &Load) -> Result<BTreeMap<Proxy, Vec<Outcome>>> {
        // Percentiles need all transactions of one.
        let rounds = match load.rate {
            Some(_) => 1,
            None => (ROUNDS / self.plan.divisor as usize).max(1),
        };
        let count = self.world.pairs.len();
        let mut all: BTreeMap<Proxy, Vec<Outcome>> = BTreeMap::new();
        for round in 0..rounds {
            let mut turns: Vec<usize> = (0..count).map(|n| (n + round / 2) % count).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for pair in turns {
                let proxy = self.world.pairs[pair].proxy;
                let outcome = self
                    .world
                    .turn(pair, cell, load)
                    .with_context(|| format!("{}: {}", proxy.name(), cell.name()))?;
                all.entry(proxy).or_default().push(outcome);
            }
        }
        Ok(all)
    }

    fn note_failures(&mut self, load: &Load, proxy: Proxy, cell: Cell, turns: &[Outcome]) {
        let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, count) in turns.iter().flat_map(|outcome| &outcome.errors) {
            *errors.entry(kind).or_default() += count;
        }
        for (kind, count) in errors {
            self.notes.push(format!(
                "{SUITE}: {}, {}, {}: {count} x {kind}",
                load.name(),
                proxy.name(),
                cell.name()
            ));
        }
    }

    /// Notes what the machine did while nobody was asked for anything.
    fn note_load(&mut self, load: &Load, foreign: &[Foreign]) {
        let most = foreign.iter().map(|f| f.cpus).fold(0.0, f64::max);
        if most > 2.0 * machine::FOREIGN {
            self.notes.push(format!(
                "{SUITE}: {}: {most:.2} CPUs were busy between repetitions (FOREIGN LOAD: read the ratios)",
                load.name()
            ));
        }
    }
}

/// What the machine does while nobody is asked for anything: the cluster itself keeps some 0.15
/// CPUs busy.
fn look() -> Foreign {
    let watch = Watch::start();
    std::thread::sleep(LOOK);
    watch.end()
}
