//! Clients in a pod: one that dials until another server answers, and one that opens
//! connections at a rate.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use super::net::{Cgroup, Place, SERVERS, World};
use crate::worker::Worker;

/// What a load came to.
#[derive(Debug, Deserialize)]
pub(super) struct Load {
    /// Connections that were answered.
    pub(super) transactions: u64,
    /// How long they took.
    latency_us: Latency,
    /// Connections that failed, by what they failed of.
    errors: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p999: f64,
}

impl Load {
    /// Milliseconds, of 999 in 1,000 connections.
    pub(super) fn latency(&self) -> f64 {
        self.latency_us.p999 / 1000.0
    }

    /// Connections that failed.
    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

#[derive(Debug, Deserialize)]
struct Answered {
    at_ns: Option<u64>,
}

/// A client.
pub(super) struct Client(Worker);

impl Client {
    /// Starts one in the pod that dials.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(loadgen: &Path, cgroup: &Cgroup) -> Result<Self> {
        let mut command = Command::new(loadgen);
        command.arg("client");
        let pods = cgroup.pods();
        let place = Place {
            netns: Some(World::CLIENT),
            cgroup: Some(&pods),
        };
        Ok(Self(place.work(command)?))
    }

    /// Begins to dial a service until a server, by its number, answers.
    ///
    /// # Errors
    /// The client has ended.
    pub(super) fn until(&mut self, service: &str, server: usize, seconds: u64) -> Result<()> {
        let target = format!("{service}:80");
        let request =
            json!({"target": target, "answer": SERVERS[server].0, "timeout_ms": seconds * 1000});
        self.0.ask(&json!({"until": request}))
    }

    /// When it answered first, by the system's clock in nanoseconds.
    ///
    /// # Errors
    /// It did not in time.
    pub(super) fn answered(&mut self) -> Result<u64> {
        let answered: Answered = self.0.answer()?;
        answered.at_ns.context("nobody else answered in time")
    }

    /// Begins to open connections, so many a second, each with a question and an answer.
    ///
    /// # Errors
    /// The client has ended.
    pub(super) fn load(&mut self, service: &str, rate: u32, seconds: f64) -> Result<()> {
        let target = format!("{service}:80");
        let request = json!({
            "mode": "crr", "target": target, "connections": 64, "seconds": seconds,
            "warmup": 0.06, "rate": rate, "timeout_ms": 1000,
        });
        self.0.ask(&json!({"run": request}))
    }

    /// What came of that.
    ///
    /// # Errors
    /// The client has ended, or could not open one.
    pub(super) fn loaded(&mut self) -> Result<Load> {
        let load: Load = self.0.answer()?;
        ensure!(
            load.transactions > 0,
            "no connection was answered: {:?}",
            load.errors
        );
        Ok(load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_failures_count() {
        let text = r#"{"transactions": 9, "latency_us": {"p50": 1.0, "p999": 2500.0},
            "errors": {"timeout": 2, "refused": 1}, "answers": {"a": 9}}"#;
        let load: Load = serde_json::from_str(text).unwrap();
        assert_eq!((load.latency(), load.failed()), (2.5, 3));
    }
}
