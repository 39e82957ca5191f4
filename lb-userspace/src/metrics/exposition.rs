//! What the metrics server answers: a scrape, and what kube-proxy answers there
//! besides (cmd/kube-proxy/app/server.go, `serveMetrics`).

use std::{fmt::Write as _, sync::Arc, time::SystemTime};

use prometheus_client::{encoding::text::encode, registry::Registry};

use super::{Metrics, Source, process, readings};
use crate::{
    health::Health,
    http::{Answer, Handler},
};

/// Everything that a scrape shows.
pub struct Exposition {
    registry: Registry,
    health: Arc<Health>,
}

impl Exposition {
    /// The agent's instruments, its health, and what the maps hold.
    pub fn new(metrics: &Metrics, health: Arc<Health>, source: Source) -> Self {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let collector = readings::Collector::new(health.clone(), source);
        registry.register_collector(Box::new(collector));
        registry.register_collector(Box::new(process::Collector));
        Self { registry, health }
    }

    /// The text of a scrape, in Prometheus' text format 0.0.4 as kube-proxy's.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only when a collector does.
        if encode(&mut text, &self.registry).is_err() {
            tracing::warn!("the metrics could not be written");
        }
        classic(&text)
    }

    /// Serves `/metrics`, `/healthz`, `/proxyMode` and `/configz`, which shows the
    /// configuration in force; and `/readyz`, the `/healthz` of this very process,
    /// where another one answers that of the node.
    pub fn handler(self, configuration: serde_json::Value) -> Handler {
        let group = "kubeproxy.config.k8s.io";
        let configuration = serde_json::json!({ group: configuration }).to_string();
        let plain = |content: String| Answer {
            status: 200,
            content_type: "text/plain; charset=utf-8",
            headers: vec![("x-content-type-options", "nosniff".into())],
            body: content,
        };
        Arc::new(move |path| match path {
            "/metrics" => Some(Answer {
                status: 200,
                content_type: "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
                headers: Vec::new(),
                body: self.text(),
            }),
            "/healthz" => Some(plain("ok".into())),
            "/readyz" => Some(self.health.readyz(SystemTime::now())),
            "/proxyMode" => Some(plain("bascule".into())),
            "/configz" => Some(Answer::json(200, configuration.clone())),
            _ => None,
        })
    }
}

/// OpenMetrics in the older format: there, `# TYPE` and `# HELP` name what the
/// samples are named, and there are neither units nor an end; and a counter may be
/// named without `_total`, which is of no known type in OpenMetrics.
pub(crate) fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "counter"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                // Writing to a string does not fail.
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
