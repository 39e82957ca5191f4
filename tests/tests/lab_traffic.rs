//! The lab of `cargo xtask run` with the real agent: traffic through every kind of frontend,
//! the lines that it prints, and changes of the manifests while it is up.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bascule_tests::lab::{Leftovers, bascule, xtask};
use serde_json::Value;

fn run(arguments: &[&str]) -> Command {
    let mut command = Command::new(xtask());
    command
        .args(["run", "--bascule"])
        .arg(bascule())
        .args(arguments)
        .stdin(Stdio::null());
    command
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn every_frontend_answers_and_every_backend_gets_its_share() {
    let output = run(&["--once", "--json"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    let rows = report["rows"].as_array().unwrap();
    let bad: Vec<String> = rows
        .iter()
        .filter(|r| r["ok"] != true)
        .map(|r| {
            format!(
                "{} {} {}/{} from {}: {}",
                r["service"], r["kind"], r["target"], r["protocol"], r["from"], r["why"]
            )
        })
        .collect();
    assert!(
        bad.is_empty(),
        "{} of {} rows:\n{}\n{stderr}",
        bad.len(),
        rows.len(),
        bad.join("\n")
    );
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(report["ok"], true);
    every_kind_is_there(rows);
    // What TC translates is measured; 0 would be a clock that stood still.
    for row in rows
        .iter()
        .filter(|r| r["from"] == "pod-tc" && r["expect"] == "spread")
    {
        assert!(
            row["ns_per_packet"].as_u64().is_some_and(|ns| ns > 0),
            "{row}"
        );
    }
    Leftovers::assert_none();
}

fn every_kind_is_there(rows: &[Value]) {
    let is_there = |kind: &str, v6: bool, protocol: &str, from: &str| {
        rows.iter().any(|r| {
            r["kind"] == kind
                && text(&r["target"]).starts_with('[') == v6
                && r["protocol"] == protocol
                && r["from"] == from
                && r["expect"] == "spread"
                && r["connections"].as_u64() == Some(240)
                && r["backends"].as_object().is_some_and(|b| b.len() > 1)
        })
    };
    for kind in ["ClusterIP", "NodePort", "external IP", "LoadBalancer IP"] {
        for from in ["pod", "pod-tc", "node", "outside"] {
            for (v6, protocol) in [(false, "tcp"), (false, "udp"), (true, "tcp"), (true, "udp")] {
                let reachable = kind != "ClusterIP" || from != "outside";
                assert_eq!(
                    is_there(kind, v6, protocol, from),
                    reachable,
                    "{kind} IPv6={v6} {protocol} from {from}"
                );
            }
        }
    }
}

/// Two hosts by the proxy, in both families: by HTTP, by TLS with a path that is rewritten, and
/// from HTTP to there. The pods are told of the client outside, and each Service's answer.
#[test]
fn ingresses_answer_behind_a_service_that_agents_serve() {
    let dir = tempfile::tempdir().unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for file in ["nodes.yaml", "web.yaml", "external-ip.yaml"] {
        fs::copy(examples.join(file), dir.path().join(file)).unwrap();
    }
    let manifests = dir.path().to_str().unwrap();
    let words = ["--once", "--json", "--l7", "--connections", "48"];
    let output = run(&[&words[..], &["--manifests", manifests]].concat())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    assert_eq!(output.status.code(), Some(0), "{report:#}{stderr}");
    let rows = report["rows"].as_array().unwrap();
    let row = |url: &str, target: &str| {
        let found = rows
            .iter()
            .find(|r| r["url"] == url && r["target"] == target);
        found.unwrap_or_else(|| panic!("{url} by {target}: {report:#}"))
    };
    let clients = ["172.31.0.100", "fd00:31::100"];
    for (balancer, client) in ["203.0.113.90", "[2001:db8:113::90]"].iter().zip(clients) {
        for (url, port, pods) in [
            ("http://shop.test/", 80, 3),
            ("http://shop.test/api", 80, 2),
            ("https://blog.test/blog", 443, 3),
        ] {
            let row = row(url, &format!("{balancer}:{port}"));
            assert_eq!(row["kind"], "Ingress");
            assert_eq!(row["connections"], 48, "{row}");
            assert_eq!(row["backends"].as_object().unwrap().len(), pods, "{row}");
            assert_eq!(row["clients"].as_array().unwrap(), &[client], "{row}");
        }
        let led = row("http://blog.test/blog", &format!("{balancer}:80"));
        assert_eq!(led["expect"], "redirected");
        assert_eq!(led["errors"]["redirected"], 48, "{led}");
    }
    Leftovers::assert_none();
}

/// A lab that stays up.
struct Live {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Live {
    fn start(manifests: &Path) -> Self {
        let manifests = manifests.to_str().unwrap();
        let mut child = run(&["--manifests", manifests, "--connections", "48"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The lines up to the one with `end`.
    fn read_to(&mut self, end: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let mut line = String::new();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "it ended without {end:?}: {all:#?}"
            );
            all.push(line.trim_end().to_owned());
            if line.contains(end) {
                return all;
            }
        }
    }

    fn end(mut self) {
        // SAFETY: a system call without memory, on a child that has not been waited for.
        unsafe { libc::kill(i32::try_from(self.child.id()).unwrap(), libc::SIGINT) };
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SAFETY: as above. SIGTERM lets it clean up after a test that failed.
            unsafe {
                libc::kill(
                    i32::try_from(self.child.id()).unwrap_or(i32::MAX),
                    libc::SIGTERM,
                )
            };
            let _ = self.child.wait();
        }
    }
}

fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "`{line}`: {}{text}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// The pods that answer a curl line of the hints.
fn who_answers(line: &str) -> BTreeSet<String> {
    let answer = |_| text(&serde_json::from_str::<Value>(&sh(line)).unwrap()["pod"]).to_owned();
    (0..40).map(answer).collect()
}

fn copy_examples(to: &Path) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let paths = fs::read_dir(examples).unwrap().map(|e| e.unwrap().path());
    for path in paths.filter(|path| path.is_file()) {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn set_ready(manifest: &Path, pods: [&str; 2], ready: bool) {
    let mut text = fs::read_to_string(manifest).unwrap();
    for pod in pods {
        let at = text.find(pod).unwrap();
        let condition = at + text[at..].find("ready: ").unwrap();
        let end = condition + text[condition..].find('}').unwrap();
        text.replace_range(condition..end, &format!("ready: {ready}"));
    }
    fs::write(manifest, text).unwrap();
}

#[test]
fn printed_lines_work_and_changes_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    copy_examples(dir.path());
    let mut lab = Live::start(dir.path());
    let printed = lab.read_to("Ctrl-C takes everything down");
    let start = printed
        .iter()
        .position(|l| l.starts_with("Try in another terminal"))
        .unwrap();
    let lines: Vec<&str> = printed[start..]
        .iter()
        .filter_map(|l| l.strip_prefix("  "))
        .filter(|l| !l.starts_with('#'))
        .collect();
    assert!(lines.len() >= 10, "{printed:#?}");
    for line in &lines {
        let said = sh(line);
        assert!(!said.trim().is_empty(), "`{line}` says nothing");
        assert_eq!(
            line.contains("curl"),
            said.starts_with("{\"pod\":"),
            "`{line}`: {said}"
        );
    }
    changes_are_followed(&mut lab, dir.path());
    lab.end();
    Leftovers::assert_none();
}

fn changes_are_followed(lab: &mut Live, dir: &Path) {
    let curl = "ip netns exec bascule-lab-n1-c curl -gs http://10.96.0.10/";
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|n| (*n).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(who_answers(curl), names(&["n1-a", "n2-a", "n3-a"]));
    let web = dir.join("web.yaml");
    set_ready(&web, ["[10.244.2.2]", "fd00:10:244:2::2"], false);
    lab.read_to("the manifests changed: default/web");
    until(&|| who_answers(curl) == names(&["n1-a", "n3-a"]));
    // Half a manifest, as an editor may leave it: said, and nothing changes.
    let whole = fs::read_to_string(&web).unwrap();
    fs::write(&web, "kind: Service\nmetadata: [").unwrap();
    lab.read_to("the lab goes on with what it had");
    assert_eq!(who_answers(curl), names(&["n1-a", "n3-a"]));
    fs::write(&web, whole).unwrap();
    set_ready(&web, ["[10.244.2.2]", "fd00:10:244:2::2"], true);
    until(&|| who_answers(curl) == names(&["n1-a", "n2-a", "n3-a"]));
}

fn until(done: &dyn Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "the change did not arrive");
        std::thread::sleep(Duration::from_millis(100));
    }
}
