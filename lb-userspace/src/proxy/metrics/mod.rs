//! Metrics of the proxy: ingress-nginx's names where the meaning is the same, so that its
//! dashboards and alerts go on, and `bascule_proxy_*` for what only this proxy has.
//! ingress-nginx v1.15.1, internal/ingress/metric/collectors.

mod histogram;
mod nginx;
mod own;
mod requests;
#[cfg(test)]
mod tests;

use std::{
    env, fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::StatusCode;
use lb_proxy::{Attempt, Record};
use lb_route::{Mode, Table, class::Classes};
use prometheus_client::{
    collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::Registry,
};

use super::state::State;
use crate::metrics::{classic, process};
use requests::Requests;

/// Who the metrics are of, as ingress-nginx labels them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Namespace of the pod (`$POD_NAMESPACE`).
    pub namespace: String,
    /// Controller of the IngressClasses whose Ingresses are served as ingress-nginx does.
    pub class: String,
    /// Name of the pod (`$POD_NAME`).
    pub pod: String,
}

impl Identity {
    /// By the environment, which is ingress-nginx's, and the classes.
    pub fn new(classes: &Classes) -> Self {
        let of_nginx = classes.controllers.iter();
        let mut of_nginx = of_nginx.filter(|(_, mode)| **mode == Mode::Nginx);
        let class = of_nginx.next().map(|(name, _)| name.clone());
        let variable = |name| env::var(name).unwrap_or_default();
        Self {
            namespace: variable("POD_NAMESPACE"),
            class: class.unwrap_or_default(),
            pod: variable("POD_NAME"),
        }
    }
}

/// What is counted of requests.
#[derive(Debug, Default)]
pub struct Counts {
    requests: Requests,
    begun: AtomicU64,
    done: AtomicU64,
    /// Attempts, by [`RESULTS`].
    attempts: [AtomicU64; RESULTS.len()],
    retries: AtomicU64,
}

/// What comes of an attempt to have an endpoint answer.
const RESULTS: [&str; 3] = ["answered", "error", "timeout"];

fn result(attempt: &Attempt) -> usize {
    match (attempt.header_time, attempt.status) {
        (Some(_), _) => 0,
        (None, StatusCode::GATEWAY_TIMEOUT) => 2,
        (None, _) => 1,
    }
}

impl Counts {
    /// From now on another table counts.
    pub fn take(&self, table: &Table) {
        self.requests.take(table);
    }

    /// A request has begun.
    pub fn begun(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    /// A request is over.
    pub fn done(&self, record: &Record) {
        self.done.fetch_add(1, Relaxed);
        for attempt in &record.attempts {
            self.attempts[result(attempt)].fetch_add(1, Relaxed);
        }
        let retries = record.attempts.len().saturating_sub(1);
        if retries > 0 {
            self.retries.fetch_add(retries as u64, Relaxed);
        }
        self.requests.done(record);
    }

    /// Requests that are not over.
    pub fn active(&self) -> u64 {
        // In this order it is not below zero.
        let done = self.done.load(Relaxed);
        self.begun.load(Relaxed).saturating_sub(done)
    }

    /// Requests that have begun so far.
    pub fn total(&self) -> u64 {
        self.begun.load(Relaxed)
    }
}

/// Everything that a scrape shows.
pub struct Exposition(Registry);

impl Exposition {
    /// Of a proxy.
    pub fn new(state: &Arc<State>) -> Self {
        let mut registry = Registry::default();
        let version = vec![("version", env!("BASCULE_VERSION"))];
        registry.register("bascule_build", "What was built", Info::new(version));
        let collector = |write: Write| {
            let state = state.clone();
            Box::new(Collector { state, write })
        };
        registry.register_collector(collector(own::write));
        registry.register_collector(collector(nginx::write_certificates));
        registry.register_collector(Box::new(process::Collector));
        let Identity {
            namespace,
            class,
            pod,
        } = state.identity().clone();
        let labels = [
            ("controller_namespace", namespace),
            ("controller_class", class),
            ("controller_pod", pod),
        ];
        let labels = labels.map(|(name, value)| (name.into(), value.into()));
        let nginx = registry.sub_registry_with_labels(labels.into_iter());
        nginx.register_collector(collector(nginx::write));
        Self(registry)
    }

    /// The text of a scrape, in Prometheus' text format 0.0.4.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only when a collector does.
        if encode(&mut text, &self.0).is_err() {
            tracing::warn!("the metrics could not be written");
        }
        classic(&text)
    }
}

type Write = fn(&State, &mut Encoder<'_>) -> fmt::Result;

/// Turns a proxy into metrics at every scrape.
struct Collector {
    state: Arc<State>,
    write: Write,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

impl collector::Collector for Collector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.write)(&self.state, &mut Encoder(encoder))
    }
}

/// Writes metrics: of each name all series.
struct Encoder<'e>(DescriptorEncoder<'e>);

impl Encoder<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let kind = MetricType::Gauge;
        let encoder = self.0.encode_descriptor(name, help, None, kind)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let kind = MetricType::Counter;
        let encoder = self.0.encode_descriptor(name, help, None, kind)?;
        ConstCounter::new(value).encode(encoder)
    }

    /// A counter whose name has no `_total` (as [`classic`] reads the kind).
    fn plain_counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let kind = MetricType::Unknown;
        let encoder = self.0.encode_descriptor(name, help, None, kind)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        (name, help): (&str, &str),
        all: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in all {
            ConstGauge::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        (name, help): (&str, &str),
        all: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in all {
            ConstCounter::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
