//! What is refused, what is unknown, canaries, and what the
//! administrator forbids.

mod common;

use std::collections::BTreeMap;

use common::{read, read_with};
use lb_route::{
    annotations::{self, PREFIX},
    globals::Globals,
    input::Name,
    settings::Balance,
    trouble::{Severity, reason},
};

/// A snippet that keeps nobody out.
const HARMLESS: &str = "more_set_headers \"X-A: b\";
proxy_set_header X-B c;
return 301 /x;";

/// What is refused, and whether every request is.
#[rustfmt::skip]
const REFUSED: &[(&[(&str, &str)], bool)] = &[
    (&[("configuration-snippet", HARMLESS)], false),
    (&[("configuration-snippet", "deny 10.0.0.1;")], true),
    (&[("configuration-snippet", "if ($http_x) { return 403; }")], true),
    (&[("configuration-snippet", "access_by_lua_block { ngx.exit(403) }")], true),
    (&[("server-snippet", HARMLESS)], false),
    (&[("server-snippet", "location /x {
  auth_basic \"x\";
}")], true),
    (&[("stream-snippet", "server {}")], false),
    (&[("auth-snippet", "proxy_set_header A b;")], false),
    (&[("auth-snippet", "proxy_set_header A b;"), ("auth-url", "http://a/")], true),
    (&[("enable-modsecurity", "true")], true),
    (&[("enable-owasp-core-rules", "true")], true),
    (&[("modsecurity-snippet", "SecRuleEngine On")], true),
    (&[("enable-modsecurity", "false"), ("modsecurity-snippet", "SecRule")], false),
    (&[("modsecurity-transaction-id", "$request_id")], false),
    (&[("fastcgi-index", "index.php")], false),
    (&[("fastcgi-params-configmap", "params")], false),
];

#[test]
fn what_is_refused() {
    for (annotations, is_denied) in REFUSED {
        let read = read(annotations);
        assert_eq!(read.denied.is_some(), *is_denied, "{annotations:?}");
        let refused = read
            .troubles
            .iter()
            .find(|t| t.severity == Severity::Refused);
        let refused = refused.unwrap_or_else(|| panic!("{annotations:?} is refused"));
        assert_eq!(refused.reason, reason::REFUSED);
        assert!(
            refused.message.contains(" is refused: "),
            "{}",
            refused.message
        );
    }
    let off = read(&[
        ("enable-modsecurity", "false"),
        ("enable-owasp-core-rules", "false"),
    ]);
    assert_eq!((off.troubles, off.denied), (vec![], None));

    let globals = [("enable-modsecurity", "true")];
    assert!(read_with(&globals, &[]).denied.is_some());
    assert_eq!(
        read_with(&globals, &[("enable-modsecurity", "false")]).denied,
        None
    );
}

#[test]
fn what_is_unknown() {
    for (name, near) in [
        ("ssl-redirects", Some("ssl-redirect")),
        ("auth-proxy-set-header", Some("auth-proxy-set-headers")),
        ("proxy-body-sizes", Some("proxy-body-size")),
        ("limit-whitelists", Some("limit-whitelist")),
        ("secure-backends", None),
        ("", None),
    ] {
        let read = read(&[(name, "x")]);
        assert_eq!(read.troubles.len(), 1, "{name}");
        let trouble = &read.troubles[0];
        let told = (trouble.reason, trouble.severity);
        assert_eq!(told, (reason::UNSUPPORTED, Severity::Warning), "{name}");
        match near {
            Some(near) => assert!(trouble.message.contains(&format!("{PREFIX}/{near} meant"))),
            None => assert!(trouble.message.contains("remove it"), "{}", trouble.message),
        }
    }
    // Others' annotations are none of ours.
    let others = [
        ("kubernetes.io/ingress.class", "nginx"),
        ("nginx.org/x", "y"),
    ];
    let others = others.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (name, globals) = (Name::new("a", "b"), Globals::default());
    let read = annotations::read(&name, &BTreeMap::from(others), PREFIX, &globals);
    assert_eq!(read.troubles, []);
    let own = BTreeMap::from([("x.io/use-regex".to_owned(), "true".to_owned())]);
    assert!(
        annotations::read(&name, &own, "x.io", &globals)
            .settings
            .rewrite
            .use_regex
    );
}

#[test]
fn rules_of_canaries() {
    let canary = ("canary", "true");
    let read_canary = |more: &[(&str, &str)]| {
        let read = read(&[&[canary], more].concat());
        (read.settings.canary.expect("a canary"), read.troubles)
    };
    let (all, troubles) = read_canary(&[
        ("canary-by-header", "X-Canary"),
        ("canary-by-header-value", "blue"),
        ("canary-by-header-pattern", "^v[0-9]+$"),
        ("canary-by-cookie", "canary"),
        ("canary-weight", "30"),
        ("canary-weight-total", "1000"),
    ]);
    assert_eq!(troubles, []);
    assert_eq!(all.header.expect("header"), "x-canary");
    assert_eq!(
        (all.header_value.as_deref(), all.cookie.as_deref()),
        (Some("blue"), Some("canary"))
    );
    assert!(all.header_pattern.expect("pattern").is_match(b"v12"));
    assert_eq!((all.weight, all.weight_total), (30, 1000));
    // Less than 100 in all is 100; less than nothing is nothing (balancer.lua).
    let (weights, _) = read_canary(&[("canary-weight", "-3"), ("canary-weight-total", "50")]);
    assert_eq!((weights.weight, weights.weight_total), (0, 100));
    // An expression that is none does not make `always` count.
    let pattern = [("canary-by-header", "x"), ("canary-by-header-pattern", "(")];
    assert_eq!(read_canary(&pattern).0.header, None);
    assert!(read(&[("canary", "false")]).settings.canary.is_none());
}

#[test]
fn on_a_canary_few_annotations_count() {
    let read = read(&[
        ("canary", "true"),
        ("canary-weight", "10"),
        ("load-balance", "ewma"),
        ("affinity", "cookie"),
        ("session-cookie-name", "c"),
        ("service-upstream", "true"),
        ("rewrite-target", "/x"),
        ("ssl-redirect", "false"),
        ("allowlist-source-range", "nonsense"),
        ("enable-modsecurity", "true"),
        ("server-snippet", "deny all;"),
    ]);
    let settings = &read.settings;
    assert!(matches!(settings.upstream.balance, Balance::Ewma));
    assert_eq!(settings.affinity.as_ref().expect("affinity").cookie, "c");
    assert!(settings.upstream.service_upstream && settings.redirect.ssl);
    assert!(settings.rewrite.target.is_none());
    assert_eq!(read.denied, None);
    let ignored = read
        .troubles
        .iter()
        .filter(|t| t.message.contains("does not count on a canary"));
    assert_eq!(
        (ignored.count(), read.troubles.len()),
        (5, 5),
        "{:?}",
        read.troubles
    );
}

/// What the ConfigMap says beside what an Ingress says.
#[test]
fn over_the_configmap() {
    let retry = [
        ("retry-non-idempotent", "true"),
        ("proxy-next-upstream-tries", "7"),
    ];
    let read = read_with(&retry, &[("proxy-next-upstream", "http_502")]);
    let next = read.settings.upstream.next;
    assert_eq!(
        (next.non_idempotent, next.error, next.tries),
        (true, false, 7)
    );
    // What nginx.tmpl has for all locations, no Ingress takes away.
    let relative = [("relative-redirects", "true")];
    let read = read_with(&relative, &[("relative-redirects", "false")]);
    assert!(read.settings.redirect.relative);
    let off = [("ssl-redirect", "false"), ("load-balance", "ewma")];
    let read = read_with(
        &off,
        &[("ssl-redirect", "true"), ("load-balance", "round_robin")],
    );
    assert!(read.settings.redirect.ssl);
    assert!(matches!(
        read.settings.upstream.balance,
        Balance::RoundRobin
    ));
    let redirect = [
        ("proxy-redirect-from", "http://a/"),
        ("proxy-redirect-to", "/a"),
    ];
    let read = read_with(&redirect, &[("proxy-redirect-to", "/b")]);
    assert_eq!(
        read.settings.response.redirect,
        Some(("http://a/".into(), "/b".into()))
    );
}

#[test]
fn what_the_administrator_forbids() {
    let words = [(
        "annotation-value-word-blocklist",
        "load_module, lua_package,{",
    )];
    let bad = [("upstream-hash-by", "${host}")];
    let denied = read_with(&words, &bad)
        .denied
        .expect("a word that is forbidden");
    assert!(
        denied.contains("annotation-value-word-blocklist"),
        "{denied}"
    );
    assert_eq!(
        read_with(&words, &[("upstream-hash-by", "$host")]).denied,
        None
    );

    let low = [("annotations-risk-level", "Low")];
    assert_eq!(read_with(&low, &[("ssl-redirect", "true")]).denied, None);
    assert!(read_with(&low, &[("rewrite-target", "/")]).denied.is_some());
    let medium = [("annotations-risk-level", "medium")];
    assert_eq!(read_with(&medium, &[("rewrite-target", "/")]).denied, None);
    assert!(
        read_with(&medium, &[("auth-url", "http://a/")])
            .denied
            .is_some()
    );
}

/// The names and risks of docs/user-guide/nginx-configuration/annotations-risk.md.
#[test]
fn the_table_has_each_annotation_once() {
    let all = annotations::all().map(|(_, one)| format!("{} {:?}", one.name, one.risk));
    let mut all: Vec<String> = all.collect();
    all.sort_unstable();
    let known: Vec<&str> = include_str!("ingress-nginx/annotations.txt")
        .lines()
        .collect();
    // Those of v1.11 that later ones have not any more (annotations-risk.md of both).
    let older = [
        "global-rate-limit Low",
        "global-rate-limit-ignored-cidrs Medium",
        "global-rate-limit-key High",
        "global-rate-limit-window Low",
    ];
    let (found, rest): (Vec<String>, Vec<String>) =
        all.into_iter().partition(|one| older.contains(&&**one));
    assert_eq!(
        (found, rest),
        (
            older.map(str::to_owned).into(),
            known.iter().map(|one| (*one).to_owned()).collect()
        )
    );
    assert_eq!(known.len(), 136);
    for (_, one) in annotations::all() {
        assert!(one.sentence.ends_with('.'), "{}", one.name);
    }
    let (_, alias) = annotations::find("whitelist-source-range").expect("an alias");
    assert_eq!(alias.name, "allowlist-source-range");
}
