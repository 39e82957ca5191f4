//! What is refused: snippets of nginx's configuration, its firewall, FastCGI, copies of requests.

use super::{Group, Reader, Risk::*, refused};
use crate::values;

pub(super) const GROUP: Group = Group {
    name: "refused",
    on_canary: false,
    annotations: &[
        refused(
            "configuration-snippet",
            Critical,
            "it is text of nginx's configuration; if it keeps requests out, every request is \
             refused, else it is left out; use the annotation for what it does, and remove it.",
        ),
        refused(
            "server-snippet",
            Critical,
            "it is text of nginx's configuration; if it keeps requests out, every request is \
             refused, else it is left out; use the annotation for what it does, and remove it.",
        ),
        refused(
            "stream-snippet",
            Critical,
            "it is text of nginx's configuration, and is left out; use a Service of type \
             LoadBalancer for TCP and UDP, and remove it.",
        ),
        refused(
            "enable-modsecurity",
            Low,
            "there is no firewall for requests, and every request is refused rather than served \
             without it; put one before the backend, and remove it.",
        ),
        refused(
            "enable-owasp-core-rules",
            Low,
            "there is no firewall for requests, and every request is refused rather than served \
             without it; put one before the backend, and remove it.",
        ),
        refused(
            "modsecurity-snippet",
            Critical,
            "there is no firewall for requests, and every request is refused rather than served \
             without it; put one before the backend, and remove it.",
        ),
        refused(
            "modsecurity-transaction-id",
            High,
            "there is no firewall for requests; remove it.",
        ),
        refused(
            "fastcgi-index",
            Medium,
            "FastCGI is not spoken; put an HTTP server before the backend, and remove it.",
        ),
        refused(
            "fastcgi-params-configmap",
            Medium,
            "FastCGI is not spoken; put an HTTP server before the backend, and remove it.",
        ),
    ],
    read,
};

/// Directives of nginx and functions of Lua that decide who may ask, how often, or what.
const GUARDS: [&str; 15] = [
    "access_by_lua",
    "allow",
    "auth_basic",
    "auth_digest",
    "auth_jwt",
    "auth_request",
    "deny",
    "limit_conn",
    "limit_except",
    "limit_req",
    "modsecurity",
    "satisfy",
    "secure_link",
    "ssl_verify_client",
    "valid_referers",
];

fn read(reader: &mut Reader<'_>) {
    for name in ["configuration-snippet", "server-snippet"] {
        if let Some(guard) = reader.raw(name).and_then(guard) {
            let why = format!(
                "has the directive {guard}, which keeps requests out and is not followed; use an \
                 annotation such as allowlist-source-range or auth-url, and remove it"
            );
            reader.deny(name, &why);
        }
    }
    let why = "asks for a firewall that there is not; put one before the backend, and remove it";
    let is_off = |name: &str, reader: &Reader<'_>| {
        reader
            .raw(name)
            .is_some_and(|v| values::flag(v) == Ok(false))
    };
    let is_out = is_off("enable-modsecurity", reader);
    for name in [
        "enable-modsecurity",
        "enable-owasp-core-rules",
        "modsecurity-snippet",
    ] {
        if reader.has(name) && !is_out && !is_off(name, reader) {
            reader.deny(name, why);
        }
    }
    if let Some(why) = reader.globals.firewall_refused.as_ref().filter(|_| !is_out) {
        reader.deny_by_config(why);
    }
}

/// The first directive of a snippet that keeps requests out; a `return` does with an error only.
/// Comments count too: to be wrong that way is harmless.
fn guard(snippet: &str) -> Option<&'static str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = snippet.split(|c| !is_word(c));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut places = words.iter().enumerate();
    places.find_map(|(at, word)| {
        let next = words.get(at + 1).copied().unwrap_or_default();
        if *word == "return" && next.starts_with(['4', '5']) {
            return Some("return");
        }
        let mut guards = GUARDS.iter().copied();
        guards.find(|guard| {
            let rest = word.strip_prefix(guard);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        })
    })
}
