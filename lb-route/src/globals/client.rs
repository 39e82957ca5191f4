//! Clients' connections.

use super::{Key, accepted, put, served};
use crate::values::{self, Parsed};

pub(super) const KEYS: &[Key] = &[
    served(
        "keep-alive",
        "Seconds for which a connection without a request is kept, 0 for not at all: 75.",
        |g, v| put(&mut g.client.keep_alive, values::seconds(v)),
    ),
    served(
        "keep-alive-requests",
        "Requests of a connection: 1000.",
        |g, v| put(&mut g.client.keep_alive_requests, positive(v)),
    ),
    served(
        "client-header-timeout",
        "Seconds for a request's head: 60.",
        |g, v| put(&mut g.client.header_timeout, values::seconds(v)),
    ),
    served(
        "client-body-timeout",
        "Seconds between two reads of a request's body: 60.",
        |g, v| put(&mut g.client.body_timeout, values::seconds(v)),
    ),
    served(
        "large-client-header-buffers",
        "How many lines of a head may be long, and how long: 4 8k.",
        |g, v| put(&mut g.client.header_buffers, buffers(v)),
    ),
    served("use-http2", "Whether HTTP/2 is offered: true.", |g, v| {
        put(&mut g.client.http2, values::flag(v))
    }),
    served(
        "http2-max-concurrent-streams",
        "Requests at once of an HTTP/2 connection: 128.",
        |g, v| put(&mut g.client.http2_streams, positive(v)),
    ),
    served(
        "enable-underscores-in-headers",
        "Whether names of headers may have _ in them: false.",
        |g, v| put(&mut g.client.underscores, values::flag(v)),
    ),
    served(
        "ignore-invalid-headers",
        "Whether headers whose names are none are left out, not answered 400: true.",
        |g, v| put(&mut g.client.ignore_invalid, values::flag(v)),
    ),
    served(
        "use-proxy-protocol",
        "Whether connections begin with the PROXY protocol: false.",
        |g, v| put(&mut g.client.proxy_protocol, values::flag(v)),
    ),
    served(
        "proxy-protocol-header-timeout",
        "Time for its header: 5s.",
        |g, v| put(&mut g.client.proxy_protocol_timeout, values::duration(v)),
    ),
    accepted(
        "client-header-buffer-size",
        "large-client-header-buffers counts.",
    ),
    accepted(
        "http2-max-field-size",
        "large-client-header-buffers counts.",
    ),
    accepted(
        "http2-max-header-size",
        "large-client-header-buffers counts.",
    ),
    accepted("http2-max-requests", "keep-alive-requests counts."),
    accepted("bind-address", "addresses and ports are the proxy's flags."),
    accepted("disable-ipv6", "addresses and ports are the proxy's flags."),
    accepted(
        "disable-ipv6-dns",
        "names of ExternalName Services are resolved for both families.",
    ),
    accepted("reuse-port", "the proxy opens its sockets by itself."),
];

fn positive(value: &str) -> Parsed<u32> {
    let count = values::count(value).ok().filter(|count| *count > 0);
    count.ok_or("a whole number from 1 up".into())
}

/// A number and a size.
fn buffers(value: &str) -> Parsed<(u32, u64)> {
    let wanted = "a number and a size, such as 4 8k";
    let (number, size) = value.split_once(' ').ok_or(wanted)?;
    let number = positive(number).map_err(|_| wanted)?;
    let size = values::size(size).ok().filter(|size| *size > 0);
    Ok((number, size.ok_or(wanted)?))
}
