//! How often, and how fast.

use std::time::Duration;

use super::{Group, Reader, Risk::*, served};
use crate::{
    settings::OverallLimit,
    trouble::{Severity, reason},
    values::{self, Parsed},
};

pub(super) const GROUP: Group = Group {
    name: "limits",
    on_canary: false,
    annotations: &[
        served(
            "limit-rps",
            Low,
            "Requests a second of a client; more are refused (503).",
        ),
        served("limit-rpm", Low, "Requests a minute of a client."),
        served("limit-connections", Low, "Requests of a client at once."),
        served(
            "limit-burst-multiplier",
            Low,
            "What may come at once beyond a rate, as a multiple of it: 5.",
        ),
        served(
            "limit-allowlist",
            Low,
            "Addresses and networks of clients without limits. Its older name is \
             limit-whitelist.",
        ),
        served(
            "limit-rate",
            Low,
            "Kilobytes a second of an answer; 0 without a limit.",
        ),
        served(
            "limit-rate-after",
            Low,
            "Kilobytes of an answer that come before that counts.",
        ),
        served(
            "global-rate-limit",
            Low,
            "Requests in a window of a key, counted by all proxies together; more are refused \
             (429). Until v1.11 of ingress-nginx, as the next three.",
        ),
        served(
            "global-rate-limit-window",
            Low,
            "Length of that window, in whole seconds: 1m.",
        ),
        served(
            "global-rate-limit-key",
            High,
            "What those requests are counted by, with variables; the client's address without it.",
        ),
        served(
            "global-rate-limit-ignored-cidrs",
            Medium,
            "Addresses and networks of clients without that limit.",
        ),
    ],
    read,
};

fn read(reader: &mut Reader<'_>) {
    reader.set("limit-rps", limit, |s| &mut s.limits.rps);
    reader.set("limit-rpm", limit, |s| &mut s.limits.rpm);
    reader.set("limit-connections", limit, |s| &mut s.limits.connections);
    reader.set("limit-burst-multiplier", values::count, |s| {
        &mut s.limits.burst_multiplier
    });
    let (name, alias) = ("limit-allowlist", "limit-whitelist");
    if reader.has(name) && reader.has(alias) {
        let rest = format!("does not count beside {name}; remove it");
        reader.tell(alias, Severity::Warning, reason::WITHOUT_EFFECT, &rest);
    }
    let name = if reader.has(name) { name } else { alias };
    reader.set(name, values::networks, |s| &mut s.limits.allow);
    reader.set("limit-rate", rate, |s| &mut s.limits.rate);
    reader.set("limit-rate-after", after, |s| &mut s.limits.rate_after);
    reader.settings.limits.overall = overall(reader);
}

/// `global-rate-limit` (ingress-nginx v1.11, internal/ingress/annotations/globalratelimit). Without
/// a window that can be read every request is refused there too.
fn overall(reader: &mut Reader<'_>) -> Option<OverallLimit> {
    let (limit, window) = ("global-rate-limit", "global-rate-limit-window");
    let (key, ignored) = ("global-rate-limit-key", "global-rate-limit-ignored-cidrs");
    if !reader.has(limit) {
        reader.without(limit, &[window, key, ignored]);
        return None;
    }
    if !reader.has(window) {
        reader.without(window, &[limit, key, ignored]);
        return None;
    }
    let requests = reader.value(limit, values::count)?;
    let length = reader.guard(window, values::duration)?;
    let key = reader.value(key, |key| values::template_of(key, values::VARIABLES));
    let ignored = reader.value(ignored, values::networks).unwrap_or_default();
    let whole = Duration::from_secs(length.as_secs());
    if whole.is_zero() {
        let rest = "is less than a second, which is no window; it has to be whole seconds";
        reader.tell(window, Severity::Warning, reason::PARSING_FAILED, rest);
    }
    (requests > 0 && !whole.is_zero()).then_some(OverallLimit {
        requests,
        window: whole,
        key,
        ignored,
    })
}

/// What is not above 0 is no limit (`buildRateLimit`).
fn limit(value: &str) -> Parsed<Option<u32>> {
    let limit = values::whole(value)?.max(0);
    let limit: u32 = limit.try_into().map_err(|_| "less than 2^32")?;
    Ok((limit > 0).then_some(limit))
}

/// `limit-rate`, of an Ingress or of the ConfigMap.
pub(crate) fn rate(value: &str) -> Parsed<Option<u64>> {
    let rate = after(value)?;
    Ok((rate > 0).then_some(rate))
}

/// `limit-rate-after`, of an Ingress or of the ConfigMap.
pub(crate) fn after(value: &str) -> Parsed<u64> {
    // Never negative after the comparison.
    Ok(values::whole(value)?.max(0).unsigned_abs())
}
