//! `cargo xtask bench`: how fast it is, each figure as a ratio to something
//! that was measured beside it, so that it means the same on every machine.

mod api;
mod cases;
mod control;
mod datapath;
mod frame;
mod isolate;
mod kernel;
mod l7;
mod loadgen;
mod machine;
mod manifests;
mod matrix;
mod odd;
mod plot;
mod report;
mod stats;
mod sys;
mod traffic;
mod world;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Error, Result};
use clap::ValueEnum;

use crate::setup::{self, Need};
use crate::{paths, ui};
use stats::Row;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Needs root. The exit status is 0 when every row was measured, whether or not it reaches its target.\nThe \
                  suite traffic brings a cluster up, and removes it: after a run that was cut, `cargo xtask cluster down` does.\n\
                  \nExamples:\n  cargo xtask bench\n  cargo xtask bench --suite xdp --quick\n  cargo xtask bench --suite traffic --case \"16 at a time\" --services 10000\n  \
                  cargo xtask bench --json bench.json --markdown docs/benchmarks.md"
)]
pub(crate) struct Args {
    /// Which rows; all if none is named
    #[arg(long, value_enum)]
    suite: Vec<Suite>,
    /// Repetitions of each row
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    reps: u32,
    /// Fewer runs in each repetition: to see that all works, not to compare
    #[arg(long)]
    quick: bool,
    /// Measure this object's programs, and not those of the checkout: before and after a change
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    /// Do not check what the programs do: to find out what a part of one costs by leaving it out
    #[arg(long)]
    unchecked: bool,
    /// Only rows whose name has this text
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
    /// Services of the clusters of control and traffic, one for each size [default: 1000, 10000, and 44000 in control]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=44_000))]
    services: Vec<u32>,
    /// Write the rows as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the rows as SVG, a picture for each unit and table
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Write the rows as a page of Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Rows that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Suite {
    /// The XDP program, by BPF_PROG_TEST_RUN
    Xdp,
    /// The TC programs, by BPF_PROG_TEST_RUN
    Tc,
    /// The agent: programming at scale, changes, memory
    Control,
    /// Clients of services on a real cluster, beside kube-proxy and beside no service at all
    Traffic,
    /// The proxy of Ingresses, beside nginx and haproxy
    L7,
}

impl Suite {
    const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Control => "control",
            Self::Traffic => "traffic",
            Self::L7 => "l7",
        }
    }
}

/// What the suites need to know.
#[derive(Clone, Debug)]
struct Plan {
    suites: Vec<Suite>,
    reps: u32,
    /// Runs are divided by this.
    divisor: u32,
    /// The object with the datapath's programs.
    object: PathBuf,
    /// Check what the programs do.
    checked: bool,
    /// Part of the names of the rows to measure.
    case: String,
    /// Services of the clusters of the suites `control` and `traffic`.
    services: Vec<u32>,
}

impl Plan {
    fn wants(&self, suite: &str) -> bool {
        self.suites.is_empty() || self.suites.iter().any(|s| s.name() == suite)
    }

    /// Whether a row is asked for.
    fn wants_case(&self, suite: &str, name: &str) -> bool {
        self.wants(suite) && name.contains(&self.case)
    }
}

/// The subcommand.
///
/// # Errors
/// The machine lacks what is needed, something does not build, or a row could not be measured.
pub(crate) fn run(args: &Args) -> Result<()> {
    let nightly = setup::ensure(Need::Kernel)?;
    machine::check()?;
    crate::build::bpf(&nightly)?;
    let plan = Plan {
        suites: args.suite.clone(),
        reps: args.reps,
        divisor: if args.quick { 16 } else { 1 },
        object: args.object.clone().unwrap_or_else(paths::bpf_object),
        checked: !args.unchecked,
        case: args.case.clone().unwrap_or_default(),
        services: args.services.clone(),
    };
    let mut report = Report {
        notes: vec![machine::describe(), machine::versions()],
        rows: Vec::new(),
        failed: None,
    };
    for (names, measure) in SUITES {
        if names.iter().any(|name| plan.wants(name)) {
            measure(&plan, &mut report);
            // What was measured is kept, however the rest ends.
            write(args, &report)?;
        }
    }
    println!("{}", report::table(&report.rows));
    report.notes.iter().for_each(|note| println!("{note}"));
    report.failed.map_or(Ok(()), Err)
}

/// Measures what is told of together, and puts it into the report.
type Measure = fn(&Plan, &mut Report);

/// All of them, by the names of their suites, in the order in which they are measured.
const SUITES: [(&[&str], Measure); 4] = [
    (&["xdp", "tc"], datapath_rows),
    (&["control"], control_rows),
    (&["traffic"], traffic_rows),
    (&["l7"], l7_rows),
];

fn datapath_rows(plan: &Plan, report: &mut Report) {
    report.watch("datapath", |_| datapath::measure(plan));
}

fn control_rows(plan: &Plan, report: &mut Report) {
    report.watch("control", |report| {
        control::build()?;
        let measured = control::measure(plan, &mut report.notes);
        report.partial("control", measured)
    });
}

fn traffic_rows(plan: &Plan, report: &mut Report) {
    // The cluster's own processes are no children of this one: the suite looks itself.
    let measured = traffic::measure(plan, &mut report.notes);
    let measured = report.partial("traffic", measured);
    report.take("traffic", measured);
}

fn l7_rows(plan: &Plan, report: &mut Report) {
    report.watch("l7", |report| {
        let measured = l7::measure(plan);
        report.partial("l7", measured)
    });
}

/// What all suites have measured so far.
struct Report {
    notes: Vec<String>,
    rows: Vec<Row>,
    /// The first suite's error: the others are measured all the same.
    failed: Option<Error>,
}

impl Report {
    /// Measures some suites, and notes what else the machine did.
    fn watch(&mut self, what: &str, measure: impl FnOnce(&mut Self) -> Result<Vec<Row>>) {
        let (load, watch) = (machine::load_average(), machine::Watch::start());
        let measured = measure(self);
        let foreign = watch.end();
        self.take(what, measured);
        let mut note = format!(
            "{what}: load average {load} before, others kept {:.2} CPUs busy",
            foreign.cpus
        );
        if foreign.disturbs() {
            note.push_str(" (FOREIGN LOAD: read the minima)");
            ui::warn(format!("{what} was measured beside other work"));
        }
        self.notes.push(note);
    }

    /// The rows of a suite that could not measure all of them, whose error is told.
    fn partial(
        &mut self,
        what: &str,
        measured: Result<(Vec<Row>, Option<Error>)>,
    ) -> Result<Vec<Row>> {
        let (rows, failed) = measured?;
        if let Some(error) = failed {
            self.fail(what, error);
        }
        Ok(rows)
    }

    fn take(&mut self, what: &str, measured: Result<Vec<Row>>) {
        match measured {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => self.fail(what, error),
        }
    }

    fn fail(&mut self, what: &str, error: Error) {
        ui::error(format!("{what}: {error:#}"));
        self.notes.push(format!("{what}: not measured: {error:#}"));
        self.failed.get_or_insert(error);
    }
}

/// Writes the files that are asked for.
fn write(args: &Args, report: &Report) -> Result<()> {
    let Report { rows, notes, .. } = report;
    let write = |path: &PathBuf, text: String| {
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &args.json {
        write(path, report::json(rows)? + "\n")?;
    }
    if let Some(dir) = &args.plots {
        let files = plot::draw(rows, dir)?;
        ui::say(format!("{} pictures in {}", files.len(), dir.display()));
    }
    if let Some(path) = &args.markdown {
        write(path, report::markdown(rows, notes))?;
    }
    Ok(())
}
