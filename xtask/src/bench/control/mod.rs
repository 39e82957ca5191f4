//! Rows of the agent: its parts by themselves, and from an API server's change to the first
//! connection that it leads elsewhere, beside kube-proxy.

mod load;
mod net;
mod parts;
mod proxy;
mod rows;
mod scale;
mod server;
mod session;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};

use super::Plan;
use super::isolate::Running;
use super::stats::Row;
use crate::build::cargo;
use crate::paths;

/// The agent must have read and programmed everything within this time.
const PATIENCE: Duration = Duration::from_secs(120);
/// Suite of these rows.
const SUITE: &str = "control";

/// Builds the agent and the example that measures its parts, optimised.
///
/// # Errors
/// Something does not compile.
pub(super) fn build() -> Result<()> {
    cargo("build")
        .args(["--release", "--package", "lb-userspace", "--bin", "bascule"])
        .args(["--example", "program_scale"])
        .args(["--package", "bascule-tests", "--bin", "bench_api"])
        .args(["--package", "bascule-loadgen", "--bin", "loadgen"])
        .run()
}

/// The agent's program.
pub(super) fn agent() -> PathBuf {
    paths::root().join("target/release/bascule")
}

/// Measures all rows of this suite. What stands in the way of those with an API server is
/// returned beside the other rows.
///
/// # Errors
/// The agent or the example fails.
pub(super) fn measure(plan: &Plan, notes: &mut Vec<String>) -> Result<(Vec<Row>, Option<Error>)> {
    let mut rows = match scale::is_meant(plan) {
        true => Vec::new(),
        false => parts::measure(plan)?,
    };
    let (report, failed) = scale::measure(plan)?;
    rows.extend(report.rows);
    notes.extend(report.notes);
    let failed = failed.map(|e| e.context("rows with an API server are missing"));
    Ok((rows, failed))
}

/// Starts an agent on the manifests of a directory.
///
/// # Errors
/// It cannot be started.
pub(super) fn spawn(source: &Path, dir: &Path) -> Result<Child> {
    let program = agent();
    let log = fs::File::create(dir.join("agent.log")).context("cannot write the agent's log")?;
    Command::new(&program)
        .args(["agent", "--node-name", "node-0", "--socket-lb", "off"])
        .args(["--xdp", "off", "--uplinks", "up0", "--pod-devices", "pod0"])
        .arg("--source")
        .arg(source)
        .arg("--bpffs")
        .arg(dir.join("bpf"))
        .arg("--cgroup")
        .arg(dir.join("cgroup"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Waits until an agent has programmed everything.
///
/// # Errors
/// It ends, or takes too long; the error has the end of its log.
pub(super) fn until_synced(agent: &mut Running, state: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        let status = fs::read(state.join("status.json")).unwrap_or_default();
        let status: serde_json::Value = serde_json::from_slice(&status).unwrap_or_default();
        if status["synced"] == true {
            return Ok(());
        }
        let ended = agent.0.try_wait().context("cannot wait for the agent")?;
        if ended.is_some() || start.elapsed() > PATIENCE {
            let log = state.with_file_name("agent.log");
            let log = fs::read_to_string(log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(10).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!("the agent did not program its maps:\n{}", tail.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A line of /proc/PID/status, which counts KiB.
fn mebibytes(status: &str, name: &str) -> Result<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    let kib: f64 = line
        .and_then(|l| l.trim().split(' ').next())
        .with_context(|| format!("the kernel does not tell {name}"))?
        .parse()?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_kibibytes() {
        let status = "VmHWM:\t  204800 kB\nVmRSS:\t  102400 kB\n";
        assert_eq!(mebibytes(status, "VmRSS:").unwrap(), 100.0);
        assert!(mebibytes(status, "VmSwap:").is_err());
    }
}
