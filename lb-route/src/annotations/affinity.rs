//! Whether a client stays with an endpoint.

use super::{Group, Reader, Risk::*, served};
use crate::{
    settings::Affinity,
    values::{self, Parsed},
};

pub(super) const GROUP: Group = Group {
    name: "affinity",
    on_canary: true,
    annotations: &[
        served(
            "affinity",
            Low,
            "cookie: a client stays with an endpoint by a cookie.",
        ),
        served(
            "affinity-mode",
            Medium,
            "balanced: a change of the endpoints moves some clients; persistent: none.",
        ),
        served(
            "affinity-canary-behavior",
            Low,
            "On a canary, sticky: the affinity of the Ingress that it is of counts for it; \
             legacy: its own.",
        ),
        served(
            "session-cookie-name",
            Medium,
            "The cookie's name: INGRESSCOOKIE.",
        ),
        served("session-cookie-path", Medium, "Its path: that of the rule."),
        served("session-cookie-domain", Medium, "Its domain: none."),
        served(
            "session-cookie-expires",
            Medium,
            "Seconds until its Expires.",
        ),
        served("session-cookie-max-age", Medium, "Its Max-Age."),
        served(
            "session-cookie-samesite",
            Low,
            "Its SameSite: None, Lax or Strict.",
        ),
        served(
            "session-cookie-conditional-samesite-none",
            Low,
            "Whether browsers that refuse SameSite=None do not get it.",
        ),
        served(
            "session-cookie-secure",
            Low,
            "Whether it is Secure over HTTP too; over HTTPS it always is.",
        ),
        served(
            "session-cookie-change-on-failure",
            Low,
            "Whether a client whose endpoint failed is bound to another.",
        ),
    ],
    read,
};

const COMPANIONS: [&str; 10] = [
    "affinity-mode",
    "session-cookie-name",
    "session-cookie-path",
    "session-cookie-domain",
    "session-cookie-expires",
    "session-cookie-max-age",
    "session-cookie-samesite",
    "session-cookie-conditional-samesite-none",
    "session-cookie-secure",
    "session-cookie-change-on-failure",
];

fn read(reader: &mut Reader<'_>) {
    let cookie = |value: &str| values::word(value, &[("cookie", ())], "cookie");
    if reader.value("affinity", cookie).is_none() {
        reader.without("affinity: cookie", &COMPANIONS);
        return;
    }
    let mode = |value: &str| {
        let words = [("balanced", false), ("persistent", true)];
        values::word(value, &words, "balanced or persistent")
    };
    let persistent = reader.value("affinity-mode", mode);
    let cookie = reader.value("session-cookie-name", name);
    let path = reader.value("session-cookie-path", |value| text(value, "-._~/:,?&="));
    let domain = reader.value("session-cookie-domain", |value| text(value, "-._~/:"));
    let none = "session-cookie-conditional-samesite-none";
    let secure = reader.value("session-cookie-secure", values::flag);
    let on_failure = reader.value("session-cookie-change-on-failure", values::flag);
    reader.settings.affinity = Some(Affinity {
        persistent: persistent.unwrap_or(false),
        cookie: cookie.unwrap_or_else(|| "INGRESSCOOKIE".to_owned()),
        path,
        domain,
        expires: reader.value("session-cookie-expires", values::whole),
        max_age: reader.value("session-cookie-max-age", values::whole),
        same_site: reader.value("session-cookie-samesite", same_site),
        conditional_same_site_none: reader.value(none, values::flag).unwrap_or(false),
        // `omitempty` in ingress-nginx's types.go: false is as if it were not there.
        secure: secure.filter(|secure| *secure),
        change_on_failure: on_failure.unwrap_or(false),
    });
}

fn text(value: &str, also: &str) -> Parsed<String> {
    values::text(value.trim(), also).map(str::to_owned)
}

/// A token (RFC 6265, section 4.1.1), of `BasicCharsRegex`.
fn name(value: &str) -> Parsed<String> {
    text(value, "-._~")
}

fn same_site(value: &str) -> Parsed<String> {
    let words = [("none", "None"), ("lax", "Lax"), ("strict", "Strict")];
    let lower = value.to_ascii_lowercase();
    values::word(&lower, &words, "None, Lax or Strict").map(str::to_owned)
}
