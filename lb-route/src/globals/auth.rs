//! Who may ask.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use regex::bytes::Regex;

use super::{Globals, Key, put, refused, served, trouble};
use crate::{
    annotations::{self, Risk},
    settings::ExternalAuth,
    trouble::{Severity, Trouble, quoted, reason},
    values::{self, Parsed},
};

pub(super) const KEYS: &[Key] = &[
    served(
        "whitelist-source-range",
        "Addresses and networks of clients; others are refused (403): all.",
        |g, v| {
            let (allow, is_whole) = networks(v);
            if allow.is_empty() {
                let why = format!(
                    "whitelist-source-range of the ConfigMap is {}, which has no network",
                    quoted(v)
                );
                g.allow_unreadable = Some(why);
            }
            g.defaults.access.allow = allow;
            is_whole
        },
    ),
    served(
        "denylist-source-range",
        "Addresses and networks of clients that are refused (403): none.",
        |g, v| {
            let (deny, is_whole) = networks(v);
            g.defaults.access.deny = deny;
            is_whole
        },
    ),
    served(
        "block-cidrs",
        "Addresses and networks of clients that are refused anywhere (403): none.",
        |g, v| {
            let (clients, is_whole) = networks(v);
            g.block.clients = clients;
            is_whole
        },
    ),
    served(
        "block-user-agents",
        "User-Agent of requests that are refused; after ~ or ~* an expression: none.",
        |g, v| put(&mut g.block.agents, patterns(v)),
    ),
    served(
        "block-referers",
        "Referer of requests that are refused; after ~ or ~* an expression: none.",
        |g, v| put(&mut g.block.referers, patterns(v)),
    ),
    served(
        "global-auth-url",
        "A server that is asked for Ingresses without auth-url: none.",
        later,
    ),
    served("global-auth-method", "Method of the question: GET.", later),
    served(
        "global-auth-signin",
        "Where a client is led whose request got 401: nowhere.",
        later,
    ),
    served(
        "global-auth-signin-redirect-param",
        "Parameter of it with the address that was asked for: rd.",
        later,
    ),
    served(
        "global-auth-response-headers",
        "Headers of the server's answer that backends get: none.",
        later,
    ),
    served(
        "global-auth-request-redirect",
        "X-Auth-Request-Redirect of the question: what was asked for.",
        later,
    ),
    served(
        "global-auth-always-set-cookie",
        "Whether the server's cookies are set in answers with errors too: false.",
        later,
    ),
    served(
        "global-auth-cache-key",
        "What answers of the server are kept by; an empty one is asked for every time: none.",
        later,
    ),
    served(
        "global-auth-cache-duration",
        "Statuses and how long answers with them are kept: 200 202 401 5m.",
        later,
    ),
    refused(
        "global-auth-snippet",
        "it is text of nginx's configuration that may decide who passes, so every \
             request that the server is asked for is refused; remove it.",
    ),
    served(
        "no-auth-locations",
        "Beginnings of paths without authentication: /.well-known/acme-challenge.",
        |g, v| {
            put(
                &mut g.no_auth,
                Ok(values::list(v).map(str::to_owned).collect()),
            )
        },
    ),
    served(
        "allow-cross-namespace-resources",
        "Whether annotations may name objects of other namespaces: false.",
        |g, v| put(&mut g.cross_namespace, values::flag(v)),
    ),
    served(
        "annotation-value-word-blocklist",
        "What no annotation may have in it; Ingresses that have are refused: nothing.",
        |g, v| {
            put(
                &mut g.blocked_words,
                Ok(values::list(v).map(str::to_owned).collect()),
            )
        },
    ),
    served(
        "annotations-risk-level",
        "The riskiest annotations that are allowed, Low, Medium, High or Critical: High.",
        |g, v| put(&mut g.risk, risk(v)),
    ),
    served(
        "strict-validate-path-type",
        "Whether paths that are Exact or Prefix may have letters, digits and -._/ \
             only: true.",
        |g, v| put(&mut g.strict_paths, values::flag(v)),
    ),
];

/// What [`read`] reads.
fn later(_: &mut Globals, _: &str) -> Parsed<()> {
    Ok(())
}

/// The networks that can be read, and whether all can.
fn networks(value: &str) -> (Vec<IpNet>, Parsed<()>) {
    let read: Vec<Option<IpNet>> = values::list(value).map(values::network).collect();
    let is_whole = read.iter().all(Option::is_some);
    let wanted = "addresses or networks, with commas; those that are count";
    let networks = read.into_iter().flatten().collect();
    (networks, is_whole.then_some(()).ok_or(wanted.into()))
}

/// What a `map` of nginx has on its left: texts, whose case does not count, and expressions
/// (<https://nginx.org/en/docs/http/ngx_http_map_module.html>).
pub(super) fn patterns(value: &str) -> Parsed<Vec<Regex>> {
    let pattern = |text: &str| {
        let text = text.trim_matches('"');
        match (text.strip_prefix("~*"), text.strip_prefix('~')) {
            (Some(text), _) => values::expression(&format!("(?i){text}")),
            (None, Some(text)) => values::expression(text),
            (None, None) => values::expression(&format!("(?i)^{}$", regex::escape(text))),
        }
    };
    values::list(value).map(pattern).collect()
}

fn risk(value: &str) -> Parsed<Risk> {
    let words = [
        ("low", Risk::Low),
        ("medium", Risk::Medium),
        ("high", Risk::High),
        ("critical", Risk::Critical),
    ];
    let lower = value.to_ascii_lowercase();
    values::word(&lower, &words, "Low, Medium, High or Critical")
}

/// Reads `global-auth-*`. Ingress-nginx asks nobody if an address cannot be read; here nobody
/// passes.
pub(super) fn read(globals: &mut Globals, data: &BTreeMap<String, String>) -> Vec<Trouble> {
    let mut keys = Keys {
        data,
        troubles: Vec::new(),
    };
    if keys.text("global-auth-url").is_none() {
        return Vec::new();
    }
    match keys.auth() {
        Ok(auth) => globals.auth = Some(Arc::new(auth)),
        Err(why) => globals.auth_unreadable = Some(why),
    }
    keys.troubles
}

/// Keys of the ConfigMap while they are read.
struct Keys<'a> {
    data: &'a BTreeMap<String, String>,
    troubles: Vec<Trouble>,
}

impl<'a> Keys<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        let text = self.data.get(key).map(|text| text.trim());
        text.filter(|text| !text.is_empty())
    }

    /// A value, if there is one and it can be read.
    fn value<T>(&mut self, key: &str, parse: impl Fn(&'a str) -> Parsed<T>) -> Option<T> {
        let text = self.text(key)?;
        let wanted = match parse(text) {
            Ok(value) => return Some(value),
            Err(wanted) => wanted,
        };
        let rest = format!(
            "is {}, which is left out; it has to be {wanted}",
            quoted(text)
        );
        let severity = Severity::Warning;
        self.troubles
            .push(trouble(key, severity, reason::CONFIG_INVALID, &rest));
        None
    }

    /// A value without which nobody may pass.
    fn guard<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&'a str) -> Parsed<T>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.text(key) else {
            return Ok(None);
        };
        parse(text).map(Some).map_err(|wanted| {
            let why = format!("is {}; it has to be {wanted}", quoted(text));
            let rest = format!("{why}; until then every request that it is for is refused");
            let severity = Severity::Denied;
            self.troubles
                .push(trouble(key, severity, reason::CONFIG_INVALID, &rest));
            format!("{key} of the ConfigMap {why}")
        })
    }

    fn auth(&mut self) -> Result<ExternalAuth, String> {
        if self.text("global-auth-snippet").is_some() {
            return Err("global-auth-snippet of the ConfigMap is refused; remove it".to_owned());
        }
        let url = self.guard("global-auth-url", annotations::auth_url)?;
        let (url, host) = url.ok_or("global-auth-url of the ConfigMap is empty; give it one")?;
        let signin = |value: &'a str| values::host_of(value).and(values::template(value));
        let parameter = |value: &'a str| values::text(value, "-._~").map(str::to_owned);
        let parameter = self.value("global-auth-signin-redirect-param", parameter);
        let always = self.value("global-auth-always-set-cookie", values::flag);
        let headers = self.guard("global-auth-response-headers", values::headers)?;
        let cache = annotations::auth_cache(
            self.value("global-auth-cache-key", values::template),
            self.text("global-auth-cache-duration").is_some(),
            self.value("global-auth-cache-duration", annotations::auth_cache_times),
        );
        Ok(ExternalAuth {
            url,
            host,
            method: self.guard("global-auth-method", annotations::auth_method)?,
            signin: self.value("global-auth-signin", signin),
            signin_redirect_param: parameter.unwrap_or_else(|| "rd".to_owned()),
            response_headers: headers.unwrap_or_default(),
            request_redirect: self.value("global-auth-request-redirect", values::template),
            always_set_cookie: always.unwrap_or(false),
            proxy_set_headers: None,
            cache,
        })
    }
}
