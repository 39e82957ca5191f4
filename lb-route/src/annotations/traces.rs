//! Traces (ingress-nginx v1.15.1, internal/ingress/annotations/opentelemetry/main.go, and
//! `buildOpentelemetryForLocation`).

use super::{Group, Reader, Risk::*, served};
use crate::{
    trouble::{Severity, reason},
    values::{self, Parsed},
    variables::Template,
};

const ENABLE: &str = "enable-opentelemetry";
const TRUST: &str = "opentelemetry-trust-incoming-span";
const NAME: &str = "opentelemetry-operation-name";

pub(super) const GROUP: Group = Group {
    name: "traces",
    on_canary: false,
    annotations: &[
        served(
            ENABLE,
            Low,
            "Whether requests are traced, whatever the ConfigMap says.",
        ),
        served(
            TRUST,
            Low,
            "Whether spans of clients are continued; it counts with enable-opentelemetry: \"true\".",
        ),
        served(
            NAME,
            Medium,
            "Name of spans; it counts with enable-opentelemetry: \"true\".",
        ),
    ],
    read,
};

fn read(reader: &mut Reader<'_>) {
    let is_on = reader.value(ENABLE, values::flag);
    if let Some(is_on) = is_on {
        reader.settings.tracing.on = is_on;
    }
    // Where it is not said, ingress-nginx does not read the others.
    if is_on != Some(true) {
        return reader.without("enable-opentelemetry: \"true\"", &[TRUST, NAME]);
    }
    if reader.globals.collector.host.is_empty() {
        let rest = "sends no span without otlp-collector-host of the ConfigMap; set that too";
        reader.tell(ENABLE, Severity::Warning, reason::WITHOUT_EFFECT, rest);
    }
    reader.set(TRUST, values::flag, |s| &mut s.tracing.trust);
    let name = |value: &str| name(value).map(Some);
    reader.set(NAME, name, |s| &mut s.tracing.name);
}

fn name(value: &str) -> Parsed<Template> {
    values::template_of(value, "_-")
}
