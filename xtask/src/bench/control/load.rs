//! Clients in a pod: one that dials until another server answers, and one that opens
//! connections at a rate.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use super::super::loadgen::{Load, Outcome, Request};
use super::net::{Cgroup, Place, SERVERS, World};
use crate::worker::Worker;

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
        let load = Load {
            target: format!("{service}:80"),
            connections: 64,
            ..Load::paced(rate, seconds)
        };
        self.0.ask(&Request::Run(&load))
    }

    /// What came of that.
    ///
    /// # Errors
    /// The client has ended, or could not open one.
    pub(super) fn loaded(&mut self) -> Result<Outcome> {
        let load: Outcome = self.0.answer()?;
        ensure!(
            load.transactions > 0,
            "no connection was answered: {:?}",
            load.errors
        );
        Ok(load)
    }
}
