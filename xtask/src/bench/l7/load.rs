//! The loads, and the programs that make them.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::proxies::{HOST, Proxy};
use crate::bench::loadgen::{Latency, Outcome};
use crate::paths;

/// Connections of the loads that keep them.
const KEPT: u32 = 64;
/// Handshakes at a time.
const AT_ONCE: u32 = 16;
/// Requests a second of the load whose latency counts: about a fifth of what one CPU of a proxy
/// does, so that none is full.
const RATE: u32 = 8000;
/// Connections that wait.
const IDLE: u32 = 10_000;

/// What wrk is told: to say what it has counted in one line.
const SCRIPT: &str = "done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('counted %d %d %d\\n', summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
";

/// A load.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Load {
    /// As many requests as there can be.
    Http,
    /// The same, by HTTPS.
    Https,
    /// Each request on a connection of its own.
    Handshakes,
    /// Requests at a rate.
    Paced,
    /// Connections that wait.
    Idle,
}

impl Load {
    /// All, in the order of the tables.
    pub(super) const ALL: [Self; 5] = [
        Self::Http,
        Self::Https,
        Self::Handshakes,
        Self::Paced,
        Self::Idle,
    ];

    /// Its name in the tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP keep-alive, 64 connections",
            Self::Https => "HTTPS keep-alive, 64 connections",
            Self::Handshakes => "HTTPS, a connection each, 16 at a time",
            Self::Paced => "HTTP keep-alive, 8,000 requests a second",
            Self::Idle => "10,000 idle keep-alive connections",
        }
    }
}

/// What became of a load.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) requests: u64,
    pub(super) seconds: f64,
    pub(super) latency: Latency,
}

/// Asks wrk; `dir` is for its script, and for the name of the proxy.
///
/// # Errors
/// It fails, or a request did.
pub(super) fn wrk(
    mut wrk: Command,
    dir: &Path,
    proxy: Proxy,
    scheme: &str,
    seconds: u32,
) -> Result<Counted> {
    let script = dir.join("counted.lua");
    std::fs::write(&script, SCRIPT).context("wrk's script cannot be written")?;
    let out = wrk
        .args(["-t1", &format!("-c{KEPT}"), &format!("-d{seconds}s"), "-s"])
        .arg(script)
        .arg(format!("{scheme}://{HOST}/"))
        .output()
        .context("wrk cannot be started")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let counted = counted(&text).with_context(|| {
        let errors = String::from_utf8_lossy(&out.stderr);
        format!("wrk ({}) said: {text}{errors}", out.status)
    })?;
    let [requests, micros, failed] = counted;
    ensure!(
        failed == 0,
        "{failed} requests of wrk by {} failed",
        proxy.name()
    );
    ensure!(requests > 0, "{} has answered nobody", proxy.name());
    Ok(Counted {
        requests,
        seconds: micros as f64 / 1e6,
        latency: Latency::default(),
    })
}

fn counted(text: &str) -> Option<[u64; 3]> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("counted "))?;
    let numbers: Option<Vec<u64>> = line.split(' ').map(|n| n.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// The load generator.
fn loadgen(verb: &str, proxy: Proxy, port: u16) -> Command {
    let mut command = Command::new(paths::root().join("target/release/loadgen"));
    command.args(verb.split(' ')).args(["--host", HOST]);
    command.args(["--target", &format!("{}:{port}", proxy.address())]);
    command
}

/// Asks the load generator for handshakes, or for requests at a rate.
///
/// # Errors
/// It fails, or a request did.
pub(super) fn own(load: Load, proxy: Proxy, seconds: f64) -> Result<Counted> {
    let mut command = match load {
        Load::Handshakes => loadgen("run tls --warmup 0", proxy, 443),
        _ => loadgen("run get", proxy, 80),
    };
    match load {
        Load::Handshakes => command.args(["--connections", &AT_ONCE.to_string()]),
        _ => command
            .args(["--connections", &KEPT.to_string()])
            .args(["--rate", &RATE.to_string()]),
    };
    run(command, seconds)
}

/// One connection of HTTP, or of HTTPS: whether somebody answers.
///
/// # Errors
/// Nobody does.
pub(super) fn probe(proxy: Proxy) -> Result<()> {
    for (verb, port) in [("run get", 80), ("run tls", 443)] {
        run(loadgen(verb, proxy, port), 0.02)?;
    }
    Ok(())
}

fn run(mut command: Command, seconds: f64) -> Result<Counted> {
    let out = command
        .args([
            "--json",
            "--timeout",
            "5000",
            "--seconds",
            &seconds.to_string(),
        ])
        .output()
        .context("loadgen cannot be started")?;
    let errors = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "loadgen: {errors}");
    let outcome: Outcome = serde_json::from_slice(&out.stdout)?;
    outcome.check(Some('2'))?;
    Ok(Counted {
        requests: outcome.transactions,
        seconds: outcome.seconds,
        latency: outcome.latency_us,
    })
}

/// Connections that wait, until this is dropped.
pub(super) struct Held {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Held {
    /// Makes them.
    ///
    /// # Errors
    /// One is refused.
    pub(super) fn open(proxy: Proxy) -> Result<Self> {
        let mut child = loadgen("hold", proxy, 80)
            .args(["--connections", &IDLE.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("loadgen cannot be started")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let held = Self { child, stdin };
        let mut line = String::new();
        let mut reader = BufReader::new(stdout.context("loadgen has no output")?);
        reader.read_line(&mut line)?;
        ensure!(
            line.contains("are held"),
            "{} takes no {IDLE} connections",
            proxy.name()
        );
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It ends with its input.
        self.stdin = None;
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read_by_its_line() {
        let text = "Running 3s test @ http://a/\n  1 threads\ncounted 150000 3000123 2\n";
        assert_eq!(counted(text), Some([150_000, 3_000_123, 2]));
        assert_eq!(counted("unable to connect"), None);
    }
}
