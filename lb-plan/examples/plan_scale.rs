//! How long planning takes at scale: `cargo run --release -p lb-plan --example
//! plan_scale [SERVICES [ENDPOINTS]]`, by default 10,000 services with 10
//! endpoints each. Wall-clock times of one core; memory as the kernel counts it.

mod scale;

use std::{collections::HashMap, env, fs, time::Instant};

use lb_common::{Backend, Frontend, FrontendKey};
use lb_plan::{
    Actual, Limits, Planner,
    model::{EndpointSlice, Service},
    op::Op,
    plan_service,
};

fn main() {
    let mut args = env::args().skip(1).map(|a| a.parse().expect("a number"));
    let services: u32 = args.next().unwrap_or(10_000);
    let endpoints: u32 = args.next().unwrap_or(10);
    let node = scale::view();
    let input = scale::cluster(services, endpoints);
    let before = resident();

    let start = Instant::now();
    let plans: Vec<_> = input
        .iter()
        .map(|(s, e)| plan_service(s, &[e], &node))
        .collect();
    println!("plan_service x {services}: {:?}", start.elapsed());

    let start = Instant::now();
    let mut planner = Planner::new(Limits::default());
    plans.into_iter().for_each(|plan| planner.upsert(plan));
    planner.finish_sync();
    let (mut ops, mut slots) = (0, 0);
    while planner.has_pending() {
        let batch = planner.take_batch();
        ops += batch.ops.len();
        slots += batch.ops.iter().map(slots_of).sum::<usize>();
    }
    println!(
        "planner, all at once: {:?}, {ops} writes, {slots} slots",
        start.elapsed()
    );
    println!(
        "problems: {}, {:?}",
        planner.problems().len(),
        planner.usage()
    );
    println!(
        "planner's memory: {} KiB",
        resident().saturating_sub(before)
    );

    one_change(&mut planner, &input, endpoints);
    drop(planner);
    restart(&input);
    maglev_table(1000);
}

/// What one endpoint's change costs, its new table included.
fn one_change(planner: &mut Planner, input: &[(Service, EndpointSlice)], endpoints: u32) {
    let (node, services) = (scale::view(), input.len() as u32);
    let mut times: Vec<_> = (0..1000u32)
        .map(|n| {
            let (i, changed) = scale::change(n, services, endpoints);
            let start = Instant::now();
            planner.upsert(plan_service(&input[i as usize].0, &[&changed], &node));
            let batch = planner.take_batch();
            let time = start.elapsed();
            assert!(!batch.ops.is_empty());
            planner.tick(u64::from(n));
            time
        })
        .collect();
    times.sort_unstable();
    println!(
        "one endpoint's change: median {:?}, 99th percentile {:?}, max {:?}",
        times[500], times[990], times[999]
    );
}

fn maglev_table(backends: u32) {
    let mut built: Vec<_> = (0..20).map(|_| scale::maglev_table(backends)).collect();
    built.sort_unstable();
    let ((size, median), (_, max)) = (built[10], built[19]);
    println!("maglev table of {backends} backends, {size} slots: median {median:?}, max {max:?}");
}

/// What it costs to start from full maps: nothing must be written.
fn restart(input: &[(Service, EndpointSlice)]) {
    let node = scale::view();
    let plans = || input.iter().map(|(s, e)| plan_service(s, &[e], &node));
    let mut planner = Planner::new(Limits::default());
    plans().for_each(|plan| planner.upsert(plan));
    planner.finish_sync();
    let mut frontends: HashMap<FrontendKey, Frontend> = HashMap::new();
    let mut backends: HashMap<u32, Backend> = HashMap::new();
    let mut array = vec![0; Limits::default().slots as usize];
    let mut filter = vec![0u64; lb_common::limits::FILTER_WORDS as usize];
    while planner.has_pending() {
        for op in planner.take_batch().ops {
            match op {
                Op::PutFrontend { key, value } => drop(frontends.insert(key, value)),
                Op::PutBackend { id, backend } => drop(backends.insert(id, backend)),
                Op::SetFilterBit(bit) => filter[bit as usize / 64] |= 1 << (bit % 64),
                Op::PutSlots { start, slots } => {
                    array[start as usize..start as usize + slots.len()].copy_from_slice(&slots);
                }
                _ => {}
            }
        }
    }
    let actual = Actual {
        frontends: frontends.into_iter().collect(),
        backends: backends.into_iter().collect(),
        slots: Box::new(array),
        filter,
        ..Actual::default()
    };
    let start = Instant::now();
    let mut planner = Planner::restore(Limits::default(), actual);
    let restored = start.elapsed();
    plans().for_each(|plan| planner.upsert(plan));
    planner.finish_sync();
    let mut ops = 0;
    while planner.has_pending() {
        ops += planner.take_batch().ops.len();
    }
    println!(
        "restart: restored in {restored:?}, all in {:?}, {ops} writes",
        start.elapsed()
    );
}

fn slots_of(op: &Op) -> usize {
    match op {
        Op::PutSlots { slots, .. } => slots.len(),
        _ => 0,
    }
}

/// Resident memory in KiB, or 0 where /proc does not tell.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0)
}
