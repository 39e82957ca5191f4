//! Another server that is asked whether a request may pass.

use std::{sync::Arc, time::Duration};

use http::Method;

use super::{Group, Reader, Risk::*, accepted, refused, served};
use crate::{
    settings::{AuthCache, ExternalAuth},
    values::{self, Parsed},
    variables::Template,
};

pub(super) const GROUP: Group = Group {
    name: "external authentication",
    on_canary: false,
    annotations: &[
        served(
            "auth-url",
            High,
            "The server that is asked: 2xx lets the request pass.",
        ),
        served("auth-method", Low, "Method of the question: GET."),
        served(
            "auth-signin",
            High,
            "Where a client is led whose request got 401 (302).",
        ),
        served(
            "auth-signin-redirect-param",
            Medium,
            "Parameter of auth-signin with the address that was asked for: rd.",
        ),
        served(
            "auth-response-headers",
            Medium,
            "Headers of the server's answer that the backend gets.",
        ),
        served(
            "auth-request-redirect",
            Medium,
            "X-Auth-Request-Redirect of the question: what was asked for.",
        ),
        served(
            "auth-always-set-cookie",
            Low,
            "Whether the server's cookies are set in answers with errors too.",
        ),
        served(
            "auth-proxy-set-headers",
            Medium,
            "ConfigMap with more headers of the question.",
        ),
        served(
            "enable-global-auth",
            Low,
            "false: the ConfigMap's global-auth-url does not count for the Ingress.",
        ),
        served(
            "auth-cache-key",
            Medium,
            "What answers of the server are kept by; an empty one is asked for every time.",
        ),
        served(
            "auth-cache-duration",
            Medium,
            "Statuses and how long answers with them are kept: 200 202 401 5m.",
        ),
        accepted(
            "auth-keepalive",
            Low,
            "connections to the server are kept in any case.",
        ),
        accepted(
            "auth-keepalive-requests",
            Low,
            "upstream-keepalive-requests counts.",
        ),
        accepted(
            "auth-keepalive-timeout",
            Low,
            "upstream-keepalive-timeout counts.",
        ),
        accepted(
            "auth-keepalive-share-vars",
            Low,
            "there are no variables to share.",
        ),
        refused(
            "auth-snippet",
            Critical,
            "it is text of nginx's configuration that may decide who passes, so beside auth-url \
             every request is refused; use auth-proxy-set-headers, and remove it.",
        ),
    ],
    read,
};

const COMPANIONS: [&str; 9] = [
    "auth-method",
    "auth-signin",
    "auth-signin-redirect-param",
    "auth-response-headers",
    "auth-request-redirect",
    "auth-always-set-cookie",
    "auth-proxy-set-headers",
    "auth-cache-key",
    "auth-cache-duration",
];

fn read(reader: &mut Reader<'_>) {
    let is_global = reader
        .value("enable-global-auth", values::flag)
        .unwrap_or(true);
    if reader.has("auth-url") {
        reader.settings.access.external = own(reader).map(Arc::new);
        return;
    }
    reader.value("auth-url", |_| Ok(()));
    reader.without("auth-url", &COMPANIONS);
    if !is_global {
        return;
    }
    reader.settings.access.external = reader.globals.auth.clone();
    if let Some(why) = &reader.globals.auth_unreadable {
        reader.deny_by_config(why);
    }
}

/// `None` if every request is refused.
fn own(reader: &mut Reader<'_>) -> Option<ExternalAuth> {
    if reader.has("auth-snippet") {
        reader.deny(
            "auth-snippet",
            "is refused; use auth-proxy-set-headers, and remove it",
        );
    }
    let url = reader.guard("auth-url", |value| {
        url(values::text(value, values::URL_VARIABLES)?)
    });
    let method = reader.guard("auth-method", method);
    let signin = |value| values::template_of(value, values::URL_VARIABLES);
    let signin = reader.value("auth-signin", signin);
    let parameter = |value| values::text(value, values::URL).map(str::to_owned);
    let parameter = reader.value("auth-signin-redirect-param", parameter);
    let headers = |value| values::headers(values::text(value, values::HEADERS)?);
    let headers = reader.guard("auth-response-headers", headers);
    let redirect = |value| values::template_of(value, values::URL);
    let redirect = reader.value("auth-request-redirect", redirect);
    let always = reader.value("auth-always-set-cookie", values::flag);
    let (own, others) = (&*reader.ingress.namespace, reader.globals.cross_namespace);
    let object = |value| values::object(value, own, others);
    let more = reader.guard("auth-proxy-set-headers", object);
    let cache = auth_cache(
        reader.value("auth-cache-key", values::template),
        reader.has("auth-cache-duration"),
        reader.value("auth-cache-duration", times),
    );
    let (url, host) = url?;
    Some(ExternalAuth {
        url,
        host,
        method,
        signin,
        signin_redirect_param: parameter.unwrap_or_else(|| "rd".to_owned()),
        response_headers: headers.unwrap_or_default(),
        request_redirect: redirect,
        always_set_cookie: always.unwrap_or(false),
        proxy_set_headers: more,
        cache,
    })
}

/// What is kept, by a key and its times; nothing without a key, or with times that cannot be read.
pub(crate) fn auth_cache(
    key: Option<Template>,
    has_times: bool,
    times: Option<Vec<(Vec<u16>, Duration)>>,
) -> Option<AuthCache> {
    const USUAL: ([u16; 3], Duration) = ([200, 202, 401], Duration::from_secs(300));
    let times = match has_times {
        true => times?,
        false => vec![(USUAL.0.to_vec(), USUAL.1)],
    };
    key.map(|key| AuthCache { key, times })
}

/// Statuses and a time, and more of them after commas (`ParseStringToCacheDurations`). Without a
/// status they are those of `proxy_cache_valid`.
pub(crate) fn times(value: &str) -> Parsed<Vec<(Vec<u16>, Duration)>> {
    let one = |part: &str| {
        let mut words: Vec<_> = part.split_whitespace().collect();
        let time = words
            .pop()
            .filter(|word| !word.ends_with(char::is_numeric))?;
        let time = values::time(time).ok()?;
        let status = |word: &&str| word.parse::<u16>().ok().filter(|s| (100..600).contains(s));
        let statuses: Vec<u16> = words.iter().map(status).collect::<Option<_>>()?;
        Some(match statuses.is_empty() {
            true => (vec![200, 301, 302], time),
            false => (statuses, time),
        })
    };
    let all = value.split(',').map(one).collect::<Option<_>>();
    all.ok_or("statuses and a time, such as 200 202 10m, and more of them after commas".into())
}

/// The address of a server, and its host.
pub(crate) fn url(value: &str) -> Parsed<(Template, String)> {
    Ok((values::template(value)?, values::host_of(value)?))
}

/// A method of HTTP (`methodsRegex` of ingress-nginx).
pub(crate) fn method(value: &str) -> Parsed<Method> {
    const METHODS: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE",
    ];
    let method = METHODS.iter().find(|method| **method == value.trim());
    let method = method.and_then(|method| method.parse().ok());
    method.ok_or_else(|| format!("one of {}", METHODS.join(", ")).into())
}
