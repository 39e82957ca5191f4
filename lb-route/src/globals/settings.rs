//! Defaults of what annotations say.

use super::{Key, accepted, put, served};
use crate::{annotations as of, values};

const STREAMS: &str = "bodies stream through the proxy.";
const MEMCACHED: &str = "proxies tell each other what they have counted, without memcached.";

pub(super) const KEYS: &[Key] = &[
    served(
        "ssl-redirect",
        "Whether HTTP is led to HTTPS where the host has a certificate: true.",
        |g, v| put(&mut g.defaults.redirect.ssl, values::flag(v)),
    ),
    served(
        "force-ssl-redirect",
        "Whether HTTP is led to HTTPS in any case: false.",
        |g, v| put(&mut g.defaults.redirect.force_ssl, values::flag(v)),
    ),
    served(
        "http-redirect-code",
        "Status of redirects to HTTPS, 301, 302, 307 or 308: 308.",
        |g, v| {
            let code = values::status(v, 301..=308).ok();
            let code = code.filter(|code| ![303, 304, 305, 306].contains(&code.as_u16()));
            put(
                &mut g.defaults.redirect.ssl_code,
                code.ok_or("301, 302, 307 or 308".into()),
            )
        },
    ),
    served(
        "preserve-trailing-slash",
        "Whether a redirect to HTTPS keeps a slash at the path's end: false.",
        |g, v| {
            put(
                &mut g.defaults.redirect.preserve_trailing_slash,
                values::flag(v),
            )
        },
    ),
    served(
        "relative-redirects",
        "Whether redirects of the proxy have a path only: false.",
        |g, v| put(&mut g.defaults.redirect.relative, values::flag(v)),
    ),
    served(
        "use-port-in-redirects",
        "Whether redirects of the proxy name the port: false.",
        |g, v| put(&mut g.defaults.redirect.use_port, values::flag(v)),
    ),
    served(
        "load-balance",
        "round_robin or ewma: round_robin.",
        |g, v| put(&mut g.defaults.upstream.balance, of::balance(v)),
    ),
    served(
        "service-upstream",
        "Whether the Service's address is dialled, and not its endpoints: false.",
        |g, v| put(&mut g.defaults.upstream.service_upstream, values::flag(v)),
    ),
    served(
        "proxy-http-version",
        "What backends are spoken to by, 1.0 or 1.1: 1.1.",
        |g, v| put(&mut g.defaults.upstream.http10, of::is_http10(v)),
    ),
    served(
        "proxy-connect-timeout",
        "Seconds for a connection: 5.",
        |g, v| put(&mut g.defaults.upstream.connect_timeout, values::seconds(v)),
    ),
    served(
        "proxy-read-timeout",
        "Seconds between two reads of an answer: 60.",
        |g, v| put(&mut g.defaults.upstream.read_timeout, values::seconds(v)),
    ),
    served(
        "proxy-send-timeout",
        "Seconds between two writes of a request: 60.",
        |g, v| put(&mut g.defaults.upstream.send_timeout, values::seconds(v)),
    ),
    served(
        "proxy-next-upstream",
        "When another endpoint is tried: error timeout.",
        |g, v| {
            let old = &g.defaults.upstream.next;
            let (tries, within) = (old.tries, old.within);
            let mut next = values::next_upstream(v)?;
            (next.tries, next.within) = (tries, within);
            put(&mut g.defaults.upstream.next, Ok(next))
        },
    ),
    served(
        "proxy-next-upstream-tries",
        "Attempts in all: 3; 0 for every endpoint.",
        |g, v| put(&mut g.defaults.upstream.next.tries, values::count(v)),
    ),
    served(
        "proxy-next-upstream-timeout",
        "Seconds for all attempts; 0 without end: 0.",
        |g, v| {
            let within = values::seconds(v)?;
            put(
                &mut g.defaults.upstream.next.within,
                Ok((!within.is_zero()).then_some(within)),
            )
        },
    ),
    served(
        "retry-non-idempotent",
        "Whether requests such as POST are sent to another endpoint too: false.",
        |g, v| put(&mut g.retry_non_idempotent, values::flag(v)),
    ),
    served(
        "proxy-body-size",
        "Size of a request's body: 1m; 0 for any.",
        |g, v| put(&mut g.defaults.body_size, of::body_size(v)),
    ),
    served(
        "proxy-request-buffering",
        "Whether a body is kept for a second attempt: on.",
        |g, v| {
            put(
                &mut g.defaults.upstream.request_buffering,
                values::switch(v),
            )
        },
    ),
    served(
        "proxy-redirect-from",
        "What Location and Refresh of backends begin with, to be replaced: off.",
        |_, v| values::text(v, values::URL).map(drop),
    ),
    served(
        "proxy-redirect-to",
        "What replaces proxy-redirect-from: off.",
        |_, v| values::text(v, values::URL).map(drop),
    ),
    served(
        "proxy-cookie-domain",
        "Domain of cookies that backends set, two texts, from and to: off.",
        |g, v| put(&mut g.defaults.response.cookie_domain, values::pair(v)),
    ),
    served(
        "proxy-cookie-path",
        "Path of cookies that backends set, two texts, from and to: off.",
        |g, v| put(&mut g.defaults.response.cookie_path, values::pair(v)),
    ),
    served(
        "custom-http-errors",
        "Statuses of backends, 300 to 599, that the default backend answers in their \
             place: none.",
        |g, v| {
            put(
                &mut g.defaults.errors.intercept,
                values::statuses(v, 300..600),
            )
        },
    ),
    served(
        "disable-proxy-intercept-errors",
        "Whether errors of backends are passed on all the same: false.",
        |g, v| put(&mut g.defaults.errors.passed_on, values::flag(v)),
    ),
    served(
        "limit-rate",
        "Kilobytes a second of an answer; 0 without a limit: 0.",
        |g, v| put(&mut g.defaults.limits.rate, of::rate(v)),
    ),
    served(
        "limit-rate-after",
        "Kilobytes of an answer that come before that counts: 0.",
        |g, v| put(&mut g.defaults.limits.rate_after, of::rate_after(v)),
    ),
    served(
        "limit-req-status-code",
        "Status beyond limit-rps and limit-rpm, 400 to 599: 503.",
        |g, v| put(&mut g.rate_status, values::status(v, 400..=599)),
    ),
    served(
        "limit-conn-status-code",
        "Status beyond limit-connections, 400 to 599: 503.",
        |g, v| put(&mut g.connections_status, values::status(v, 400..=599)),
    ),
    served(
        "global-rate-limit-status-code",
        "Status beyond global-rate-limit, 400 to 599: 429.",
        |g, v| put(&mut g.overall_status, values::status(v, 400..=599)),
    ),
    accepted("global-rate-limit-memcached-host", MEMCACHED),
    accepted("global-rate-limit-memcached-port", MEMCACHED),
    accepted("global-rate-limit-memcached-connect-timeout", MEMCACHED),
    accepted("global-rate-limit-memcached-max-idle-timeout", MEMCACHED),
    accepted("global-rate-limit-memcached-pool-size", MEMCACHED),
    accepted(
        "limit-conn-zone-variable",
        "clients are told apart by their addresses.",
    ),
    accepted("client-body-buffer-size", STREAMS),
    accepted("proxy-buffering", STREAMS),
    accepted(
        "proxy-buffer-size",
        "the head of an answer may be as large as the proxy's limit, 64 KiB.",
    ),
    accepted("proxy-buffers-number", STREAMS),
    accepted("proxy-busy-buffers-size", STREAMS),
    accepted("proxy-max-temp-file-size", "the proxy writes no files."),
    accepted(
        "proxy-ssl-location-only",
        "proxy-ssl-* of an Ingress counts for its own paths only.",
    ),
];
