//! The agent's parts by themselves, and the agent on files.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::super::isolate::{self, Running};
use super::super::stats::{Row, Target};
use super::super::{Plan, machine, manifests};
use super::{SUITE, mebibytes, spawn, until_synced};
use crate::{paths, ui};

/// Services of the cluster that is programmed.
const SERVICES: u32 = 10_000;
/// Endpoints of each.
const ENDPOINTS: u32 = 10;

/// Measures all of them.
///
/// # Errors
/// The agent or the example fails.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let plan = plan.clone();
    isolate::run(move |dir| {
        machine::pin()?;
        let mut rows = parts(&plan, dir)?;
        rows.extend(memory(&plan, dir)?);
        Ok(rows)
    })
}

/// A sample that the example tells.
#[derive(Debug, Deserialize)]
struct Sample {
    case: String,
    unit: String,
    value: f64,
}

/// What the agent's parts take, by themselves.
fn parts(plan: &Plan, dir: &Path) -> Result<Vec<Row>> {
    let services = SERVICES / plan.divisor;
    let program = paths::root().join("target/release/examples/program_scale");
    let sh = crate::sh::Sh::new(program)
        .arg(dir.join("bpf"))
        .args([plan.reps, services, ENDPOINTS].map(|n| n.to_string()));
    let mut rows: Vec<Row> = Vec::new();
    let mut progress = ui::Progress::start(&format!(
        "{services} services with {ENDPOINTS} endpoints each"
    ));
    let text = std::cell::RefCell::new(String::new());
    let status = sh.each_line(|line| {
        progress.tick(line.unwrap_or_default());
        if let Some(line) = line {
            text.borrow_mut().push_str(line);
            text.borrow_mut().push('\n');
        }
    });
    let ok = status.as_ref().is_ok_and(std::process::ExitStatus::success);
    progress.end(ok);
    let text = text.into_inner();
    ensure!(ok, "program_scale failed:\n{text}");
    for line in text.lines() {
        let sample: Sample = serde_json::from_str(line)
            .with_context(|| format!("program_scale wrote no sample: {line}"))?;
        add(&mut rows, &sample);
    }
    Ok(rows)
}

fn add(rows: &mut Vec<Row>, sample: &Sample) {
    let at = match rows.iter().position(|row| row.case == sample.case) {
        Some(at) => at,
        None => {
            let mut row = Row::new(SUITE, sample.case.clone(), &sample.unit);
            row.target = target(&sample.case);
            rows.push(row);
            rows.len() - 1
        }
    };
    rows[at].samples.push(sample.value);
}

/// What must be reached, in the unit of the samples.
fn target(case: &str) -> Option<Target> {
    let limit = match case {
        "planned state to maps" => 1000.0,
        "one endpoint's change, 99th percentile" => 5.0,
        "maglev table of 1,000 backends" => 30.0,
        _ => return None,
    };
    Some(Target::AtMost(limit))
}

/// Resident memory of the real agent, with everything programmed.
fn memory(plan: &Plan, dir: &Path) -> Result<Vec<Row>> {
    let source = dir.join("manifests");
    manifests::many(&source, SERVICES / plan.divisor, ENDPOINTS)?;
    let mut now = Row::new(SUITE, "agent's resident memory", "MiB");
    now.target = Some(Target::AtMost(150.0));
    now.by_max = true;
    let mut peak = Row::new(SUITE, "agent's resident memory, at its peak", "MiB");
    let mut start = Row::new(SUITE, "agent's start to all maps programmed", "s");
    let mut progress = ui::Progress::start("the agent's memory");
    for repetition in 1..=plan.reps {
        progress.tick(&format!("{repetition}/{}", plan.reps));
        let from = Instant::now();
        let state = dir.join("state");
        let mut agent = Running(spawn(&source, dir)?);
        until_synced(&mut agent, &state)?;
        start.samples.push(from.elapsed().as_secs_f64());
        // What was needed for the start only is given back by then, if ever.
        std::thread::sleep(Duration::from_secs(2));
        let status = fs::read_to_string(format!("/proc/{}/status", agent.0.id()))
            .context("the agent has ended")?;
        now.samples.push(mebibytes(&status, "VmRSS:")?);
        peak.samples.push(mebibytes(&status, "VmHWM:")?);
        drop(agent);
        for path in [dir.join("bpf/bascule"), state] {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    progress.end(true);
    Ok(vec![now, peak, start])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_case_are_one_row() {
        let mut rows = Vec::new();
        for (case, value) in [
            ("planned state to maps", 400.0),
            ("other", 1.0),
            ("planned state to maps", 500.0),
        ] {
            let sample = Sample {
                case: case.to_owned(),
                unit: "ms".to_owned(),
                value,
            };
            add(&mut rows, &sample);
        }
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].samples, [400.0, 500.0]);
        assert_eq!((rows[0].met(), rows[1].met()), (Some(true), None));
    }
}
