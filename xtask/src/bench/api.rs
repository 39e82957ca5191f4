//! The worker that fills an API server and changes its endpoints (`tests/src/bench/api.rs`).

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ui;
use crate::worker::Worker;

/// The namespace of services with real endpoints: the last one in a list.
pub(super) const LAST: &str = "zz";

/// What the worker did.
#[derive(Debug, Deserialize)]
struct Done {
    /// Requests.
    done: u64,
    /// Seconds for all.
    seconds: f64,
    /// When it began.
    sent_ns: u64,
}

/// An API server, by its worker.
pub(super) struct Api {
    worker: Worker,
    /// Services that it was filled with.
    services: u32,
}

impl Api {
    /// Of an API server without services.
    pub(super) fn new(worker: Worker) -> Self {
        Self {
            worker,
            services: 0,
        }
    }

    fn call(&mut self, request: &Value) -> Result<Done> {
        self.worker.call(request)
    }

    /// Waits until the API server is ready.
    ///
    /// # Errors
    /// It is not in time.
    pub(super) fn ready(&mut self, seconds: u32) -> Result<()> {
        self.call(&json!({"ready": {"seconds": seconds}})).map(drop)
    }

    /// Creates the namespaces of all services, and other objects.
    ///
    /// # Errors
    /// It refuses one.
    pub(super) fn begin(&mut self, others: &[Value]) -> Result<()> {
        let names = (0..100).map(|n| format!("ns-{n}")).chain([LAST.to_owned()]);
        let mut objects: Vec<Value> = names
            .map(
                |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            )
            .collect();
        objects.extend_from_slice(others);
        self.call(&json!({"create": {"objects": objects}}))
            .map(drop)
    }

    /// Creates a service with an address and one endpoint on a node.
    ///
    /// # Errors
    /// It refuses one.
    pub(super) fn serve(
        &mut self,
        (name, ip): (&str, &str),
        (endpoint, node): (&str, &str),
    ) -> Result<()> {
        let request = json!({"name": name, "ip": ip, "endpoint": endpoint, "node": node});
        self.call(&json!({"serve": request})).map(drop)
    }

    /// Lets it have at least so many services.
    ///
    /// # Errors
    /// It refuses one.
    pub(super) fn fill(&mut self, services: u32) -> Result<()> {
        if services <= self.services {
            return Ok(());
        }
        let progress = ui::Progress::start(&format!("an API server with {services} services"));
        let range = json!({"from": self.services, "to": services});
        let done = self.call(&json!({"populate": range}));
        progress.end(done.is_ok());
        done.with_context(|| format!("cannot make {services} services"))?;
        self.services = services;
        Ok(())
    }

    /// Sends a change: the endpoint of a service. [`Self::sent`] waits for the API server's answer.
    ///
    /// # Errors
    /// The worker has ended.
    pub(super) fn change(&mut self, name: &str, (endpoint, node): (&str, &str)) -> Result<()> {
        let request = json!({"name": name, "endpoint": endpoint, "node": node});
        self.worker.ask(&json!({"patch": request}))
    }

    /// When the change before was sent.
    ///
    /// # Errors
    /// The API server refused it.
    pub(super) fn sent(&mut self) -> Result<u64> {
        let done: Done = self.worker.answer()?;
        Ok(done.sent_ns)
    }

    /// Changes an endpoint of service after service; returns how many changes were made, and
    /// in how many seconds.
    ///
    /// # Errors
    /// The API server refuses one.
    pub(super) fn churn(&mut self, rate: u32, seconds: f64) -> Result<(u64, f64)> {
        let request = json!({"services": self.services, "rate": rate, "seconds": seconds});
        let done = self.call(&json!({"churn": request}))?;
        Ok((done.done, done.seconds))
    }
}
