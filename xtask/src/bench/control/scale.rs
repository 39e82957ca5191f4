//! The agent and kube-proxy by turns, on a real API server that gets more and more services.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::super::Plan;
use super::super::isolate;
use super::super::stats::Row;
use super::SUITE;
use super::net::{self, Cgroup};
use super::proxy::{Kind, Means};
use super::rows::{self, Samples};
use super::server::Server;
use super::session::{self, Scene, Times};
use crate::setup::Unfit;
use crate::{cluster, paths, ui};

/// Services of the clusters.
pub(super) const SIZES: [u32; 3] = [1_000, 10_000, 44_000];
/// More repetitions do not make these figures better.
const REPETITIONS: u32 = 5;
/// Of kube-proxy with 10,000 services: each takes two minutes.
const SLOW: u32 = 2;
/// Seconds that kube-proxy in iptables mode gets.
const LIMIT: u64 = 120;

/// Rows, and what is to be said of them.
#[derive(Default)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) notes: Vec<String>,
}

/// Measures all sizes: what could be measured, and why not the rest.
///
/// # Errors
/// Namespaces cannot be made.
pub(super) fn measure(plan: &Plan) -> Result<(Report, Option<anyhow::Error>)> {
    let sizes = sizes(plan);
    if sizes.is_empty() {
        return Ok((Report::default(), None));
    }
    let programs = match programs() {
        Ok(programs) => programs,
        Err(error) => return Ok((Report::default(), Some(error))),
    };
    let plan = plan.clone();
    isolate::run(move |dir| {
        let mut report = Report::default();
        let failed = all_sizes(&plan, &programs, dir, &mut report).err();
        Ok((report, failed))
    })
}

/// Whether rows with an API server alone are asked for.
pub(super) fn is_meant(plan: &Plan) -> bool {
    !plan.services.is_empty() || !plan.case.is_empty() && !sizes(plan).is_empty()
}

/// The sizes that are asked for, the smallest first: services are only added.
fn sizes(plan: &Plan) -> Vec<u32> {
    let mut sizes = match (plan.services.is_empty(), plan.divisor > 1) {
        (true, true) => SIZES[..1].to_vec(),
        (true, false) => SIZES.to_vec(),
        (false, _) => plan.services.clone(),
    };
    sizes.sort_unstable();
    sizes.dedup();
    let asked = |n: &u32| rows::names(*n).any(|name| plan.wants_case(SUITE, &name));
    sizes.retain(asked);
    sizes
}

/// The directory of kube-apiserver, etcd and kube-proxy.
fn programs() -> Result<PathBuf> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if cpus < 2 {
        let why =
            format!("an API server, a proxy and clients need 2 CPUs at least, and there is {cpus}");
        return Err(Unfit::new(why).into());
    }
    cluster::ensure_api().context("kube-apiserver, etcd and kube-proxy cannot be had")
}

fn all_sizes(plan: &Plan, programs: &Path, dir: &Path, report: &mut Report) -> Result<()> {
    net::prepare()?;
    let release = paths::root().join("target/release");
    let cgroup = Cgroup::make(&dir.join("cgroup"))?;
    let mut server = Server::start(programs, &release.join("bench_api"), dir)?;
    let kubeconfig = server.kubeconfig().to_owned();
    for services in sizes(plan) {
        server.api.fill(services)?;
        let means = Means {
            services,
            kube_proxy: programs.join("kube-proxy"),
            kubeconfig: &kubeconfig,
            cgroup: &cgroup,
            dir,
        };
        let mut scene = Scene {
            server: &mut server,
            means: &means,
            loadgen: &release.join("loadgen"),
        };
        let mut samples = Samples::new();
        let done = by_turns(plan, &mut scene, services, &mut samples);
        let rows = rows::rows(services, &samples).into_iter();
        let asked = rows.filter(|row| plan.wants_case(SUITE, &row.case));
        report.rows.extend(asked);
        done.with_context(|| format!("with {services} services"))?;
        report.notes.extend(iptables(plan, &mut scene, services));
    }
    Ok(())
}

/// The proxies in turn, each first in every second repetition.
fn by_turns(
    plan: &Plan,
    scene: &mut Scene<'_>,
    services: u32,
    samples: &mut Samples,
) -> Result<()> {
    let repetitions = plan.reps.min(REPETITIONS);
    for repetition in 0..repetitions {
        let mut turns: Vec<Kind> = [Kind::Bascule, Kind::Nftables, Kind::Iptables]
            .into_iter()
            .filter(|kind| repetition < most(*kind, services))
            .collect();
        if repetition % 2 == 1 {
            turns.reverse();
        }
        for kind in turns {
            let turn = format!("{}/{repetitions}", repetition + 1);
            let progress =
                ui::Progress::start(&format!("{} with {services} services, {turn}", kind.name()));
            let times = times(plan, kind, services);
            let figures = match kind {
                Kind::Iptables => session::start_only(scene, kind, times),
                _ => session::run(scene, kind, times),
            };
            progress.end(figures.is_ok());
            let figures = figures.with_context(|| kind.name())?;
            samples.entry(kind).or_default().push(figures);
        }
    }
    Ok(())
}

/// How often a proxy is measured with so many services.
fn most(kind: Kind, services: u32) -> u32 {
    match (kind, services) {
        (Kind::Bascule, _) | (_, 0..=1_000) => u32::MAX,
        (Kind::Nftables, 1_001..=10_000) => SLOW,
        // kube-proxy would need minutes for a change.
        _ => 0,
    }
}

fn times(plan: &Plan, kind: Kind, services: u32) -> Times {
    let quick = plan.divisor > 1;
    let large = services > 1_000;
    let (changes, restart) = match (kind, large) {
        (Kind::Bascule, _) => (
            if quick { 2.0 } else { 8.0 },
            3.0 + f64::from(services) / 8_000.0,
        ),
        (_, false) => (if quick { 3.0 } else { 12.0 }, 4.0),
        // A restart was seen to take 30 to 41 s.
        (_, true) => (12.0, 60.0),
    };
    Times {
        start: 180,
        change: 60,
        changes,
        restart,
        churn: match kind {
            Kind::Bascule if quick => 1.0,
            Kind::Bascule => 12.0,
            _ => 0.0,
        },
    }
}

/// Whether kube-proxy in iptables mode gets anywhere with 10,000 services.
fn iptables(plan: &Plan, scene: &mut Scene<'_>, services: u32) -> Option<String> {
    if services != 10_000 || plan.divisor > 1 {
        return None;
    }
    let times = Times {
        start: LIMIT,
        ..times(plan, Kind::Iptables, services)
    };
    let took = session::start_only(scene, Kind::Iptables, times).map(|f| f[&rows::Figure::Cold]);
    let became = match took {
        Ok(seconds) => format!("gave the first right answer after {seconds:.0} s"),
        Err(_) => format!("gave no right answer within {LIMIT} s"),
    };
    Some(format!(
        "control: kube-proxy in iptables mode, with 10,000 services: {became} (tried once)"
    ))
}
