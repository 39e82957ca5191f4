//! Directives that set headers.

use lb_route::variables::Template;

use super::{Advice, Place};

/// What a proxy sends in any case (nginx.tmpl of ingress-nginx v1.15.1): header, and the variables
/// that stand for the same.
const SENT: &[(&str, &[&str])] = &[
    ("host", &["$host", "$http_host", "$best_http_host"]),
    ("x-real-ip", &["$remote_addr"]),
    ("x-forwarded-for", &["$remote_addr"]),
    (
        "x-forwarded-host",
        &["$host", "$http_host", "$best_http_host"],
    ),
    ("x-forwarded-port", &["$server_port", "$pass_port"]),
    ("x-forwarded-proto", &["$scheme", "$pass_access_scheme"]),
    ("x-forwarded-scheme", &["$scheme", "$pass_access_scheme"]),
    ("x-scheme", &["$scheme", "$pass_access_scheme"]),
    ("x-request-id", &["$request_id", "$req_id"]),
    ("upgrade", &["$http_upgrade"]),
    ("connection", &["", "upgrade", "$connection_upgrade"]),
    ("ssl-client-verify", &["$ssl_client_verify"]),
    ("ssl-client-subject-dn", &["$ssl_client_s_dn"]),
    ("ssl-client-issuer-dn", &["$ssl_client_i_dn"]),
];

/// A header of requests: `proxy_set_header`.
pub(super) fn request(name: &str, value: &str) -> Advice {
    let lower = name.to_ascii_lowercase();
    let sent = SENT.iter().find(|(header, _)| *header == lower);
    if sent.is_some_and(|(_, values)| values.contains(&value)) {
        return Advice::nowhere("the backend gets it in any case");
    }
    match (lower.as_str(), value) {
        ("host", _) => Advice::annotation("upstream-vhost", value),
        ("connection", _) => Advice::annotation("connection-proxy-header", value),
        ("x-forwarded-prefix", _) => Advice::annotation("x-forwarded-prefix", value)
            .with("it is sent where rewrite-target is set"),
        ("x-forwarded-for", "$proxy_add_x_forwarded_for") => Advice::new(
            Place::ConfigMap,
            &[
                ("use-forwarded-headers", "true"),
                ("compute-full-forwarded-for", "true"),
            ],
            "for proxies in front that are to be believed; proxy-real-ip-cidr names them",
        ),
        ("x-original-uri", "$request_uri") => Advice::key("proxy-add-original-uri-header", "true"),
        ("ssl-client-cert", "$ssl_client_escaped_cert") => {
            Advice::annotation("auth-tls-pass-certificate-to-upstream", "true")
        }
        _ => for_all("proxy-set-headers", name, value),
    }
}

/// A header that a ConfigMap has, which a key of the proxy's ConfigMap names.
fn for_all(key: &str, name: &str, value: &str) -> Advice {
    if let Err(unknown) = Template::parse(value) {
        return Advice::backend(unknown.to_string());
    }
    Advice::new(
        Place::ConfigMap,
        &[],
        format!(
            "{key}, which names a ConfigMap with {name}: {value:?}; it counts for all Ingresses"
        ),
    )
}

/// A header of answers: `add_header`, `more_set_headers`.
pub(super) fn answer(name: &str, value: &str) -> Advice {
    let lower = name.to_ascii_lowercase();
    match (lower.as_str(), value) {
        ("server", "") => Advice::nowhere("it is not sent, but where server-tokens says so"),
        (_, "") => hide(&[name]),
        ("strict-transport-security", _) => hsts(value),
        _ => match cors(&lower) {
            Some(annotation) if lower == "access-control-allow-origin" => Advice::new(
                Place::Annotation,
                &[("enable-cors", "true"), (annotation, value)],
                "other headers of CORS have defaults then",
            ),
            Some(annotation) => Advice::new(
                Place::Annotation,
                &[("enable-cors", "true"), (annotation, value)],
                "",
            ),
            // Those of custom-headers have no variables.
            None if value.contains('$') => for_all("add-headers", name, value),
            None => Advice::new(
                Place::Annotation,
                &[],
                format!(
                    "custom-headers, which names a ConfigMap with {name}: {value:?}, and {name} in \
                     global-allowed-response-headers of the proxy's ConfigMap"
                ),
            ),
        },
    }
}

fn cors(header: &str) -> Option<&'static str> {
    Some(match header {
        "access-control-allow-origin" => "cors-allow-origin",
        "access-control-allow-methods" => "cors-allow-methods",
        "access-control-allow-headers" => "cors-allow-headers",
        "access-control-allow-credentials" => "cors-allow-credentials",
        "access-control-expose-headers" => "cors-expose-headers",
        "access-control-max-age" => "cors-max-age",
        _ => return None,
    })
}

/// `max-age=31536000; includeSubDomains; preload` (RFC 6797, section 6.1).
fn hsts(value: &str) -> Advice {
    let lower = value.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split(';').map(str::trim).collect();
    let has = |part: &str| {
        if parts.contains(&part) {
            "true"
        } else {
            "false"
        }
    };
    let age = parts.iter().find_map(|part| part.strip_prefix("max-age="));
    Advice::new(
        Place::ConfigMap,
        &[
            ("hsts-max-age", age.unwrap_or_default().trim_matches('"')),
            ("hsts-include-subdomains", has("includesubdomains")),
            ("hsts-preload", has("preload")),
        ],
        "it counts for all Ingresses, over HTTPS",
    )
}

/// Headers of backends that clients do not get.
pub(super) fn hide(names: &[&str]) -> Advice {
    let names = names.join(",");
    Advice::key("hide-headers", &names)
        .with("it counts for all Ingresses; what is named there already stays")
}

/// `more_set_headers` and its like: `NAME: VALUE` each, after options.
pub(super) fn more(arguments: &[&str], one: fn(&str, &str) -> Advice) -> Advice {
    let mut rest = arguments;
    let mut is_limited = false;
    while let [option, after @ ..] = rest {
        match *option {
            "-s" | "-t" => {
                is_limited = true;
                rest = after.get(1..).unwrap_or_default();
            }
            option if option.starts_with('-') => rest = after,
            _ => break,
        }
    }
    let parts = rest.iter().map(|header| {
        let (name, value) = header.split_once(':').unwrap_or((header, ""));
        one(name.trim(), value.trim())
    });
    let mut advice = joined(parts.collect());
    if is_limited && advice.place != Place::Backend {
        advice.note = and(&advice.note, "then it counts for every status and type");
    }
    advice
}

/// What several headers become: what cannot be done goes before what can.
fn joined(mut all: Vec<Advice>) -> Advice {
    if all.len() <= 1 {
        let none = || Advice::nowhere("it names no header");
        return all.pop().unwrap_or_else(none);
    }
    let places = all.iter().map(|advice| advice.place);
    let place = places.max().unwrap_or(Place::Nowhere);
    let mut note = String::new();
    let mut settings = Vec::new();
    for advice in all {
        // Settings of one place are checked together; those of another are words.
        match advice.place == place {
            true => settings.extend(advice.settings),
            false => note = and(&note, &advice.setting_text()),
        }
        note = and(&note, &advice.note);
    }
    Advice {
        place,
        settings,
        note,
    }
}

/// Two parts of a sentence, of which one may be empty.
fn and(first: &str, second: &str) -> String {
    let parts = [first, second];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("; ")
}

impl Advice {
    /// The settings as they are written in YAML.
    pub(super) fn setting_text(&self) -> String {
        let all = self.settings.iter();
        let all = all.map(|setting| format!("{}: {:?}", setting.name, setting.value));
        all.collect::<Vec<_>>().join(", ")
    }

    /// All of it as a sentence.
    pub fn sentence(&self) -> String {
        let place = match self.place {
            Place::Nowhere => "remove it",
            Place::Backend => "let the backend do it",
            Place::ConfigMap => "in the ConfigMap",
            Place::Annotation | Place::Rules => "",
        };
        let text = and(&self.setting_text(), &self.note);
        match place {
            "" => text,
            "in the ConfigMap" => format!("{place}: {text}"),
            place if text.is_empty() => place.to_owned(),
            place => format!("{place}: {text}"),
        }
    }
}
