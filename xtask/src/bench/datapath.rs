//! Rows of the datapath: every case after its reference, again and again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::{Context as _, Result, ensure};
use lb_common::conntrack::BUCKET_SLOTS;
use lb_common::{ServiceCounter, limits};

use super::cases::{self, Case, Effect, Flows, Reference};
use super::frame::{self, Frame};
use super::kernel::{Hook, Kernel, Program, Runs};
use super::odd::{self, Odd, Sign};
use super::stats::{Row, Spread, Target};
use super::{Plan, isolate, machine, world};
use crate::{elf, paths, ui};

/// Service ids that the world gives out at most.
const SERVICES: u32 = 32;
/// Programs, their suites, and the most instructions that the verifier may go through: some 10 %
/// more than it did. The kernel refuses a program at a million.
const BUDGETS: [(&str, &str, f64); 4] = [
    ("xdp", "lb_xdp", 180_000.0),
    ("tc", "lb_up_ingress", 195_000.0),
    ("tc", "lb_pod_ingress", 218_000.0),
    ("tc", "lb_egress", 75_000.0),
];
/// Runs of a reference.
const REFERENCE: u32 = 1 << 20;
/// Runs of a program with a packet of another kind than a flow's. With conntrack full they must
/// be done before the flows in it are old enough to be given up.
const ODD: u32 = 1 << 18;

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
    let flows = cases::all().into_iter().map(Item::Flows);
    let items: Vec<Item> = flows
        .chain(odd::all().into_iter().map(Item::Odd))
        .filter(|item| plan.wants_case(item.suite(), item.name()))
        .collect();
    let mut kernels = Kernels::default();
    let mut table = Table::new(&items);
    let mut progress = ui::Progress::start(&format!("{} rows on CPU {cpu}", items.len()));
    for repetition in 1..=plan.reps {
        for (item, row) in items.iter().zip(&mut table.rows) {
            progress.tick(&format!("{repetition}/{}: {}", plan.reps, item.name()));
            let kernel = kernels.get(item.conntrack(), plan)?;
            let (reference, ns) = match item {
                Item::Flows(case) => once(kernel, case, plan),
                Item::Odd(odd) => once_odd(kernel, odd, plan),
            }
            .with_context(|| format!("{}: {}", item.suite(), item.name()))?;
            row.add(ns, reference);
            if let Some(key) = item.reference() {
                table.references.entry(key).or_default().push(reference);
            }
        }
        table.end_repetition();
    }
    progress.end(true);
    let mut rows = table.finish();
    rows.extend(budgets(plan, &mut kernels)?);
    // The rows of a suite stand together.
    rows.sort_by_key(|row| row.suite != "xdp");
    Ok(rows)
}

/// What a row is of.
enum Item {
    /// Packets of flows, of which there may be many.
    Flows(Case),
    /// One packet of another kind.
    Odd(Odd),
}

impl Item {
    fn hook(&self) -> Hook {
        match self {
            Self::Flows(case) => case.hook,
            Self::Odd(odd) => odd.hook,
        }
    }

    fn suite(&self) -> &'static str {
        match self.hook() {
            Hook::Xdp => "xdp",
            Hook::Tc => "tc",
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Flows(case) => case.name,
            Self::Odd(odd) => odd.name,
        }
    }

    /// Entries that conntrack has room for.
    fn conntrack(&self) -> u32 {
        match self {
            Self::Flows(case) if case.known == Flows::Known => {
                // Two for each flow, with as much room again.
                (4 * case.flows).max(limits::CONNTRACK)
            }
            Self::Flows(_) => limits::CONNTRACK,
            Self::Odd(_) => BUCKET_SLOTS,
        }
    }

    /// Whose row the reference's sample is for; none where it is the case itself.
    fn reference(&self) -> Option<ReferenceKey> {
        let tc = self.hook() == Hook::Tc;
        match self {
            Self::Flows(case) if case.watched.is_some() => None,
            Self::Flows(case) => Some((tc, case.frame.is_v6(), case.reference)),
            Self::Odd(_) => Some((tc, false, Reference::Whole)),
        }
    }

    fn target(&self) -> Option<f64> {
        match self {
            Self::Flows(case) => case.target,
            Self::Odd(_) => None,
        }
    }
}

/// The programs, once for each size of conntrack that a row needs.
#[derive(Default)]
struct Kernels(BTreeMap<u32, Kernel>);

impl Kernels {
    fn get(&mut self, conntrack: u32, plan: &Plan) -> Result<&mut Kernel> {
        match self.0.entry(conntrack) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(place) => {
                let kernel = Kernel::load(&plan.object, &paths::bench_object(), conntrack)?;
                Ok(place.insert(kernel))
            }
        }
    }
}

/// What the verifier went through, and the stack that it counts.
fn budgets(plan: &Plan, kernels: &mut Kernels) -> Result<Vec<Row>> {
    let kernel = kernels.get(limits::CONNTRACK, plan)?;
    let object = std::fs::read(&plan.object)
        .with_context(|| format!("cannot read {}", plan.object.display()))?;
    let mut rows = Vec::new();
    for (suite, program, budget) in BUDGETS {
        let mut row = Row::new(suite, format!("verified, {program}"), "instructions");
        if plan.wants_case(suite, &row.case) {
            row.samples = vec![f64::from(kernel.verified(program)?)];
            row.target = Some(Target::AtMost(budget));
            rows.push(row);
        }
        let mut row = Row::new(suite, format!("stack, {program}"), "bytes");
        if plan.wants_case(suite, &row.case) {
            row.samples = vec![elf::stack(&object, program)?.bytes as f64];
            row.target = Some(Target::AtMost(elf::STACK as f64));
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
    let reference = match case.watched {
        Some(_) => case.program(),
        None => case.reference.program(case.hook),
    };
    let flows = (case.flows, REFERENCE / plan.divisor);
    let reference = kernel.run(case.hook, reference, &case.frame, flows)?;
    let before = kernel.carried(SERVICES)?;
    kernel.watch(case.watched)?;
    let result = kernel.run(case.hook, case.program(), &case.frame, (case.flows, runs))?;
    kernel.watch(None)?;
    let after = kernel.carried(SERVICES)?;
    let (told, expected) = (kernel.told()?, case.watched.map_or(0, |w| w.events(runs)));
    ensure!(
        told == expected,
        "the monitor was told of {told} packets and should be of {expected}"
    );
    if plan.checked {
        check(case, runs, &result, &difference(&before, &after))?;
    }
    Ok((reference.ns, result.ns))
}

/// One repetition of a packet that is of no flow's usual kind, likewise.
fn once_odd(kernel: &mut Kernel, odd: &Odd, plan: &Plan) -> Result<(f64, f64)> {
    kernel.forget_flows()?;
    world::configure(kernel.maps(), &world::config())?;
    let frame = (odd.prepare)(kernel)?;
    let reference = Reference::Whole.program(odd.hook);
    let reference = kernel.run_whole(odd.hook, reference, &frame, REFERENCE / plan.divisor)?;
    let count = |kernel: &Kernel| match odd.sign {
        Sign::Counted(reason) => kernel.counted(reason),
        Sign::Carried => Ok(kernel.carried(SERVICES)?.packets),
    };
    let runs = ODD / plan.divisor;
    let before = count(kernel)?;
    let result = kernel.run_whole(odd.hook, Program::Datapath(odd.program), &frame, runs)?;
    let counted = count(kernel)? - before;
    if plan.checked {
        ensure!(
            counted == u64::from(runs),
            "{runs} runs, and {counted} of them were counted as {:?}",
            odd.sign
        );
        check_verdict(odd.hook, odd.effect, &result)?;
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
        _ => case.program(),
    };
    kernel.run(case.hook, program, &forward, (case.flows, case.flows))?;
    kernel.run(
        case.hook,
        case.program(),
        &case.frame,
        (case.flows, case.flows),
    )?;
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
    check_verdict(case.hook, case.effect, result)?;
    let right = match case.effect {
        Effect::Pass => {
            frame::destination(&result.frame) == frame::destination(&case.frame.bytes()?)
        }
        Effect::ToLocal => is_backend(case, &result.frame),
        Effect::ToRemote => is_backend(case, &result.frame) && is_node(&result.frame),
        Effect::Reply => frame::source(&result.frame) == case.service.map(world::Service::frontend),
        Effect::Refused => frame::source(&result.frame) == Some(case.frame.server),
        Effect::Dropped => true,
    };
    ensure!(
        right,
        "the frame left from {:?} to {:?}, which is not where it should go",
        frame::source(&result.frame),
        frame::destination(&result.frame)
    );
    Ok(())
}

fn check_verdict(hook: Hook, effect: Effect, result: &Runs) -> Result<()> {
    let verdict = verdict(hook, effect);
    ensure!(
        result.verdict == verdict,
        "the program returned {} and should return {}",
        result.verdict as i32,
        verdict as i32
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
    const XDP_DROP: u32 = 1;
    const XDP_PASS: u32 = 2;
    const XDP_TX: u32 = 3;
    const XDP_REDIRECT: u32 = 4;
    const TC_ACT_UNSPEC: u32 = u32::MAX;
    const TC_ACT_SHOT: u32 = 2;
    const TC_ACT_REDIRECT: u32 = 7;
    match (hook, effect) {
        (Hook::Xdp, Effect::Dropped) => XDP_DROP,
        (Hook::Tc, Effect::Dropped) => TC_ACT_SHOT,
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
    fn new(items: &[Item]) -> Self {
        let row = |item: &Item| {
            let mut row = Row::new(item.suite(), item.name(), "ns");
            let kind = match item.reference() {
                None => "established",
                Some((.., Reference::Empty)) => "empty",
                Some(_) => "floor",
            };
            row.reference = Some((kind.to_owned(), Vec::new()));
            row.target = item.target().map(Target::AtMost);
            row
        };
        Self {
            rows: items.iter().map(row).collect(),
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
                    Reference::Whole => "floor, of a frame that is written whole".to_owned(),
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
