//! Who dials in a load test, and what became of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::control::{kubectl, kubectl_command};
use super::load_test::{EVERYWHERE, NAMESPACE, ON_ONE, client_pod};
use super::pods::IN_POD;
use super::process::{Place, command, wait_for};
use super::topology::Node;
use crate::worker::Worker;

/// How long a proxy may take to learn of the servers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Dials of each target before the load: several backends are reached by them.
const DIALS: u32 = 20;

/// A process that dials. It ends when its standard input does.
pub(super) struct Client {
    worker: Worker,
    targets: Vec<String>,
}

impl Client {
    /// One for every way to a backend.
    ///
    /// # Errors
    /// One cannot be started, or a service has no address.
    pub(super) fn start_all(nodes: u8, program: &Path) -> Result<Vec<Self>> {
        let (first, last) = (Node(1), Node(nodes));
        let cluster = cluster_addrs()?;
        let (everywhere, on_one) = (node_port(EVERYWHERE)?, node_port(ON_ONE)?);
        let mut clients = Vec::new();
        for node in Node::first(nodes) {
            let mut pod = kubectl_command()?;
            pod.args([
                "exec",
                "-i",
                "-n",
                NAMESPACE,
                &client_pod(node),
                "--",
                IN_POD,
            ]);
            let name = format!("pod on {}, ClusterIP", node.name());
            clients.push(Self::start(name, pod, cluster.clone())?);
        }
        let on_node = || command(Place::Node(first), program);
        let outside = || command(Place::Control, program);
        let (a, z) = (first.name(), last.name());
        let rest = [
            (format!("node {a}, ClusterIP"), on_node()?, cluster),
            (
                format!("node {a}, its NodePort"),
                on_node()?,
                on(first, &everywhere),
            ),
            (
                format!("outside, NodePort of {z}, backend there"),
                outside()?,
                on(last, &on_one),
            ),
            (
                format!("outside, NodePort of {a}, backend on {z}"),
                outside()?,
                on(first, &on_one),
            ),
        ];
        for (name, command, targets) in rest {
            clients.push(Self::start(name, command, targets)?);
        }
        Ok(clients)
    }

    fn start(name: String, command: Command, targets: Vec<String>) -> Result<Self> {
        Ok(Self {
            worker: Worker::start(name, command)?,
            targets,
        })
    }

    /// Waits until all that it will dial answers: a proxy may learn of the servers late.
    ///
    /// # Errors
    /// It does not in time.
    pub(super) fn reach(&mut self) -> Result<()> {
        let what = format!("the servers answer {}", self.worker.name());
        let dials: Vec<_> = self
            .targets
            .iter()
            .map(|target| json!({"target": target, "how": "Tcp", "times": DIALS, "timeout_ms": 1000}))
            .collect();
        wait_for(&what, PATIENCE, None, || {
            for dial in &dials {
                let outcome: Outcome = self.worker.call(&json!({"Dial": dial}))?;
                ensure!(outcome.errors.is_empty(), "{dial}: {:?}", outcome.errors);
            }
            Ok(())
        })
    }

    /// Starts the load.
    ///
    /// # Errors
    /// The process has ended.
    pub(super) fn load(&mut self, rate: u32, streams: u32) -> Result<()> {
        let load = json!({"targets": self.targets, "rate": rate, "streams": streams});
        let _: Outcome = self.worker.call(&json!({"Load": load}))?;
        Ok(())
    }

    /// Ends the load.
    ///
    /// # Errors
    /// The process has ended.
    pub(super) fn rest(&mut self) -> Result<(String, Outcome)> {
        let outcome = self.worker.call(&json!("Rest"))?;
        Ok((self.worker.name().to_owned(), outcome))
    }
}

/// Both addresses of a service of this name, with its port.
fn cluster_addrs() -> Result<Vec<String>> {
    let addrs = "jsonpath={.spec.clusterIPs[*]}";
    let text = kubectl(&["-n", NAMESPACE, "get", "service", EVERYWHERE, "-o", addrs])?;
    Ok(text.split(' ').map(|addr| with_port(addr, "80")).collect())
}

fn node_port(service: &str) -> Result<String> {
    let port = "jsonpath={.spec.ports[0].nodePort}";
    kubectl(&["-n", NAMESPACE, "get", "service", service, "-o", port])
}

fn on(node: Node, port: &str) -> Vec<String> {
    let (v4, v6) = node.addrs();
    vec![with_port(&v4, port), with_port(&v6, port)]
}

fn with_port(addr: &str, port: &str) -> String {
    match addr.contains(':') {
        true => format!("[{addr}]:{port}"),
        false => format!("{addr}:{port}"),
    }
}

/// What a client says (`Outcome` of the end-to-end tests), as far as it is told here.
#[derive(Deserialize, Debug, Default)]
pub(super) struct Outcome {
    answers: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    slow: u64,
    slowest_ms: u64,
    streams: Vec<Stream>,
}

#[derive(Deserialize, Serialize, Clone, Debug, Default)]
struct Stream {
    pods: Vec<String>,
    beats: u64,
    error: Option<String>,
}

/// A client's row of the report.
#[derive(Serialize, Debug)]
struct Row {
    client: String,
    connections: u64,
    failed: BTreeMap<String, u64>,
    /// Those whose first packet was sent again, after a second.
    slow: u64,
    slowest_ms: u64,
    streams: usize,
    /// Ended before the load did, or answered by more than one backend.
    broken: Vec<Stream>,
}

/// What became of a load.
#[derive(Serialize, Debug)]
pub(super) struct Report {
    seconds: f64,
    clients: Vec<Row>,
}

impl Report {
    /// Of all clients.
    pub(super) fn new(outcomes: Vec<(String, Outcome)>, time: Duration) -> Self {
        let row = |(client, outcome): (String, Outcome)| Row {
            client,
            connections: outcome.answers.values().sum(),
            failed: outcome.errors,
            slow: outcome.slow,
            slowest_ms: outcome.slowest_ms,
            streams: outcome.streams.len(),
            broken: outcome
                .streams
                .into_iter()
                .filter(|s| s.error.is_some() || s.pods.len() != 1)
                .collect(),
        };
        Self {
            seconds: time.as_secs_f64(),
            clients: outcomes.into_iter().map(row).collect(),
        }
    }

    /// Nothing failed or broke, and nobody was idle.
    pub(super) fn is_good(&self) -> bool {
        let good =
            |row: &Row| row.failed.is_empty() && row.broken.is_empty() && row.connections > 0;
        !self.clients.is_empty() && self.clients.iter().all(good)
    }

    /// For programs.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("cannot write JSON")
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{:<38} {:>11} {:>6} {:>5} {:>10} {:>7} {:>6}\n",
            "client", "connections", "failed", "slow", "slowest ms", "streams", "broken"
        );
        let (mut connections, mut failed, mut streams, mut broken) = (0, 0, 0, 0);
        for row in &self.clients {
            let failures: u64 = row.failed.values().sum();
            text.push_str(&format!(
                "{:<38} {:>11} {failures:>6} {:>5} {:>10} {:>7} {:>6}\n",
                row.client,
                row.connections,
                row.slow,
                row.slowest_ms,
                row.streams,
                row.broken.len()
            ));
            for (kind, count) in &row.failed {
                text.push_str(&format!("    {count} x {kind}\n"));
            }
            for stream in &row.broken {
                text.push_str(&format!(
                    "    a stream after {} answers of {}: {}\n",
                    stream.beats,
                    stream.pods.join(", "),
                    stream.error.as_deref().unwrap_or("another backend")
                ));
            }
            connections += row.connections;
            failed += failures;
            streams += row.streams;
            broken += row.broken.len();
        }
        text.push_str(&format!(
            "{connections} connections in {:.1} s, {failed} failed; {streams} streams, {broken} broken",
            self.seconds
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str) -> Vec<(String, Outcome)> {
        vec![("a pod".to_owned(), serde_json::from_str(text).unwrap())]
    }

    const GOOD: &str = r#"{"answers":{"a":3,"b":4},"errors":{},"peers":[],"clients":[],"slow":1,"slowest_ms":1012,
        "streams":[{"pods":["a"],"beats":9,"error":null}]}"#;

    #[test]
    fn all_that_failed_or_broke_is_told() {
        let time = Duration::from_secs(2);
        let good = Report::new(outcome(GOOD), time);
        assert!(good.is_good());
        assert!(
            good.text()
                .ends_with("7 connections in 2.0 s, 0 failed; 1 streams, 0 broken")
        );
        let failed = GOOD.replace(r#""errors":{}"#, r#""errors":{"timeout":2}"#);
        let failed = Report::new(outcome(&failed), time);
        assert!(!failed.is_good() && failed.text().contains("2 x timeout"));
        for broken in [r#""error":"ECONNRESET""#, r#""error":null,"x":1"#] {
            let text = GOOD
                .replace(r#""error":null"#, broken)
                .replace(r#"["a"]"#, r#"["a","b"]"#);
            assert!(!Report::new(outcome(&text), time).is_good());
        }
    }

    #[test]
    fn nobody_who_dialled_is_no_success() {
        let idle = GOOD.replace(r#"{"a":3,"b":4}"#, "{}");
        assert!(!Report::new(outcome(&idle), Duration::ZERO).is_good());
        assert!(!Report::new(Vec::new(), Duration::ZERO).is_good());
    }
}
