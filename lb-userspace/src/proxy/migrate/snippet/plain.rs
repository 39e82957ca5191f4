//! Directives that have a setting of the same meaning.

use super::{Advice, Place};

/// How the value of a directive becomes that of a setting.
#[derive(Clone, Copy)]
enum Value {
    /// All of it, as it is.
    Same,
    /// Only its first word.
    First,
    /// Only its last word.
    Last,
    /// With commas between its words.
    List,
    /// A time, in whole seconds.
    Seconds,
    /// A size, in kilobytes.
    Kilobytes,
    /// `on` is true.
    Flag,
    /// `on` is false.
    Not,
}

use Value::*;

const ANNOTATIONS: &[(&str, &str, Value)] = &[
    ("absolute_redirect", "relative-redirects", Not),
    ("client_max_body_size", "proxy-body-size", Same),
    ("deny", "denylist-source-range", Same),
    ("grpc_connect_timeout", "proxy-connect-timeout", Seconds),
    ("grpc_next_upstream", "proxy-next-upstream", Same),
    ("grpc_read_timeout", "proxy-read-timeout", Seconds),
    ("grpc_send_timeout", "proxy-send-timeout", Seconds),
    ("limit_conn", "limit-connections", Last),
    ("limit_rate", "limit-rate", Kilobytes),
    ("limit_rate_after", "limit-rate-after", Kilobytes),
    ("port_in_redirect", "use-port-in-redirects", Flag),
    ("proxy_connect_timeout", "proxy-connect-timeout", Seconds),
    ("proxy_cookie_domain", "proxy-cookie-domain", Same),
    ("proxy_cookie_path", "proxy-cookie-path", Same),
    ("proxy_http_version", "proxy-http-version", Same),
    ("proxy_next_upstream", "proxy-next-upstream", Same),
    (
        "proxy_next_upstream_timeout",
        "proxy-next-upstream-timeout",
        Seconds,
    ),
    (
        "proxy_next_upstream_tries",
        "proxy-next-upstream-tries",
        Same,
    ),
    ("proxy_read_timeout", "proxy-read-timeout", Seconds),
    ("proxy_request_buffering", "proxy-request-buffering", Same),
    ("proxy_send_timeout", "proxy-send-timeout", Seconds),
    ("proxy_ssl_name", "proxy-ssl-name", Same),
    ("proxy_ssl_server_name", "proxy-ssl-server-name", Same),
    ("proxy_ssl_verify", "proxy-ssl-verify", Same),
    ("proxy_ssl_verify_depth", "proxy-ssl-verify-depth", Same),
    ("satisfy", "satisfy", Same),
    ("server_name", "server-alias", List),
    ("ssl_verify_client", "auth-tls-verify-client", Same),
    ("ssl_verify_depth", "auth-tls-verify-depth", Same),
];

const KEYS: &[(&str, &str, Value)] = &[
    ("brotli", "enable-brotli", Flag),
    ("brotli_comp_level", "brotli-level", Same),
    ("brotli_min_length", "brotli-min-length", Same),
    ("brotli_types", "brotli-types", Same),
    ("client_body_timeout", "client-body-timeout", Seconds),
    ("client_header_timeout", "client-header-timeout", Seconds),
    ("gzip", "use-gzip", Flag),
    ("gzip_comp_level", "gzip-level", Same),
    ("gzip_disable", "gzip-disable", Same),
    ("gzip_min_length", "gzip-min-length", Same),
    ("gzip_types", "gzip-types", Same),
    (
        "http2_max_concurrent_streams",
        "http2-max-concurrent-streams",
        Same,
    ),
    ("ignore_invalid_headers", "ignore-invalid-headers", Flag),
    ("keepalive_requests", "keep-alive-requests", Same),
    ("keepalive_timeout", "keep-alive", Seconds),
    (
        "large_client_header_buffers",
        "large-client-header-buffers",
        Same,
    ),
    ("proxy_hide_header", "hide-headers", Same),
    ("real_ip_header", "forwarded-for-header", Same),
    ("server_tokens", "server-tokens", Flag),
    ("set_real_ip_from", "proxy-real-ip-cidr", Same),
    ("ssl_protocols", "ssl-protocols", Same),
    ("ssl_reject_handshake", "ssl-reject-handshake", Flag),
    ("ssl_session_tickets", "ssl-session-tickets", Flag),
    ("ssl_session_timeout", "ssl-session-timeout", First),
    (
        "underscores_in_headers",
        "enable-underscores-in-headers",
        Flag,
    ),
];

/// What needs no setting: beginnings of names, and why.
const NOWHERE: &[(&str, &str)] = &[
    (
        "brotli_",
        "enable-brotli does what ingress-nginx sets it to",
    ),
    ("aio", "the proxy reads no files"),
    ("client_body_buffer", "bodies stream through the proxy"),
    ("client_body_in", "bodies stream through the proxy"),
    (
        "client_header_buffer",
        "large-client-header-buffers of the ConfigMap counts",
    ),
    ("error_log", "the proxy's flags say what it logs"),
    ("gzip_", "use-gzip does what ingress-nginx sets it to"),
    ("proxy_buffer", "answers stream through the proxy"),
    ("proxy_busy_buffers", "answers stream through the proxy"),
    (
        "proxy_headers_hash",
        "the proxy has no hash tables of nginx",
    ),
    ("proxy_max_temp_file", "the proxy writes no files"),
    ("proxy_temp", "the proxy writes no files"),
    ("resolver", "names are resolved as the proxy's system does"),
    (
        "rewrite_log",
        "how a path was rewritten is in the debug log",
    ),
    ("sendfile", "the proxy reads no files"),
    (
        "ssl_ciphers",
        "ciphers without known weaknesses are offered",
    ),
    ("ssl_ecdh_curve", "X25519, P-256 and P-384 are offered"),
    ("ssl_prefer_server_ciphers", "the order of the proxy counts"),
    ("tcp_no", "it is so in any case"),
];

/// What only a backend can do: beginnings of names, and why.
const BACKEND: &[(&str, &str)] = &[
    ("access_by_lua", "Lua is not run"),
    ("body_filter_by_lua", "Lua is not run"),
    ("content_by_lua", "Lua is not run"),
    (
        "expires",
        "times of caches are not set; custom-headers may set a Cache-Control",
    ),
    ("geoip", "there are no variables of places"),
    ("header_filter_by_lua", "Lua is not run"),
    ("log_by_lua", "Lua is not run"),
    ("limit_except", "methods are not told apart"),
    (
        "modsecurity",
        "there is no firewall for requests; put one before the backend",
    ),
    ("proxy_cache", "answers are not kept"),
    ("proxy_cookie_flags", "flags of cookies are not changed"),
    ("proxy_ignore_headers", "answers are not kept"),
    ("rewrite_by_lua", "Lua is not run"),
    ("set", "variables cannot be set"),
    ("sub_filter", "bodies are not changed"),
];

/// What a directive becomes that has a setting of its meaning, or needs none; `None` for others.
pub(super) fn find(name: &str, arguments: &[&str]) -> Option<Advice> {
    if let Some((_, setting, value)) = ANNOTATIONS.iter().find(|(known, ..)| *known == name) {
        return Some(one(Place::Annotation, setting, *value, arguments));
    }
    if let Some((_, key, value)) = KEYS.iter().find(|(known, ..)| *known == name) {
        let advice = one(Place::ConfigMap, key, *value, arguments);
        let counts = "it counts for all Ingresses";
        return Some(match advice.place {
            Place::ConfigMap => advice.with(counts),
            _ => advice,
        });
    }
    let begins = |(known, _): &&(&str, &str)| name.starts_with(known);
    let nowhere = NOWHERE.iter().find(begins);
    let nowhere = nowhere.map(|(_, why)| Advice::nowhere(*why));
    nowhere.or_else(|| {
        BACKEND
            .iter()
            .find(begins)
            .map(|(_, why)| Advice::backend(*why))
    })
}

fn one(place: Place, name: &str, value: Value, arguments: &[&str]) -> Advice {
    let last = arguments.last().copied().unwrap_or_default();
    let first = arguments.first().copied().unwrap_or_default();
    let is_on = first == "on";
    let text = match value {
        Same => Some(arguments.join(" ")),
        First => Some(first.to_owned()),
        Last => Some(last.to_owned()),
        List => Some(arguments.join(",")),
        Seconds => time(first).map(|ms| ms.div_ceil(1000).to_string()),
        Kilobytes => size(first).map(|bytes| bytes.div_ceil(1024).to_string()),
        Flag => Some(is_on.to_string()),
        Not => Some((!is_on).to_string()),
    };
    match text {
        Some(text) => Advice::new(place, &[(name, &text)], ""),
        None => Advice::backend(format!("{first:?} is no value of {name}")),
    }
}

/// A time of nginx in milliseconds: `90`, `1m30s`, `500ms`
/// (<https://nginx.org/en/docs/syntax.html>).
fn time(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let milliseconds = match unit {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    Some(total)
}

/// A size of nginx in bytes: `1024`, `100k`, `1m`.
fn size(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let bytes = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_those_of_nginx() {
        for (text, expected) in [
            ("90", Some(90_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1d", Some(86_400_000)),
            ("1y", None),
            ("", None),
            ("s", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
        for (text, expected) in [
            ("10", Some(10)),
            ("100k", Some(102_400)),
            ("1M", Some(1_048_576)),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn every_setting_that_is_named_there_is() {
        for (directive, name, _) in ANNOTATIONS {
            assert!(
                lb_route::annotations::find(name).is_some(),
                "{directive}: {name}"
            );
        }
        for (directive, name, _) in KEYS {
            assert!(
                lb_route::globals::find(name).is_some(),
                "{directive}: {name}"
            );
        }
    }
}
