//! Directives of snippets, and what each becomes.

use super::{Advice, Place, headers, plain};

/// What a directive without a block becomes.
pub(super) fn directive(name: &str, arguments: &[&str]) -> Advice {
    match (name, arguments) {
        ("add_header", [header, value, rest @ ..]) => added(header, value, rest),
        ("more_set_headers", arguments) => headers::more(arguments, headers::answer),
        ("more_set_input_headers", arguments) => headers::more(arguments, headers::request),
        ("more_clear_headers", names) => headers::hide(names),
        ("proxy_set_header" | "grpc_set_header", [header, value]) => {
            headers::request(header, value)
        }
        ("proxy_pass_header", [header]) if header.eq_ignore_ascii_case("server") => {
            Advice::key("allow-backend-server-header", "true")
        }
        ("proxy_pass_header", _) => Advice::nowhere("clients get it in any case"),
        ("proxy_cookie_domain" | "proxy_cookie_path", ["off"]) => {
            Advice::nowhere("nothing is replaced by default")
        }
        ("proxy_redirect", ["off" | "default"]) => {
            Advice::nowhere("nothing is replaced by default")
        }
        ("proxy_redirect", [from, to]) => Advice::new(
            Place::Annotation,
            &[("proxy-redirect-from", from), ("proxy-redirect-to", to)],
            "",
        ),
        ("return", arguments) => returned(arguments),
        ("rewrite", [pattern, to, flag @ ..]) => rewritten(pattern, to, flag),
        ("allow", ["all"]) => Advice::nowhere("it is so by default"),
        ("allow", [network]) => Advice::annotation("allowlist-source-range", network)
            .with("all that are allowed, with commas; others get 403"),
        ("deny", ["all"]) => Advice::nowhere(
            "allowlist-source-range refuses all others; without one, denylist-source-range: \
             \"0.0.0.0/0,::/0\" refuses everybody",
        ),
        ("access_log", ["off"]) => Advice::annotation("enable-access-log", "false"),
        ("access_log", _) => Advice::nowhere(
            "logs are written to standard output; log-format-upstream of the ConfigMap says how",
        ),
        ("error_page", [statuses @ .., _]) => error_page(statuses),
        ("proxy_intercept_errors", ["off"]) => {
            Advice::annotation("disable-proxy-intercept-errors", "true")
        }
        ("proxy_intercept_errors", _) => {
            Advice::nowhere("custom-http-errors says which errors are answered in its place")
        }
        _ => plain::find(name, arguments)
            .or_else(|| named(name))
            .unwrap_or_else(|| {
                Advice::backend("no annotation and no key of the ConfigMap does it")
            }),
    }
}

/// What needs an object, which a snippet cannot name.
fn named(name: &str) -> Option<Advice> {
    let (place, note) = match name {
        "auth_basic" | "auth_basic_user_file" => (
            Place::Annotation,
            "auth-type: \"basic\", auth-secret, which names a Secret with the file in its key auth, \
             and auth-realm",
        ),
        "auth_request" | "auth_request_set" => (
            Place::Annotation,
            "auth-url, which has the server's address, and auth-response-headers",
        ),
        "limit_req" => (
            Place::Annotation,
            "limit-rps or limit-rpm, and limit-burst-multiplier, each client by itself",
        ),
        "proxy_ssl_trusted_certificate" | "proxy_ssl_certificate" | "proxy_ssl_certificate_key" => {
            (
                Place::Annotation,
                "proxy-ssl-secret, which names a Secret with them",
            )
        }
        "ssl_client_certificate" => (
            Place::Annotation,
            "auth-tls-secret, which names a Secret with ca.crt",
        ),
        "ssl_certificate" | "ssl_certificate_key" => (
            Place::Rules,
            "tls of the Ingress, which names a Secret with them",
        ),
        "proxy_pass" | "grpc_pass" => (
            Place::Rules,
            "a path with a Service as its backend; one of type ExternalName is for another host",
        ),
        "valid_referers" => (Place::ConfigMap, "block-referers, for all Ingresses"),
        "log_format" => (Place::ConfigMap, "log-format-upstream, for all Ingresses"),
        _ => return None,
    };
    Some(Advice::new(place, &[], note))
}

/// Without `always`, nginx adds it to answers that are well only
/// (<https://nginx.org/en/docs/http/ngx_http_headers_module.html>).
fn added(header: &str, value: &str, rest: &[&str]) -> Advice {
    let advice = headers::answer(header, value);
    let is_custom = advice.place == Place::Annotation && advice.settings.is_empty();
    if !is_custom || rest.contains(&"always") {
        return advice;
    }
    let note = format!(
        "{}; nginx leaves it out of errors, custom-headers does not",
        advice.note
    );
    advice.with(note)
}

/// `return CODE`, `return CODE URL`, `return CODE TEXT`, `return URL`.
fn returned(arguments: &[&str]) -> Advice {
    let (code, target) = match arguments {
        [code, rest @ ..] if code.parse::<u16>().is_ok() => (*code, rest.first().copied()),
        [target, ..] => ("302", Some(*target)),
        [] => ("", None),
    };
    match (code, target) {
        ("301" | "302" | "303" | "307" | "308", Some(target)) => redirect(code, target),
        ("403", _) => Advice::annotation("denylist-source-range", "0.0.0.0/0,::/0"),
        ("404", _) => Advice::new(
            Place::Rules,
            &[],
            "leave the path out: what no rule has gets 404",
        ),
        ("204", _) => Advice::annotation("enable-cors", "true").with("if it is for preflights"),
        _ => Advice::backend("answers of the proxy's own are redirects and errors"),
    }
}

fn redirect(code: &str, target: &str) -> Advice {
    let is_https = |host: &str| {
        let rest = target
            .strip_prefix("https://")
            .and_then(|rest| rest.strip_prefix(host));
        rest == Some("$request_uri")
    };
    if ["$host", "$http_host", "$server_name"]
        .into_iter()
        .any(is_https)
    {
        return Advice::annotation("force-ssl-redirect", "true");
    }
    let www = target.split_once("://").map(|(_, rest)| rest);
    if www.is_some_and(|rest| rest.starts_with("www.$host")) {
        return Advice::annotation("from-to-www-redirect", "true");
    }
    let (name, name_of_code, default) = match code {
        "301" | "308" => ("permanent-redirect", "permanent-redirect-code", "301"),
        _ => ("temporal-redirect", "temporal-redirect-code", "302"),
    };
    let mut settings = vec![(name, target)];
    if code != default {
        settings.push((name_of_code, code));
    }
    Advice::new(Place::Annotation, &settings, "")
}

/// `rewrite REGEX REPLACEMENT [last|break|redirect|permanent]`.
fn rewritten(pattern: &str, to: &str, flag: &[&str]) -> Advice {
    let path = pattern.strip_prefix('^').unwrap_or(pattern);
    let on = format!("on an Ingress with the path {path} of pathType ImplementationSpecific");
    let is_elsewhere = ["http://", "https://", "$scheme"]
        .iter()
        .any(|s| to.starts_with(s));
    match flag {
        ["permanent"] => redirect("301", to).with(on),
        ["redirect"] => redirect("302", to).with(on),
        _ if is_elsewhere => redirect("302", to).with(on),
        _ => Advice::new(
            Place::Annotation,
            &[("use-regex", "true"), ("rewrite-target", to)],
            on,
        ),
    }
}

fn error_page(statuses: &[&str]) -> Advice {
    let is_status = |status: &&&str| status.parse::<u16>().is_ok();
    let statuses: Vec<&str> = statuses.iter().filter(is_status).copied().collect();
    Advice::annotation("custom-http-errors", &statuses.join(","))
        .with("default-backend names the Service that answers them")
}

/// What a block becomes. What is in a location becomes that by itself; what is in a condition does
/// not.
pub(super) fn block(name: &str, arguments: &[&str], text: &str) -> Advice {
    if name == "location" {
        return location(arguments);
    }
    if name != "if" {
        return plain::find(name, arguments)
            .filter(|advice| advice.place == Place::Backend)
            .unwrap_or_else(|| Advice::backend("blocks of nginx's configuration are not read"));
    }
    let has = |part: &str| text.contains(part);
    if has("$request_method") && has("OPTIONS") {
        return Advice::annotation("enable-cors", "true")
            .with("preflights are answered, by what cors-allow-* say");
    }
    if has("$scheme") || has("$http_x_forwarded_proto") {
        return Advice::annotation("force-ssl-redirect", "true");
    }
    if has("$http_user_agent") {
        return condition("block-user-agents, for all Ingresses, if it refuses");
    }
    if has("$http_referer") || has("$invalid_referer") {
        return condition("block-referers, for all Ingresses, if it refuses");
    }
    if has("$remote_addr") {
        let note = "allowlist-source-range or denylist-source-range, if it refuses";
        return Advice::new(Place::Annotation, &[], note);
    }
    if has("$host") || has("$http_host") {
        let note = "an Ingress with a rule for that host; from-to-www-redirect leads to the name \
                    with www., or from it";
        return Advice::new(Place::Rules, &[], note);
    }
    Advice::backend("requests are not told apart by conditions")
}

fn condition(note: &str) -> Advice {
    Advice::new(Place::ConfigMap, &[], note)
}

/// `location [=|~|~*|^~] PATH`.
fn location(arguments: &[&str]) -> Advice {
    let (path, kind) = match arguments {
        ["=", path] => (*path, "Exact"),
        ["~" | "~*", path] => (*path, "ImplementationSpecific, with use-regex: \"true\""),
        ["^~", path] | [path] => (*path, "Prefix"),
        _ => return Advice::backend("it has no path"),
    };
    let path = path.strip_prefix('^').unwrap_or(path);
    if path.starts_with('@') {
        return Advice::backend("locations with names are not offered");
    }
    let note = format!(
        "an Ingress of its own with the path {path} of pathType {kind}, and the annotations below"
    );
    Advice::new(Place::Rules, &[], note)
}
