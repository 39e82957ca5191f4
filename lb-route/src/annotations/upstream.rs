//! How requests reach a backend, and which endpoint.

use http::HeaderValue;

use super::{Group, Reader, Risk::*, accepted, served};
use crate::{
    settings::{BackendProtocol, Balance},
    values::{self, Parsed},
};

pub(super) const BALANCE: Group = Group {
    name: "balance",
    on_canary: true,
    annotations: &[
        served("load-balance", Low, "round_robin or ewma."),
        served(
            "upstream-hash-by",
            High,
            "A value with variables: equal ones reach the same endpoint; it goes before \
             load-balance.",
        ),
        served(
            "upstream-hash-by-subset",
            Low,
            "Whether equal values reach one of several endpoints.",
        ),
        served(
            "upstream-hash-by-subset-size",
            Low,
            "How many those are: 3.",
        ),
        served(
            "service-upstream",
            Low,
            "Whether the Service's address is dialled, and not its endpoints.",
        ),
    ],
    read: read_balance,
};

pub(super) const GROUP: Group = Group {
    name: "upstream",
    on_canary: false,
    annotations: &[
        served("backend-protocol", Low, "HTTP, HTTPS, GRPC or GRPCS."),
        served(
            "upstream-vhost",
            Low,
            "Host for the backend, with variables.",
        ),
        served("proxy-http-version", Low, "1.0 or 1.1."),
        served(
            "connection-proxy-header",
            Low,
            "Connection for the backend: close or keep-alive.",
        ),
        served("proxy-connect-timeout", Low, "Seconds for a connection: 5."),
        served(
            "proxy-read-timeout",
            Low,
            "Seconds between two reads of an answer: 60.",
        ),
        served(
            "proxy-send-timeout",
            Low,
            "Seconds between two writes of a request: 60.",
        ),
        served(
            "proxy-next-upstream",
            Medium,
            "When another endpoint is tried: error timeout.",
        ),
        served(
            "proxy-next-upstream-tries",
            Low,
            "Attempts in all: 3; 0 for every endpoint.",
        ),
        served(
            "proxy-next-upstream-timeout",
            Low,
            "Seconds for all attempts; 0 without end.",
        ),
        served(
            "proxy-body-size",
            Medium,
            "Size of a request's body: 1m; 0 for any.",
        ),
        served(
            "proxy-request-buffering",
            Low,
            "Whether a body is kept for a second attempt: on.",
        ),
        accepted(
            "client-body-buffer-size",
            Low,
            "bodies stream through the proxy, whose buffers have a size of their own.",
        ),
        accepted("proxy-buffering", Low, "answers stream through the proxy."),
        accepted(
            "proxy-buffer-size",
            Low,
            "the head of an answer may be as large as the proxy's limit, 64 KiB.",
        ),
        accepted(
            "proxy-buffers-number",
            Low,
            "answers stream through the proxy.",
        ),
        accepted(
            "proxy-busy-buffers-size",
            Low,
            "answers stream through the proxy.",
        ),
        accepted(
            "proxy-max-temp-file-size",
            Low,
            "the proxy writes no files.",
        ),
    ],
    read,
};

fn read_balance(reader: &mut Reader<'_>) {
    reader.set("load-balance", balance, |s| &mut s.upstream.balance);
    let size = |value: &str| {
        let size = values::count(value).ok().filter(|size| *size > 0);
        size.ok_or("a whole number from 1 up".into())
    };
    let subset = reader.value("upstream-hash-by-subset", values::flag);
    let size = reader
        .value("upstream-hash-by-subset-size", size)
        .unwrap_or(3);
    let subset = subset.and_then(|is_on| is_on.then_some(size as usize));
    let key = |value| values::template_of(value, values::VARIABLES);
    if let Some(key) = reader.value("upstream-hash-by", key) {
        reader.settings.upstream.balance = Balance::Hash { key, subset };
    } else if !reader.has("upstream-hash-by") {
        let names = ["upstream-hash-by-subset", "upstream-hash-by-subset-size"];
        reader.without("upstream-hash-by", &names);
    }
    reader.set("service-upstream", values::flag, |s| {
        &mut s.upstream.service_upstream
    });
}

/// `load-balance`, of an Ingress or of the ConfigMap.
pub(crate) fn balance(value: &str) -> Parsed<Balance> {
    match value.trim() {
        "round_robin" => Ok(Balance::RoundRobin),
        "ewma" => Ok(Balance::Ewma),
        _ => Err("round_robin or ewma; others are upstream-hash-by and affinity".into()),
    }
}

fn read(reader: &mut Reader<'_>) {
    read_protocol(reader);
    let vhost = |value: &str| values::template_of(value.trim(), values::EXPRESSION).map(Some);
    reader.set("upstream-vhost", vhost, |s| &mut s.upstream.vhost);
    reader.set("proxy-http-version", is_http10, |s| &mut s.upstream.http10);
    let header = |value: &str| {
        let words = [("close", "close"), ("keep-alive", "keep-alive")];
        let word = values::word(value, &words, "close or keep-alive")?;
        Ok(Some(HeaderValue::from_static(word)))
    };
    reader.set("connection-proxy-header", header, |s| {
        &mut s.upstream.connection_header
    });
    reader.set("proxy-connect-timeout", values::seconds, |s| {
        &mut s.upstream.connect_timeout
    });
    reader.set("proxy-read-timeout", values::seconds, |s| {
        &mut s.upstream.read_timeout
    });
    reader.set("proxy-send-timeout", values::seconds, |s| {
        &mut s.upstream.send_timeout
    });
    read_next(reader);
    reader.set("proxy-body-size", body_size, |s| &mut s.body_size);
    reader.set("proxy-request-buffering", values::switch, |s| {
        &mut s.upstream.request_buffering
    });
}

fn read_protocol(reader: &mut Reader<'_>) {
    let value = reader.raw("backend-protocol").unwrap_or_default().trim();
    if value.eq_ignore_ascii_case("FCGI") {
        let why = "is FCGI, which is not spoken; put an HTTP server before the backend";
        reader.deny("backend-protocol", why);
        return;
    }
    reader.set("backend-protocol", protocol, |s| &mut s.upstream.protocol);
}

fn protocol(value: &str) -> Parsed<BackendProtocol> {
    let words = [
        ("HTTP", BackendProtocol::Http),
        ("HTTPS", BackendProtocol::Https),
        ("GRPC", BackendProtocol::Grpc),
        ("GRPCS", BackendProtocol::Grpcs),
    ];
    let upper = value.to_ascii_uppercase();
    values::word(&upper, &words, "HTTP, HTTPS, GRPC or GRPCS")
}

fn read_next(reader: &mut Reader<'_>) {
    if let Some(mut next) = reader.value("proxy-next-upstream", values::next_upstream) {
        let old = &reader.settings.upstream.next;
        next.non_idempotent |= reader.globals.retry_non_idempotent;
        (next.tries, next.within) = (old.tries, old.within);
        reader.settings.upstream.next = next;
    }
    reader.set("proxy-next-upstream-tries", values::count, |s| {
        &mut s.upstream.next.tries
    });
    let within = |value: &str| {
        let within = values::seconds(value)?;
        Ok((!within.is_zero()).then_some(within))
    };
    reader.set("proxy-next-upstream-timeout", within, |s| {
        &mut s.upstream.next.within
    });
}

/// Whether `proxy-http-version` is 1.0, in an Ingress or in the ConfigMap.
pub(crate) fn is_http10(value: &str) -> Parsed<bool> {
    values::word(value, &[("1.0", true), ("1.1", false)], "1.0 or 1.1")
}

/// `proxy-body-size`, of an Ingress or of the ConfigMap.
pub(crate) fn body_size(value: &str) -> Parsed<Option<u64>> {
    let size = values::size(value)?;
    Ok((size > 0).then_some(size))
}
