//! Answers for scripts of other sites.

use http::HeaderValue;

use super::{Group, Reader, Risk::*, served};
use crate::{
    settings::Cors,
    values::{self, Parsed},
};

pub(super) const GROUP: Group = Group {
    name: "CORS",
    on_canary: false,
    annotations: &[
        served(
            "enable-cors",
            Low,
            "Whether scripts of other sites may ask; their preflights are answered (204).",
        ),
        served(
            "cors-allow-origin",
            Medium,
            "Origins, with commas: https://example.com, https://*.example.com, null; or *, which \
             is the default.",
        ),
        served(
            "cors-allow-methods",
            Medium,
            "Access-Control-Allow-Methods: GET, PUT, POST, DELETE, PATCH, OPTIONS.",
        ),
        served(
            "cors-allow-headers",
            Medium,
            "Access-Control-Allow-Headers: DNT, Keep-Alive, User-Agent, X-Requested-With, \
             If-Modified-Since, Cache-Control, Content-Type, Range, Authorization.",
        ),
        served(
            "cors-expose-headers",
            Medium,
            "Access-Control-Expose-Headers: none.",
        ),
        served(
            "cors-allow-credentials",
            Low,
            "Access-Control-Allow-Credentials: true.",
        ),
        served(
            "cors-max-age",
            Low,
            "Access-Control-Max-Age: 1728000 seconds.",
        ),
    ],
    read,
};

const COMPANIONS: [&str; 6] = [
    "cors-allow-origin",
    "cors-allow-methods",
    "cors-allow-headers",
    "cors-expose-headers",
    "cors-allow-credentials",
    "cors-max-age",
];

const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const ALLOWED: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,\
                       Cache-Control,Content-Type,Range,Authorization";

fn read(reader: &mut Reader<'_>) {
    if reader.value("enable-cors", values::flag) != Some(true) {
        reader.without("enable-cors: \"true\"", &COMPANIONS);
        return;
    }
    let origins = reader.value("cors-allow-origin", origins);
    // Ingress-nginx takes origins that cannot be read for `*`, which lets every site in with the
    // user's credentials; here no site is let in.
    if origins.is_none() && reader.has("cors-allow-origin") {
        return;
    }
    let methods = reader.value("cors-allow-methods", |value| header(value, ", "));
    let headers = reader.value("cors-allow-headers", |value| header(value, values::HEADERS));
    let expose = reader.value("cors-expose-headers", |value| header(value, "-_*, "));
    let credentials = reader.value("cors-allow-credentials", values::flag);
    let max_age = reader.value("cors-max-age", values::count);
    reader.settings.cors = Some(Cors {
        origins: origins.unwrap_or_else(|| vec!["*".to_owned()]),
        methods: methods.unwrap_or_else(|| HeaderValue::from_static(METHODS)),
        headers: headers.unwrap_or_else(|| HeaderValue::from_static(ALLOWED)),
        expose,
        credentials: credentials.unwrap_or(true),
        max_age: max_age.unwrap_or(1_728_000),
    });
}

fn header(value: &str, also: &str) -> Parsed<HeaderValue> {
    let wanted = "names, with commas";
    let names = values::text(value, also).map_err(|_| wanted)?;
    HeaderValue::from_str(names).map_err(|_| wanted.into())
}

fn origins(value: &str) -> Parsed<Vec<String>> {
    let origins: Vec<&str> = values::list(value).collect();
    let is_ok = !origins.is_empty() && origins.iter().all(|origin| is_origin(origin));
    if !is_ok {
        let wanted = "*, or origins such as https://example.com, with commas";
        return Err(wanted.into());
    }
    if origins.contains(&"*") {
        return Ok(vec!["*".to_owned()]);
    }
    Ok(origins.into_iter().map(str::to_owned).collect())
}

/// `corsOriginRegex` of ingress-nginx.
fn is_origin(origin: &str) -> bool {
    if origin == "*" || origin == "null" {
        return true;
    }
    let Some((scheme, rest)) = origin.split_once("://") else {
        return false;
    };
    let host = rest.strip_prefix("*.").unwrap_or(rest);
    let (host, port) = host.split_once(':').unwrap_or((host, "0"));
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_lowercase())
        && !host.is_empty()
        && host.bytes().all(is_host)
        && port.parse::<u16>().is_ok()
}
