//! `cargo xtask test`: builds everything once, then runs every test program by itself.
//!
//! Cargo only builds here. Running the programs ourselves keeps one set of features for all of
//! them (a `cargo test` of fewer packages would compile dependencies again), orders them, and
//! puts a limit on their time.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use crate::build::cargo;
use crate::chromium;
use crate::cluster::{ensure_api, ensure_oauth2_proxy};
use crate::prometheus;
use crate::setup::{self, Need};
use crate::sh::Sh;
use crate::tally::{Outcome, Tally};
use crate::ui::{self, Colour, paint};

/// Minutes that one test program may take before it is ended: it hangs.
const LIMIT_MINUTES: u32 = 25;
/// Names the directory of kube-apiserver, etcd and kube-proxy, as for other tests against an API server.
const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// Names the directory of prometheus and promtool.
const PROMETHEUS: &str = "PROMETHEUS_DIR";
/// Names the directory of chromium.
const CHROMIUM: &str = "CHROMIUM_DIR";
/// Names the directory of oauth2-proxy.
const OAUTH2_PROXY: &str = "OAUTH2_PROXY_DIR";
/// The package whose tests need root, a kernel or a cluster.
const KERNEL_PACKAGE: &str = "bascule-tests";

/// What to test.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The last line is `N passed, N failed`.\n\nExamples:\n  cargo xtask test                 # everything; needs \
                        root\n  cargo xtask test pure            # what needs no privilege\n  cargo xtask test vectors netns\n  \
                        cargo xtask test pure -- maglev  # only tests whose name has `maglev`"
)]
pub(crate) struct Args {
    /// Which tests; all if none is named
    #[arg(value_enum)]
    groups: Vec<Group>,
    /// Arguments of every test program: a part of a test's name, `--nocapture`, …
    #[arg(last = true)]
    pass: Vec<String>,
}

/// Tests with the same needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Group {
    /// Without privilege: units, properties, golden files
    Pure,
    /// Packet vectors, on the host and in the kernel (root)
    Vectors,
    /// Maps, programs and traffic in network namespaces (root)
    Netns,
    /// Against a real Kubernetes API server (root)
    Api,
}

impl Group {
    /// Programs of [`KERNEL_PACKAGE`] are told apart by the beginning of their names.
    fn of(package: &str, target: &str) -> Self {
        if package != KERNEL_PACKAGE {
            Self::Pure
        } else if target.starts_with("vector") {
            Self::Vectors
        } else if target.starts_with("api") || target.starts_with("e2e_api") {
            Self::Api
        } else {
            Self::Netns
        }
    }

    /// Load and timing are part of these tests, so that they do not run side by side.
    const fn is_serial(self) -> bool {
        matches!(self, Self::Netns | Self::Api)
    }
}

/// A test program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Program {
    group: Group,
    package: String,
    target: String,
    /// Directory that cargo would run it in.
    dir: PathBuf,
    executable: PathBuf,
}

/// The subcommand.
///
/// # Errors
/// Something does not build, or the machine lacks what the tests need. A failed test is a
/// status of 1.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let wanted = |g: Group| args.groups.is_empty() || args.groups.contains(&g);
    let kernel = [Group::Vectors, Group::Netns, Group::Api]
        .into_iter()
        .any(wanted);
    let need = if kernel { Need::Kernel } else { Need::Build };
    let nightly = setup::ensure(need).map_err(|e| match e.downcast::<setup::Unfit>() {
        Ok(unfit) => unfit
            .or("`cargo xtask test pure` runs what needs no kernel")
            .into(),
        Err(e) => e,
    })?;
    crate::build::bpf(&nightly)?;
    let mut tally = Tally::default();
    let start = Instant::now();
    let mut places = Vec::new();
    // Tests of the drop-in surface start an API server too.
    if wanted(Group::Netns) || wanted(Group::Api) {
        places.push((ASSETS, given(ASSETS).map_or_else(ensure_api, Ok)?));
    }
    if wanted(Group::Netns) {
        let dir = given(PROMETHEUS).map_or_else(prometheus::ensure, Ok)?;
        places.push((PROMETHEUS, dir));
        let dir = given(CHROMIUM).map_or_else(chromium::ensure, Ok)?;
        places.push((CHROMIUM, dir));
        let dir = given(OAUTH2_PROXY).map_or_else(ensure_oauth2_proxy, Ok)?;
        places.push((OAUTH2_PROXY, dir));
    }
    for program in programs()?.iter().filter(|p| wanted(p.group)) {
        run_one(program, (&args.pass, &places), &mut tally)?;
    }
    if wanted(Group::Pure) {
        doc_tests(&args.pass, &mut tally)?;
    }
    Ok(finish(&tally, start))
}

/// A directory of programs that the user names.
fn given(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// Builds all test programs, and the agent that some of them start.
fn programs() -> Result<Vec<Program>> {
    let sh = cargo("build").args([
        "--workspace",
        "--exclude",
        "lb-ebpf",
        "--all-targets",
        "--message-format=json-render-diagnostics",
    ]);
    let mut programs: Vec<_> = sh
        .run_and_read()?
        .lines()
        .filter_map(parse_artifact)
        .collect();
    programs.sort();
    Ok(programs)
}

/// A test program in cargo's messages (<https://doc.rust-lang.org/cargo/reference/external-tools.html>).
fn parse_artifact(line: &str) -> Option<Program> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let is_bench = message["target"]["kind"]
        .as_array()?
        .iter()
        .any(|k| k == "bench");
    if !is_test || is_bench {
        return None;
    }
    let dir = PathBuf::from(message["manifest_path"].as_str()?)
        .parent()?
        .to_path_buf();
    let package = package_name(message["package_id"].as_str()?);
    let target = message["target"]["name"].as_str()?.to_owned();
    let group = Group::of(&package, &target);
    Some(Program {
        group,
        package,
        target,
        dir,
        executable: message["executable"].as_str()?.into(),
    })
}

/// `path+file:///x/tests#bascule-tests@0.1.0` or `path+file:///x/lb-plan#0.1.0`.
fn package_name(id: &str) -> String {
    let (url, fragment) = id.split_once('#').unwrap_or((id, ""));
    let name = fragment.split_once('@').map(|(name, _)| name);
    name.or(url.rsplit('/').next())
        .unwrap_or_default()
        .to_owned()
}

fn run_one(
    program: &Program,
    (pass, places): (&[String], &[(&str, PathBuf)]),
    tally: &mut Tally,
) -> Result<()> {
    let name = format!("{} {}", program.package, program.target);
    let mut sh = Sh::new("timeout")
        .args(["--kill-after=10", &format!("{LIMIT_MINUTES}m")])
        .arg(&program.executable)
        .args(pass)
        .env("CARGO_MANIFEST_DIR", &program.dir)
        .dir(&program.dir);
    for (variable, dir) in places {
        sh = sh.env(variable, dir);
    }
    if program.group.is_serial() {
        sh = sh.arg("--test-threads=1");
    }
    watch(&name, sh, tally)
}

fn doc_tests(pass: &[String], tally: &mut Tally) -> Result<()> {
    let sh = cargo("test")
        .args([
            "--workspace",
            "--exclude",
            "lb-ebpf",
            "--doc",
            "--no-fail-fast",
            "--quiet",
            "--",
        ])
        .args(pass);
    watch("documentation", sh, tally)
}

/// Runs a program, shows what it says, and counts its tests.
fn watch(name: &str, sh: Sh, tally: &mut Tally) -> Result<()> {
    ui::say(paint(Colour::Dim, &format!("── {name}")));
    let mut outcome = Outcome::default();
    let status = sh.each_line(|line| {
        if let Some(line) = line {
            println!("{line}");
            outcome.read(line);
        }
    })?;
    if status.code() == Some(124) {
        ui::error(format!("{name} was ended after {LIMIT_MINUTES} minutes"));
    }
    tally.add(name, outcome, status.success());
    Ok(())
}

/// The summary is the last line of all, so that a failure says nothing after it.
fn finish(tally: &Tally, start: Instant) -> ExitCode {
    for failure in &tally.failures {
        ui::say(format!("{} {failure}", paint(Colour::Red, "FAILED")));
    }
    if tally.failed == 0 && !tally.is_good() {
        ui::error("no test may be ignored, and at least one must run");
    }
    ui::say(format!("tests took {}", ui::duration(start.elapsed())));
    println!("{tally}");
    ExitCode::from(u8::from(!tally.is_good()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_from_names() {
        assert_eq!(Group::of("lb-plan", "lb_plan"), Group::Pure);
        assert_eq!(Group::of("lb-plan", "api"), Group::Pure);
        assert_eq!(Group::of(KERNEL_PACKAGE, "vectors_tcp"), Group::Vectors);
        assert_eq!(Group::of(KERNEL_PACKAGE, "api_server"), Group::Api);
        assert_eq!(Group::of(KERNEL_PACKAGE, "e2e_api"), Group::Api);
        assert_eq!(Group::of(KERNEL_PACKAGE, "e2e_restart"), Group::Netns);
        assert_eq!(Group::of(KERNEL_PACKAGE, "bpf_load"), Group::Netns);
        assert_eq!(Group::of(KERNEL_PACKAGE, "bascule_tests"), Group::Netns);
    }

    #[test]
    fn a_package_id_has_its_name_in_either_place() {
        assert_eq!(
            package_name("path+file:///x/tests#bascule-tests@0.1.0"),
            "bascule-tests"
        );
        assert_eq!(package_name("path+file:///x/lb-plan#0.1.0"), "lb-plan");
    }

    #[test]
    fn only_test_programs_are_run() {
        let line = |test: bool, kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///x/lb-plan#0.1.0","manifest_path":"/x/lb-plan/Cargo.toml","target":{{"kind":["{kind}"],"name":"lb_plan"}},"profile":{{"test":{test}}},"executable":"/x/target/lb_plan-1"}}"#
            )
        };
        let program = parse_artifact(&line(true, "lib")).unwrap();
        assert_eq!(
            (program.group, program.dir),
            (Group::Pure, PathBuf::from("/x/lb-plan"))
        );
        assert_eq!(parse_artifact(&line(false, "bin")), None);
        assert_eq!(parse_artifact(&line(true, "bench")), None);
        assert_eq!(
            parse_artifact(r#"{"reason":"build-finished","success":true}"#),
            None
        );
    }
}
