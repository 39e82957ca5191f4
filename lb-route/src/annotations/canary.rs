//! What makes an Ingress the canary of another.

use super::{Group, Reader, Risk::*, served};
use crate::{
    settings::Canary,
    trouble::{Severity, reason},
    values::{self, Parsed},
};

pub(super) const GROUP: Group = Group {
    name: "canary",
    on_canary: true,
    annotations: &[
        served(
            "canary",
            Low,
            "Whether the Ingress is the canary of the one with its hosts and paths.",
        ),
        served(
            "canary-by-header",
            Medium,
            "A header that leads to the canary (always) or away from it (never).",
        ),
        served(
            "canary-by-header-value",
            Medium,
            "The value of that header that leads to the canary.",
        ),
        served(
            "canary-by-header-pattern",
            Medium,
            "An expression that the value of that header has to match.",
        ),
        served(
            "canary-by-cookie",
            Medium,
            "A cookie that leads to the canary (always) or away from it (never).",
        ),
        served(
            "canary-weight",
            Low,
            "How many of canary-weight-total requests are led there.",
        ),
        served(
            "canary-weight-total",
            Low,
            "100 at least, which is the default.",
        ),
    ],
    read,
};

/// What counts on a canary only.
const RULES: [&str; 7] = [
    "affinity-canary-behavior",
    "canary-by-header",
    "canary-by-header-value",
    "canary-by-header-pattern",
    "canary-by-cookie",
    "canary-weight",
    "canary-weight-total",
];

fn read(reader: &mut Reader<'_>) {
    if reader.value("canary", values::flag) != Some(true) {
        reader.without("canary: \"true\"", &RULES);
        return;
    }
    let header = reader.value("canary-by-header", |value| values::header(value.trim()));
    if header.is_none() {
        let names = ["canary-by-header-value", "canary-by-header-pattern"];
        reader.without("canary-by-header", &names);
    }
    let value = reader.value("canary-by-header-value", text);
    let mut canary = Canary {
        header,
        header_value: value,
        cookie: reader.value("canary-by-cookie", text),
        weight: reader.value("canary-weight", amount).unwrap_or(0),
        // balancer.lua: less than 100 is 100.
        weight_total: reader
            .value("canary-weight-total", amount)
            .unwrap_or(0)
            .max(100),
        header_pattern: None,
        own_affinity: reader
            .value("affinity-canary-behavior", behavior)
            .unwrap_or(false),
    };
    if reader.has("canary-by-header-pattern") {
        canary.header_pattern = reader.value("canary-by-header-pattern", |value| {
            values::expression(values::text(value, values::EXPRESSION)?)
        });
        // An expression that is none matches nothing; `always` would lead here without it.
        let is_lost = canary.header_pattern.is_none() && canary.header_value.is_none();
        canary.header = canary.header.filter(|_| !is_lost);
    }
    if canary.header.is_none() && canary.cookie.is_none() && canary.weight == 0 {
        let rest = "leads no request to it; set canary-weight, canary-by-header or \
                    canary-by-cookie too";
        reader.tell("canary", Severity::Warning, reason::WITHOUT_EFFECT, rest);
    }
    reader.settings.canary = Some(canary);
}

/// Whether the canary's own affinity counts.
fn behavior(value: &str) -> Parsed<bool> {
    let words = [("sticky", false), ("legacy", true)];
    values::word(value, &words, "sticky or legacy")
}

fn text(value: &str) -> Parsed<String> {
    values::text(value, values::BASIC).map(str::to_owned)
}

/// What is less than nothing is nothing, as `math.random` is never.
fn amount(value: &str) -> Parsed<u32> {
    let amount = values::whole(value)?.clamp(0, u32::MAX.into());
    // Within a u32 after the clamp.
    Ok(amount as u32)
}
