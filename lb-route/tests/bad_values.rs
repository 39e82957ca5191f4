//! Values that cannot be read: the default stays, and a trouble says so.

mod common;

use common::read;
use lb_route::trouble::{Severity, reason};

/// The annotations that a bad value needs beside it, to count.
const BESIDE: &[(&str, &[(&str, &str)])] = &[
    ("session-cookie-", &[("affinity", "cookie")]),
    (
        "affinity-canary-",
        &[("canary", "true"), ("canary-weight", "1")],
    ),
    ("affinity-", &[("affinity", "cookie")]),
    ("cors-", &[("enable-cors", "true")]),
    ("proxy-ssl-", &[("proxy-ssl-secret", "shop/tls")]),
    ("auth-tls-", &[("auth-tls-secret", "shop/ca")]),
    (
        "auth-realm",
        &[("auth-type", "basic"), ("auth-secret", "users")],
    ),
    ("auth-signin", &[("auth-url", "http://auth/")]),
    ("auth-request-redirect", &[("auth-url", "http://auth/")]),
    ("auth-always-set-cookie", &[("auth-url", "http://auth/")]),
    ("auth-cache-", &[("auth-url", "http://auth/")]),
    ("mirror-", &[("mirror-target", "http://copies/")]),
    ("upstream-hash-by-", &[("upstream-hash-by", "$host")]),
    ("canary-", &[("canary", "true"), ("canary-weight", "1")]),
    ("permanent-redirect-code", &[("permanent-redirect", "/x")]),
    (
        "temporal-redirect-code",
        &[("temporal-redirect", "http://x/")],
    ),
    ("x-forwarded-prefix", &[("rewrite-target", "/$1")]),
    ("opentelemetry-", &[("enable-opentelemetry", "true")]),
    (
        "global-rate-limit-",
        &[
            ("global-rate-limit", "5"),
            ("global-rate-limit-window", "1m"),
        ],
    ),
    ("global-rate-limit", &[("global-rate-limit-window", "1m")]),
];

const BAD: &[(&str, &str)] = &[
    ("rewrite-target", "/a;return 200"),
    ("rewrite-target", "/$nothing"),
    ("use-regex", "yes"),
    ("app-root", "app"),
    ("app-root", "http://x/"),
    ("x-forwarded-prefix", "/a\"b"),
    ("ssl-redirect", "on"),
    ("force-ssl-redirect", "1.0"),
    ("preserve-trailing-slash", "maybe"),
    ("relative-redirects", "yes"),
    ("use-port-in-redirects", "yes"),
    ("permanent-redirect", "https://x/{}"),
    ("permanent-redirect-code", "200"),
    ("temporal-redirect", "/relative"),
    ("temporal-redirect-code", "308"),
    ("from-to-www-redirect", "www"),
    ("proxy-cookie-domain", "one"),
    ("proxy-cookie-path", "~^/(.*) /$1"),
    ("canary-by-header", "a b"),
    ("canary-by-cookie", "a;b"),
    ("canary-weight", "half"),
    ("canary-weight-total", "1.5"),
    ("affinity", "ip"),
    ("affinity-mode", "sticky"),
    ("affinity-canary-behavior", "new"),
    ("session-cookie-name", "a b"),
    ("session-cookie-path", "/a;b"),
    ("session-cookie-domain", "a;b"),
    ("session-cookie-expires", "1h"),
    ("session-cookie-max-age", "day"),
    ("session-cookie-samesite", "some"),
    ("session-cookie-conditional-samesite-none", "x"),
    ("session-cookie-secure", "on"),
    ("session-cookie-change-on-failure", "on"),
    ("load-balance", "chash"),
    ("upstream-hash-by", "$host;"),
    ("upstream-hash-by", "$nothing"),
    ("upstream-hash-by-subset", "3"),
    ("upstream-hash-by-subset-size", "0"),
    ("service-upstream", "x"),
    ("backend-protocol", "AUTO_HTTP"),
    ("upstream-vhost", "a b"),
    ("proxy-http-version", "2"),
    ("connection-proxy-header", "upgrade"),
    ("proxy-connect-timeout", "5s"),
    ("proxy-connect-timeout", "-5"),
    ("proxy-read-timeout", " 5"),
    ("proxy-send-timeout", "99999999999999999999"),
    ("proxy-next-upstream", "http_418"),
    ("proxy-next-upstream-tries", "many"),
    ("proxy-next-upstream-timeout", "1m"),
    ("proxy-body-size", "8mb"),
    ("proxy-body-size", "99999999999999g"),
    ("proxy-request-buffering", "true"),
    ("proxy-ssl-verify", "true"),
    ("proxy-ssl-verify-depth", "-1"),
    ("proxy-ssl-name", "a b"),
    ("proxy-ssl-server-name", "1"),
    ("satisfy", "none"),
    ("auth-realm", "\"quoted\""),
    ("auth-signin", "http://a b;c/"),
    ("auth-signin-redirect-param", "a\"b"),
    ("auth-request-redirect", "{}"),
    ("auth-always-set-cookie", "always"),
    ("auth-cache-key", "$nothing"),
    ("enable-global-auth", "no"),
    ("auth-tls-verify-client", "maybe"),
    ("auth-tls-verify-depth", "deep"),
    ("auth-tls-error-page", "@error"),
    ("auth-tls-pass-certificate-to-upstream", "on"),
    ("enable-cors", "yes"),
    ("cors-allow-methods", "GET; PUT"),
    ("cors-allow-headers", "*"),
    ("cors-expose-headers", "X:Y"),
    ("cors-allow-credentials", "yes"),
    ("cors-max-age", "-1"),
    ("limit-rps", "5/s"),
    ("limit-rpm", "5.5"),
    ("limit-connections", "x"),
    ("limit-burst-multiplier", "-1"),
    ("limit-allowlist", "10.0.0.0/40"),
    ("limit-rate", "1k"),
    ("limit-rate-after", "1k"),
    ("global-rate-limit", "5/s"),
    ("global-rate-limit", "-1"),
    ("global-rate-limit-window", "999ms"),
    ("global-rate-limit-window", "0"),
    ("global-rate-limit-key", "$nothing"),
    ("global-rate-limit-key", "$host:$uri"),
    ("global-rate-limit-ignored-cidrs", "10.0.0.0/40"),
    ("custom-http-errors", "4xx"),
    ("custom-http-errors", "200"),
    ("default-backend", "other/errors"),
    ("disable-proxy-intercept-errors", "x"),
    ("mirror-target", "copies/x"),
    ("mirror-target", "http://copies/;"),
    ("mirror-host", "a b"),
    ("mirror-request-body", "true"),
    ("enable-access-log", "off"),
    ("enable-opentelemetry", "yes"),
    ("opentelemetry-trust-incoming-span", "yes"),
    ("opentelemetry-operation-name", "a $host"),
    ("server-alias", "~^www[.]"),
    ("ssl-passthrough", "on"),
];

#[test]
fn a_bad_value_keeps_its_default() {
    for (name, value) in BAD {
        let mut beside = BESIDE.iter().filter(|(start, _)| name.starts_with(start));
        let beside = beside.next().map_or(&[][..], |(_, beside)| beside);
        let beside: Vec<_> = beside
            .iter()
            .filter(|(other, _)| other != name)
            .copied()
            .collect();
        let without = read(&beside);
        let with = read(&[&beside[..], &[(*name, *value)]].concat());
        let (a, b) = (
            format!("{:?}", with.settings),
            format!("{:?}", without.settings),
        );
        assert_eq!((a, with.denied), (b, None), "{name}: {value}");
        let new: Vec<_> = with
            .troubles
            .iter()
            .filter(|t| !without.troubles.contains(t))
            .collect();
        let is_told = new.iter().any(|trouble| {
            let is_bad = trouble.reason == reason::PARSING_FAILED;
            is_bad && trouble.severity == Severity::Warning && trouble.message.contains(name)
        });
        assert!(is_told, "{name}: {value}: {new:?}");
    }
}

/// Ingress-nginx would let every site in.
#[test]
fn origins_that_cannot_be_read_let_nobody_in() {
    for value in [
        "foo.example",
        "https://a.example, foo",
        "https://*",
        "https://a_b",
        ",",
    ] {
        let read = read(&[("enable-cors", "true"), ("cors-allow-origin", value)]);
        assert_eq!(read.settings.cors, None, "{value}");
        assert_eq!(read.troubles[0].reason, reason::PARSING_FAILED, "{value}");
    }
}

/// Ingress-nginx refuses every request too (`LocationDenied`).
#[test]
fn a_window_that_cannot_be_read_refuses_all() {
    for window in ["a minute", "60", "1m 1s", "-1m"] {
        let read = read(&[
            ("global-rate-limit", "5"),
            ("global-rate-limit-window", window),
        ]);
        assert_eq!(read.settings.limits.overall, None, "{window}");
        assert!(read.denied.is_some(), "{window}");
    }
}

/// What has no effect without another says so.
#[test]
fn companions_without_their_annotation() {
    for (name, value) in [
        ("auth-secret", "users"),
        ("auth-signin", "http://a/"),
        ("auth-tls-match-cn", "CN=x"),
        ("proxy-ssl-verify", "on"),
        ("cors-allow-origin", "https://a"),
        ("session-cookie-name", "x"),
        ("canary-weight", "10"),
        ("x-forwarded-prefix", "/a"),
        ("permanent-redirect-code", "301"),
        ("upstream-hash-by-subset", "true"),
        ("opentelemetry-trust-incoming-span", "false"),
        ("opentelemetry-operation-name", "x"),
        ("global-rate-limit", "5"),
        ("global-rate-limit-window", "1m"),
        ("global-rate-limit-key", "$host"),
        ("global-rate-limit-ignored-cidrs", "10.0.0.0/8"),
    ] {
        let read = read(&[(name, value)]);
        let told = read.troubles.iter().any(|trouble| {
            let is_told = trouble.message.contains("has no effect without");
            is_told && trouble.message.contains(name) && trouble.severity == Severity::Warning
        });
        assert!(told, "{name}: {:?}", read.troubles);
    }
}
