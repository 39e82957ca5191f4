//! Logs and traces.

use super::{Globals, Key, Sampler, accepted, auth::patterns, put, served};
use crate::{
    values::{self, Parsed},
    variables::Escape,
};

const WRITES: &str = "logs are written to standard output.";
const JAEGER: &str = "ingress-nginx reads it no more; use otlp-collector-host.";
const QUEUE: &str = "spans are sent in batches of the proxy's own.";

pub(super) const KEYS: &[Key] = &[
    served(
        "disable-access-log",
        "Whether there is no access log: false.",
        |g, v| put(&mut g.log.on, values::flag(v).map(|is_off| !is_off)),
    ),
    served(
        "log-format-upstream",
        "A line of the access log, with variables.",
        |g, v| put(&mut g.log.format, values::template(v)),
    ),
    served(
        "log-format-escape-json",
        "Whether values in it are escaped as in JSON: false.",
        |g, v| escape(g, v, Escape::Json),
    ),
    served(
        "log-format-escape-none",
        "Whether values in it are not escaped; it goes before the other: false.",
        |g, v| escape(g, v, Escape::None),
    ),
    served(
        "skip-access-log-urls",
        "Paths with their queries that are not logged; after ~ or ~* an expression: none.",
        |g, v| put(&mut g.log.skip, patterns(v)),
    ),
    served(
        "enable-access-log-for-default-backend",
        "Whether requests of the default backend are logged: false.",
        |g, v| put(&mut g.log.default_backend, values::flag(v)),
    ),
    served(
        "enable-opentelemetry",
        "Whether requests are traced: false.",
        |g, v| put(&mut g.tracing.on, values::flag(v)),
    ),
    served(
        "otlp-collector-host",
        "Host that traces are sent to: none.",
        |g, v| {
            put(
                &mut g.tracing.collector.0,
                values::text(v, "-._:[]").map(str::to_owned),
            )
        },
    ),
    served("otlp-collector-port", "Its port: 4317.", |g, v| {
        let port = v.parse().map_err(|_| "a port".into());
        put(&mut g.tracing.collector.1, port)
    }),
    served(
        "otel-service-name",
        "Name of the proxy in traces: nginx.",
        |g, v| put(&mut g.tracing.service, Ok(v.to_owned())),
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
            put(&mut g.tracing.sampler, sampler)
        },
    ),
    served(
        "otel-sampler-ratio",
        "Part of the requests of TraceIdRatioBased: 0.01.",
        |g, v| {
            let ratio = v
                .parse::<f64>()
                .ok()
                .filter(|ratio| (0.0..=1.0).contains(ratio));
            let ratio = ratio.ok_or("a number from 0 to 1")?;
            // Keys are read in the order of their names: the sampler is known.
            if let Sampler::Ratio(old) = &mut g.tracing.sampler {
                *old = ratio;
            }
            Ok(())
        },
    ),
    served(
        "otel-sampler-parent-based",
        "Whether what the client's span says goes before that: true.",
        |g, v| put(&mut g.tracing.parent_based, values::flag(v)),
    ),
    served(
        "opentelemetry-trust-incoming-span",
        "Whether spans of clients are continued: true.",
        |g, v| put(&mut g.tracing.trust_incoming, values::flag(v)),
    ),
    accepted(
        "opentelemetry-operation-name",
        "spans have the name of the rule.",
    ),
    accepted(
        "opentelemetry-config",
        "there is no file of nginx's module.",
    ),
    accepted("otel-max-queuesize", QUEUE),
    accepted("otel-schedule-delay-millis", QUEUE),
    accepted("otel-max-export-batch-size", QUEUE),
    accepted("access-log-params", WRITES),
    accepted("access-log-path", WRITES),
    accepted("http-access-log-path", WRITES),
    accepted("stream-access-log-path", WRITES),
    accepted("error-log-path", WRITES),
    accepted("error-log-level", "the proxy's flag says what it logs."),
    accepted(
        "enable-auth-access-log",
        "questions of auth-url are in traces.",
    ),
    accepted("log-format-stream", "TCP and UDP are not forwarded here."),
    accepted("disable-http-access-log", "disable-access-log counts."),
    accepted(
        "disable-stream-access-log",
        "TCP and UDP are not forwarded here.",
    ),
    accepted("enable-syslog", WRITES),
    accepted("syslog-host", WRITES),
    accepted("syslog-port", WRITES),
    accepted("debug-connections", "the proxy's flag says what it logs."),
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

/// Part of the requests that is traced, if the sampler is one of a part.
const RATIO: f64 = 0.01;

/// Keys are read in the order of their names: `-none` after `-json`, and it counts.
fn escape(globals: &mut Globals, value: &str, escape: Escape) -> Parsed<()> {
    if values::flag(value)? {
        globals.log.escape = escape;
    }
    Ok(())
}
