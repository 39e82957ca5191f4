//! Copies of requests (ingress-nginx v1.15.1, internal/ingress/annotations/mirror/main.go).

use super::{Group, Reader, Risk::*, served};
use crate::{settings::Mirror, values};

const TARGET: &str = "mirror-target";
const HOST: &str = "mirror-host";
const BODY: &str = "mirror-request-body";

pub(super) const GROUP: Group = Group {
    name: "copies",
    on_canary: false,
    annotations: &[
        served(
            TARGET,
            High,
            "The server that gets a copy of each request; what it answers does not matter.",
        ),
        served(HOST, High, "Host of the copies: that of mirror-target."),
        served(
            BODY,
            Low,
            "Whether copies have the body; then no request is copied with more than 64 KiB: on.",
        ),
    ],
    read,
};

fn read(reader: &mut Reader<'_>) {
    if !reader.has(TARGET) {
        return reader.without(TARGET, &[HOST, BODY]);
    }
    let target = |value| super::auth_url(values::text(value, values::URL_VARIABLES)?);
    let target = reader.value(TARGET, target);
    let host = |value| values::text(value, "-._:").map(str::to_owned);
    let host = reader.value(HOST, host);
    let body = reader.value(BODY, values::switch);
    reader.settings.mirror = target.map(|(url, of_url)| Mirror {
        url,
        host: host.unwrap_or(of_url),
        body: body.unwrap_or(true),
    });
}
