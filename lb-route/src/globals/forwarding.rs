//! What other proxies say, headers, and connections to backends.

use super::{Key, accepted, put, served};
use crate::{
    input::Name,
    values::{self, Parsed},
};

pub(super) const KEYS: &[Key] = &[
    served(
        "use-forwarded-headers",
        "Whether X-Forwarded-* of clients is believed: false.",
        |g, v| put(&mut g.forwarded.trust, values::flag(v)),
    ),
    served(
        "enable-real-ip",
        "Whether the client's address is read from forwarded-for-header in any case: \
             false.",
        |g, v| put(&mut g.forwarded.real_ip, values::flag(v)),
    ),
    served(
        "forwarded-for-header",
        "Where the client's address is: X-Forwarded-For.",
        |g, v| put(&mut g.forwarded.header, values::header(v)),
    ),
    served(
        "compute-full-forwarded-for",
        "Whether the client's address is added to what X-Forwarded-For has: false.",
        |g, v| put(&mut g.forwarded.full, values::flag(v)),
    ),
    served(
        "proxy-real-ip-cidr",
        "Networks of proxies that are believed: 0.0.0.0/0.",
        |g, v| put(&mut g.forwarded.proxies, values::networks(v)),
    ),
    served(
        "proxy-add-original-uri-header",
        "Whether backends get X-Original-URI: false.",
        |g, v| put(&mut g.forwarded.original_uri, values::flag(v)),
    ),
    served(
        "generate-request-id",
        "Whether requests without X-Request-ID get one: true.",
        |g, v| put(&mut g.forwarded.request_id, values::flag(v)),
    ),
    served(
        "proxy-set-headers",
        "ConfigMap, NAMESPACE/NAME, with headers for backends: none.",
        |g, v| put(&mut g.headers.requests, object(v)),
    ),
    served(
        "add-headers",
        "ConfigMap, NAMESPACE/NAME, with headers of answers: none.",
        |g, v| put(&mut g.headers.answers, object(v)),
    ),
    served(
        "hide-headers",
        "Headers of backends that clients do not get: none.",
        |g, v| put(&mut g.headers.hidden, values::headers(v)),
    ),
    served(
        "global-allowed-response-headers",
        "Headers that custom-headers may set: none.",
        |g, v| put(&mut g.headers.allowed, values::headers(v)),
    ),
    served(
        "server-tokens",
        "Whether answers have the header Server: false.",
        |g, v| put(&mut g.headers.server, values::flag(v)),
    ),
    served(
        "allow-backend-server-header",
        "Whether Server is the backend's: false.",
        |g, v| put(&mut g.headers.backend_server, values::flag(v)),
    ),
    served(
        "upstream-keepalive-connections",
        "Connections to backends that are kept: 320.",
        |g, v| put(&mut g.pool.connections, values::count(v)),
    ),
    served(
        "upstream-keepalive-requests",
        "Requests of one: 10000.",
        |g, v| put(&mut g.pool.requests, values::count(v)),
    ),
    served(
        "upstream-keepalive-timeout",
        "Seconds for which one without a request is kept: 60.",
        |g, v| put(&mut g.pool.timeout, values::seconds(v)),
    ),
    served(
        "upstream-keepalive-time",
        "How long one is used: 1h.",
        |g, v| put(&mut g.pool.time, values::time(v)),
    ),
    served(
        "worker-shutdown-timeout",
        "How long connections have to end when the proxy does: 240s.",
        |g, v| put(&mut g.drain, values::time(v)),
    ),
    accepted(
        "forwarded-for-proxy-protocol-header",
        "the address of the PROXY protocol is not carried in a header.",
    ),
    accepted(
        "forwarded-host-header",
        "X-Original-Forwarded-Host is what X-Forwarded-Host was.",
    ),
    accepted("grpc-buffer-size-kb", "bodies stream through the proxy."),
    accepted("default-type", "the proxy serves no files."),
];

/// The administrator may name an object of any namespace.
fn object(value: &str) -> Parsed<Option<Name>> {
    let has_namespace = value.split('/').filter(|part| !part.is_empty()).count() == 2;
    let name = has_namespace
        .then(|| values::object(value, "", true))
        .transpose()?;
    name.map(Some).ok_or("NAMESPACE/NAME".into())
}
