//! The proxy of Ingresses beside nginx and haproxy: what a request costs, handshakes, latency,
//! memory, and the routing table by itself.
//!
//! The proxies have one CPU, with one thread each, and the load has another, with the upstream.
//! They have turns in rounds, so that what the machine does besides meets all of them.

mod load;
mod programs;
mod proxies;
mod rows;
mod table;
mod usage;
mod world;

use anyhow::{Error, Result};

use self::load::Load;
use self::programs::Programs;
use self::proxies::Proxy;
use self::rows::{Figure, Samples};
use self::world::World;
use super::stats::Row;
use super::{Plan, isolate, machine};
use crate::build::cargo;
use crate::setup::Unfit;
use crate::ui;

/// Suite of these rows.
const SUITE: &str = "l7";
/// Seconds of a turn: CPU time is counted in ticks of 10 ms.
const SECONDS: u32 = 3;

/// Measures all rows of this suite. An error that came later is returned beside the rows.
///
/// # Errors
/// There are too few CPUs, or something does not compile.
pub(super) fn measure(plan: &Plan) -> Result<(Vec<Row>, Option<Error>)> {
    if machine::cpus()?.len() < 2 {
        return Err(Unfit::new(
            "the proxies and their load need a CPU each, and this process has one: give it two",
        )
        .into());
    }
    cargo("build")
        .args(["--release", "--package", "lb-userspace", "--bin", "bascule"])
        .args(["--package", "bascule-loadgen", "--bin", "loadgen"])
        .args(["--package", "lb-route", "--example", "table_scale"])
        .run()?;
    let mut rows = table::measure(plan)?;
    let mut loads = Load::ALL.to_vec();
    loads.retain(|load| plan.wants_case(SUITE, load.name()));
    if loads.is_empty() {
        return Ok((rows, None));
    }
    match beside(plan.clone(), loads) {
        Ok((samples, failed)) => {
            rows.splice(0..0, samples.rows());
            Ok((rows, failed))
        }
        Err(error) => Ok((rows, Some(error))),
    }
}

/// All rounds; those that were measured before an error count.
fn beside(plan: Plan, loads: Vec<Load>) -> Result<(Samples, Option<Error>)> {
    let programs = Programs::ensure()?;
    isolate::run(move |dir| {
        let mut world = World::start(dir, programs)?;
        let mut samples = Samples::default();
        let all = loads.into_iter();
        let failed = all.map(|load| rounds(&plan, &mut world, load, &mut samples));
        let failed = failed.collect::<Result<Vec<()>>>().err();
        Ok((samples, failed))
    })
}

/// The rounds of a load. Whoever begins one ends the next.
fn rounds(plan: &Plan, world: &mut World, load: Load, samples: &mut Samples) -> Result<()> {
    let seconds = (SECONDS / plan.divisor).max(1);
    let mut progress = ui::Progress::start(load.name());
    let count = Proxy::ALL.len();
    for round in 0..plan.reps as usize {
        let turns = (0..count).map(|n| Proxy::ALL[(n + round) % count]);
        let mut found = Vec::new();
        for proxy in turns {
            progress.tick(&format!("{}/{}: {}", round + 1, plan.reps, proxy.name()));
            let figures = turn(world, load, proxy, seconds)?;
            found.extend(figures.into_iter().map(|(figure, v)| (figure, proxy, v)));
        }
        // Of whole rounds only: samples at the same place are pairs.
        for (figure, proxy, value) in found {
            samples.add(load, figure, proxy, value);
        }
    }
    progress.end(true);
    Ok(())
}

fn turn(world: &mut World, load: Load, proxy: Proxy, seconds: u32) -> Result<Vec<(Figure, f64)>> {
    if load == Load::Idle {
        let [fresh, idle] = world.memory(proxy)?;
        return Ok(vec![(Figure::Fresh, fresh), (Figure::Memory, idle)]);
    }
    let turn = world.turn(proxy, load, seconds)?;
    let counted = &turn.counted;
    let requests = counted.requests as f64;
    let (each, latency) = (turn.cpu / requests, counted.latency);
    let speed = requests / counted.seconds;
    Ok(match load {
        Load::Handshakes => vec![
            (Figure::Handshakes, speed),
            (Figure::HandshakeCpu, each * 1e3),
        ],
        Load::Paced => vec![
            (Figure::Cpu, each * 1e6),
            (Figure::P50, latency.p50),
            (Figure::P99, latency.p99),
            (Figure::P999, latency.p999),
        ],
        _ => vec![(Figure::Cpu, each * 1e6), (Figure::Requests, speed)],
    })
}
