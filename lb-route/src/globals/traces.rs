//! Traces.

use std::time::Duration;

use super::{Globals, Key, accepted, put, served, trouble};
use crate::{
    trace::Sampler,
    trouble::{Severity, Trouble, reason},
    values::{self, Parsed},
};

const JAEGER: &str = "ingress-nginx reads it no more; use otlp-collector-host.";

pub(super) const KEYS: &[Key] = &[
    served(
        "enable-opentelemetry",
        "Whether requests are traced: false.",
        |g, v| put(&mut g.defaults.tracing.on, values::flag(v)),
    ),
    served(
        "otlp-collector-host",
        "Host that spans are sent to, by gRPC without TLS: none.",
        |g, v| {
            put(
                &mut g.collector.host,
                values::text(v, "-._:[]").map(str::to_owned),
            )
        },
    ),
    served("otlp-collector-port", "Its port: 4317.", |g, v| {
        let port = v.parse().map_err(|_| "a port".into());
        put(&mut g.collector.port, port)
    }),
    served(
        "otel-service-name",
        "Name of the proxy in traces: nginx.",
        |g, v| put(&mut g.collector.service, Ok(v.to_owned())),
    ),
    served(
        "otel-sampler",
        "AlwaysOn, AlwaysOff, TraceIdRatioBased: AlwaysOn.",
        |g, v| {
            let words = [
                ("AlwaysOn", Sampler::AlwaysOn),
                ("AlwaysOff", Sampler::AlwaysOff),
                ("TraceIdRatioBased", Sampler::Ratio(RATIO)),
            ];
            let sampler = values::word(v, &words, "AlwaysOn, AlwaysOff or TraceIdRatioBased");
            put(&mut g.defaults.tracing.sampler, sampler)
        },
    ),
    served(
        "otel-sampler-ratio",
        "Part of the traces that TraceIdRatioBased keeps: 0.01.",
        |g, v| {
            let ratio = v
                .parse::<f64>()
                .ok()
                .filter(|ratio| (0.0..=1.0).contains(ratio));
            let ratio = ratio.ok_or("a number from 0 to 1")?;
            // Keys are read in the order of their names: the sampler is known.
            if let Sampler::Ratio(old) = &mut g.defaults.tracing.sampler {
                *old = ratio;
            }
            Ok(())
        },
    ),
    served(
        "otel-sampler-parent-based",
        "Whether what the client's span says goes before that: true.",
        |g, v| put(&mut g.defaults.tracing.parent_based, values::flag(v)),
    ),
    served(
        "opentelemetry-trust-incoming-span",
        "Whether spans of clients are continued: true.",
        |g, v| put(&mut g.defaults.tracing.trust, values::flag(v)),
    ),
    served(
        "opentelemetry-operation-name",
        "Name of spans, with variables: the path of the rule.",
        |g, v| put(&mut g.defaults.tracing.name, values::template(v).map(Some)),
    ),
    served(
        "otel-max-queuesize",
        "Spans that wait to be sent; those beyond are lost: 2048.",
        |g, v| put(&mut g.collector.queue, spans(v)),
    ),
    served(
        "otel-schedule-delay-millis",
        "Milliseconds for which spans wait for others: 5000.",
        |g, v| {
            let delay = spans(v).map_err(|_| "a whole number of milliseconds from 1 up".into());
            put(
                &mut g.collector.delay,
                delay.map(|millis| Duration::from_millis(millis as u64)),
            )
        },
    ),
    served(
        "otel-max-export-batch-size",
        "Spans that are sent together: 512.",
        |g, v| put(&mut g.collector.batch, spans(v)),
    ),
    accepted(
        "opentelemetry-config",
        "there is no file of nginx's module.",
    ),
    accepted("jaeger-collector-host", JAEGER),
    accepted("jaeger-collector-port", JAEGER),
    accepted("jaeger-endpoint", JAEGER),
    accepted("jaeger-service-name", JAEGER),
    accepted("jaeger-propagation-format", JAEGER),
    accepted("jaeger-sampler-type", JAEGER),
    accepted("jaeger-sampler-param", JAEGER),
    accepted("jaeger-sampler-host", JAEGER),
    accepted("jaeger-sampler-port", JAEGER),
    accepted("jaeger-trace-context-header-name", JAEGER),
    accepted("jaeger-debug-header", JAEGER),
    accepted("jaeger-baggage-header", JAEGER),
    accepted("jaeger-trace-baggage-header-prefix", JAEGER),
];

/// Part of the traces that is kept, if the sampler is one of a part.
const RATIO: f64 = 0.01;

/// A number of spans.
fn spans(value: &str) -> Parsed<usize> {
    let count = values::count(value).ok().filter(|count| *count > 0);
    let count = count.and_then(|count| usize::try_from(count).ok());
    count.ok_or("a whole number from 1 up".into())
}

/// Tells of traces that nobody gets.
pub(super) fn unsent(globals: &Globals) -> Option<Trouble> {
    let is_unsent = globals.defaults.tracing.on && globals.collector.host.is_empty();
    let rest = "sends no span without otlp-collector-host; set that too";
    let reason = reason::CONFIG_WITHOUT_EFFECT;
    is_unsent.then(|| trouble("enable-opentelemetry", Severity::Warning, reason, rest))
}
