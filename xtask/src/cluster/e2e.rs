//! Kubernetes' own tests, run against a cluster, and what they say.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::apiserver_pod::ApiserverPod;
use super::process::{Place, command, output};
use super::tools;
use super::topology::{admin, state};
use crate::ui::{self, Colour, paint};

/// What the tests leave out unless asked: slow ones, those that harm the cluster or must be
/// alone, and those that need a cloud's load balancer.
const SKIP: &str = r"\[Slow\]|\[Disruptive\]|\[Serial\]|\[Feature:.*LoadBalancer.*\]";

/// What to test.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Regular expression of the tests to run
    #[arg(default_value = r"\[sig-network\] Services")]
    focus: String,
    /// Regular expression of the tests to leave out
    #[arg(long, default_value = SKIP)]
    skip: String,
    /// Tests at the same time
    #[arg(long, default_value_t = 6)]
    procs: u16,
    /// Test this cluster, from where this command runs
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Let a pod stand for the API server: the test that deletes it has the server restarted
    #[arg(long, conflicts_with = "kubeconfig")]
    apiserver_pod: bool,
    /// Where reports go [default: target/cluster-e2e]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Minutes until the run is given up
    #[arg(long, default_value_t = 60)]
    timeout: u32,
}

impl Args {
    /// Whether the cluster is not the one that `up` makes.
    pub(crate) fn is_foreign(&self) -> bool {
        self.kubeconfig.is_some()
    }
}

/// Runs the tests; the exit status is 0 only if some ran and none failed. The last line is
/// `N passed, N failed`, as that of `cargo xtask test`.
///
/// # Errors
/// The suite cannot be built or started.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    tools::ensure_suite()?;
    let report = args
        .report
        .clone()
        .unwrap_or_else(|| state().with_file_name("cluster-e2e"));
    fs::create_dir_all(&report).with_context(|| format!("cannot make {}", report.display()))?;
    let report = report
        .canonicalize()
        .with_context(|| format!("cannot find {}", report.display()))?;
    let json = report.join("report.json");
    let _ = fs::remove_file(&json);
    let start = Instant::now();
    let pod = args.apiserver_pod.then(ApiserverPod::start).transpose()?;
    let status = watch(ginkgo(args, &report)?, &report.join("output.txt"));
    if let Some(pod) = pod {
        ui::say(format!("restarts of the API server: {}", pod.end()?));
    }
    let status = status?;
    if !json.is_file() {
        ui::error(format!("the tests ended with {status} and wrote no report"));
        return Ok(ExitCode::FAILURE);
    }
    let text =
        fs::read_to_string(&json).with_context(|| format!("cannot read {}", json.display()))?;
    let report = serde_json::from_str(&text)
        .with_context(|| format!("cannot understand {}", json.display()))?;
    let tally = Tally::of(&report);
    ui::say(tally.text());
    ui::say(format!("the tests took {}", ui::duration(start.elapsed())));
    println!("{} passed, {} failed", tally.passed, tally.failed.len());
    Ok(if status.success() && tally.good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs ginkgo, shows what it prints, and keeps it in a file.
fn watch(mut command: Command, file: &Path) -> Result<ExitStatus> {
    let mut log = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start ginkgo")?;
    let mut output = child.stdout.take().context("ginkgo has no output")?;
    let mut filter = Filter::default();
    let mut bytes = [0; 4096];
    loop {
        let count = output
            .read(&mut bytes)
            .context("cannot read ginkgo's output")?;
        if count == 0 {
            break;
        }
        log.write_all(&bytes[..count])
            .with_context(|| format!("cannot write {}", file.display()))?;
        // A terminal that is gone must not end the tests.
        let _ = std::io::stderr().write_all(&filter.pass(&bytes[..count]));
    }
    child.wait().context("cannot wait for ginkgo")
}

/// Drops the letter S, which ginkgo prints for each of the thousands of tests that are left
/// out, from lines of such marks.
#[derive(Default)]
struct Filter {
    /// Whether the line has something else than marks.
    text: bool,
    /// An S that may be the first letter of a text.
    held: bool,
}

impl Filter {
    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut kept = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            match byte {
                b'\n' => self.text = false,
                b'S' if !self.text => {
                    self.held = true;
                    continue;
                }
                // The marks of tests that ran are no letters.
                _ if byte.is_ascii() && !self.text => {
                    self.text = true;
                    if self.held {
                        kept.push(b'S');
                    }
                }
                _ => {}
            }
            self.held = false;
            kept.push(byte);
        }
        kept
    }
}

fn ginkgo(args: &Args, report: &Path) -> Result<Command> {
    let program = tools::suite("ginkgo");
    let (mut command, kubeconfig) = match &args.kubeconfig {
        Some(given) => {
            let file = given
                .canonicalize()
                .with_context(|| format!("cannot find {}", given.display()))?;
            (Command::new(program), file)
        }
        None => (command(Place::Control, program)?, admin()),
    };
    let nodes = count_nodes(args, &kubeconfig)?;
    command
        .current_dir(report)
        .arg(format!("--focus={}", args.focus))
        .arg(format!("--skip={}", args.skip))
        .arg(format!("--timeout={}m", args.timeout))
        .arg(format!("--procs={}", args.procs))
        .arg("--no-color")
        .arg(format!("--output-dir={}", report.display()))
        .arg("--json-report=report.json")
        .arg(tools::suite("e2e.test"))
        .arg("--")
        // No cloud: nothing is asked about it.
        .arg("--provider=skeleton")
        .arg(format!("--num-nodes={nodes}"))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!(
            "--kubectl-path={}",
            tools::suite("kubectl").display()
        ))
        .arg(format!("--report-dir={}", report.display()))
        .arg("--disable-log-dump");
    Ok(command)
}

/// Number of nodes: some tests ask whether there are enough before they count themselves.
fn count_nodes(args: &Args, kubeconfig: &Path) -> Result<usize> {
    let program = tools::suite("kubectl");
    let mut kubectl = match args.is_foreign() {
        true => Command::new(program),
        false => command(Place::Control, program)?,
    };
    kubectl.env("KUBECONFIG", kubeconfig).args([
        "get",
        "nodes",
        "--no-headers",
        "--request-timeout=20s",
    ]);
    Ok(output(kubectl)?.lines().count())
}

/// The tests of a report that ran, by how they ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    /// Left out by the test itself, with its reason.
    skipped: BTreeMap<String, String>,
    /// With the first line of what was wrong.
    failed: BTreeMap<String, String>,
}

impl Tally {
    /// Reads ginkgo's report (<https://pkg.go.dev/github.com/onsi/ginkgo/v2/types#Report>).
    fn of(report: &Value) -> Self {
        let mut tally = Self::default();
        let suites = report.as_array().into_iter().flatten();
        for spec in suites.flat_map(|s| s["SpecReports"].as_array()).flatten() {
            tally.add(spec);
        }
        tally
    }

    fn add(&mut self, spec: &Value) {
        let message = spec["Failure"]["Message"].as_str().unwrap_or_default();
        let first = message
            .lines()
            .find(|l| !l.trim().is_empty())
            .unwrap_or_default()
            .trim()
            .to_owned();
        let is_test = spec["LeafNodeType"] == "It";
        match spec["State"].as_str().unwrap_or_default() {
            "passed" if is_test => self.passed += 1,
            "failed" | "panicked" | "timedout" | "interrupted" | "aborted" => {
                self.failed.insert(name(spec), first);
            }
            // Those that the focus left out have no message.
            "skipped" if is_test && !first.is_empty() => {
                self.skipped.insert(name(spec), first);
            }
            _ => {}
        }
    }

    fn good(&self) -> bool {
        self.passed > 0 && self.failed.is_empty()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, why) in &self.skipped {
            text.push_str(&format!(
                "{} {name}\n          {why}\n",
                paint(Colour::Yellow, "skipped")
            ));
        }
        for (name, why) in &self.failed {
            text.push_str(&format!(
                "{} {name}\n          {why}\n",
                paint(Colour::Red, "FAILED ")
            ));
        }
        text + &format!("{} tests skipped themselves", self.skipped.len())
    }
}

/// A test's full name.
fn name(spec: &Value) -> String {
    let containers = spec["ContainerHierarchyTexts"]
        .as_array()
        .into_iter()
        .flatten();
    let mut words: Vec<_> = containers.filter_map(Value::as_str).collect();
    words.extend(spec["LeafNodeText"].as_str());
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_is_counted_by_how_tests_ended() {
        let spec = |leaf: &str, kind: &str, state: &str, message: &str| {
            json!({"ContainerHierarchyTexts": ["Services"], "LeafNodeText": leaf, "LeafNodeType": kind,
                   "State": state, "Failure": {"Message": message}})
        };
        let report = json!([{"SpecReports": [
            spec("one", "It", "passed", ""),
            spec("two", "It", "failed", "\n  unreachable\nmore"),
            spec("three", "It", "skipped", ""),
            spec("four", "It", "skipped", "needs a cloud"),
            spec("", "SynchronizedBeforeSuite", "passed", ""),
        ]}]);
        let tally = Tally::of(&report);
        assert_eq!(tally.passed, 1);
        assert_eq!(
            tally.failed,
            [("Services two".to_owned(), "unreachable".to_owned())].into()
        );
        assert_eq!(
            tally.skipped,
            [("Services four".to_owned(), "needs a cloud".to_owned())].into()
        );
        assert!(!tally.good());
    }

    #[test]
    fn marks_of_tests_that_were_left_out_are_not_shown() {
        let mut filter = Filter::default();
        let shown = [
            &b"Running Specs\nSSS\xe2\x80"[..],
            b"\xa2SS\xe2\x80\xa2",
            b"\nSSS\nSummary SS\n",
        ]
        .map(|part| filter.pass(part))
        .concat();
        assert_eq!(
            String::from_utf8(shown).unwrap(),
            "Running Specs\n••\n\nSummary SS\n"
        );
    }

    #[test]
    fn a_run_without_a_test_is_no_success() {
        assert!(!Tally::of(&json!([])).good());
    }
}
