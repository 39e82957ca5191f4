//! Rows of the datapath: every case after its reference, again and again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use lb_common::ServiceCounter;

use super::cases::{self, Case, Effect, Flows, Reference};
use super::frame::{self, Frame};
use super::kernel::{Hook, Kernel, Program, Runs};
use super::stats::{Row, Spread, Target};
use super::{Plan, isolate, machine, world};
use crate::{paths, ui};

/// Service ids that the world gives out at most.
const SERVICES: u32 = 16;
/// Programs, their suites, and the most instructions that the verifier may go through: some 10 %
/// more than it did. The kernel refuses a program at a million.
const BUDGETS: [(&str, &str, f64); 4] = [
    ("xdp", "lb_xdp", 210_000.0),
    ("tc", "lb_up_ingress", 220_000.0),
    ("tc", "lb_pod_ingress", 250_000.0),
    ("tc", "lb_up_egress", 110_000.0),
];
/// Runs of a reference.
const REFERENCE: u32 = 1 << 20;

/// Measures every case of the suites that the plan names.
///
/// # Errors
/// The programs cannot be loaded, or do not what their row says.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let plan = plan.clone();
    isolate::run(move |_| in_namespace(&plan))
}

fn in_namespace(plan: &Plan) -> Result<Vec<Row>> {
    world::network()?;
    let cpu = machine::pin()?;
    let mut kernel = Kernel::load(&plan.object, &paths::bench_object())?;
    let cases: Vec<Case> = cases::all()
        .into_iter()
        .filter(|case| plan.wants_case(case.suite(), case.name))
        .collect();
    let mut table = Table::new(&cases);
    let mut progress = ui::Progress::start(&format!("{} rows on CPU {cpu}", cases.len()));
    for repetition in 1..=plan.reps {
        for (case, row) in cases.iter().zip(&mut table.rows) {
            progress.tick(&format!("{repetition}/{}: {}", plan.reps, case.name));
            let (reference, ns) = once(&mut kernel, case, plan)
                .with_context(|| format!("{}: {}", case.suite(), case.name))?;
            row.add(ns, reference);
            let key = (case.hook == Hook::Tc, case.frame.is_v6(), case.reference);
            table.references.entry(key).or_default().push(reference);
        }
        table.end_repetition();
    }
    progress.end(true);
    let mut rows = table.finish();
    rows.extend(budgets(plan, &kernel)?);
    // The rows of a suite stand together.
    rows.sort_by_key(|row| row.suite != "xdp");
    Ok(rows)
}

/// What the verifier went through.
fn budgets(plan: &Plan, kernel: &Kernel) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (suite, program, budget) in BUDGETS {
        let mut row = Row::new(suite, format!("verified, {program}"), "instructions");
        if plan.wants_case(suite, &row.case) {
            row.samples = vec![f64::from(kernel.verified(program)?)];
            row.target = Some(Target::AtMost(budget));
            rows.push(row);
        }
    }
    Ok(rows)
}

/// One repetition of a case: nanoseconds a run of its reference, then its own.
fn once(kernel: &mut Kernel, case: &Case, plan: &Plan) -> Result<(f64, f64)> {
    let runs = case.runs / plan.divisor;
    kernel.forget_flows()?;
    if case.known == Flows::Known {
        open(kernel, case)?;
    }
    let reference = Program::Bench(match (case.hook, case.reference) {
        (Hook::Xdp, Reference::Floor) => "xdp_floor",
        (Hook::Xdp, Reference::Empty) => "xdp_empty",
        (Hook::Tc, Reference::Floor) => "tc_floor",
        (Hook::Tc, Reference::Empty) => "tc_empty",
    });
    let flows = (case.flows, REFERENCE / plan.divisor);
    let reference = kernel.run(case.hook, reference, &case.frame, flows)?;
    let before = kernel.carried(SERVICES)?;
    let program = Program::Datapath(case.program);
    let result = kernel.run(case.hook, program, &case.frame, (case.flows, runs))?;
    let after = kernel.carried(SERVICES)?;
    if plan.checked {
        check(case, runs, &result, &difference(&before, &after))?;
    }
    Ok((reference.ns, result.ns))
}

/// Opens the case's flows, and meets each once more, so that every cache has what it can hold.
fn open(kernel: &mut Kernel, case: &Case) -> Result<()> {
    let service = case.service.context("known flows need a service")?;
    let forward = Frame {
        server: service.frontend(),
        reply: false,
        ..case.frame
    };
    let program = match case.effect {
        Effect::Reply => Program::Datapath("lb_up_ingress"),
        _ => Program::Datapath(case.program),
    };
    kernel.run(case.hook, program, &forward, (case.flows, case.flows))?;
    let program = Program::Datapath(case.program);
    kernel.run(case.hook, program, &case.frame, (case.flows, case.flows))?;
    Ok(())
}

fn difference(before: &ServiceCounter, after: &ServiceCounter) -> (u64, u64) {
    (
        after.packets - before.packets,
        after.connections - before.connections,
    )
}

/// Whether the program did what the row says: a fast program that does nothing
/// is no result.
fn check(case: &Case, runs: u32, result: &Runs, carried: &(u64, u64)) -> Result<()> {
    let runs = u64::from(runs);
    let expected = match case.known {
        Flows::None => (0, 0),
        Flows::New => (runs, runs),
        Flows::Known => (runs, 0),
    };
    ensure!(
        *carried == expected,
        "{runs} runs: (packets, connections) of the services are {carried:?} and should be {expected:?}"
    );
    let verdict = verdict(case.hook, case.effect);
    ensure!(
        result.verdict == verdict,
        "the program returned {} and should return {verdict}",
        result.verdict as i32
    );
    let right = match case.effect {
        Effect::Pass => {
            frame::destination(&result.frame) == frame::destination(&case.frame.bytes()?)
        }
        Effect::ToLocal => is_backend(case, &result.frame),
        Effect::ToRemote => is_backend(case, &result.frame) && is_node(&result.frame),
        Effect::Reply => frame::source(&result.frame) == case.service.map(world::Service::frontend),
        Effect::Refused => frame::source(&result.frame) == Some(case.frame.server),
    };
    ensure!(
        right,
        "the frame left from {:?} to {:?}, which is not where it should go",
        frame::source(&result.frame),
        frame::destination(&result.frame)
    );
    Ok(())
}

fn is_backend(case: &Case, bytes: &[u8]) -> bool {
    frame::destination(bytes).is_some_and(|(addr, port)| {
        port == world::BACKEND_PORT && case.service.is_some_and(|s| s.has(addr))
    })
}

fn is_node(bytes: &[u8]) -> bool {
    frame::source(bytes).is_some_and(|(addr, _)| world::NODE.map(world::ip).contains(&addr))
}

/// What a program returns: `enum xdp_action`, or TC_ACT_* where TC_ACT_UNSPEC hands
/// the packet on.
fn verdict(hook: Hook, effect: Effect) -> u32 {
    const XDP_PASS: u32 = 2;
    const XDP_TX: u32 = 3;
    const XDP_REDIRECT: u32 = 4;
    const TC_ACT_UNSPEC: u32 = u32::MAX;
    const TC_ACT_REDIRECT: u32 = 7;
    match (hook, effect) {
        (Hook::Xdp, Effect::Pass | Effect::ToLocal | Effect::Reply) => XDP_PASS,
        (Hook::Xdp, Effect::ToRemote) => XDP_REDIRECT,
        (Hook::Xdp, Effect::Refused) => XDP_TX,
        (Hook::Tc, Effect::Pass | Effect::ToLocal | Effect::Reply) => TC_ACT_UNSPEC,
        (Hook::Tc, Effect::ToRemote | Effect::Refused) => TC_ACT_REDIRECT,
    }
}

/// Hook (TC or not), family (IPv6 or not) and kind of a reference.
type ReferenceKey = (bool, bool, Reference);

/// The rows, and those of the references.
struct Table {
    rows: Vec<Row>,
    references: BTreeMap<ReferenceKey, Vec<f64>>,
    reference_rows: BTreeMap<ReferenceKey, Row>,
}

impl Table {
    fn new(cases: &[Case]) -> Self {
        let row = |case: &Case| {
            let mut row = Row::new(case.suite(), case.name, "ns");
            let kind = match case.reference {
                Reference::Floor => "floor",
                Reference::Empty => "empty",
            };
            row.reference = Some((kind.to_owned(), Vec::new()));
            row.target = case.target.map(Target::AtMost);
            row
        };
        Self {
            rows: cases.iter().map(row).collect(),
            references: BTreeMap::new(),
            reference_rows: BTreeMap::new(),
        }
    }

    /// A reference was measured once for each case; its sample is their median.
    fn end_repetition(&mut self) {
        for (key, samples) in std::mem::take(&mut self.references) {
            let row = self.reference_rows.entry(key).or_insert_with(|| {
                let (tc, v6, reference) = key;
                let family = if v6 { "IPv6" } else { "IPv4" };
                let name = match reference {
                    Reference::Floor => format!("floor: swap link addresses, transmit, {family}"),
                    Reference::Empty => format!("empty: return at once, {family}"),
                };
                Row::new(if tc { "tc" } else { "xdp" }, name, "ns")
            });
            row.samples.extend(Spread::of(&samples).map(|s| s.median));
        }
    }

    fn finish(self) -> Vec<Row> {
        let mut out = Vec::new();
        for suite in ["xdp", "tc"] {
            let of_suite = |row: &&Row| row.suite == suite;
            out.extend(self.reference_rows.values().filter(of_suite).cloned());
            out.extend(self.rows.iter().filter(of_suite).cloned());
        }
        out
    }
}
