//! The routing table of a large cluster by itself: the example `table_scale` of lb-route measures.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use super::SUITE;
use crate::bench::Plan;
use crate::bench::report::thousands;
use crate::bench::stats::{Row, Target};
use crate::paths;
use crate::sh::Sh;
use crate::ui;

/// Ingresses, each with two hosts of five paths.
const INGRESSES: u32 = 5000;

/// A sample that the example tells.
#[derive(Debug, Deserialize)]
struct Sample {
    case: String,
    unit: String,
    value: f64,
}

/// The cases that it tells, and what they must reach.
const CASES: [(&str, Option<Target>); 5] = [
    ("compile", Some(Target::AtMost(1.0))),
    ("memory", Some(Target::AtMost(300.0))),
    ("decision", None),
    ("change of one Ingress", Some(Target::AtMost(20.0))),
    ("change of a Service's endpoints", None),
];

fn name(case: &str) -> String {
    format!("{} Ingresses: {case}", thousands(INGRESSES))
}

/// Measures in as many processes as there are repetitions.
///
/// # Errors
/// The example fails.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let wanted = CASES.into_iter().map(|(case, target)| (name(case), target));
    let wanted = wanted.filter(|(case, _)| plan.wants_case(SUITE, case));
    let mut samples: Vec<_> = wanted.map(|wanted| (wanted, Vec::new())).collect();
    if samples.is_empty() {
        return Ok(Vec::new());
    }
    let mut units = BTreeMap::new();
    let mut progress = ui::Progress::start("the routing table");
    for repetition in 1..=plan.reps {
        progress.tick(&format!("{repetition}/{}", plan.reps));
        let program = paths::root().join("target/release/examples/table_scale");
        let text = Sh::new(program).arg(INGRESSES.to_string()).read()?;
        for line in text.lines() {
            let sample: Sample = serde_json::from_str(line)?;
            let case = name(&sample.case);
            let of_case = samples.iter_mut().find(|((wanted, _), _)| *wanted == case);
            if let Some((_, all)) = of_case {
                all.push(sample.value);
                units.insert(case, sample.unit);
            }
        }
    }
    progress.end(true);
    let row = |((case, target), samples): ((String, Option<Target>), Vec<f64>)| {
        let unit = units.get(&case).map_or("", String::as_str);
        let mut row = Row::new(SUITE, case.as_str(), unit);
        (row.samples, row.target) = (samples, target);
        row
    };
    Ok(samples.into_iter().map(row).collect())
}
