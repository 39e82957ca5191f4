//! What has no effect, or is refused.

use super::{Globals, Key, Mark, accepted, refused};
use crate::values::{self, Parsed};

const WORKERS: &str = "the proxy has no workers of nginx.";
const HASHES: &str = "the proxy has no hash tables of nginx.";
const STREAMS: &str = "TCP and UDP are not forwarded here, but by Services.";
const GEO: &str = "there are no variables of places.";
const SNIPPETS: &str = "it is text of nginx's configuration, and is left out; use the key or the \
             annotation for what it does, and remove it.";
const FIREWALL: &str = "there is no firewall for requests, and Ingresses without \
    enable-modsecurity: \"false\" are refused rather than served without it; put one before \
    the proxy, and remove it.";

pub(super) const KEYS: &[Key] = &[
    refused("main-snippet", SNIPPETS),
    refused("http-snippet", SNIPPETS),
    refused("server-snippet", SNIPPETS),
    refused("stream-snippet", SNIPPETS),
    refused("location-snippet", SNIPPETS),
    refused(
        "allow-snippet-annotations",
        "text of nginx's configuration is never followed; remove it.",
    ),
    Key {
        name: "enable-modsecurity",
        mark: Mark::Refused,
        sentence: FIREWALL,
        read: firewall,
    },
    refused(
        "enable-owasp-modsecurity-crs",
        "there is no firewall for requests; remove it.",
    ),
    refused(
        "modsecurity-snippet",
        "there is no firewall for requests; remove it.",
    ),
    accepted("use-geoip", GEO),
    accepted("use-geoip2", GEO),
    accepted("geoip2-autoreload-in-minutes", GEO),
    accepted("enable-multi-accept", WORKERS),
    accepted("max-worker-connections", WORKERS),
    accepted("max-worker-open-files", WORKERS),
    accepted("worker-processes", WORKERS),
    accepted("worker-cpu-affinity", WORKERS),
    accepted(
        "enable-serial-reloads",
        "the configuration is changed without workers.",
    ),
    accepted("enable-aio-write", "the proxy writes no files."),
    accepted("map-hash-bucket-size", HASHES),
    accepted("server-name-hash-max-size", HASHES),
    accepted("server-name-hash-bucket-size", HASHES),
    accepted("proxy-headers-hash-max-size", HASHES),
    accepted("proxy-headers-hash-bucket-size", HASHES),
    accepted("variables-hash-bucket-size", HASHES),
    accepted("variables-hash-max-size", HASHES),
    accepted("lua-shared-dicts", "the proxy has no Lua."),
    accepted(
        "nginx-status-ipv4-whitelist",
        "status and metrics are on a port of their own.",
    ),
    accepted(
        "nginx-status-ipv6-whitelist",
        "status and metrics are on a port of their own.",
    ),
    accepted("proxy-stream-timeout", STREAMS),
    accepted("proxy-stream-next-upstream", STREAMS),
    accepted("proxy-stream-next-upstream-timeout", STREAMS),
    accepted("proxy-stream-next-upstream-tries", STREAMS),
    accepted("proxy-stream-responses", STREAMS),
];

fn firewall(globals: &mut Globals, value: &str) -> Parsed<()> {
    if values::flag(value)? {
        let why = "enable-modsecurity of the ConfigMap asks for a firewall that there is not";
        globals.firewall_refused = Some(why.to_owned());
    }
    Ok(())
}
