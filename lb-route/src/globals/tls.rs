//! TLS of clients.

use super::{Globals, Key, accepted, put, served};
use crate::values::{self, Parsed};

pub(super) const KEYS: &[Key] = &[
    served(
        "ssl-protocols",
        "TLSv1.2, TLSv1.3 or both: TLSv1.2 TLSv1.3.",
        protocols,
    ),
    served(
        "ssl-reject-handshake",
        "Whether a handshake for a name without a certificate is ended: false.",
        |g, v| put(&mut g.tls.reject, values::flag(v)),
    ),
    served(
        "ssl-session-cache",
        "Whether sessions are kept here: true.",
        |g, v| put(&mut g.tls.session_cache, values::flag(v)),
    ),
    served(
        "ssl-session-tickets",
        "Whether clients get tickets of their sessions: false.",
        |g, v| put(&mut g.tls.tickets, values::flag(v)),
    ),
    served(
        "ssl-session-timeout",
        "How long a session can be resumed, by a ticket no longer than 12h: 10m.",
        |g, v| put(&mut g.tls.session_timeout, values::time(v)),
    ),
    served(
        "hsts",
        "Whether Strict-Transport-Security is sent over HTTPS: true.",
        |g, v| put(&mut g.tls.hsts.on, values::flag(v)),
    ),
    served("hsts-max-age", "Its max-age, seconds: 31536000.", |g, v| {
        let age = v.parse().map_err(|_| "a whole number of seconds".into());
        put(&mut g.tls.hsts.max_age, age)
    }),
    served(
        "hsts-include-subdomains",
        "Whether it has includeSubDomains: true.",
        |g, v| put(&mut g.tls.hsts.subdomains, values::flag(v)),
    ),
    served("hsts-preload", "Whether it has preload: false.", |g, v| {
        put(&mut g.tls.hsts.preload, values::flag(v))
    }),
    served(
        "no-tls-redirect-locations",
        "Beginnings of paths that are not led to HTTPS: /.well-known/acme-challenge.",
        |g, v| {
            put(
                &mut g.tls.no_redirect,
                Ok(values::list(v).map(str::to_owned).collect()),
            )
        },
    ),
    accepted(
        "ssl-ciphers",
        "the ciphers of TLS 1.2 and 1.3 without known weaknesses are offered; CBC and \
             DHE are not.",
    ),
    accepted("ssl-ecdh-curve", "X25519, P-256 and P-384 are offered."),
    accepted("ssl-dh-param", "DHE is not offered."),
    accepted(
        "ssl-session-cache-size",
        "sessions are kept up to a number of the proxy's own.",
    ),
    accepted(
        "ssl-session-ticket-key",
        "keys of tickets are made at random, and changed.",
    ),
    accepted(
        "ssl-buffer-size",
        "records of TLS have a size of the proxy's own.",
    ),
    accepted(
        "ssl-early-data",
        "early data, which can be sent again by others, is not taken.",
    ),
    accepted(
        "enable-ocsp",
        "certificates are sent without answers of OCSP, which authorities give up.",
    ),
];

/// Older versions beside those that are offered are left out; alone they are none.
fn protocols(globals: &mut Globals, value: &str) -> Parsed<()> {
    let mut versions = value.split_ascii_whitespace();
    let is_known = |version: &str| {
        ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"].contains(&version)
    };
    let all_known = versions.clone().all(is_known);
    let v12 = versions.clone().any(|version| version == "TLSv1.2");
    let v13 = versions.any(|version| version == "TLSv1.3");
    if !all_known || !(v12 || v13) {
        return Err("TLSv1.2, TLSv1.3 or both".into());
    }
    (globals.tls.v12, globals.tls.v13) = (v12, v13);
    let is_older = |version: &str| !["TLSv1.2", "TLSv1.3"].contains(&version);
    if value.split_ascii_whitespace().any(is_older) {
        return Err("TLSv1.2, TLSv1.3 or both; of others it is as if they were not there".into());
    }
    Ok(())
}
