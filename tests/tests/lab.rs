//! The lab of `cargo xtask run`, as a user runs it: that it comes up, says what is wrong,
//! and leaves nothing behind however it ends. (What it says of a working agent is in
//! `lab_traffic.rs`.)

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bascule_tests::lab::{Leftovers, xtask};

/// An agent that is only as good as its script.
struct FakeAgent {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl FakeAgent {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bascule");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { _dir: dir, path }
    }

    /// Says that it serves, and does nothing.
    fn idle() -> Self {
        let xtask = xtask();
        Self::new(&format!(
            "exec {} lab-serve --name idle --http 10256 --udp 10256",
            xtask.display()
        ))
    }

    /// Never says that it serves.
    fn mute() -> Self {
        Self::new("exec sleep 600")
    }

    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(xtask());
        command
            .arg("run")
            .arg("--bascule")
            .arg(&self.path)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn start(&self) -> Child {
        let child = self
            .run(&[])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The agents are the last that is started.
        wait_for("the agents", || agents_run(&self.path) == 3);
        child
    }
}

fn agents_run(path: &Path) -> usize {
    let name = path.as_os_str().as_encoded_bytes();
    let is_agent = |cmdline: &[u8]| {
        cmdline.windows(name.len()).any(|w| w == name) || cmdline.starts_with(b"sleep\x00600\x00")
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let in_lab = processes.filter(|p| {
        let cgroup = fs::read_to_string(p.path().join("cgroup")).unwrap_or_default();
        let cmdline = fs::read(p.path().join("cmdline")).unwrap_or_default();
        cgroup.contains("bascule-lab/") && is_agent(&cmdline)
    });
    in_lab.count()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn signal(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: a system call without memory, on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[test]
fn a_lab_whose_frontends_do_not_answer_fails_and_leaves_nothing() {
    let manifests = tempfile::tempdir().unwrap();
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/web.yaml");
    fs::copy(web, manifests.path().join("web.yaml")).unwrap();
    let dir = manifests.path().to_str().unwrap();
    let output = FakeAgent::idle()
        .run(&["--once", "--connections", "4", "--manifests", dir])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(text.contains("not as they should be"), "{text}");
    assert!(
        text.contains("✗ default/web ClusterIP 10.96.0.10:80/tcp from pod:"),
        "{text}"
    );
    assert!(
        text.contains("4 of 4 connections failed: 4 unreachable"),
        "{text}"
    );
    Leftovers::assert_none();
}

#[test]
fn an_agent_that_ends_is_shown_with_the_end_of_its_log() {
    let agent = FakeAgent::new("echo the map is made of cheese; exit 7");
    let output = agent.run(&["--once"]).output().unwrap();
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("the agent of n1 ended (exit status: 7)"),
        "{error}"
    );
    assert!(error.contains("| the map is made of cheese"), "{error}");
    Leftovers::assert_none();
}

#[test]
fn a_proxy_that_ends_is_told_in_a_line_with_what_to_do() {
    let xtask = xtask();
    let agent = FakeAgent::new(&format!(
        "[ \"$1\" = proxy ] && {{ echo the table is made of cheese; exit 7; }}\n\
         exec {} lab-serve --name idle --http 10256 --udp 10256",
        xtask.display()
    ));
    let output = agent.run(&["--once", "--l7"]).output().unwrap();
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let line = error
        .lines()
        .find(|line| line.contains("the proxy in pod n2-c"));
    let line = line.unwrap_or_else(|| panic!("{error}"));
    assert!(line.contains("ended (exit status: 7)"), "{line}");
    assert!(line.contains("run the lab without --l7"), "{line}");
    assert!(error.contains("| the table is made of cheese"), "{error}");
    Leftovers::assert_none();
}

#[test]
fn ctrl_c_and_sigterm_take_everything_down() {
    for signo in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let agent = FakeAgent::mute();
        let mut child = agent.start();
        assert!(!Leftovers::find().is_empty(), "the lab is up and not seen");
        signal(&child, signo);
        let status = child.wait().unwrap();
        assert!(
            status.code().is_some(),
            "signal {signo} ended the lab without its clean-up: {status}"
        );
        Leftovers::assert_none();
    }
}

#[test]
fn a_second_lab_is_refused_and_does_not_disturb_the_first() {
    let agent = FakeAgent::mute();
    let mut first = agent.start();
    let second = agent.run(&["--once"]).output().unwrap();
    let error = stderr(&second);
    assert_eq!(second.status.code(), Some(1), "{error}");
    assert!(
        error.contains("a lab runs already on this machine"),
        "{error}"
    );
    assert_eq!(agents_run(&agent.path), 3);
    signal(&first, libc::SIGTERM);
    first.wait().unwrap();
    Leftovers::assert_none();
}

#[test]
fn what_a_killed_lab_left_is_cleared_away_by_the_next() {
    let agent = FakeAgent::mute();
    let mut child = agent.start();
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the processes of the killed lab to follow it", || {
        agents_run(&agent.path) == 0
    });
    assert!(
        !Leftovers::find().is_empty(),
        "a killed lab cannot clean up"
    );
    let next = FakeAgent::new("exit 7").run(&["--once"]).output().unwrap();
    let error = stderr(&next);
    assert!(
        error.contains("an earlier lab was killed: clearing away what it left"),
        "{error}"
    );
    assert!(error.contains("the agent of n1 ended"), "{error}");
    Leftovers::assert_none();
}

#[test]
fn manifests_that_cannot_be_read_stop_the_lab_before_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bad.yaml"), "kind: Service\nmetadata: [").unwrap();
    let manifests = dir.path().to_str().unwrap();
    let output = FakeAgent::mute()
        .run(&["--once", "--manifests", manifests])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("bad.yaml"), "{}", stderr(&output));
    Leftovers::assert_none();
}

#[test]
fn flags_after_the_dashes_are_the_agents() {
    let agent = FakeAgent::new("echo \"$@\"");
    let mut command = agent.run(&["--", "--kubeconfig", "F", "--node-name", "here"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(text, "agent --kubeconfig F --node-name here\n");
}
