//! What each annotation does: its effect, beside its default. Expected values are those of
//! ingress-nginx v1.15.1 (docs/user-guide/nginx-configuration/annotations.md, its parsers and
//! nginx.tmpl).

mod common;

use std::fmt::Debug;

use common::read;
use lb_route::{
    annotations::{self, Read},
    settings::{Balance, Cors, Settings},
    trouble::{Mark, Severity},
};

/// Annotations, and what is looked at: by default, and with them.
type Case = (
    &'static [(&'static str, &'static str)],
    fn(&Settings) -> String,
    &'static str,
    &'static str,
);

fn check(cases: &[Case]) {
    let default = read(&[]);
    assert_eq!((default.troubles, default.denied), (vec![], None));
    for (annotations, look, by_default, expected) in cases {
        let Read {
            settings,
            troubles,
            denied,
        } = read(annotations);
        assert_eq!(&look(&default.settings), by_default, "{annotations:?}");
        assert_eq!(&look(&settings), expected, "{annotations:?}");
        assert_eq!((troubles, denied), (vec![], None), "{annotations:?}");
    }
}

fn d(what: impl Debug) -> String {
    format!("{what:?}")
}

fn target(s: &Settings) -> String {
    d(s.rewrite.target.as_ref().map(|t| t.text().to_owned()))
}

fn prefix(s: &Settings) -> String {
    d(s.rewrite
        .forwarded_prefix
        .as_ref()
        .map(|t| t.text().to_owned()))
}

fn to(s: &Settings) -> String {
    let to = s.redirect.to.as_ref();
    d(to.map(|(code, to)| (code.as_u16(), to.text().to_owned())))
}

fn when(s: &Settings) -> String {
    let n = &s.upstream.next;
    let flags = (n.error, n.timeout, n.invalid_header, n.non_idempotent);
    format!("{flags:?} {:?} {} {:?}", n.statuses, n.tries, n.within)
}

fn affinity(s: &Settings) -> String {
    d(&s.affinity)
}

fn tls(s: &Settings) -> String {
    let tls = &s.upstream.tls;
    let secret = tls.secret.as_ref().map(ToString::to_string);
    let rest = (tls.verify, tls.verify_depth, &tls.name, tls.server_name);
    format!("{secret:?} {rest:?}")
}

fn limits_of(s: &Settings) -> String {
    let l = &s.limits;
    let rates = (l.rps, l.rpm, l.connections, l.burst_multiplier);
    format!("{rates:?} {:?} {:?} {}", l.allow, l.rate, l.rate_after)
}

fn of_origins(s: &Settings) -> String {
    let cors = s.cors.as_ref();
    cors.map_or("-".to_owned(), |cors| d(&cors.origins))
}

fn cors_of(s: &Settings) -> String {
    let of = |c: &Cors| {
        format!(
            "{:?} {:?} {:?} {:?} {} {}",
            c.origins, c.methods, c.headers, c.expose, c.credentials, c.max_age
        )
    };
    s.cors.as_ref().map_or("-".to_owned(), of)
}

fn balance(settings: &Settings) -> String {
    match &settings.upstream.balance {
        Balance::Hash { key, subset } => format!("{} {subset:?}", key.text()),
        other => d(other),
    }
}

const X: (&str, &str) = ("permanent-redirect", "https://x.example/a?b=c&d=e");
const Y: (&str, &str) = ("temporal-redirect", "http://y.example:8080/~a");
const NEXT: &str = "(true, true, false, false) {} 3 None";
const HASH: (&str, &str) = ("upstream-hash-by", "$request_uri$host");
const TLS: &str = "None (false, 1, None, false)";
const SECRET: (&str, &str) = ("proxy-ssl-secret", "shop/tls");
const NO_LIMITS: &str = "(None, None, None, 5) [] None 0";
const ON: (&str, &str) = ("enable-cors", "true");
const ANY_ORIGIN: &str = "[\"*\"] \"GET, PUT, POST, DELETE, PATCH, OPTIONS\" \
    \"DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,\
    Range,Authorization\" None true 1728000";

#[rustfmt::skip]
const PATHS_AND_REDIRECTS: &[Case] = &[
    (&[("rewrite-target", "/$2")], target, "None", "Some(\"/$2\")"),
    (&[("rewrite-target", "/a/$1/b.c_d~e")], target, "None", "Some(\"/a/$1/b.c_d~e\")"),
    (&[("rewrite-target", "/$2"), ("x-forwarded-prefix", "/pre/$1")], prefix, "None",
        "Some(\"/pre/$1\")"),
    (&[("use-regex", "true")], |s| d(s.rewrite.use_regex), "false", "true"),
    (&[("use-regex", "T")], |s| d(s.rewrite.use_regex), "false", "true"),
    (&[("app-root", "/app1")], |s| d(&s.rewrite.app_root), "None", "Some(\"/app1\")"),
    (&[("ssl-redirect", "false")], |s| d(s.redirect.ssl), "true", "false"),
    (&[("ssl-redirect", "0")], |s| d(s.redirect.ssl), "true", "false"),
    (&[("force-ssl-redirect", "true")], |s| d(s.redirect.force_ssl), "false", "true"),
    (&[("preserve-trailing-slash", "true")], |s| d(s.redirect.preserve_trailing_slash), "false",
        "true"),
    (&[("relative-redirects", "true")], |s| d(s.redirect.relative), "false", "true"),
    (&[("use-port-in-redirects", "true")], |s| d(s.redirect.use_port), "false", "true"),
    (&[("ssl-redirect", "true")], |s| d(s.redirect.ssl_code.as_u16()), "308", "308"),
    (&[X], to, "None", "Some((301, \"https://x.example/a?b=c&d=e\"))"),
    (&[X, ("permanent-redirect-code", "308")], to, "None",
        "Some((308, \"https://x.example/a?b=c&d=e\"))"),
    (&[Y], to, "None", "Some((302, \"http://y.example:8080/~a\"))"),
    (&[Y, ("temporal-redirect-code", "307")], to, "None",
        "Some((307, \"http://y.example:8080/~a\"))"),
    // The temporal one wins.
    (&[X, Y], to, "None", "Some((302, \"http://y.example:8080/~a\"))"),
    (&[("from-to-www-redirect", "true")], |s| d(s.host.from_to_www), "false", "true"),
];

#[test]
fn paths_and_redirects() {
    check(PATHS_AND_REDIRECTS);
}

#[rustfmt::skip]
const ANSWERS_OF_BACKENDS: &[Case] = &[
    (&[("proxy-redirect-from", "http://a/"), ("proxy-redirect-to", "https://b/")],
        |s| d(&s.response.redirect), "None", "Some((\"http://a/\", \"https://b/\"))"),
    (&[("proxy-redirect-from", "off"), ("proxy-redirect-to", "https://b/")],
        |s| d(&s.response.redirect), "None", "None"),
    (&[("proxy-cookie-domain", "localhost example.org")], |s| d(&s.response.cookie_domain),
        "None", "Some((\"localhost\", \"example.org\"))"),
    (&[("proxy-cookie-domain", "off")], |s| d(&s.response.cookie_domain), "None", "None"),
    (&[("proxy-cookie-path", "/one/ /")], |s| d(&s.response.cookie_path), "None",
        "Some((\"/one/\", \"/\"))"),
    (&[("custom-headers", "shop/headers")],
        |s| d(s.response.headers.as_ref().map(ToString::to_string)), "None",
        "Some(\"shop/headers\")"),
    (&[("custom-http-errors", "404, 503")], |s| d(&s.errors.intercept), "{}", "{404, 503}"),
    (&[("custom-http-errors", "599,")], |s| d(&s.errors.intercept), "{}", "{599}"),
    (&[("default-backend", "errors-1")], |s| d(&s.errors.backend), "None", "Some(\"errors-1\")"),
    (&[("disable-proxy-intercept-errors", "true")], |s| d(s.errors.passed_on), "false", "true"),
    (&[("enable-access-log", "false")], |s| d(s.access_log), "true", "false"),
];

#[test]
fn answers_of_backends() {
    check(ANSWERS_OF_BACKENDS);
}

#[rustfmt::skip]
const THE_WAY_TO_THE_BACKEND: &[Case] = &[
    (&[("backend-protocol", "HTTPS")], |s| d(s.upstream.protocol), "Http", "Https"),
    (&[("backend-protocol", " grpc ")], |s| d(s.upstream.protocol), "Http", "Grpc"),
    (&[("backend-protocol", "GRPCS")], |s| d(s.upstream.protocol), "Http", "Grpcs"),
    (&[("service-upstream", "true")], |s| d(s.upstream.service_upstream), "false", "true"),
    (&[("upstream-vhost", "$service_name.local")],
        |s| d(s.upstream.vhost.as_ref().map(|t| t.text().to_owned())), "None",
        "Some(\"$service_name.local\")"),
    (&[("proxy-http-version", "1.0")], |s| d(s.upstream.http10), "false", "true"),
    (&[("connection-proxy-header", "close")], |s| d(&s.upstream.connection_header), "None",
        "Some(\"close\")"),
    (&[("proxy-connect-timeout", "7")], |s| d(s.upstream.connect_timeout), "5s", "7s"),
    (&[("proxy-read-timeout", "3600")], |s| d(s.upstream.read_timeout), "60s", "3600s"),
    (&[("proxy-send-timeout", "+9")], |s| d(s.upstream.send_timeout), "60s", "9s"),
    (&[("proxy-body-size", "8m")], |s| d(s.body_size), "Some(1048576)", "Some(8388608)"),
    (&[("proxy-body-size", "2G")], |s| d(s.body_size), "Some(1048576)", "Some(2147483648)"),
    (&[("proxy-body-size", "10")], |s| d(s.body_size), "Some(1048576)", "Some(10)"),
    (&[("proxy-body-size", "0")], |s| d(s.body_size), "Some(1048576)", "None"),
    (&[("proxy-request-buffering", "off")], |s| d(s.upstream.request_buffering), "true", "false"),
];

#[test]
fn the_way_to_the_backend() {
    check(THE_WAY_TO_THE_BACKEND);
}

#[rustfmt::skip]
const OTHER_ENDPOINTS: &[Case] = &[
    (&[("proxy-next-upstream", "error http_502 http_429")], when, NEXT,
        "(true, false, false, false) {429, 502} 3 None"),
    (&[("proxy-next-upstream", "timeout invalid_header non_idempotent")], when, NEXT,
        "(false, true, true, true) {} 3 None"),
    (&[("proxy-next-upstream", "off")], when, NEXT, "(false, false, false, false) {} 3 None"),
    (&[("proxy-next-upstream-tries", "0"), ("proxy-next-upstream-timeout", "10")], when, NEXT,
        "(true, true, false, false) {} 0 Some(10s)"),
];

#[test]
fn other_endpoints() {
    check(OTHER_ENDPOINTS);
}

#[rustfmt::skip]
const THE_CHOICE_OF_AN_ENDPOINT: &[Case] = &[
    (&[("load-balance", "ewma")], balance, "RoundRobin", "Ewma"),
    (&[HASH], balance, "RoundRobin", "$request_uri$host None"),
    (&[("upstream-hash-by", "${remote_addr}-text")], balance, "RoundRobin",
        "${remote_addr}-text None"),
    (&[HASH, ("load-balance", "ewma")], balance, "RoundRobin", "$request_uri$host None"),
    (&[HASH, ("upstream-hash-by-subset", "true")], balance, "RoundRobin",
        "$request_uri$host Some(3)"),
    (&[HASH, ("upstream-hash-by-subset", "true"), ("upstream-hash-by-subset-size", "5")], balance,
        "RoundRobin", "$request_uri$host Some(5)"),
    (&[("affinity", "cookie")], affinity, "None",
        "Some(Affinity { persistent: false, cookie: \"INGRESSCOOKIE\", \
         path: None, domain: None, expires: None, max_age: None, same_site: None, \
         conditional_same_site_none: false, secure: None, change_on_failure: false })"),
    (&[("affinity", "cookie"), ("affinity-mode", "persistent"),
        ("session-cookie-name", "route"),
        ("session-cookie-path", "/a"),
        ("session-cookie-domain", ".example.com"), ("session-cookie-expires", "172800"),
        ("session-cookie-max-age", "-1"), ("session-cookie-samesite", "none"),
        ("session-cookie-conditional-samesite-none", "true"),
        ("session-cookie-secure", "true"), ("session-cookie-change-on-failure", "true")],
        affinity, "None",
        "Some(Affinity { persistent: true, cookie: \"route\", path: \
         Some(\"/a\"), domain: Some(\".example.com\"), expires: Some(172800), max_age: Some(-1), \
         same_site: Some(\"None\"), conditional_same_site_none: true, secure: Some(true), \
         change_on_failure: true })"),
    (&[("affinity", "cookie"), ("session-cookie-secure", "false")],
        |s| d(s.affinity.as_ref().map(|a| a.secure)), "None", "Some(None)"),
];

#[test]
fn the_choice_of_an_endpoint() {
    check(THE_CHOICE_OF_AN_ENDPOINT);
}

#[rustfmt::skip]
const TLS_TOWARDS_BACKENDS: &[Case] = &[
    (&[SECRET], tls, TLS, "Some(\"shop/tls\") (false, 1, None, false)"),
    (&[SECRET, ("proxy-ssl-verify", "on"), ("proxy-ssl-verify-depth", "3"),
        ("proxy-ssl-name", "backend.local"), ("proxy-ssl-server-name", "on")],
        tls, TLS, "Some(\"shop/tls\") (true, 3, Some(\"backend.local\"), true)"),
    (&[SECRET, ("proxy-ssl-verify-depth", "0")], tls, TLS,
        "Some(\"shop/tls\") (false, 1, None, false)"),
];

#[test]
fn tls_towards_backends() {
    check(TLS_TOWARDS_BACKENDS);
}

#[rustfmt::skip]
const LIMITS: &[Case] = &[
    (&[("limit-rps", "10")], limits_of, NO_LIMITS, "(Some(10), None, None, 5) [] None 0"),
    (&[("limit-rpm", "300")], limits_of, NO_LIMITS, "(None, Some(300), None, 5) [] None 0"),
    (&[("limit-connections", "2")], limits_of, NO_LIMITS, "(None, None, Some(2), 5) [] None 0"),
    (&[("limit-rps", "0")], limits_of, NO_LIMITS, NO_LIMITS),
    (&[("limit-rps", "-1")], limits_of, NO_LIMITS, NO_LIMITS),
    (&[("limit-rps", "1"), ("limit-burst-multiplier", "2")], limits_of, NO_LIMITS,
        "(Some(1), None, None, 2) [] None 0"),
    (&[("limit-allowlist", "10.0.0.0/8, 192.0.2.1")], limits_of, NO_LIMITS,
        "(None, None, None, 5) [10.0.0.0/8, 192.0.2.1/32] None 0"),
    (&[("limit-whitelist", "2001:db8::/32")], limits_of, NO_LIMITS,
        "(None, None, None, 5) [2001:db8::/32] None 0"),
    (&[("limit-rate", "100"), ("limit-rate-after", "500")], limits_of, NO_LIMITS,
        "(None, None, None, 5) [] Some(100) 500"),
];

#[test]
fn limits() {
    check(LIMITS);
}

fn overall(s: &Settings) -> String {
    let limit = s.limits.overall.as_ref();
    limit.map_or("-".to_owned(), |limit| {
        let key = limit.key.as_ref().map(|key| key.text());
        let rest = (limit.requests, limit.window, key);
        format!("{rest:?} {:?}", limit.ignored)
    })
}

const OVERALL: (&str, &str) = ("global-rate-limit", "5");
const WINDOW: (&str, &str) = ("global-rate-limit-window", "2m");

/// test/e2e/annotations/globalratelimit.go and the parser of ingress-nginx v1.11.
#[rustfmt::skip]
const OVERALL_LIMITS: &[Case] = &[
    (&[OVERALL, WINDOW], overall, "-", "(5, 120s, None) []"),
    (&[OVERALL, WINDOW, ("global-rate-limit-key", "${remote_addr}${http_x_api_client}"),
        ("global-rate-limit-ignored-cidrs", "192.168.1.1, 234.234.234.0/24")], overall, "-",
        "(5, 120s, Some(\"${remote_addr}${http_x_api_client}\")) \
        [192.168.1.1/32, 234.234.234.0/24]"),
    // int(windowSize.Seconds())
    (&[OVERALL, ("global-rate-limit-window", "1m1.9s")], overall, "-", "(5, 61s, None) []"),
    (&[("global-rate-limit", "0"), WINDOW], overall, "-", "-"),
];

#[test]
fn limits_of_all_proxies() {
    check(OVERALL_LIMITS);
}

#[rustfmt::skip]
const CORS: &[Case] = &[
    (&[ON], cors_of, "-", ANY_ORIGIN),
    (&[("enable-cors", "false")], cors_of, "-", "-"),
    (&[ON, ("cors-allow-origin", "https://a.b:8, x://*.c.d")], of_origins, "-",
        "[\"https://a.b:8\", \"x://*.c.d\"]"),
    (&[ON, ("cors-allow-origin", "https://a.b, *")], cors_of, "-", ANY_ORIGIN),
    (&[ON, ("cors-allow-origin", "null"), ("cors-allow-methods", "PUT, GET"),
        ("cors-allow-headers", "X-A_1, X-B"), ("cors-expose-headers", "*, X-C"),
        ("cors-allow-credentials", "false"), ("cors-max-age", "600")],
        cors_of, "-", "[\"null\"] \"PUT, GET\" \"X-A_1, X-B\" Some(\"*, X-C\") false 600"),
];

#[test]
fn cors() {
    check(CORS);
}

#[test]
fn accepted_without_effect() {
    let of_settings = format!("{:?}", read(&[]).settings);
    for (group, annotation) in annotations::all() {
        if annotation.mark != Mark::Accepted {
            continue;
        }
        let Read {
            settings,
            troubles,
            denied,
        } = read(&[(annotation.name, "1")]);
        let name = (group.name, annotation.name);
        assert_eq!(
            (format!("{settings:?}"), denied),
            (of_settings.clone(), None),
            "{name:?}"
        );
        let severities: Vec<Severity> = troubles.iter().map(|trouble| trouble.severity).collect();
        assert_eq!(severities, [Severity::Note], "{name:?}");
        assert!(
            troubles[0].message.contains(annotation.name),
            "{troubles:?}"
        );
    }
}
