//! Who answers errors in the backend's place, headers of answers, and logs.

use super::{Group, Reader, Risk::*, accepted, served};
use crate::values::{self, Parsed};

pub(super) const GROUP: Group = Group {
    name: "answers",
    on_canary: false,
    annotations: &[
        served(
            "custom-http-errors",
            Low,
            "Statuses of the backend, 400 to 599, that the default backend answers in its place.",
        ),
        served(
            "default-backend",
            Low,
            "A Service of the Ingress's namespace that answers errors, and requests while the \
             backend has no endpoint.",
        ),
        served(
            "disable-proxy-intercept-errors",
            Low,
            "Whether errors of the backend are passed on all the same.",
        ),
        served(
            "custom-headers",
            Medium,
            "ConfigMap with headers of answers; global-allowed-response-headers says which.",
        ),
        served("enable-access-log", Low, "Whether requests are logged."),
        accepted(
            "enable-rewrite-log",
            Low,
            "how a path was rewritten is in the debug log.",
        ),
    ],
    read,
};

fn read(reader: &mut Reader<'_>) {
    let statuses = |value: &str| values::statuses(value, 400..600);
    reader.set("custom-http-errors", statuses, |s| &mut s.errors.intercept);
    let service = |value: &str| service(value).map(Some);
    reader.set("default-backend", service, |s| &mut s.errors.backend);
    reader.set("disable-proxy-intercept-errors", values::flag, |s| {
        &mut s.errors.passed_on
    });
    // Ingress-nginx refuses every request too, if it cannot have them: they may protect.
    let (own, others) = (&*reader.ingress.namespace, reader.globals.cross_namespace);
    let object = |value| values::object(value, own, others);
    reader.settings.response.headers = reader.guard("custom-headers", object);
    // Where the ConfigMap switches logs off, no Ingress switches them on (nginx.tmpl).
    if reader.value("enable-access-log", values::flag) == Some(false) {
        reader.settings.access_log = false;
    }
}

/// The name of a Service (RFC 1035 label).
fn service(value: &str) -> Parsed<String> {
    let is_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_name = value.len() <= 63
        && value.starts_with(|c: char| c.is_ascii_lowercase())
        && !value.ends_with('-')
        && value.bytes().all(is_label);
    let name = is_name.then(|| value.to_owned());
    name.ok_or("the name of a Service of the Ingress's namespace".into())
}
